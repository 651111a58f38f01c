"""Sliced Wasserstein distance between Laplacian pyramid patches (Karras et al. 2018, section 5).

Needs no trained network, so that an offline machine has a number, too. Each pyramid level tells
how alike two sets of pictures are at one scale: the coarsest the shapes, the finest the detail.
Distances are scaled by 1000 as in the paper; 0 is equality.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Float

PATCH, PATCHES_PER_IMAGE = 7, 128
COARSEST = 16  # pixels per side of the last level
PROJECTIONS, REPEATS = 128, 4
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)  # the pyramid's smoothing filter (Burt and Adelson 1983)


def laplacian_pyramid(
    images: Float[Tensor, "batch channels height width"],
) -> list[Float[Tensor, "batch channels h w"]]:
    """Band-pass levels, finest first; the last one is the low-pass rest of about 16 pixels."""
    levels = []
    while images.shape[-1] >= 2 * COARSEST:
        low = _smooth(images)[:, :, ::2, ::2]
        spread = torch.zeros_like(images)
        spread[:, :, ::2, ::2] = 4 * low  # every fourth pixel, the filter fills in the others
        levels.append(images - _smooth(spread))
        images = low
    return [*levels, images]


class PatchSet:
    """Patches of a stream of pictures, level by level; a few numbers per picture are kept."""

    def __init__(self, seed: int = 0) -> None:
        """`seed` chooses where patches are cut: the same places for every set it is given to."""
        self._rng = torch.Generator().manual_seed(seed)
        self._levels: list[list[Tensor]] = []
        self.sizes: list[int] = []  # pixels per side of the levels, finest first

    def add(self, images: Float[Tensor, "batch channels height width"]) -> None:
        """Cut 128 random patches out of every level of each picture."""
        pyramid = laplacian_pyramid(images.float().cpu())
        sizes = [level.shape[-1] for level in pyramid]
        if not self._levels:
            self._levels, self.sizes = [[] for _ in pyramid], sizes
        if sizes != self.sizes:
            raise ValueError(f"pictures must all have {self.sizes[0]} pixels, got {sizes[0]}")
        for stored, level in zip(self._levels, pyramid, strict=True):
            stored.append(_cut_patches(level, self._rng))

    def extend(self, others: "Iterable[PatchSet]") -> None:
        """Take in the patches of other sets, for instance of other processes."""
        for other in others:
            if not other._levels:
                continue
            if not self._levels:
                self._levels, self.sizes = [[] for _ in other._levels], other.sizes
            for stored, level in zip(self._levels, other._levels, strict=True):
                stored.extend(level)

    def descriptors(self) -> list[Float[Tensor, "patches features"]]:
        """Patches per level as vectors, each colour channel normalised over the whole set."""
        result = []
        for stored in self._levels:
            patches = torch.cat(stored)
            mean = patches.mean(dim=(0, 2, 3), keepdim=True)
            std = patches.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-8)
            result.append(((patches - mean) / std).flatten(1))
        return result


def sliced_wasserstein(
    a: Float[Tensor, "n features"], b: Float[Tensor, "n features"], seed: int = 0
) -> float:
    """Mean 1D Wasserstein distance over random directions, times 1000.

    The larger set is cut to the size of the smaller.
    """
    count = min(len(a), len(b))
    if count == 0:
        raise ValueError("sliced Wasserstein distance of an empty set")
    rng = torch.Generator().manual_seed(seed)
    total = 0.0
    for _ in range(REPEATS):
        directions = torch.randn(a.shape[1], PROJECTIONS, generator=rng)
        directions = directions / directions.norm(dim=0)
        projected_a = (a[:count] @ directions).sort(dim=0).values
        projected_b = (b[:count] @ directions).sort(dim=0).values
        total += float((projected_a - projected_b).abs().mean())
    return 1000 * total / REPEATS


def swd(real: PatchSet, fake: PatchSet) -> dict[str, float]:
    """Distance per level, named by its pixels, and their mean: {"swd_32": ..., "swd": ...}."""
    if not real.sizes or real.sizes != fake.sizes:
        raise ValueError(
            f"need two sets of pictures of one size, got levels of {real.sizes} and {fake.sizes}"
        )
    levels = zip(real.sizes, real.descriptors(), fake.descriptors(), strict=True)
    values = {f"swd_{size}": sliced_wasserstein(a, b) for size, a, b in levels}
    return {**values, "swd": sum(values.values()) / len(values)}


def _smooth(images: Tensor) -> Tensor:
    taps = torch.tensor(BINOMIAL, dtype=images.dtype)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    channels = images.shape[1]
    kernel = kernel.expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def _cut_patches(level: Tensor, rng: torch.Generator) -> Tensor:
    batch, channels, height, width = level.shape
    if min(height, width) < PATCH:
        raise ValueError(f"pictures must have at least {PATCH} pixels per side, got {width}")
    n = batch * PATCHES_PER_IMAGE
    image = torch.arange(batch).repeat_interleave(PATCHES_PER_IMAGE)
    top = torch.randint(height - PATCH + 1, (n,), generator=rng)
    left = torch.randint(width - PATCH + 1, (n,), generator=rng)
    window = torch.arange(PATCH)
    rows, columns = top[:, None] + window, left[:, None] + window
    picked = level[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)

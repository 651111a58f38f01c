"""Patches: which windows of the images a training step looks at, and cutting them out of reals.

Scales are drawn between a smallest and a largest share of the image's side, offsets uniformly where
the window fits (EpiGRAF, section 3.2). Laws move from whole images to small windows while training
goes on. Generators render the same windows that `cut_patches` cuts, pixel for pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.registry import nearest
from ops.shapes import Float
from rendering.cameras import Patch, pixel_axes

KINDS = ("beta", "uniform", "discrete_uniform")


@dataclass(frozen=True, kw_only=True)
class PatchLaw:
    """The distribution that windows are drawn from, by the number of pictures seen.

    "beta": scales follow Beta(1, b) on [min_scale, max_scale], b moving from `beta_start`, where
    nearly all are largest, to `beta_end`. "uniform": uniform on [s, max_scale], s moving from
    max_scale to min_scale. "discrete_uniform": one of those `scales` that lie in that interval.
    """

    kind: str = "beta"  # one of KINDS
    min_scale: float  # smallest window, in image sides; the patch's pixels / the image's
    max_scale: float = 1.0  # largest window
    anneal_kimg: float = 10_000.0  # thousand pictures until the law stands still; 0: from the start
    beta_start: float = 0.001
    beta_end: float = 0.8
    scales: Sequence[float] = (0.25, 1.0)  # of "discrete_uniform"

    def __post_init__(self) -> None:
        """Refuse what nothing can be drawn from."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown patch law {self.kind!r}{nearest(self.kind, KINDS)}")
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise ValueError(
                "need 0 < min_scale <= max_scale <= 1,"
                f" got {self.min_scale!r} and {self.max_scale!r}"
            )
        if self.anneal_kimg < 0 or not 0 < self.beta_start <= self.beta_end:
            raise ValueError(
                "need anneal_kimg >= 0 and 0 < beta_start <= beta_end, got"
                f" {self.anneal_kimg!r}, {self.beta_start!r} and {self.beta_end!r}"
            )
        if self.kind == "discrete_uniform" and self.max_scale not in self.scales:
            raise ValueError(
                f"max_scale {self.max_scale} must be one of scales {tuple(self.scales)}:"
                " at first nothing smaller is drawn"
            )

    def beta(self, kimg: float) -> float:
        """The second parameter of "beta" after so many thousand pictures."""
        return anneal(kimg, self.beta_start, self.beta_end, self.anneal_kimg)

    def smallest(self, kimg: float) -> float:
        """The smallest scale of the uniform laws after so many thousand pictures."""
        return anneal(kimg, self.max_scale, self.min_scale, self.anneal_kimg)

    def sample(
        self,
        batch: int,
        kimg: float,
        *,
        group_size: int = 1,
        generator: torch.Generator | None = None,
    ) -> Patch:
        """Windows for a batch; `group_size` pictures each, those that the discriminator compares.

        Picture n is in group n mod (batch / group_size), as for minibatch standard deviation.
        """
        if group_size < 1 or batch % group_size:
            raise ValueError(
                f"a batch of {batch} cannot be split into groups of {group_size} pictures"
            )
        groups = batch // group_size
        device = None if generator is None else generator.device
        u = torch.rand(groups, 3, generator=generator, device=device)
        patch = self.window(u[:, 0], u[:, 1:], kimg)
        return Patch(patch.scale.repeat(group_size), patch.offset.repeat(group_size, 1))

    def window(self, u: Float[Tensor, " batch"], v: Float[Tensor, "batch 2"], kimg: float) -> Patch:
        """The windows of uniform numbers: quantiles u of the scale, v of the offset."""
        if self.kind == "discrete_uniform":
            allowed = sorted(s for s in self.scales if self.smallest(kimg) <= s <= self.max_scale)
            index = (u * len(allowed)).long().clamp(max=len(allowed) - 1)
            return placed(u.new_tensor(allowed)[index], v)
        if self.kind == "uniform":
            low, share = self.smallest(kimg), u
        else:
            low, share = self.min_scale, beta_quantile(u, self.beta(kimg))
        return placed(low + share * (self.max_scale - low), v)


def placed(scale: Float[Tensor, " batch"], v: Float[Tensor, "batch 2"]) -> Patch:
    """Windows of these scales, at the shares v of the room that they leave."""
    return Patch(scale, v * (1 - scale[:, None]))


def beta_quantile(u: Float[Tensor, " batch"], b: float) -> Float[Tensor, " batch"]:
    """Numbers distributed as Beta(1, b): the quantiles u of 1 - (1 - x)^b."""
    return 1 - (1 - u) ** (1 / b)


def anneal(kimg: float, start: float, end: float, duration: float) -> float:
    """From `start` at 0 to `end` at `duration` thousand pictures, and no farther."""
    share = 1.0 if duration <= 0 else min(max(kimg / duration, 0.0), 1.0)
    return start + (end - start) * share


def cut_patches(
    images: Float[Tensor, "batch channels height width"],
    patch: Patch,
    size: int,
    *,
    antialias: bool = False,
) -> Float[Tensor, "batch channels size size"]:
    """Windows of images at `size` pixels per side, sampled where a rendered patch has its rays.

    Bilinear; with `antialias` windows of many pixels are averaged, which the original does not.
    The whole image at its own size is itself, bit for bit.
    """
    height, width = images.shape[2:]
    like = torch.empty(len(images), device=images.device, dtype=torch.float64)
    x, y = pixel_axes(size, size, patch, like)
    across = _interpolation((x + 1) / 2 * (width - 1), width, antialias)
    down = _interpolation((1 - y) / 2 * (height - 1), height, antialias)
    return torch.einsum("bpy,bcyx,bqx->bcpq", down.to(images), images, across.to(images))


def _interpolation(
    position: Float[Tensor, "batch size"], pixels: int, antialias: bool
) -> Float[Tensor, "batch size pixels"]:
    """What each pixel contributes at positions counted in pixels: a triangle, at least 1 wide."""
    reach = 1.0
    if antialias and position.shape[1] > 1:
        step = (position[:, -1] - position[:, 0]).abs() / (position.shape[1] - 1)
        reach = step.clamp(min=1)[:, None, None]
    centres = torch.arange(pixels, device=position.device, dtype=position.dtype)
    weights = (1 - (centres - position[..., None]).abs() / reach).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)

"""Differentiable augmentation of all that a discriminator sees (Zhao et al. 2020).

Reals and fakes alike are changed in colour, shifted, and cut out of, always, each picture by its
own draws. Draws and their use are apart: a changed picture is a pure function of both. Shares of
translation and cutout are Projected GAN's.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ops.registry import nearest
from ops.shapes import Float

TRANSLATION = 1 / 8  # of a side: the farthest shift
CUTOUT = 0.2  # of a side: that of the square

Draws = Sequence[Tensor]  # of one policy


class Policy(NamedTuple):
    """What to draw for a batch of (height, width), and what to do with it."""

    draw: Callable[[int, int, int, torch.Generator | None], list[Tensor]]
    apply: Callable[[Tensor, Draws], Tensor]


def draw(
    policies: Sequence[str],
    shape: Sequence[int],  # of the pictures
    generator: torch.Generator | None = None,
) -> list[list[Tensor]]:
    """The draws of every policy, in order, made on the generator's device."""
    batch, _, height, width = shape
    return [find(name).draw(batch, height, width, generator) for name in policies]


def diff_augment(
    images: Float[Tensor, "batch channels height width"],
    policies: Sequence[str],
    draws: Sequence[Draws],
) -> Float[Tensor, "batch channels height width"]:
    """Pictures changed by each policy in turn, with the draws that `draw` made for them."""
    for name, values in zip(policies, draws, strict=True):
        images = find(name).apply(images, [v.to(images.device) for v in values])
    return images


def find(name: str) -> Policy:
    """A policy of POLICIES; ValueError for an unknown one."""
    if name not in POLICIES:
        raise ValueError(f"unknown diffaugment policy {name!r}{nearest(name, POLICIES)}")
    return POLICIES[name]


def draw_color(
    batch: int, height: int, width: int, generator: torch.Generator | None
) -> list[Tensor]:
    """Three numbers in [0, 1) per picture: brightness, saturation, contrast."""
    device = None if generator is None else generator.device
    return [torch.rand(batch, 1, 1, 1, generator=generator, device=device) for _ in range(3)]


def color(images: Tensor, draws: Draws) -> Tensor:
    """Brightness by +-0.5, saturation by 0 to 2, contrast by 0.5 to 1.5."""
    brightness, saturation, contrast = (u.to(images.dtype) for u in draws)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def draw_translation(
    batch: int, height: int, width: int, generator: torch.Generator | None
) -> list[Tensor]:
    """Whole pixels down and to the right by which what is seen moves."""
    device = None if generator is None else generator.device
    reach = [int(size * TRANSLATION + 0.5) for size in (height, width)]
    return [
        torch.randint(-r, r + 1, (batch, 1, 1), generator=generator, device=device) for r in reach
    ]


def translation(images: Tensor, draws: Draws) -> Tensor:
    """Pixel (i, j) becomes (i + down, j + right), 0 where there is none."""
    for axis, moved in zip((2, 3), draws, strict=True):
        size = images.shape[axis]
        line = torch.arange(size, device=images.device) + moved.long().flatten()[:, None]
        shape = [len(images), 1, 1, 1]
        shape[axis] = size
        inside = ((line >= 0) & (line < size)).view(shape)
        source = line.clamp(0, size - 1).view(shape).expand_as(images)
        images = images.gather(axis, source) * inside
    return images


def draw_cutout(
    batch: int, height: int, width: int, generator: torch.Generator | None
) -> list[Tensor]:
    """Row and column of the squares' centres, also just outside of the picture."""
    device = None if generator is None else generator.device
    ends = [size + 1 - cutout_size(size) % 2 for size in (height, width)]
    return [torch.randint(end, (batch, 1, 1), generator=generator, device=device) for end in ends]


def cutout_size(size: int) -> int:
    """Pixels that are cut out of a side."""
    return int(size * CUTOUT + 0.5)


def cutout(images: Tensor, draws: Draws) -> Tensor:
    """Set a square to 0; at the border a pixel of it remains at least."""
    masks = []
    for axis, centre in zip((2, 3), draws, strict=True):
        size = images.shape[axis]
        side = cutout_size(size)
        first = centre.long().flatten()[:, None] - side // 2
        low, high = first.clamp(0, size - 1), (first + side - 1).clamp(0, size - 1)
        line = torch.arange(size, device=images.device)
        masks.append((line >= low) & (line <= high) & (side > 0))
    hole = masks[0][:, None, :, None] & masks[1][:, None, None, :]
    return images * ~hole


POLICIES = {
    "color": Policy(draw_color, color),
    "translation": Policy(draw_translation, translation),
    "cutout": Policy(draw_cutout, cutout),
}

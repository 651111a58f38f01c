"""What the renderer asks of a scene: a function from points in space to radiance and density."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ops.shapes import Float

BLOCK = 8192  # points of a long list that are looked at together: they stay in the CPU's cache


@runtime_checkable
class Field(Protocol):
    """One latent's scene per batch entry: radiance and raw density at points in space.

    A field that knows its density without its colours has a method `density` as well, from points
    to (batch, n, 1); `raw_density` uses it. A field that ends has what is seen behind it, a
    `Background`, as an attribute `background`; without one (or with None) its last sample on a ray
    stands for everything farther away.
    """

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n channels"], Float[Tensor, "batch n 1"]]:
        """Radiance in the field's own range, and density before activation."""
        ...


@runtime_checkable
class Background(Protocol):
    """What rays see behind a field: one colour per ray, in the range of the field's radiance."""

    num_draws: int  # uniform random numbers that it can use per ray

    def __call__(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
        positions: Float[Tensor, "batch rays 2"],
        u: Float[Tensor, "batch rays draws"] | None,
        *,
        white_back: bool,
    ) -> Float[Tensor, "batch rays channels"]:
        """Colours; `positions` in the image, (x, y) in -1..1 with y upwards; u None: no chance."""
        ...


def background_of(field: Field) -> Background | None:
    """What is seen behind a field, None if it fills the space."""
    return getattr(field, "background", None)


def raw_density(field: Field, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 1"]:
    """Density before activation, block by block, by the cheapest way that the field offers."""
    density: Callable[[Tensor], Tensor] | None = getattr(field, "density", None)

    def look(block: Tensor) -> Tensor:
        return density(block) if density else field(block, torch.zeros_like(block))[1]

    return torch.cat([look(block) for block in points.split(BLOCK, dim=1)], dim=1)

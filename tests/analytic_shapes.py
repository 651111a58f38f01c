"""Solids whose surfaces are known, as fields and as generators."""

from collections.abc import Callable

import torch
from torch import Tensor

from generators.base import RadianceGenerator
from rendering.cameras import Cameras

Distance = Callable[[Tensor], Tensor]  # points (..., 3) -> signed distance (...), negative inside


def ball(centre: tuple[float, float, float], radius: float) -> Distance:
    return lambda p: (p - p.new_tensor(centre)).norm(dim=-1) - radius


def ring(centre: tuple[float, float, float], large: float, small: float) -> Distance:
    """A torus in the plane of x and y."""

    def distance(points: Tensor) -> Tensor:
        x, y, z = (points - points.new_tensor(centre)).unbind(-1)
        return torch.hypot(torch.hypot(x, y) - large, z) - small

    return distance


def box(centre: tuple[float, float, float], half: tuple[float, float, float]) -> Distance:
    def distance(points: Tensor) -> Tensor:
        away = (points - points.new_tensor(centre)).abs() - points.new_tensor(half)
        return away.clamp(min=0).norm(dim=-1) + away.amax(-1).clamp(max=0)

    return distance


def union(*solids: Distance) -> Distance:
    return lambda p: torch.stack([solid(p) for solid in solids]).amin(0)


class SolidField:
    """Raw density rising by `slope` per unit of depth below a surface, where it is 0.

    The colour is the place: `centre` grey plus the coordinates; or the view direction's.
    """

    def __init__(self, distance: Distance, slope: float = 1000.0, by_view: bool = False) -> None:
        self.distance, self.slope, self.by_view = distance, slope, by_view

    def density(self, points: Tensor) -> Tensor:
        return -self.slope * self.distance(points)[..., None]

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 + 0.5 * (directions if self.by_view else points), self.density(points)


class SolidGenerator(RadianceGenerator):
    """The same solid for every latent."""

    def __init__(self, solid: SolidField) -> None:
        super().__init__(latent_dim=2, w_shape=(2,))
        self.solid = solid

    def style(self, z: Tensor, label: Tensor | None, cameras: Cameras | None) -> Tensor:
        return z

    def field(self, w: Tensor) -> SolidField:
        return self.solid

"""Backgrounds behind a field that ends: a picture glued to the screen, or the world outside.

The world outside the unit sphere is seen in inverted coordinates: a point at distance r from the
origin is (its direction, 1 / r), so that everything from the sphere to infinity lies within a box
(NeRF++, Zhang et al. 2020, section 4).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.grid_sample import grid_sample
from ops.shapes import Float
from rendering.compositing import activate_density, composite
from rendering.sampling import jittered_depths

DISPARITY_FLOOR = 1e-6  # keeps the depth of points at infinity finite


class PlaneBackground:
    """A picture behind everything that does not move with the camera."""

    num_draws = 0

    def __init__(
        self,
        picture: Float[Tensor, "batch channels height width"],
        size: int | None = None,  # pixels per side that the picture is brought to first
    ) -> None:
        if size is not None and picture.shape[2:] != (size, size):
            picture = F.interpolate(picture, (size, size), mode="bilinear", align_corners=True)
        self.picture = picture

    def __call__(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
        positions: Float[Tensor, "batch rays 2"],
        u: Tensor | None = None,
        *,
        white_back: bool = False,
    ) -> Float[Tensor, "batch rays channels"]:
        """The picture at `positions`, its outermost pixels on the border of the image."""
        height, width = self.picture.shape[2:]
        middles = positions.new_tensor([1 - 1 / width, 1 / height - 1])  # of the outermost pixels
        seen = grid_sample(self.picture, (positions * middles)[:, None].to(self.picture))
        return seen[:, :, 0].transpose(1, 2).to(positions)


class SphereBackground:
    """A radiance field over inverted coordinates, integrated outwards from the unit sphere.

    `look` gives colours and raw density at points (direction, disparity). Cameras must stand where
    their rays meet the sphere: inside it, on it, or looking at it.
    """

    def __init__(
        self,
        look: Callable[[Tensor], Tensor],  # (batch, n, 4) -> (batch, n, channels + 1)
        num_steps: int,  # samples per ray
        start: float = 1.0,  # disparity of the first
    ) -> None:
        if num_steps < 2 or not 0 < start <= 1:
            raise ValueError(
                "a sphere background needs 2 steps and a start in (0, 1],"
                f" got {num_steps} and {start}"
            )
        self.look, self.start, self.num_draws = look, start, num_steps

    def __call__(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
        positions: Tensor | None,
        u: Float[Tensor, "batch rays draws"] | None = None,
        *,
        white_back: bool = False,
    ) -> Float[Tensor, "batch rays channels"]:
        """What the rays see from the unit sphere to infinity."""
        batch, rays, _ = origins.shape
        disparity = self.disparities(origins, u)
        points, _ = inverted_sphere_points(origins, directions, disparity)
        samples = self.look(points.flatten(1, 2)).reshape(batch, rays, self.num_draws, -1)
        density = activate_density(samples[..., -1].to(disparity), "softplus")
        radiance = samples[..., :-1].to(disparity)
        return composite(radiance, density, -disparity, white_back=white_back).radiance

    def disparities(
        self, like: Float[Tensor, "batch rays 3"], u: Tensor | None
    ) -> Float[Tensor, "batch rays samples"]:
        """1 / distance of the samples, descending to 0; `u` moves them."""
        options = {"device": like.device, "dtype": like.dtype}
        regular = torch.linspace(self.start, 0, self.num_draws, **options)
        regular = regular.expand(*like.shape[:2], -1)
        return regular if u is None else jittered_depths(regular, u)


def inverted_sphere_points(
    origins: Float[Tensor, "batch rays 3"],
    directions: Float[Tensor, "batch rays 3"],
    disparity: Float[Tensor, "batch rays samples"],
) -> tuple[Float[Tensor, "batch rays samples 4"], Float[Tensor, "batch rays samples"]]:
    """Where rays, beyond the unit sphere, are at distance 1 / disparity from the origin.

    Returns (direction, disparity) and the distance along the ray, in lengths of `directions`. The
    direction is that of the ray's exit from the sphere, turned towards the ray's own direction by
    the angle between the two points as seen from the origin (NeRF++, figure 5). A ray that misses
    the sphere is treated as if it touched it.
    """
    length = directions.norm(dim=-1, keepdim=True)
    nearest_t = -(origins * directions).sum(-1, keepdim=True) / length.square()
    nearest = origins + nearest_t * directions
    miss = nearest.norm(dim=-1, keepdim=True).clamp(max=1)
    leave = nearest + (1 - miss.square()).sqrt() / length * directions
    axis = F.normalize(torch.cross(origins, leave, dim=-1), dim=-1)[:, :, None]
    inner = torch.asin(miss * disparity)
    angle = (torch.asin(miss) - inner)[..., None]
    leave = leave[:, :, None]
    along = (axis * leave).sum(-1, keepdim=True) * (1 - angle.cos())
    turned = leave * angle.cos() + torch.cross(axis, leave, dim=-1) * angle.sin()
    turned = F.normalize(turned + axis * along, dim=-1)
    t = inner.cos() / (disparity + DISPARITY_FLOOR) / length + nearest_t
    return torch.cat([turned, disparity[..., None]], dim=-1), t

"""A radiance field from three feature planes and a small decoder (EpiGRAF, section 3.1; EG3D).

The cube [-cube_scale, cube_scale]^3 is [-1, 1]^3 to the planes. A point is projected on each plane,
whose outermost texels lie on the cube's faces; its features are the mean of what it meets, zeros
outside the cube. A perceptron makes them colour and raw density.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.encoding import ScalarEncoder
from ops.grid_sample import grid_sample
from ops.linear import EqualizedLinear
from ops.registry import nearest
from ops.shapes import Float
from rendering.field import Background
from siren.blocks import EMPTY

# per plane the coordinates along its width and height. EG3D's published code has (z, x) for the
# third, which is the second again: its weights depend on that
PLANE_AXES = {
    "exact": ((0, 1), (0, 2), (1, 2)),
    "eg3d": ((0, 1), (0, 2), (2, 0)),
}
VIEW_PERIODS, VIEW_WIDTH, VIEW_SLOPE = 8, 32, 0.1  # of the branch that sees the view direction


def sample_planes(
    planes: Float[Tensor, "batch channels height width"],
    points: Float[Tensor, "batch n 3"],
    axes: str = "exact",
    *,
    twice: bool = False,
) -> Float[Tensor, "batch 3 n features"]:
    """What points in [-1, 1]^3 meet on each plane: bilinear, zeros outside.

    The channels hold the planes one after the other; `axes` is a name of PLANE_AXES. With `twice`
    it can be differentiated any number of times in the planes, but not in the points.
    """
    batch, channels, height, width = planes.shape
    along = points.unbind(-1)
    pairs = [torch.stack([along[i], along[j]], dim=-1) for i, j in PLANE_AXES[axes]]
    # all points in one row: the CPU's kernel works on many of a row at once
    grid = torch.stack(pairs, dim=1).reshape(batch * 3, 1, -1, 2).to(planes.dtype)
    stacked = planes.reshape(batch * 3, channels // 3, height, width)
    if twice:  # its pixels end where the picture does, not in the middle of the outermost
        met = grid_sample(stacked, grid * (1 - 1 / grid.new_tensor([width, height])))
    else:
        met = F.grid_sample(stacked, grid, align_corners=True)
    return met.reshape(batch, 3, channels // 3, -1).transpose(2, 3)


class TriPlaneDecoder(nn.Module):
    """Features of planes to colour and raw density."""

    def __init__(
        self,
        *,
        feature_dim: int,  # features per plane
        num_layers: int = 2,  # linear layers, the last one without activation
        width: int = 64,  # of the hidden ones
        view_direction: bool = False,  # whether colours depend on where they are seen from
        coordinate_periods: float = 0.0,  # waves of the points themselves, too; 0: none
        cube_scale: float = 1.0,  # half the side of the cube that the planes span
        density_gain: float = 1.0,  # raw density's factor: what makes small networks solid soon
        density_shift: float = 0.0,  # added to raw density
        bound_radius: float = 0.0,  # beyond it nothing is; 0: unbounded. For scenes on white
        axes: str = "exact",  # how points are projected: a name of PLANE_AXES
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"a tri-plane decoder needs at least 1 layer, got {num_layers}")
        if axes not in PLANE_AXES:
            raise ValueError(f"unknown axes {axes!r}{nearest(axes, PLANE_AXES)}")
        if not cube_scale > 0:
            raise ValueError(f"cube_scale must be positive, got {cube_scale}")
        self.feature_dim, self.cube_scale, self.axes = feature_dim, cube_scale, axes
        self.density_gain, self.density_shift = density_gain, density_shift
        self.bound_radius = bound_radius
        self.twice_differentiable = False  # in the planes, at the price of gradients in points
        self.coordinates = None
        if coordinate_periods > 0:
            self.coordinates = ScalarEncoder(3, multiplier=coordinate_periods)
        inputs = feature_dim + (self.coordinates.out_dim if self.coordinates else 0)
        widths = [inputs, *[width] * (num_layers - 1), (width if view_direction else 3) + 1]
        self.layers = _perceptron(widths)
        self.directions: ScalarEncoder | None = None
        self.colors: nn.Sequential | None = None
        if view_direction:
            self.directions = ScalarEncoder(3, multiplier=VIEW_PERIODS, use_raw=True, use_cos=False)
            self.colors = _perceptron([width + self.directions.out_dim, VIEW_WIDTH, 3])

    def features(
        self,
        planes: Float[Tensor, "batch channels height width"],
        points: Float[Tensor, "batch n 3"],
    ) -> Float[Tensor, "batch n numbers"]:
        """What the decoder knows of points: the mean of the planes and waves of the points."""
        points = points / self.cube_scale
        met = sample_planes(planes, points, self.axes, twice=self.twice_differentiable).mean(1)
        if self.coordinates is None:
            return met
        return torch.cat([met, self.coordinates(points).to(met)], dim=-1)

    def forward(
        self, features: Float[Tensor, "batch n numbers"]
    ) -> tuple[Float[Tensor, "batch n hidden"], Float[Tensor, "batch n 1"]]:
        """Colours, or what `color` makes them of, and raw density."""
        y = self.layers(features)
        return y[..., :-1], self.density_gain * y[..., -1:] + self.density_shift

    def color(
        self, hidden: Float[Tensor, "batch n hidden"], directions: Float[Tensor, "batch n 3"]
    ) -> Float[Tensor, "batch n 3"]:
        """Colours as seen along unit directions."""
        if self.colors is None or self.directions is None:
            return hidden
        seen = [F.leaky_relu(hidden, VIEW_SLOPE), self.directions(directions).to(hidden)]
        return self.colors(torch.cat(seen, dim=-1))


class TriPlaneField:
    """The scenes of a batch of planes: as many looks as wanted at planes computed once."""

    def __init__(
        self,
        planes: Float[Tensor, "batch channels height width"],
        decoder: TriPlaneDecoder,
        background: Background | None = None,
    ) -> None:
        self.planes, self.decoder, self.background = planes, decoder, background

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n 3"], Float[Tensor, "batch n 1"]]:
        """Colours, nominally in [-1, 1], and raw density."""
        hidden, density = self.decoder(self.decoder.features(self.planes, points))
        return self.decoder.color(hidden, directions), self._bounded(density, points)

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 1"]:
        """Raw density alone."""
        density = self.decoder(self.decoder.features(self.planes, points))[1]
        return self._bounded(density, points)

    def _bounded(
        self, density: Float[Tensor, "batch n 1"], points: Float[Tensor, "batch n 3"]
    ) -> Float[Tensor, "batch n 1"]:
        radius = self.decoder.bound_radius
        if not radius:
            return density
        return torch.where(points.square().sum(-1, keepdim=True) <= radius**2, density, EMPTY)


def _perceptron(widths: list[int]) -> nn.Sequential:
    """Linear layers of these widths, leaky ReLUs between them."""
    last = len(widths) - 2
    return nn.Sequential(
        *(
            EqualizedLinear(widths[i], widths[i + 1], activation="linear" if i == last else "lrelu")
            for i in range(last + 1)
        )
    )

"""Regular lattices of points in space, for looking at a field as a volume.

A volume (N, N, N) has axes x, y, z; its points fill a cube around the origin, both faces included.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ops.shapes import Float, Int
from rendering.field import Field, raw_density

Density = Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]]


class FieldDensity:
    """Raw density of a field's single scene, differentiable in the points.

    `dtype` is that of matrix products' inputs, as under autocast; None rounds nothing.
    `evaluations` counts the points.
    """

    def __init__(self, field: Field, dtype: torch.dtype | None = None) -> None:
        self._field, self._dtype = field, dtype
        self.evaluations = 0

    def __call__(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Density before activation at each point."""
        self.evaluations += len(points)
        dtype = self._dtype
        with torch.autocast(points.device.type, dtype=dtype, enabled=dtype is not None):
            return raw_density(self._field, points[None])[0, :, 0].to(points.dtype)


def voxel_lattice(
    resolution: int,
    cube_size: float,
    *,
    start: int = 0,
    stop: int | None = None,
    compat_shear: bool = False,
    device: torch.device | str | None = None,
) -> Float[Tensor, "points 3"]:
    """Points of a cube of side `cube_size` around the origin, both faces included.

    Point i = (x * N + y) * N + z, z fastest, so that a reshape to (N, N, N) has axes x, y, z; the
    spacing is cube_size / (N - 1). `start` and `stop` ask for a part of the points.

    `compat_shear` reproduces the original's lattice, whose x and y indices i / N^2 and i / N are
    never rounded down: y drifts by a voxel along each row, x along each slice.
    """
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2, got {resolution}")
    total = resolution**3
    stop = total if stop is None else stop
    if not 0 <= start <= stop <= total:
        raise ValueError(f"need 0 <= start <= stop <= {total}, got {start} and {stop}")
    index = torch.arange(start, stop, device=device)
    if compat_shear:
        row = index.float() / resolution
        place = torch.stack([row / resolution, row % resolution, index % resolution], dim=-1)
    else:
        place = unravel(index, resolution)
    return place_points(place, resolution, cube_size)


def unravel(index: Int[Tensor, " n"], side: int) -> Int[Tensor, "n 3"]:
    """Flat indices of a volume with `side` points per axis as x, y, z."""
    return torch.stack([index // side**2, index // side % side, index % side], dim=-1)


def place_points(place: Tensor, resolution: int, cube_size: float) -> Float[Tensor, "n 3"]:
    """Where lattice places (n, 3), counted in voxels, are in the world."""
    return place * (cube_size / (resolution - 1)) - cube_size / 2


@torch.no_grad()
def dense_slabs(
    density: Density,
    resolution: int,
    cube_size: float,
    *,
    compat_shear: bool = False,
    device: torch.device | str | None = None,
) -> Iterator[Float[Tensor, "y z"]]:
    """Density at every point of the lattice, a plane of constant x at a time, from -x to +x."""
    plane = resolution**2
    for start in range(0, resolution**3, plane):
        points = voxel_lattice(
            resolution,
            cube_size,
            start=start,
            stop=start + plane,
            compat_shear=compat_shear,
            device=device,
        )
        yield density(points).reshape(resolution, resolution)

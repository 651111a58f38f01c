"""Regular lattices of points in space, for looking at a field as a volume."""

import torch
from torch import Tensor

from ops.shapes import Float


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
        x, y = row / resolution, row % resolution
    else:
        x, y = index // resolution**2, index // resolution % resolution
    lattice = torch.stack([x, y, index % resolution], dim=-1)
    return lattice * (cube_size / (resolution - 1)) - cube_size / 2

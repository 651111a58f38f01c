"""The surface of a level in a volume, as triangles: marching cubes (Lewiner et al. 2003).

Needs scikit-image, which nothing else of the core does.
"""

import numpy as np
import torch
from skimage.measure import marching_cubes
from torch import Tensor

from ops.shapes import Float, Int


def level_surface(
    volume: Float[Tensor, "x y z"],
    level: float,
    cube_size: float,
    *,
    inside_above: bool = True,
) -> tuple[Float[Tensor, "vertices 3"], Int[Tensor, "faces 3"]]:
    """Vertices in world units and triangles that are counter-clockwise seen from outside.

    `volume` fills a cube around the origin, as `rendering.grid.voxel_lattice` does. Inside is where
    values are above the level, as densities are, or else below it, as distances are. The result
    lies on the volume's device. Raises ValueError if the volume has no such surface.
    """
    resolution = len(volume)
    values = volume.detach().cpu().numpy()
    direction = "ascent" if inside_above else "descent"
    try:
        corners, faces, _, _ = marching_cubes(values, level, gradient_direction=direction)
    except (ValueError, RuntimeError) as error:  # out of range, or no triangle
        raise ValueError(
            f"level {level:.6g} has no surface: values go from {values.min():.6g} to "
            f"{values.max():.6g} in the cube of side {cube_size:.4g}"
        ) from error
    spacing = cube_size / (resolution - 1)
    vertices = corners.astype(np.float64) * spacing - cube_size / 2
    return (
        torch.from_numpy(vertices.astype(np.float32)).to(volume.device),
        torch.from_numpy(faces.astype(np.int64)).to(volume.device),
    )

"""The surface of a snow figure as triangles: marching cubes on its exact distance.

Vertices are in world coordinates, so that a mesh, a depth map and a model's geometry compare
directly. Needs scikit-image.
"""

from dataclasses import dataclass

import numpy as np
import torch
from skimage.measure import marching_cubes
from torch import Tensor

from ops.shapes import Float, Int
from rendering.grid import voxel_lattice
from toys.anatomy import FIGURE_RADIUS
from toys.scenes import Figures

MARGIN = 0.01  # free space around the ball that holds a figure


@dataclass(frozen=True)
class ToyMesh:
    """Triangles, counter-clockwise seen from outside; colours of the parts in 0..1, unlit."""

    vertices: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    colours: Float[Tensor, "vertices 3"]


@torch.no_grad()
def figure_mesh(figure: Figures, resolution: int = 128) -> ToyMesh:
    """Mesh of a single figure from a grid of `resolution` points per side.

    Vertices are within about a thousandth of the surface at the default resolution, except at the
    creases between parts, which a grid rounds off.
    """
    if len(figure) != 1:
        raise ValueError(f"a mesh is made of one figure, got {len(figure)}")
    device, cube_size = figure.balls.device, 2 * (FIGURE_RADIUS + MARGIN)
    slices = []
    for x in range(resolution):  # slice by slice, to bound memory
        start = x * resolution**2
        points = voxel_lattice(
            resolution, cube_size, start=start, stop=start + resolution**2, device=device
        )
        slices.append(figure.distance(points[None]).reshape(resolution, resolution))
    volume = torch.stack(slices).cpu().numpy()
    spacing = (cube_size / (resolution - 1),) * 3
    # "descent", the default, is what turns triangles outwards here, where the distance ascends
    corners, faces, _, _ = marching_cubes(volume, 0.0, spacing=spacing)
    vertices = torch.from_numpy(corners.astype(np.float32)).to(device) - cube_size / 2
    _, parts = figure.signed_distance(vertices[None])
    return ToyMesh(
        vertices, torch.from_numpy(faces.astype(np.int64)).to(device), figure.colours[0, parts[0]]
    )

"""The surface of a snow figure as triangles: marching cubes on its exact distance.

Vertices are in world coordinates, so that a mesh, a depth map and a model's geometry compare
directly. Needs scikit-image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ops.shapes import Float, Int
from rendering.grid import dense_slabs
from rendering.surface import level_surface
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

    def distance(points: Tensor) -> Tensor:
        return figure.distance(points[None])[0]

    slabs = dense_slabs(distance, resolution, cube_size, device=device)
    vertices, faces = level_surface(torch.stack(list(slabs)), 0.0, cube_size, inside_above=False)
    _, parts = figure.signed_distance(vertices[None])
    return ToyMesh(vertices, faces, figure.colours[0, parts[0]])

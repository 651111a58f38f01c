"""Shapes of latents: from a field to a mesh with normals, colours and nothing that floats around.

Vertices are in world coordinates (+y up, in the units of the cameras' distance), triangles
counter-clockwise seen from outside, normals of unit length, colours in 0..1 as pictures have them.
Components are found with scipy, which scikit-image brings.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from generators import RadianceGenerator
from ops.shapes import Bool, Float, Int
from rendering.cameras import Cameras
from rendering.compositing import activate_density, composite
from rendering.field import Field
from rendering.grid import Density
from rendering.raster import project, rasterize
from rendering.settings import RenderSettings

BLOCK = 2**14  # vertices whose slopes are taken at once
COLOUR_SAMPLES = 8  # along the short ray that a vertex is seen by
MEAN_FREE_PATHS = 3.0  # its length: hardly any light is left there
VISIBLE_SIZE = 256  # pixels per side of the pictures that visibility is decided in
EXTRA_DEPTH = 1.5  # pixels' widths by which a vertex may lie behind what is seen


@dataclass(frozen=True)
class Mesh:
    """Triangles with whatever is known of their vertices."""

    vertices: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    normals: Float[Tensor, "vertices 3"] | None = None
    colours: Float[Tensor, "vertices 3"] | None = None

    def select(self, faces: Bool[Tensor, " faces"]) -> "Mesh":
        """The mesh of these faces alone, and of the vertices that they use."""
        kept = self.faces[faces]
        used = torch.zeros(len(self.vertices), dtype=torch.bool, device=kept.device)
        used[kept.flatten()] = True
        index = used.cumsum(0) - 1
        normals = None if self.normals is None else self.normals[used]
        colours = None if self.colours is None else self.colours[used]
        return Mesh(self.vertices[used], index[kept], normals, colours)


def face_normals(mesh: Mesh) -> Float[Tensor, "faces 3"]:
    """Normals as long as twice the triangle's area."""
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return torch.linalg.cross(b - a, c - a)


def with_normals(mesh: Mesh, density: Density) -> Mesh:
    """Add normals: downhill in the density, where it has a slope, else those of the triangles."""
    slope = torch.cat([_slope(density, part) for part in mesh.vertices.split(BLOCK)])
    flat = torch.zeros_like(mesh.vertices)
    flat.index_add_(0, mesh.faces.flatten(), face_normals(mesh).repeat_interleave(3, 0))
    steep = (slope.norm(dim=-1) > 0) & slope.isfinite().all(-1)
    normals = torch.where(steep[:, None], -slope, flat)
    return replace(mesh, normals=torch.nn.functional.normalize(normals, dim=-1, eps=1e-30))


def _slope(density: Density, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Gradient of the density; zero for one that has no derivative."""
    points = points.detach().clone().requires_grad_()
    with torch.enable_grad():
        total = density(points).sum()
    if not total.requires_grad:
        return torch.zeros_like(points)
    return torch.autograd.grad(total, points)[0]


@torch.no_grad()
def with_colours(
    mesh: Mesh,
    generator: RadianceGenerator,
    field: Field,
    settings: RenderSettings,
    level: float,
    voxel: float,
    dtype: torch.dtype | None = None,  # of the field's matrix products; None: full precision
) -> Mesh:
    """Add colours: what a camera close to each vertex sees, looking along its normal.

    A density of `level` at the surface lets light some way in, so the colour is a composite over
    that depth, `voxel` (world units) at least, and not that of a single point.
    """
    assert mesh.normals is not None
    density = max(float(activate_density(torch.tensor(level), settings.clamp_mode)), 1e-6)
    depth = min(max(MEAN_FREE_PATHS / density, voxel), 10 * voxel)
    t = torch.linspace(-voxel, depth, COLOUR_SAMPLES, device=mesh.vertices.device)
    colours = []
    for points, normals in zip(
        mesh.vertices.split(BLOCK),
        mesh.normals.split(BLOCK),
        strict=True,
    ):
        along = (points[:, None] - normals[:, None] * t[:, None]).reshape(1, -1, 3)
        views = (-normals[:, None]).expand(-1, len(t), 3).reshape(1, -1, 3)
        with torch.autocast(points.device.type, dtype=dtype, enabled=dtype is not None):
            radiance, raw = (part.to(points.dtype) for part in field(along, views))
        shape = (1, len(points), len(t))
        active = activate_density(raw.reshape(shape), settings.clamp_mode)
        depths = (t - t[0]).expand(shape)
        seen = composite(radiance.reshape(*shape, -1), active, depths, last_back=True)
        colours.append(seen.radiance[0])
    image = generator.to_image(torch.cat(colours).t()[None, :, :, None])
    return replace(mesh, colours=(0.5 * image[0, :, :, 0].t() + 0.5).clamp(0, 1))


def largest_components(mesh: Mesh, count: int | None = None, share: float = 0.0) -> Mesh:
    """The `count` largest connected pieces, if they have `share` of the largest one's area."""
    faces = mesh.faces.cpu().numpy()
    rows, columns = faces[:, [0, 1]].flatten(), faces[:, [1, 2]].flatten()
    size = len(mesh.vertices)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
    number, piece_of = connected_components(graph, directed=False)
    piece = torch.from_numpy(piece_of.astype(np.int64)).to(mesh.faces.device)[mesh.faces[:, 0]]
    area = torch.zeros(number, dtype=torch.float64, device=piece.device)
    area.index_add_(0, piece, face_normals(mesh).double().norm(dim=-1))
    chosen = torch.zeros(number, dtype=torch.bool, device=piece.device)
    chosen[area.topk(number if count is None else min(count, number)).indices] = True
    return mesh.select((chosen & (area >= share * area.max()))[piece])


@torch.no_grad()
def visible_faces(
    mesh: Mesh, cameras: Cameras, settings: RenderSettings, size: int = VISIBLE_SIZE
) -> Bool[Tensor, " faces"]:
    """Faces with a corner that some camera sees: in the picture, not hidden, turned towards it.

    The mesh alone hides; only what lies between the ends of the rays is seen.
    """
    assert mesh.normals is not None
    seen = torch.zeros(len(mesh.vertices), dtype=torch.bool, device=mesh.vertices.device)
    middle = (size - 1) / 2
    for camera in cameras:
        raster = rasterize(mesh.vertices, mesh.faces, camera, size)
        offset = mesh.vertices - camera.origin
        distance = offset.norm(dim=-1)
        column, row, forward = project(mesh.vertices, camera, size).unbind(-1)
        inside = (forward > 0) & ((column - middle).abs() <= middle)
        inside &= (row - middle).abs() <= middle
        inside &= (distance >= settings.ray_start) & (distance <= settings.ray_end)
        cosine = -(offset * mesh.normals).sum(-1) / distance  # of the angle to the normal
        place = (row.round().clamp(0, size - 1).long(), column.round().clamp(0, size - 1).long())
        # the pixel's centre is beside the vertex, where a slanted surface is nearer or farther
        width = distance * torch.tan(torch.deg2rad(camera.fov[0]) / 2) / middle
        limit = raster.depth[place] + EXTRA_DEPTH * width / cosine.clamp(min=0.25)
        seen |= inside & (cosine > 0) & (distance <= limit)
    return seen[mesh.faces].any(1)

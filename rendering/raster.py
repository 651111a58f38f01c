"""Triangles as cameras see them: a z-buffer on the same pixels as the renderer's rays.

Depths are distances along the unit rays, as the renderer's are, so that a mesh and a field compare
pixel by pixel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ops.shapes import Float, Int
from rendering.cameras import Cameras

CANDIDATES = 2**21  # pairs of a triangle and a pixel looked at together, to bound memory
NEAR = 1e-6  # triangles that reach behind a camera are left out


@dataclass(frozen=True)
class Raster:
    """What a camera sees in each pixel; where it sees nothing, face -1 at depth infinity.

    `barycentric` weighs the corners of the pixel's face.
    """

    face: Int[Tensor, "height width"]
    depth: Float[Tensor, "height width"]
    barycentric: Float[Tensor, "height width 3"]

    def interpolate(
        self, attribute: Float[Tensor, "vertices channels"], faces: Int[Tensor, "faces 3"]
    ) -> Float[Tensor, "height width channels"]:
        """What vertices carry, in every pixel; 0 where nothing is."""
        corners = attribute[faces[self.face.clamp(min=0)]]
        values = (self.barycentric[..., None] * corners).sum(-2)
        return torch.where((self.face >= 0)[..., None], values, 0.0)


def project(
    vertices: Float[Tensor, "vertices 3"], camera: Cameras, size: int
) -> Float[Tensor, "vertices 3"]:
    """Column and row in a square picture of `size` pixels, and distance along the viewing axis.

    Whole numbers are pixels: the outermost lie on the border of the field of view.
    """
    _only_one(camera)
    local = (vertices - camera.origin[0]) @ camera.cam2world[0, :3, :3]
    forward = -local[:, 2]
    scale = (size - 1) / (2 * torch.tan(torch.deg2rad(camera.fov[0]) / 2))
    centre = (size - 1) / 2
    divisor = torch.where(forward > NEAR, forward, torch.ones_like(forward))
    x, y = local[:, 0] / divisor * scale + centre, centre - local[:, 1] / divisor * scale
    return torch.stack([x, y, forward], dim=-1)


@torch.no_grad()
def rasterize(
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    camera: Cameras,
    size: int,
) -> Raster:
    """The nearest triangle, from either side, through each pixel's centre."""
    corners = project(vertices.double(), camera.to(torch.float64), size)[faces]
    corners = torch.where(corners[..., 2:] > NEAR, corners, torch.nan)
    low = corners[..., :2].amin(1).ceil().clamp(min=0)
    high = corners[..., :2].amax(1).floor().clamp(max=size - 1)
    counts = (high - low + 1).clamp(min=0).nan_to_num(0).long()  # columns and rows of each box
    boxes = counts.prod(-1)
    low = low.nan_to_num(0).long()
    inverse = torch.zeros(size * size, dtype=torch.float64, device=vertices.device)
    owner = torch.full((size * size,), -1, device=vertices.device)
    for part in _parts(boxes):
        face, pixel, weights = _cover(part, boxes, counts, low, corners, size)
        nearness = (weights / corners[face, :, 2]).sum(-1)  # 1 / distance is linear on the screen
        inverse.scatter_reduce_(0, pixel, nearness, "amax")
        wins = nearness == inverse[pixel]
        owner[pixel[wins]] = face[wins]
    return _finish(owner, inverse, corners, camera, size)


def _parts(boxes: Int[Tensor, " faces"]) -> list[Tensor]:
    """Indices of the faces that have pixels in their box, in groups of bounded total."""
    picked = boxes.nonzero()[:, 0]
    if not len(picked):
        return []
    groups = (boxes[picked].cumsum(0) - 1) // CANDIDATES
    _, lengths = torch.unique_consecutive(groups, return_counts=True)
    return list(picked.split(lengths.tolist()))


def _cover(
    part: Tensor, boxes: Tensor, counts: Tensor, low: Tensor, corners: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Faces, pixels and barycentric weights on the screen, where a centre lies in its face."""
    face = part.repeat_interleave(boxes[part])
    starts = boxes[part].cumsum(0) - boxes[part]
    within = torch.arange(len(face), device=face.device) - starts.repeat_interleave(boxes[part])
    column = low[face, 0] + within % counts[face, 0]
    row = low[face, 1] + within // counts[face, 0]
    weights = _barycentric(torch.stack([column, row], dim=-1).double(), corners[face, :, :2])
    hit = (weights >= 0).all(-1)  # false for the NaN of a triangle without area
    return face[hit], row[hit] * size + column[hit], weights[hit]


def _barycentric(point: Tensor, corners: Tensor) -> Tensor:
    """Weights of a triangle's corners that make up a point of the plane."""
    a, b, c = (corners[:, i] - point for i in range(3))
    areas = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=-1)
    return areas / areas.sum(-1, keepdim=True)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _finish(owner: Tensor, inverse: Tensor, corners: Tensor, camera: Cameras, size: int) -> Raster:
    """From nearness on the screen to distance along rays and perspective-correct weights."""
    pixel = (owner >= 0).nonzero()[:, 0]
    shown = corners[owner[pixel]]
    place = torch.stack([pixel % size, pixel // size], dim=-1).double()
    weights = _barycentric(place, shown[..., :2]) / shown[..., 2]
    weights = weights / weights.sum(-1, keepdim=True)
    _, directions = camera.to(torch.float64).rays(size, size)
    along = directions[0, pixel] @ -camera.cam2world[0, :3, 2].double()
    depth = torch.full((size * size,), torch.inf, device=owner.device)
    depth[pixel] = (1 / inverse[pixel] / along).float()
    barycentric = torch.zeros(size * size, 3, device=owner.device)
    barycentric[pixel] = weights.float()
    return Raster(
        owner.reshape(size, size), depth.reshape(size, size), barycentric.reshape(size, size, 3)
    )


def _only_one(camera: Cameras) -> None:
    if len(camera) != 1:
        raise ValueError(f"a picture is taken by one camera, got {len(camera)}")

"""Pictures of meshes, as cameras see them: in their own colours, or in clay under a lamp."""

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.mesh import Mesh
from ops.shapes import Float
from rendering.cameras import Cameras
from rendering.raster import rasterize

CLAY = (0.86, 0.84, 0.81)
LAMP = (-0.45, 0.6, 0.66)  # unit vector towards the lamp, which is carried along with the camera
AMBIENT = 0.3  # light of what faces away from the lamp
FINER = 3  # rays per pixel and side


def draw_mesh(
    mesh: Mesh, cameras: Cameras, size: int, *, clay: bool = False
) -> Float[Tensor, "cameras 3 height width"]:
    """Pictures in [-1, 1] on white; with `clay`, normals alone give the shades."""
    surface = mesh.normals if clay else mesh.colours
    if surface is None:
        raise ValueError(f"the mesh has no {'normals' if clay else 'colours'} to be drawn with")
    pictures = []
    for camera in cameras:
        raster = rasterize(mesh.vertices, mesh.faces, camera, size * FINER)
        pixels = raster.interpolate(surface, mesh.faces)
        if clay:
            pixels = _lit(F.normalize(pixels, dim=-1), camera)
        pixels = torch.where((raster.face >= 0)[..., None], pixels, 1.0)
        pictures.append(F.avg_pool2d(pixels.permute(2, 0, 1)[None], FINER))
    return 2 * torch.cat(pictures) - 1


def _lit(normals: Tensor, camera: Cameras) -> Tensor:
    lamp = camera.cam2world[0, :3, :3] @ normals.new_tensor(LAMP)
    light = AMBIENT + (1 - AMBIENT) * (0.5 + 0.5 * normals @ lamp).square()
    return light[..., None] * normals.new_tensor(CLAY)

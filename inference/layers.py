"""What can be shown of a view beside its colours: depth, normals and opacity, as pictures.

Normals are the field's own: minus the gradient of its raw density, of length 1, in the camera's
frame: x to the right is red, y upwards green, towards the camera blue. They are taken just in front
of the expected depth, where density rises; at that depth and behind it, in the midst of the mass,
it goes up and down at will. (Differences of neighbouring depths would show the steps between
samples, and false walls wherever depth jumps.)
"""

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.media import depth_image, tile, to_uint8
from inference.scene import Scene
from ops.shapes import Float, UInt8
from rendering.cameras import Cameras
from rendering.field import BLOCK, Field, raw_density
from rendering.renderer import Rendering
from rendering.settings import RenderSettings

LAYERS = ("color", "depth", "normals", "opacity")
FAINT = 1e-3  # opacity below which a depth has no meaning
IN_FRONT = 2  # samples between the place of a normal and the expected depth


def add_layers(parser: argparse.ArgumentParser, where: str) -> None:
    """Add --depth, --normals, --opacity, which go `where`, and --only."""
    add = parser.add_argument
    add("--depth", "--depth_map", action="store_true", help=f"add depth {where}: near is white")
    add("--normals", action="store_true",
        help=f"add normals {where}: red is right, green up, blue towards us")  # fmt: skip
    add("--opacity", action="store_true", help=f"add opacity {where}")
    add("--only", nargs="+", choices=LAYERS, metavar="LAYER",
        help=f"show these alone, in this order: {' '.join(LAYERS)}")  # fmt: skip


def chosen_layers(args: argparse.Namespace) -> tuple[str, ...]:
    """What the flags of `add_layers` ask for."""
    added = [layer for layer in LAYERS[1:] if getattr(args, layer)]
    if args.only and added:
        raise ValueError(f"--only names all layers itself: leave out --{added[0]}")
    return tuple(args.only or ["color", *added])


def photograph(
    scene: Scene, camera: Cameras, settings: RenderSettings, layers: Sequence[str] = ("color",)
) -> list[UInt8[Tensor, "1 height width 3"]]:
    """Bytes of each layer of what a camera sees.

    Raises ValueError if a 2D generator is asked for geometry.
    """
    seen = scene.look(camera, settings)
    pictures = (_layer(layer, scene, camera, seen, settings) for layer in layers)
    return [to_uint8(picture.expand(-1, 3, -1, -1)) for picture in pictures]


def compose(
    scenes: Sequence[Scene],
    camera: Cameras,
    settings: RenderSettings,
    layers: Sequence[str] = ("color",),
    columns: int = 1,
) -> UInt8[Tensor, "height width 3"]:
    """One frame: a grid of scenes, each with its layers side by side."""
    cells = [torch.cat(photograph(scene, camera, settings, layers), dim=2) for scene in scenes]
    return tile(torch.cat(cells), columns)


def expected_distance(
    seen: Rendering, settings: RenderSettings
) -> Float[Tensor, "batch height width"]:
    """Distance along each ray of what is seen there; without the background's part in it."""
    assert seen.depth is not None and seen.opacity is not None
    depth = seen.depth
    if settings.last_back:  # the rest of the weight lies on the last sample
        depth = depth - (1 - seen.opacity) * settings.ray_end
    distance = depth / seen.opacity.clamp(min=FAINT)
    return distance.clamp(settings.ray_start, settings.ray_end)


def density_normals(field: Field, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 3"]:
    """Unit vectors down the raw density, in world space; 0 where it is flat."""
    normals = []
    for block in points.split(BLOCK, dim=1):
        with torch.enable_grad():
            place = block.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(raw_density(field, place).sum(), place)
        normals.append(-F.normalize(gradient, dim=-1))
    return torch.cat(normals, dim=1)


def normal_image(
    field: Field, camera: Cameras, seen: Rendering, settings: RenderSettings
) -> Float[Tensor, "batch 3 height width"]:
    """Normals as a picture in [-1, 1], fading to white with opacity."""
    assert seen.opacity is not None
    size = settings.resolution
    origins, directions = camera.rays(size, size)
    step = (settings.ray_end - settings.ray_start) / settings.num_steps
    distance = expected_distance(seen, settings).reshape(len(camera), -1, 1) - IN_FRONT * step
    world = density_normals(field, origins + directions * distance)
    normals = (world @ camera.cam2world[:, :3, :3]).transpose(1, 2).reshape(-1, 3, size, size)
    opacity = seen.opacity[:, None].clamp(0, 1)
    return opacity * normals + (1 - opacity)


def _layer(
    layer: str, scene: Scene, camera: Cameras, seen: Rendering, settings: RenderSettings
) -> Tensor:
    """One layer as (batch, 1 or 3, height, width) in [-1, 1]."""
    if layer == "color":
        return seen.image
    if seen.depth is None or seen.opacity is None or scene.field is None:
        raise ValueError(f"{layer} needs a radiance generator, this is a 2D one")
    if layer == "opacity":
        return 2 * seen.opacity[:, None] - 1
    if layer == "normals":
        return normal_image(scene.field, camera, seen, settings)
    return depth_image(
        seen.depth,
        seen.opacity,
        settings.ray_start,
        settings.ray_end,
        last_back=settings.last_back,
    )

"""Sphere tracing of snow figures: anti-aliased pictures with exact geometry.

Rays are those of `rendering.cameras`: a pixel's centre is the ray that `Cameras.rays` gives it, and
the pixel is one spacing of rays wide. First every pixel sends out a cone that holds all of its
area and stops where the surface enters it (Amanatides, "Ray Tracing with Cones", 1984). A pixel
whose cone meets nothing is background for certain; in the others a square grid of rays sets out
from where the cone stopped, each as far at a time as the distance to the surface allows (Hart,
"Sphere Tracing", 1996).

A colour depends on the place alone, never on the viewer: a radiance field without view directions
can hold the whole figure.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Bool, Float, Int
from rendering.cameras import Cameras, Patch
from toys.anatomy import FIGURE_RADIUS
from toys.scenes import Figures

TOLERANCE = 1e-4  # a ray this close to the surface has met it
MAX_STEPS = 240  # no more is needed: a ray still under way then meets nothing
CONE_SLACK = 0.1  # a cone is stopped when it is this share of its radius short of the surface
STEPS_PER_ROUND = 4  # between two clearings of rays that have ended
RAYS_AT_ONCE = 2**18
NORMAL_STEP = 5e-4  # of the differences that slopes are measured with
LEAST_COSINE = 0.1  # of ray and normal, where the last gap is closed
LAMP = (0.36, 0.86, 0.36)  # unit vector towards the lamp, which stands still in the world
SHADE = 0.66  # brightness of a surface that faces away from the lamp
CREASE_REACH = 0.06  # another surface this close to a point takes light from it
CREASE_SHADE = 0.8  # brightness at the bottom of a crease


@dataclass(frozen=True)
class ToyRendering:
    """Pictures on white with their geometry, laid out as `rendering.renderer.Rendering`.

    All are means over the rays of a pixel; with one ray per pixel they are exact. `image` is in
    [-1, 1]; `depth` is the distance along the ray, zero where it meets nothing, and so, as the
    renderer's, not divided by `opacity`; `normals` are of unit length in world space, zero where
    `opacity` is.
    """

    image: Float[Tensor, "batch 3 height width"]
    depth: Float[Tensor, "batch height width"]
    opacity: Float[Tensor, "batch height width"]
    normals: Float[Tensor, "batch 3 height width"]


@torch.no_grad()
def render_figures(
    figures: Figures, cameras: Cameras, resolution: int, samples: int = 3
) -> ToyRendering:
    """One picture of each figure through its camera, with `samples` squared rays per pixel.

    Figures and cameras must be on the same device; cameras must stand outside the figures.
    """
    if len(figures) != len(cameras):
        raise ValueError(
            f"need one camera per figure, got {len(figures)} figures and {len(cameras)} cameras"
        )
    if resolution < 2 or samples < 1:
        raise ValueError(
            f"resolution must be at least 2 and samples 1, got {resolution} and {samples}"
        )
    if (nearest := cameras.origin.norm(dim=-1).min()) <= FIGURE_RADIUS:
        raise ValueError(f"cameras must be farther away than {FIGURE_RADIUS}, got {nearest:.3g}")
    batch = max(1, RAYS_AT_ONCE // (resolution * samples) ** 2)
    parts = [
        _render(figures[i : i + batch], cameras[i : i + batch], resolution, samples)
        for i in range(0, len(figures), batch)
    ]
    return ToyRendering(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _render(
    figures: Figures, cameras: Cameras, resolution: int, samples: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, depth, opacity and normals of a few figures."""
    far = cameras.origin.norm(dim=-1, keepdim=True) + FIGURE_RADIUS
    start = (far - 2 * FIGURE_RADIUS).expand(-1, resolution**2)
    corner = math.sqrt(2) * torch.tan(torch.deg2rad(cameras.fov) / 2) / (resolution - 1)
    rays = cameras.rays(resolution, resolution)
    start = _march(figures, *rays, start, far, spread=corner[:, None])

    start = start.reshape(-1, resolution, resolution)
    start = start.repeat_interleave(samples, 1).repeat_interleave(samples, 2).flatten(1)
    fine = resolution * samples
    rays = cameras.rays(fine, fine, _sample_window(cameras, resolution, samples))
    depth = _march(figures, *rays, start, far, spread=0.0)
    colour, depth, normals = _shade(figures, *rays, depth)

    def pixels(values: Tensor) -> Tensor:
        boxes = values.reshape(len(values), resolution, samples, resolution, samples, -1)
        return boxes.mean(dim=(2, 4)).movedim(-1, 1)

    opacity = pixels((depth > 0).to(depth))[:, 0]
    image = 2 * pixels(colour) - 1
    return image, pixels(depth)[:, 0], opacity, F.normalize(pixels(normals), dim=1)


def _march(
    figures: Figures,
    origins: Float[Tensor, "batch rays 3"],
    directions: Float[Tensor, "batch rays 3"],
    start: Float[Tensor, "batch rays"],
    far: Float[Tensor, "batch 1"],
    spread: Float[Tensor, "batch 1"] | float,
) -> Float[Tensor, "batch rays"]:
    """Distance at which each ray, widened to a cone of radius `spread` x distance, meets a surface.

    Infinite where nothing lies before `far`, or where `start` is infinite. Going on by s needs
    s + spread (t + s) of free space around the point at t: the cone's end lies inside it.
    """
    result, origin = torch.full_like(start, math.inf), origins[:, :1]
    rays = _front(start.isfinite())
    t, aim = _pick(start, rays), _pick(directions, rays)
    for _ in range(MAX_STEPS // STEPS_PER_ROUND):
        if rays.shape[1] == 0:
            break
        moving = t < far
        for _ in range(STEPS_PER_ROUND):
            gap = figures.distance(origin + t[..., None] * aim) - spread * t
            moving = (gap > TOLERANCE + CONE_SLACK * spread * t) & (t < far)
            t = torch.where(moving, t + gap / (1 + spread), t)
        result.scatter_(1, rays, t.masked_fill(moving | (t >= far), math.inf))
        front = _front(moving)
        rays, t, aim = (_pick(v, front) for v in (rays, t, aim))
    return result


def _shade(
    figures: Figures,
    origins: Float[Tensor, "batch rays 3"],
    directions: Float[Tensor, "batch rays 3"],
    depth: Float[Tensor, "batch rays"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour, depth and normal of all rays: white, zero and zero where `depth` is infinite.

    What is left of a ray's way to the surface is closed here, along its slope.
    """
    seen = depth.isfinite()
    rays = _front(seen)
    aim, t = _pick(directions, rays), _pick(depth.where(seen, 0), rays)
    points = origins[:, :1] + t[..., None] * aim
    gap, part = figures.signed_distance(points)
    normal = _normals(figures, points)
    facing = -(normal * aim).sum(-1)
    t = t + gap / facing.clamp_min(LEAST_COSINE)

    albedo = figures.colours.gather(1, part[..., None].expand(*part.shape, 3))
    lit = 0.5 + 0.5 * (normal * normal.new_tensor(LAMP)).sum(-1)
    room = (figures.distance(points + CREASE_REACH * normal) / CREASE_REACH).clamp(0, 1)
    light = (SHADE + (1 - SHADE) * lit) * (CREASE_SHADE + (1 - CREASE_SHADE) * room)

    met = _pick(seen, rays)
    return (
        _put(torch.ones_like(directions), rays, met, albedo * light[..., None]),
        _put(torch.zeros_like(depth), rays, met, t),
        _put(torch.zeros_like(directions), rays, met, normal),
    )


def _normals(figures: Figures, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 3"]:
    """Unit slopes of the distance, from its values at the corners of a small tetrahedron."""
    corners = points.new_tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    slope = torch.zeros_like(points)
    for corner in corners:
        slope += corner * figures.distance(points + NORMAL_STEP * corner)[..., None]
    return F.normalize(slope, dim=-1)


def _sample_window(cameras: Cameras, resolution: int, samples: int) -> Patch:
    """The window whose rays, `samples` per pixel and side, fill the area of every pixel evenly.

    It is wider than the image by what the outermost pixels reach beyond the border.
    """
    scale = torch.full_like(cameras.fov, 1 + (1 - 1 / samples) / (resolution - 1))
    return Patch(scale, (0.5 * (1 - scale))[:, None].expand(-1, 2))


def _front(wanted: Bool[Tensor, "batch rays"]) -> Int[Tensor, "batch picked"]:
    """Indices of the wanted rays of each row, in order; rows with fewer get others at the end."""
    order = wanted.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    return order[:, : int(wanted.sum(1).max())]


def _pick(values: Tensor, rays: Int[Tensor, "batch picked"]) -> Tensor:
    """Select rays along the second axis."""
    return values.gather(1, _spread(rays, values))


def _put(
    canvas: Tensor,
    rays: Int[Tensor, "batch picked"],
    met: Bool[Tensor, "batch picked"],
    values: Tensor,
) -> Tensor:
    """Write the values of those picked rays that have met something back to where they belong."""
    values = values.where(_spread(met, values), _pick(canvas, rays))
    return canvas.scatter(1, _spread(rays, values), values)


def _spread(rows: Tensor, like: Tensor) -> Tensor:
    """Give (batch, rays) the last axis of `like`, if it has one."""
    return rows if like.ndim == 2 else rows[..., None].expand(*rows.shape, like.shape[-1])

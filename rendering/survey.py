"""What cameras see of a scene's density: where its surface is, and how much room it takes.

A fuzzy density has no surface of its own. The one that pictures show lies where half of a ray's
light is absorbed; `surface_level` picks the density whose level set comes closest to it, so that a
mesh has the silhouettes and the depths of the renderings.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.shapes import Float
from rendering.cameras import Cameras, Patch
from rendering.compositing import activate_density, transmittance
from rendering.grid import Density
from rendering.settings import RenderSettings

RAYS = 12  # per side of a camera's picture
SAMPLES = 64  # along a ray
LEVELS = 64  # densities to choose from
FIT = 2.0  # how many times the smallest error a density may have to guide the choice


@dataclass(frozen=True)
class Survey:
    """Raw densities along rays, and the depth at which each ray's light is half gone.

    `half` is infinite where more than half of it passes.
    """

    origins: Float[Tensor, "rays 3"]
    directions: Float[Tensor, "rays 3"]
    t: Float[Tensor, " samples"]
    raw: Float[Tensor, "rays samples"]
    half: Float[Tensor, " rays"]


@torch.no_grad()
def survey(
    density: Density,
    cameras: Cameras,
    settings: RenderSettings,
    *,
    rays: int = RAYS,
    samples: int = SAMPLES,
) -> Survey:
    """Look along `rays` x `rays` rays of every camera, between the settings' ends.

    Each camera's rays are shifted by another part of their spacing: cameras that circle a round
    object would see its outline fall between the same two rays again and again.
    """
    t = torch.linspace(
        settings.ray_start, settings.ray_end, samples, device=cameras.cam2world.device
    )
    shift = torch.rand(len(cameras), 2, generator=torch.Generator().manual_seed(0)) / rays
    window = Patch(torch.full((len(cameras),), 1 - 1 / rays), shift)
    origins, directions = (part.flatten(0, 1) for part in cameras.rays(rays, rays, window))
    raw = torch.cat(
        [
            density((o[:, None] + d[:, None] * t[:, None]).flatten(0, 1)).reshape(len(o), samples)
            for o, d in zip(origins.split(rays**2), directions.split(rays**2), strict=True)
        ]
    )
    active = activate_density(raw, settings.clamp_mode)
    absorbed = 1 - transmittance(active[None], t.expand(1, len(raw), -1))[0]
    return Survey(origins, directions, t, raw, _first_above(absorbed, t, 0.5))


def surface_level(seen: Survey, settings: RenderSettings) -> float:
    """Density whose level set the rays enter as close as possible to where light is half gone.

    A ray that meets only one of the two is as wrong as can be, so silhouettes come first; depths
    count by the square of how far apart they are. Where nothing is opaque: the middle of the
    densest tenth, which has a surface though no picture shows it. Raises ValueError if the density
    is the same everywhere.
    """
    lowest, highest = float(seen.raw.min()), float(seen.raw.max())
    if not lowest < highest:
        raise ValueError(f"no surface: the density is {lowest:.6g} everywhere")
    if not bool(seen.half.isfinite().any()):
        dense = float(_quantiles(seen.raw.flatten(), seen.raw.new_tensor([0.9])))
        return ((dense if dense < highest else lowest) + highest) / 2
    span = float(seen.t[-1] - seen.t[0])
    # a ray all through such a density would lose some light at least
    shows = activate_density(seen.raw, settings.clamp_mode) * span > 0.1
    ranks = (torch.arange(LEVELS, device=seen.raw.device) + 0.5) / LEVELS
    candidates = _quantiles(seen.raw[shows], ranks)
    reached = seen.raw.cummax(dim=1).values
    errors = [_disagreement(_first_above(reached, seen.t, c), seen.half, span) for c in candidates]
    return _smooth_minimum(candidates.double().cpu(), torch.stack(errors).double().cpu())


def enclosing_cube(seen: Survey) -> float:
    """Side of the cube around the origin that holds everything opaque on the rays, and a margin.

    The margin is what may lie between rays and samples. Where nothing is opaque: the cube that
    holds the rays between their ends.
    """
    hit = seen.half.isfinite()
    if not bool(hit.any()):
        ends = [seen.origins + seen.directions * t for t in (seen.t[0], seen.t[-1])]
        return 2 * float(torch.cat(ends).abs().max())
    points = seen.origins[hit] + seen.directions[hit] * seen.half[hit, None]
    spacing = float((seen.directions[0] - seen.directions[1]).norm() * seen.half[hit].max())
    step = float(seen.t[1] - seen.t[0])
    return 2 * (float(points.abs().max()) + max(spacing, step))


def _first_above(
    values: Float[Tensor, "rays samples"], t: Float[Tensor, " samples"], level: float | Tensor
) -> Float[Tensor, " rays"]:
    """Depth at which ascending values first exceed a level, linear in between; else infinite."""
    above = values > level
    index = above.to(torch.uint8).argmax(dim=1)
    before = (index - 1).clamp(min=0)
    high, low = (values.gather(1, i[:, None])[:, 0] for i in (index, before))
    share = torch.where(high > low, (level - low) / (high - low).clamp(min=1e-30), 0).clamp(0, 1)
    depth = torch.lerp(t[before], t[index], share)
    return torch.where(above.any(dim=1), depth, math.inf)


def _disagreement(a: Tensor, b: Tensor, span: float) -> Tensor:
    """Mean squared distance of depths in spans, 1 where only one of them is finite."""
    apart = torch.where(a.isfinite() & b.isfinite(), ((a - b) / span).square(), 1.0)
    return torch.where(a.isinf() & b.isinf(), 0.0, apart).mean()


def _smooth_minimum(x: Tensor, y: Tensor) -> float:
    """Where the parabola through the surroundings of the smallest y is lowest.

    Few rays decide between neighbouring candidates: a fit halves the scatter that this leaves.
    """
    best = int(y.argmin())
    good = y <= FIT * y[best]
    first = best - int(good[: best + 1].flip(0).int().cumprod(0).sum()) + 1
    last = best + int(good[best:].int().cumprod(0).sum()) - 1
    x, y, choice = x[first : last + 1], y[first : last + 1], float(x[best])
    if len(x) < 4 or float(x[-1] - x[0]) == 0:
        return choice
    powers = torch.stack([torch.ones_like(x), x, x.square()], dim=1)
    _, slope, bend = torch.linalg.lstsq(powers, y).solution.tolist()
    return min(max(-slope / (2 * bend), float(x[0])), float(x[-1])) if bend > 0 else choice


def _quantiles(values: Tensor, ranks: Tensor) -> Tensor:
    """`torch.quantile` for any number of values, without interpolation."""
    ordered = values.sort().values
    return ordered[(ranks * (len(ordered) - 1)).round().long()]

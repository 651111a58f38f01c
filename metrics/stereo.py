"""Could the pictures of a scene show one solid thing? For generators that know no depth.

For every pixel of one view, all distances along its ray are tried, and the one is taken at which
other views show most nearly the same colours around that place: what is then left of the colours'
variance cannot be explained by any surface. A generator without geometry is judged as one with it;
the number flatters both, since each pixel chooses, so it is to be read beside what a picture scores
that stays the same from all sides.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.appearance import APART
from metrics.geometry import LEAST_CONTRAST, project
from ops.shapes import Float

DISTANCES = 48  # along a ray
WINDOW = 3  # pixels per side of what is compared


class Seen(NamedTuple):
    """Pictures in [-1, 1] and the cameras that they are taken with."""

    images: Float[Tensor, "views 3 height width"]
    cam2world: Float[Tensor, "views 4 4"]
    fov: Float[Tensor, " views"]  # degrees


def stereo_consistency(
    source: Float[Tensor, "views 3 height width"],  # pictures in [-1, 1]
    others: Sequence[Seen],  # for each of them, one or more others of the same scene
    origins: Float[Tensor, "views pixels 3"],  # of the source pixels' rays, row-major
    directions: Float[Tensor, "views pixels 3"],  # of unit length
    near: float,
    far: float,
    *,
    ground: float | None = 1.0,  # grey of the background, which does not count; None: all counts
) -> float | None:
    """Share of the source's colour variance that surfaces could explain; None if it is all ground.

    A surface is to explain all `others` at once. 1 is a scene that could be solid. Never less
    than -1.
    """
    height, width = source.shape[2:]
    best = torch.full_like(source[:, 0], torch.inf)
    for distance in torch.linspace(near, far, DISTANCES).tolist():
        points = origins + distance * directions
        error = torch.stack([_difference(source, seen, points) for seen in others]).mean(0)
        around = F.avg_pool2d(error[:, None], WINDOW, 1, WINDOW // 2, count_include_pad=False)
        best = torch.minimum(best, around[:, 0])
    shown = torch.ones_like(best, dtype=torch.bool)
    if ground is not None:
        shown = (source - ground).abs().amax(1) > 2 * APART
    if not shown.any():
        return None
    surface = (source / 2).permute(0, 2, 3, 1)[shown]
    variance = (surface - surface.mean(0)).square().mean().clamp(min=LEAST_CONTRAST**2)
    return max(-1.0, 1 - float(best[shown].mean() / variance))


def _difference(source: Tensor, seen: Seen, points: Tensor) -> Tensor:
    """Mean squared difference of colours, shares of their range, at the pixels' points."""
    height, width = source.shape[2:]
    place = project(points, seen.cam2world, seen.fov)
    inside = (place.abs() <= 1).all(-1).reshape(-1, height, width)
    grid = (place.clamp(-2, 2) * place.new_tensor([1, -1])).reshape(-1, height, width, 2)
    found = F.grid_sample(seen.images, grid, align_corners=True, padding_mode="border")
    return torch.where(inside, ((found - source) / 2).square().mean(1), 1.0)

"""Where a fit starts: trials in small pictures, of which the promising ones go on.

A fit from the average may end in a dead end, and the noise on it decides in which. And which side
of a thing a picture shows cannot be judged with the average style, which has no face: who sits
there decides which side is the front. So every trial has a style of its own, from its own noise,
and a camera, its own where that is looked for; the best of them go on (successive halving).
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from generators import Generator
from inference.inversion import SCHEDULES, average_style, fit_style
from ops.shapes import Float
from rendering.cameras import Cameras
from rendering.settings import PoseLaw, RenderSettings

SIZE = 16  # pixels per side of the pictures that are compared
DRAWS = 1024  # cameras of the law that candidates are chosen from
NOISE = 0.1  # on the coordinates in what follows a search, which has been over the large bumps

Rounds = tuple[tuple[int, int, float], ...]  # trials, steps of each, and noise at first
STYLE_ROUNDS: Rounds = ((8, 100, 0.6), (2, 100, NOISE))
POSE_ROUNDS: Rounds = ((24, 25, NOISE), (8, 50, NOISE), (3, 100, NOISE))


def find_start(
    generator: Generator,
    target: Float[Tensor, "1 3 height width"],
    cameras: Cameras,
    settings: RenderSettings,
    directions: Tensor,
    *,
    fit_pose: bool,
    rounds: Rounds,
    prior: float = 0.0,
    start: Tensor | None = None,
) -> tuple[Tensor, Cameras]:
    """The style and the camera that fit best after `rounds`; a camera is a trial of the first.

    `prior` as in `Schedule`; `directions` are those of `principal_directions`. The search is the
    same on every call.
    """
    size = generator.resolution or min(SIZE, settings.resolution)
    settings = replace(settings, resolution=size)
    small = F.interpolate(target, (size, size), mode="area")
    w = average_style(generator) if start is None else start
    w = w.expand(len(cameras), *w.shape[1:])
    rng = torch.Generator().manual_seed(0)
    for trials, steps, noise in rounds:
        best = _ranked(generator, w, cameras, settings, small)[:trials]
        w, cameras = fit_style(
            generator,
            small,
            cameras[best],
            settings,
            schedule=replace(SCHEDULES["principal"], steps=steps, noise=noise, prior=prior),
            directions=directions,
            fit_pose=fit_pose,
            start=w[best],
            rng=rng,
        )
    best = _ranked(generator, w, cameras, settings, small)[:1]
    return w[best], cameras[best]


def spread_cameras(law: PoseLaw, count: int) -> Cameras:
    """Cameras of a law that are as far from each other as they can be, greedily."""
    drawn = Cameras.sample(law, DRAWS, torch.Generator().manual_seed(0))
    chosen = [0]
    nearest = torch.full((DRAWS,), torch.inf)
    for _ in range(count - 1):
        nearest = nearest.minimum((drawn.origin - drawn.origin[chosen[-1]]).norm(dim=-1))
        chosen.append(int(nearest.argmax()))
    return drawn[torch.tensor(chosen)]


@torch.no_grad()
def _ranked(
    generator: Generator, w: Tensor, cameras: Cameras, settings: RenderSettings, target: Tensor
) -> Tensor:
    """The indices of styles and cameras, best first."""
    images = [generator.synthesis(w[i : i + 1], camera, settings).image
              for i, camera in enumerate(cameras)]  # fmt: skip
    return torch.stack([F.mse_loss(image, target) for image in images]).argsort()

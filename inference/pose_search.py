"""Which side of a thing a picture shows: cameras tried out, and the promising ones fitted.

The average style has no face, so a camera cannot be judged by it alone: who sits there decides
which side is the front. So every candidate gets a style of its own, fitted for a while in a small
picture; the best half of them go on, and so on (successive halving).
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from generators import Generator
from generators.base import RadianceGenerator
from inference.inversion import SCHEDULES, average_style, fit_style
from ops.shapes import Float
from rendering.cameras import Cameras
from rendering.settings import PoseLaw, RenderSettings

SIZE = 16  # pixels per side of the pictures that are compared
ROUNDS = ((24, 25), (8, 50), (3, 100))  # trials, and steps that each is fitted for
DRAWS = 1024  # cameras of the law that candidates are chosen from
NOISE = 0.1  # on the coordinates, at first


def sees_cameras(generator: Generator, settings: RenderSettings) -> bool:
    """Whether the picture changes with the camera."""
    if isinstance(generator, RadianceGenerator):
        return True
    w = average_style(generator)
    device = generator.w_avg.device
    with torch.no_grad():
        one, other = (
            generator.synthesis(w, Cameras.from_angles(yaw, 1.4, 30.0).to(device), settings).image
            for yaw in (1.2, 1.9)
        )
    return not torch.allclose(one, other, atol=1e-4)


def find_pose(
    generator: Generator,
    target: Float[Tensor, "1 3 height width"],
    law: PoseLaw,
    settings: RenderSettings,
    directions: Tensor,
    *,
    rounds: tuple[tuple[int, int], ...] = ROUNDS,
    start: Tensor | None = None,
) -> tuple[Tensor, Cameras]:
    """A style and a camera to start from: of poses that the law allows, the one that fits best.

    `directions` are those of `principal_directions`. The search is the same on every call.
    """
    size = generator.resolution or min(SIZE, settings.resolution)
    settings = replace(settings, resolution=size)
    small = F.interpolate(target, (size, size), mode="area")
    cameras = spread_cameras(law, rounds[0][0]).to(generator.w_avg.device)
    w = average_style(generator) if start is None else start
    w = w.expand(len(cameras), *w.shape[1:])
    for trials, steps in rounds:
        best = _ranked(generator, w, cameras, settings, small)[:trials]
        w, cameras = fit_style(
            generator,
            small,
            cameras[best],
            settings,
            schedule=replace(SCHEDULES["principal"], steps=steps, noise=NOISE),
            directions=directions,
            fit_pose=True,
            start=w[best],
            rng=torch.Generator().manual_seed(0),
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

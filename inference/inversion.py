"""From a picture back to a latent: fit a style, a camera, and at last the generator's weights.

A style is fitted as an offset from the average one (pi-GAN's inversion): Adam with weight decay
keeps it near, noise that dies down carries it over small bumps. What a style cannot say, the
weights can learn: pivotal tuning (Roich et al. 2021) holds the fitted style and moves the weights
around it.

Losses compare pictures (1, 3, N, N) in [-1, 1].
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from generators import Generator
from ops.shapes import Float
from rendering.cameras import Cameras
from rendering.settings import PoseLaw, RenderSettings

Loss = Callable[[Tensor, Tensor], Tensor]
Watch = Callable[[int, Tensor, Cameras], None]  # the step done, style and camera so far

SEARCH_SIZE = 32  # pixels per side of the pictures that poses are searched with
SEARCH_STEPS = 100  # of fitting, for each of the best poses
SEARCH_TRIALS = 4  # poses that are fitted


@dataclass(frozen=True)
class Schedule:
    """How a style is fitted; the defaults are the original's, whose poses are fixed."""

    steps: int = 700
    lr: float = 1e-2  # of the style
    pose_lr: float = 1e-2  # of yaw and pitch, radians
    weight_decay: float = 1e-4  # of the style's offset, not of the pose
    decay: float = 0.75  # the learning rates fall by this factor ...
    decay_times: int = 7  # ... so many times in equal intervals, the last at the end
    noise: float = 0.03  # standard deviation of the noise on the style, at first


def psnr(image: Tensor, target: Tensor) -> float:
    """Peak signal to noise ratio in decibels of pictures in [-1, 1]."""
    error = F.mse_loss(image.float(), target.float()).item()
    return math.inf if error == 0 else 10 * math.log10(4 / error)


def fit_style(
    generator: Generator,
    target: Float[Tensor, "1 3 height width"],
    cameras: Cameras,
    settings: RenderSettings,
    *,
    loss: Loss = F.mse_loss,
    schedule: Schedule = Schedule(),
    fit_pose: bool = False,
    start: Tensor | None = None,
    rng: torch.Generator | None = None,
    watch: Watch | None = None,
) -> tuple[Tensor, Cameras]:
    """Fit a style (1, ...), from `start` or the average, and with `fit_pose` the camera.

    The camera keeps its field of view and its distance. `rng` draws the noise, on the CPU; `watch`
    is called after every step.
    """
    first = generator.w_avg[None] if start is None else start.detach()
    offset = torch.zeros_like(first).requires_grad_()
    pose = cameras.yaw_pitch.detach().clone().requires_grad_(fit_pose)
    fov, radius = cameras.fov.detach(), cameras.origin.detach().norm(dim=-1)
    groups = [{"params": [offset], "lr": schedule.lr, "weight_decay": schedule.weight_decay}]
    if fit_pose:
        groups.append({"params": [pose], "lr": schedule.pose_lr, "weight_decay": 0.0})
    optimizer = torch.optim.Adam(groups)
    interval = max(schedule.steps // schedule.decay_times, 1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, interval, schedule.decay)
    with _frozen(generator):
        for step in range(schedule.steps):
            fading = schedule.noise * (schedule.steps - step) / schedule.steps
            noise = torch.randn(offset.shape, generator=rng).to(offset)
            if fit_pose:
                cameras = Cameras.from_angles(pose[:, 0], pose[:, 1], fov, radius)
            image = generator.synthesis(first + offset + fading * noise, cameras, settings).image
            optimizer.zero_grad()
            loss(image, target).backward()
            optimizer.step()
            scheduler.step()
            if watch is not None:
                seen = Cameras.from_angles(*pose.detach().unbind(-1), fov, radius)
                watch(step + 1, (first + offset).detach(), seen)
    if fit_pose:
        cameras = Cameras.from_angles(*pose.detach().unbind(-1), fov, radius)
    return (first + offset).detach(), cameras


@torch.no_grad()
def find_pose(
    generator: Generator,
    target: Float[Tensor, "1 3 height width"],
    law: PoseLaw,
    settings: RenderSettings,
    *,
    candidates: int = 64,
) -> Cameras:
    """A camera to start from: of poses that the law draws, the one that fits best.

    The average style sorts out most of them; to the best few, styles and poses are fitted in small
    pictures for a while, since who sits there decides which side is the front.
    """
    settings = replace(settings, resolution=min(SEARCH_SIZE, settings.resolution))
    small = F.interpolate(target, (settings.resolution,) * 2, mode="area")
    device = generator.w_avg.device
    cameras = Cameras.sample(law, candidates, torch.Generator().manual_seed(0)).to(device)
    w = generator.w_avg[None]
    errors = [F.mse_loss(generator.synthesis(w, c, settings).image, small) for c in cameras]
    best = torch.stack(errors).topk(min(SEARCH_TRIALS, candidates), largest=False).indices
    fitted = []
    for i in best.tolist():
        with torch.enable_grad():
            style, camera = fit_style(
                generator,
                small,
                cameras[i],
                settings,
                schedule=Schedule(steps=SEARCH_STEPS, noise=0.0),
                fit_pose=True,
            )
        error = F.mse_loss(generator.synthesis(style, camera, settings).image, small)
        fitted.append((float(error), camera))
    return min(fitted, key=lambda pair: pair[0])[1]


def tune_weights(
    generator: Generator,
    target: Float[Tensor, "1 3 height width"],
    w: Tensor,
    cameras: Cameras,
    settings: RenderSettings,
    *,
    steps: int,
    lr: float = 3e-4,
    loss: Loss = F.mse_loss,
    watch: Watch | None = None,
) -> None:
    """Move the weights behind the style, in place, until they show the picture at this style.

    The mapping network stays: it has no part in the picture.
    """
    mapping = {id(p) for p in generator.mapping_parameters()}
    weights = [p for p in generator.parameters() if id(p) not in mapping]
    before = [p.requires_grad for p in weights]
    for parameter in weights:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(weights, lr=lr)
    try:
        for step in range(steps):
            image = generator.synthesis(w, cameras, settings).image
            optimizer.zero_grad()
            loss(image, target).backward()
            optimizer.step()
            if watch is not None:
                watch(step + 1, w, cameras)
    finally:
        for parameter, wanted in zip(weights, before, strict=True):
            parameter.requires_grad_(wanted)
            parameter.grad = None


@contextmanager
def _frozen(generator: Generator) -> Iterator[None]:
    """No gradients for the weights: they would cost as much again as those of the style."""
    wanted = [p for p in generator.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)

"""From a picture back to a latent: fit a style, a camera, and at last the generator's weights.

A style is fitted as an offset from a start, the average style: Adam, with a learning rate that
falls in seven falls and noise on the style that dies down and carries it over bumps (pi-GAN's
inversion). The offset is either free, a number for every number of the style, as there; or it has
coordinates along the principal directions of the styles that the mapping network makes, in units of
their spread. A picture shows one side, and free offsets buy a likeness of that side with a back
that nobody has; among the natural directions, what fits one side fits the others. A generator that
has learned to turn pictures without any geometry does so only for styles like those it was trained
on: there a `prior` keeps the coordinates near the average.

What no style can say, the weights can learn: pivotal tuning (Roich et al. 2021) holds the fitted
style and moves the weights around it.

Losses compare pictures (1, 3, N, N) in [-1, 1].
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from generators import Generator
from ops.shapes import Float
from rendering.cameras import Cameras
from rendering.settings import RenderSettings

Loss = Callable[[Tensor, Tensor], Tensor]
Watch = Callable[[int, Tensor, Cameras], None]  # the step done, styles and cameras so far

STYLE_SAMPLES = 1024  # styles that principal directions are computed from
MAX_DIRECTIONS = 512
SMALLEST_SPREAD = 1e-4  # of a direction, as a share of the largest; below it is rounding


@dataclass(frozen=True)
class Schedule:
    """How a style is fitted; rate, decay and noise are in the units of the coordinates."""

    steps: int = 700
    lr: float = 1e-2  # of the coordinates
    pose_lr: float = 1e-2  # of yaw and pitch, radians
    weight_decay: float = 1e-4  # of the coordinates, not of the pose
    decay: float = 0.75  # the learning rates fall by this factor ...
    decay_times: int = 7  # ... so many times in equal intervals, the last at the end
    noise: float = 0.03  # standard deviation of the noise on the coordinates, at first
    noise_share: float = 1.0  # share of the steps over which it fades to nothing
    prior: float = 0.0  # times the mean square of the coordinates, from the average: adds to losses


# the defaults of both kinds of coordinates; the original's are free
SCHEDULES = {
    "principal": Schedule(steps=400, lr=0.1, weight_decay=0.0, noise=0.6, noise_share=0.5),
    "free": Schedule(),
}
FLAT_PRIOR = 0.03  # of generators that see cameras and have no geometry


def psnr(image: Tensor, target: Tensor) -> float:
    """Peak signal to noise ratio in decibels of pictures in [-1, 1]."""
    error = F.mse_loss(image.float(), target.float()).item()
    return math.inf if error == 0 else 10 * math.log10(4 / error)


@torch.no_grad()
def average_style(generator: Generator) -> Tensor:
    """The style (1, ...) in the middle of all."""
    return _draw_styles(generator, 1, psi=0.0)


@torch.no_grad()
def principal_directions(generator: Generator, samples: int = STYLE_SAMPLES) -> Tensor:
    """The directions (k, ...) in which styles differ, widest first, each as long as its spread.

    Spread is the standard deviation over random latents, the same ones on every call.
    """
    w = _draw_styles(generator, samples)
    centred = (w - w.mean(0)).flatten(1)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    spread = values / math.sqrt(samples - 1)
    kept = int((spread > SMALLEST_SPREAD * spread[0]).sum().clamp(max=MAX_DIRECTIONS))
    if kept == 0:
        raise ValueError("this generator makes one style only, so there is nothing to fit along")
    return (spread[:kept, None] * directions[:kept]).reshape(kept, *w.shape[1:])


def _draw_styles(generator: Generator, count: int, psi: float = 1.0) -> Tensor:
    """Styles of fixed random latents, and of fixed random classes if there are any."""
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(count, generator.latent_dim, generator=rng).to(generator.w_avg)
    label = None
    if generator.label_dim:
        classes = torch.randint(generator.label_dim, (count,), generator=rng)
        label = F.one_hot(classes, generator.label_dim).to(z)
    return generator.mapping(z, label, psi=psi)


def coordinates(
    offset: Float[Tensor, "batch ..."], directions: Float[Tensor, "directions ..."]
) -> Float[Tensor, "batch directions"]:
    """Of offsets along orthogonal directions, in units of their lengths."""
    flat = directions.flatten(1)
    return offset.flatten(1) @ flat.T / flat.square().sum(1)


def fit_style(
    generator: Generator,
    target: Float[Tensor, "1 3 height width"],
    cameras: Cameras,
    settings: RenderSettings,
    *,
    loss: Loss = F.mse_loss,
    schedule: Schedule = Schedule(),
    directions: Tensor | None = None,
    fit_pose: bool = False,
    start: Tensor | None = None,
    rng: torch.Generator | None = None,
    watch: Watch | None = None,
) -> tuple[Tensor, Cameras]:
    """Fit a style to the picture for each camera, and with `fit_pose` the cameras too.

    Every camera is a trial of its own, from the style(s) `start` or else the average. The offset
    lies along `directions` (k, ...), or is free; only the former can have a prior. Cameras keep
    field of view and distance. `rng` draws the noise, on the CPU; `watch` is called after every
    step.
    """
    middle = average_style(generator) if start is None or schedule.prior else start
    first = middle if start is None else start.detach()
    first = first.expand(len(cameras), *first.shape[1:])
    begun = None  # coordinates from the average
    if schedule.prior:
        if directions is None:
            raise ValueError("a prior is of coordinates along directions: free offsets have none")
        begun = coordinates(first - middle, directions)
    shape = first.shape if directions is None else (len(first), len(directions))
    x = torch.zeros(shape, device=first.device).requires_grad_()
    pose = cameras.yaw_pitch.detach().clone().requires_grad_(fit_pose)
    fov, radius = cameras.fov.detach(), cameras.origin.detach().norm(dim=-1)
    groups = [{"params": [x], "lr": schedule.lr, "weight_decay": schedule.weight_decay}]
    if fit_pose:
        groups.append({"params": [pose], "lr": schedule.pose_lr, "weight_decay": 0.0})
    optimizer = torch.optim.Adam(groups)
    interval = max(schedule.steps // schedule.decay_times, 1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, interval, schedule.decay)

    def style(at: Tensor) -> Tensor:
        return first + (at if directions is None else torch.tensordot(at, directions, dims=1))

    def place(angles: Tensor) -> Cameras:
        return Cameras.from_angles(angles[:, 0], angles[:, 1], fov, radius) if fit_pose else cameras

    with _frozen(generator):
        for step in range(schedule.steps):
            faded = step / (schedule.noise_share * schedule.steps)
            fading = schedule.noise * max(0.0, 1 - faded)
            noise = torch.randn(x.shape, generator=rng).to(x)
            images = generator.synthesis(style(x + fading * noise), place(pose), settings).image
            error = torch.stack([loss(image[None], target) for image in images]).sum()
            if begun is not None:
                error = error + schedule.prior * (begun + x).square().mean(1).sum()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            scheduler.step()
            if watch is not None:
                watch(step + 1, style(x).detach(), place(pose.detach()))
    return style(x).detach(), place(pose.detach())


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
    sides: Cameras | None = None,
    locality: float = 0.1,
    watch: Watch | None = None,
) -> None:
    """Move the weights behind the style, in place, until they show the picture at this style.

    What the style looks like from `sides`, one of them in each step, counts `locality` times if it
    changes (the locality term of pivotal tuning, for other cameras in place of other styles). The
    mapping network stays: it has no part in the picture.
    """
    with torch.no_grad():
        before_sides = [generator.synthesis(w, c, settings).image for c in sides or ()]
    mapping = {id(p) for p in generator.mapping_parameters()}
    weights = [p for p in generator.parameters() if id(p) not in mapping]
    before = [p.requires_grad for p in weights]
    for parameter in weights:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(weights, lr=lr)
    try:
        for step in range(steps):
            error = loss(generator.synthesis(w, cameras, settings).image, target)
            if sides is not None:
                i = step % len(sides)
                image = generator.synthesis(w, sides[i], settings).image
                error = error + locality * F.mse_loss(image, before_sides[i])
            optimizer.zero_grad()
            error.backward()
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

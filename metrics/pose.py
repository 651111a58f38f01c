"""Pose accuracy: does a picture show the side that its camera looks from?

A small convolutional network learns yaw and pitch from the data set's pictures and exact cameras,
and then judges generated pictures. Its own error on pictures that it has not seen is the floor, and
the error of pictures exchanged among each other is chance. Angles are those of `rendering.cameras`;
yaw is a circle.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.shapes import Float, Int

SIDE = 32  # pixels that pictures are brought to
HELD_OUT = 0.1  # share of the pictures that measures the network itself
BATCH, STEPS, LEARNING_RATE = 64, 500, 2e-3
NOISE, SHADE = 0.1, 0.2  # augmentation: of pixels, and of whole pictures' brightness

Pictures = Callable[[Int[Tensor, " batch"]], Float[Tensor, "batch 3 height width"]]


class PoseRegressor(nn.Module):
    """Pictures in [-1, 1], of any size, to yaw and pitch."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = (3, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(8, after),
                nn.LeakyReLU(0.2),
            ]
        layers += [nn.Flatten(), nn.Linear(widths[-1] * (SIDE // 8) ** 2, 128), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers, nn.Linear(128, 3))
        self.pitch_mean = nn.Buffer(torch.zeros(()))
        self.pitch_std = nn.Buffer(torch.ones(()))

    def raw(self, images: Tensor) -> Tensor:
        """Cosine and sine of yaw, up to a common factor, and the standardised pitch."""
        return self.features(shrink(images))

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 2"]:
        """Yaw and pitch in radians."""
        cos, sin, pitch = self.raw(images).unbind(1)
        pitch = self.pitch_mean + self.pitch_std * pitch
        return torch.stack([torch.atan2(sin, cos), pitch], dim=1)


def shrink(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 side side"]:
    """Bring pictures to the size that the network looks at."""
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)


def train_pose_regressor(
    images: Float[Tensor, "n 3 height width"],
    yaw_pitch: Float[Tensor, "n 2"],
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> tuple[PoseRegressor, "PoseErrors"]:
    """Learn poses from pictures with exact cameras; also returns the errors on a tenth of them.

    That tenth, the last, is not learned from. The same arguments give the same network.
    """
    kept = len(images) - max(1, round(HELD_OUT * len(images)))
    if kept < 2:
        raise ValueError(f"learning poses needs pictures with cameras, got {len(images)}")
    device, images = images.device, shrink(images)
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PoseRegressor()
    network.to(device)
    yaw, pitch = yaw_pitch[:kept].unbind(1)
    network.pitch_mean.copy_(pitch.mean())
    network.pitch_std.copy_(pitch.std().clamp(min=1e-3))
    target = torch.stack([yaw.cos(), yaw.sin()], dim=1)
    height = (pitch - network.pitch_mean) / network.pitch_std
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    with torch.enable_grad():
        for _ in range(steps):
            index = torch.randint(kept, (BATCH,), generator=rng).to(device)
            output = network.raw(_vary(images[index], rng))
            alignment = F.cosine_similarity(output[:, :2], target[index])
            loss = (1 - alignment).mean() + 0.25 * F.mse_loss(output[:, 2], height[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False)
    return network, pose_errors(network(images[kept:]), yaw_pitch[kept:])


def _vary(images: Tensor, rng: torch.Generator) -> Tensor:
    """Noise and brightness, so that the network looks at shapes and not at a renderer's traces."""
    noise = torch.randn(images.shape, generator=rng).to(images)
    shade = torch.rand(len(images), 1, 1, 1, generator=rng).to(images)
    return images + NOISE * noise + SHADE * (2 * shade - 1)


@dataclass(frozen=True)
class PoseErrors:
    """Mean absolute errors in degrees, and what they are by chance.

    `yaw_offset` is the turn that all yaws have in common: a generator that never saw cameras may
    have learned the scene in another frame; `yaw_aligned` is the yaw error without it.
    """

    yaw: float
    pitch: float
    yaw_chance: float
    pitch_chance: float
    yaw_offset: float
    yaw_aligned: float


def pose_errors(predicted: Float[Tensor, "n 2"], actual: Float[Tensor, "n 2"]) -> PoseErrors:
    """Compare yaw and pitch in radians; chance is the error of all pairs of different pictures."""
    if len(predicted) != len(actual) or len(actual) < 2:
        raise ValueError(
            f"need two or more poses of each kind, got {len(predicted)} and {len(actual)}"
        )
    predicted, actual = predicted.double(), actual.double()
    count = len(actual)
    table = wrap(predicted[:, None] - actual[None])
    own = torch.diagonal(table).T  # (n, 2)
    chance = (table.abs().sum(dim=(0, 1)) - own.abs().sum(0)) / (count * (count - 1))
    offset = torch.atan2(own[:, 0].sin().mean(), own[:, 0].cos().mean())
    degrees = torch.rad2deg(
        torch.stack([*own.abs().mean(0), *chance, offset, wrap(own[:, 0] - offset).abs().mean()])
    )
    return PoseErrors(*degrees.tolist())


def wrap(angle: Tensor) -> Tensor:
    """The same angle within -pi..pi."""
    return (angle + math.pi).remainder(2 * math.pi) - math.pi

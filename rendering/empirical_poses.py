"""Cameras drawn from those of a data set, and what is checked of them before.

`sample_dist: "dataset"` of a curriculum: EpiGRAF and EG3D draw the cameras of generated pictures
from the poses of real ones. Where training flips real pictures, drawn cameras are mirrored as
often, so that both have one distribution.

Reports are for a person: numbers, what they mean, what to change. Yaw and roll are circles: their
means are circular, spreads and ranges are measured from the mean. Angles are radians, those of
`rendering.cameras`.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ops.shapes import Bool, Float, Int
from rendering.camera_labels import (
    cameras_from_labels,
    mirror_labels,
    orientation_angles,
    raw_cameras,
)
from rendering.cameras import Cameras

FRONTAL_YAW = math.pi / 2
SAME = 1e-3  # radians; a smaller spread is none
CENTRED = 0.1  # radians between mean yaw and frontal yaw that nobody minds
SPREAD_OUT = 0.5  # a shorter mean direction means that cameras stand all around


@dataclass(frozen=True)
class EmpiricalPoses:
    """The cameras of a data set's pictures, to draw from; on any device."""

    cameras: Cameras
    mirrored: Cameras  # of the flipped pictures
    mirror: float = 0.0  # probability that a drawn camera is a mirrored one

    @classmethod
    def from_angles(
        cls,
        angles: Float[Tensor, "batch 3"],  # yaw, pitch, roll
        fov: float,
        radius: float = 1.0,
        *,
        mirror: float = 0.0,
        frontal_yaw: float = FRONTAL_YAW,  # yaw of the cameras in the plane of symmetry
    ) -> "EmpiricalPoses":
        """Cameras that look at the origin from these angles."""
        yaw, pitch, roll = angles.unbind(1)
        cameras = Cameras.from_angles(yaw, pitch, fov, radius, roll)
        mirrored = Cameras.from_angles(2 * frontal_yaw - yaw, pitch, fov, radius, -roll)
        return cls(cameras, mirrored, mirror)

    @classmethod
    def from_labels(
        cls,
        labels: Float[Tensor, "batch 25"],
        *,
        mirror: float = 0.0,
        frontal_yaw: float = FRONTAL_YAW,
        up: str = "y",
    ) -> "EmpiricalPoses":
        """Cameras of camera labels; ValueError where `cameras_from_labels` refuses them."""
        flipped = mirror_labels(labels, frontal_yaw, up)
        return cls(cameras_from_labels(labels), cameras_from_labels(flipped), mirror)

    def __len__(self) -> int:
        return len(self.cameras)

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Cameras:
        """Draw `batch` cameras, as `Cameras.sample` does from a law."""
        return self.at(*self.draw(batch, generator))

    def draw(
        self, batch: int, generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """Places of pictures in the data set, and which of them to mirror.

        For whoever needs a picture's label along with its camera.
        """
        device = generator.device if generator is not None else torch.device("cpu")
        indices = torch.randint(len(self), (batch,), generator=generator, device=device)
        flips = torch.rand(batch, generator=generator, device=device) < self.mirror
        return indices, flips

    def at(self, indices: Int[Tensor, " batch"], flips: Bool[Tensor, " batch"]) -> Cameras:
        """The cameras of these pictures, mirrored where `flips` is set."""
        device = self.cameras.fov.device
        indices, flips = indices.to(device), flips.to(device)
        plain, other = self.cameras[indices], self.mirrored[indices]
        cam2world = torch.where(flips[:, None, None], other.cam2world, plain.cam2world)
        angles = None
        if plain.angles is not None and other.angles is not None:
            angles = torch.where(flips[:, None], other.angles, plain.angles)
        return Cameras(cam2world, plain.fov, angles)

    def to(self, device: torch.device | str) -> "EmpiricalPoses":
        """Move to a device."""
        return replace(self, cameras=self.cameras.to(device), mirrored=self.mirrored.to(device))


# ---- checks


class Spread(NamedTuple):
    """Mean, standard deviation and range of an angle, in radians."""

    mean: float
    std: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, std, low, high = (f"{round(value, 3) + 0.0:.3f}" for value in self)
        return f"{mean} +- {std} ({low} to {high})"


@dataclass(frozen=True)
class PoseReport:
    """How the cameras of a data set are distributed, and what is wrong about it."""

    count: int
    yaw: Spread
    pitch: Spread
    roll: Spread
    all_round: bool  # cameras stand on all sides: the mean yaw means nothing
    problems: tuple[str, ...] = ()  # each with its numbers and what to do; empty: none

    def __str__(self) -> str:
        numbers = f"yaw {self.yaw}, pitch {self.pitch}, roll {self.roll}"
        around = ", from all sides" if self.all_round else ""
        return "\n".join([f"{self.count} cameras{around}: {numbers}", *self.problems])


def check_angles(
    angles: Float[Tensor, "batch 3"],  # yaw, pitch, roll
    frontal_yaw: float = FRONTAL_YAW,
) -> PoseReport:
    """Report ranges, degenerate distributions, and a front that is not at `frontal_yaw`."""
    yaw, pitch, roll = angles.double().unbind(1)
    (around, length), (tilt, _) = _circular(yaw), _circular(roll)
    spreads = Spread(
        float(pitch.mean()), float(pitch.std(correction=0)), float(pitch.min()), float(pitch.max())
    )
    report = PoseReport(len(angles), around, spreads, tilt, length < SPREAD_OUT)
    problems = _range_problems(angles) or _degenerate(report)
    if not problems and not report.all_round:
        problems = _off_centre(report, frontal_yaw)
    return replace(report, problems=tuple(problems))


def check_labels(
    labels: Float[Tensor, "batch 25"], frontal_yaw: float = FRONTAL_YAW, up: str = "y"
) -> PoseReport:
    """The same of camera labels, by the directions in which they look; and how they stand."""
    cameras = raw_cameras(labels)
    report = check_angles(orientation_angles(cameras, up), frontal_yaw)
    problems = list(report.problems)
    origin, back = cameras.origin.double(), cameras.cam2world[:, :3, 2].double()
    distance = origin.norm(dim=1)
    if len(labels) > 1 and float((origin - origin[0]).norm(dim=1).max()) < SAME < report.yaw.std:
        problems.append(
            f"camera labels: all cameras stand at {_numbers(origin[0])} and look elsewhere each: "
            "this looks like world2cam matrices; write their inverses, cam2world"
        )
    elif bool(((origin * back).sum(1) < -0.5 * distance).all()):
        problems.append(
            "camera labels: all cameras look away from the origin: this looks like cameras with "
            "+z backwards; negate the second and third column of each cam2world (x right, y down, "
            "z forward)"
        )
    return replace(report, problems=tuple(problems))


def _range_problems(angles: Tensor) -> list[str]:
    largest = {"yaw": float(angles[:, 0].abs().max()), "roll": float(angles[:, 2].abs().max())}
    problems = [
        f"camera_angles: {name} goes up to {value:.1f}, more than a whole turn of 6.28 radians: "
        "convert degrees to radians (times pi / 180)"
        for name, value in largest.items()
        if value > 2 * math.pi + SAME
    ]
    low, high = float(angles[:, 1].min()), float(angles[:, 1].max())
    if low < -SAME or high > math.pi + SAME:
        problems.append(
            f"camera_angles: pitch runs from {low:.3f} to {high:.3f}, outside 0..pi: it is the "
            "angle from +y downwards in radians; write pi/2 - elevation"
        )
    return problems


def _degenerate(report: PoseReport) -> list[str]:
    yaw, pitch, count = report.yaw, report.pitch, report.count
    if count > 1 and yaw.std < SAME and pitch.std < SAME:
        zeros = abs(yaw.mean) < SAME and abs(pitch.mean) < SAME
        what = "placeholders, not poses" if zeros else "nothing to learn a third dimension from"
        return [
            f"camera_angles: all {count} cameras have yaw {yaw.mean:.3f} and pitch "
            f"{pitch.mean:.3f}: {what}; estimate the poses, or draw cameras from a law "
            '(sample_dist "gaussian" or "uniform")'
        ]
    problems = []
    if count > 1 and yaw.std < SAME:
        problems.append(
            f"camera_angles: yaw is {yaw.mean:.3f} in all {count} pictures: are yaw and pitch "
            "exchanged? The order is yaw, pitch, roll"
        )
    if min(pitch.mean, math.pi - pitch.mean) < math.pi / 8:
        problems.append(
            f"camera_angles: the mean pitch is {pitch.mean:.3f}, almost straight above or below: "
            "pitch is the angle from +y downwards, pi/2 on the horizon; write pi/2 - elevation"
        )
    return problems


def _off_centre(report: PoseReport, frontal_yaw: float) -> list[str]:
    """A front elsewhere than the run takes it to be; what chance explains does not count."""
    off = math.remainder(report.yaw.mean - frontal_yaw, 2 * math.pi)
    if abs(off) <= max(CENTRED, 4 * report.yaw.std / math.sqrt(report.count)):
        return []
    start = (
        f"camera_angles: the mean yaw is {report.yaw.mean:.3f}, and frontal_yaw is "
        f"{frontal_yaw:.3f}: flipped pictures and frontal views would be wrong; "
    )
    for known, of in ((0.0, "EpiGRAF's"), (math.pi / 2, "pi-GAN's")):
        if abs(math.remainder(report.yaw.mean - known, 2 * math.pi)) <= CENTRED:
            return [f"{start}this looks like {of} convention: set frontal_yaw to {known:.4g}"]
    return [f"{start}if figures look to where most cameras stand, subtract {off:.3f} from each yaw"]


def _circular(angle: Tensor) -> tuple[Spread, float]:
    """Spread about the circular mean, and the length of the mean direction."""
    sine, cosine = float(angle.sin().mean()), float(angle.cos().mean())
    mean = math.atan2(sine, cosine)
    away = (angle - mean + math.pi).remainder(2 * math.pi) - math.pi
    std = float(away.square().mean().sqrt())
    spread = Spread(mean, std, mean + float(away.min()), mean + float(away.max()))
    return spread, math.hypot(sine, cosine)


def _numbers(point: Tensor) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in point.tolist()) + ")"

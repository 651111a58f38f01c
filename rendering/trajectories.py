"""Camera paths for videos, with the originals' numbers (pi-GAN's video scripts).

A path's phase t runs from 0 to 1 with both ends included: the last frame of a closed path repeats
the first. Angles and fields of view are computed in double precision.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from ops.registry import Registry
from rendering.cameras import Cameras

FRONTAL = math.pi / 2
ROUNDED_FRONTAL = 3.14 / 2  # what the original's inversion script takes for pi / 2
FRONT_FOV = 12.0  # degrees; what the original's video script has in place of the curriculum's fov


class Trajectory(Protocol):
    """A path that scripts can ask for by name."""

    def __call__(
        self, num_frames: int, fov: float, *, dtype: torch.dtype = torch.float32
    ) -> Cameras:
        """One camera per frame; `fov` in degrees."""
        ...


TRAJECTORIES: Registry[Trajectory] = Registry("trajectory")


@TRAJECTORIES.register("front")
def front(
    num_frames: int,
    fov: float,
    *,
    centre: float = FRONTAL,  # yaw and pitch that the path circles around
    zoom: float = 5.0,  # degrees by which the field of view breathes
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """An ellipse in front of the object, with a field of view from `fov` to `fov` + 2 `zoom`.

    `render_video` of the original has `fov` = FRONT_FOV, its interpolation video the curriculum's;
    the loop of its inversion video has `centre` = ROUNDED_FRONTAL and no zoom.
    """
    turn = _turns(num_frames)
    yaw, pitch = centre + 0.4 * turn.sin(), centre + 0.2 * turn.cos()
    return _cameras(yaw, pitch, fov + zoom + zoom * turn.sin(), dtype)


@TRAJECTORIES.register("orbit")
def orbit(
    num_frames: int,
    fov: float,
    *,
    pitch: float = math.pi / 4,  # radians from the pole
    wobble: float = 0.0,  # radians by which the pitch swings; the original's interpolation has 0.2
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """Once around the object."""
    turn = _turns(num_frames)
    return _cameras(turn, pitch + wobble * turn.cos(), torch.full_like(turn, fov), dtype)


def lower(
    num_frames: int,
    fov: float,
    *,
    centre: float = FRONTAL,  # yaw, and pitch of the first frame
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """Sink by 0.2 radians from the frontal camera to where `front` starts.

    The opening of the original's inversion video, which has `centre` = ROUNDED_FRONTAL.
    """
    t = _turns(num_frames) / math.tau
    yaw = torch.full_like(t, centre)
    return _cameras(yaw, centre + 0.2 * t, torch.full_like(t, fov), dtype)


def _turns(num_frames: int) -> Tensor:
    """The phase 2 pi t of every frame."""
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    return math.tau * torch.linspace(0, 1, num_frames, dtype=torch.float64)


def _cameras(yaw: Tensor, pitch: Tensor, fov: Tensor, dtype: torch.dtype) -> Cameras:
    return Cameras.from_angles(yaw, pitch, fov).to(dtype)

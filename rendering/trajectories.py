"""Camera paths for videos, with the originals' numbers (video scripts of pi-GAN, EpiGRAF and Ray
Conditioning).

A path's phase t runs from 0 to 1 with both ends included: the last frame of a closed path repeats
the first. Angles and fields of view are computed in double precision. Paths are laid around the
frontal camera, yaw pi/2, at distance 1; `face` turns one towards another front. (EpiGRAF counts
yaw from its front, so do the arguments of its paths.)
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ops.registry import Registry
from rendering.camera_labels import look_at
from rendering.cameras import Cameras

FRONTAL = math.pi / 2
ROUNDED_FRONTAL = 3.14 / 2  # what the original's inversion script takes for pi / 2
FRONT_FOV = 12.0  # degrees; what the original's video script has in place of the curriculum's fov
SIDE = 1.57  # radians; EpiGRAF's quarter turn
PIVOT = 0.2 / 2.7  # before the origin, in distances: what cameras of EG3D's face data look at


class Trajectory(Protocol):
    """A path that scripts can ask for by name."""

    def __call__(
        self, num_frames: int, fov: float, *, dtype: torch.dtype = torch.float32
    ) -> Cameras:
        """One camera per frame; `fov` in degrees."""
        ...


TRAJECTORIES: Registry[Trajectory] = Registry("trajectory")

CLOSED = ("front", "orbit", "front_circle", "face_circle")  # paths that end where they began
# how many frames the originals give a path
FRAMES = {
    "front": 36,
    "orbit": 36,
    "front_circle": 64,
    "points": 3,
    "line": 16,
    "wiggle": 16,
    "face_circle": 120,
}


@TRAJECTORIES.register("front")
def front(
    num_frames: int,
    fov: float,
    *,
    centre: float = FRONTAL,  # yaw and pitch that the path circles around
    pitch: float | None = None,  # another pitch than `centre`
    zoom: float = 5.0,  # degrees by which the field of view breathes
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """An ellipse in front of the object, with a field of view from `fov` to `fov` + 2 `zoom`.

    `render_video` of the original has `fov` = FRONT_FOV, its interpolation video the curriculum's;
    the loop of its inversion video has `centre` = ROUNDED_FRONTAL and no zoom.
    """
    turn = _turns(num_frames)
    middle = centre if pitch is None else pitch
    yaw, pitches = centre + 0.4 * turn.sin(), middle + 0.2 * turn.cos()
    return _cameras(yaw, pitches, fov + zoom + zoom * turn.sin(), dtype)


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


@TRAJECTORIES.register("front_circle")
def front_circle(
    num_frames: int,
    fov: float,
    *,
    yaw_diff: float = 0.3,  # radians to either side
    pitch_diff: float = 0.2,  # radians up and down
    fov_diff: float = 1.0,  # degrees by which the field of view breathes
    pitch: float = FRONTAL,  # that the path circles around
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """An ellipse in front of the object, zooming in step with yaw."""
    turn = _turns(num_frames)
    yaw, pitches = FRONTAL + yaw_diff * turn.sin(), pitch + pitch_diff * turn.cos()
    return _cameras(yaw, pitches, fov + fov_diff * turn.sin(), dtype)


@TRAJECTORIES.register("points")
def points(
    num_frames: int,
    fov: float,
    *,
    yaws: Sequence[float] = (0.0, -0.3, 0.3),  # radians from the front
    pitch: float = 1.57,
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """Standing cameras one after another, each for an equal share of the frames."""
    held, odd = divmod(num_frames, len(yaws)) if yaws else (0, 0)
    if odd or held < 1:
        raise ValueError(
            f"num_frames must be a multiple of the number of points, {len(yaws)}, got {num_frames}"
        )
    yaw = FRONTAL + torch.tensor(yaws, dtype=torch.float64).repeat_interleave(held)
    return _cameras(yaw, torch.full_like(yaw, pitch), torch.full_like(yaw, fov), dtype)


@TRAJECTORIES.register("line")
def line(
    num_frames: int,
    fov: float,
    *,
    yaw_left: float = -SIDE,  # of the first frame, radians from the front
    yaw_right: float = SIDE,  # of the last
    pitch_left: float = 0.835,  # of the first frame
    pitch_right: float = 0.835,  # of the last
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """Evenly from one pose to another."""
    t = _turns(num_frames) / math.tau
    yaw = FRONTAL + torch.lerp(t.new_tensor(yaw_left), t.new_tensor(yaw_right), t)
    pitch = torch.lerp(t.new_tensor(pitch_left), t.new_tensor(pitch_right), t)
    return _cameras(yaw, pitch, torch.full_like(t, fov), dtype)


@TRAJECTORIES.register("wiggle")
def wiggle(
    num_frames: int,
    fov: float,
    *,
    yaw_left: float = -SIDE,  # of the first frame, radians from the front
    yaw_right: float = SIDE,  # of the last
    pitch_diff: float = 0.5,  # radians up and down, once
    pitch: float = FRONTAL,  # that the path swings around
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """From one side to the other, down and up on the way."""
    turn = _turns(num_frames)
    yaw = torch.lerp(turn.new_tensor(yaw_left), turn.new_tensor(yaw_right), turn / math.tau)
    return _cameras(
        FRONTAL + yaw, pitch + pitch_diff * turn.cos(), torch.full_like(turn, fov), dtype
    )


@TRAJECTORIES.register("face_circle")
def face_circle(
    num_frames: int,
    fov: float,
    *,
    yaw_diff: float = 0.35,  # radians to either side
    pitch_diff: float = 0.25,  # up and down, likewise warped as `pitch`
    pitch: float = FRONTAL - 0.05,  # what the path circles around; uniform by area, not by angle
    pivot: float = PIVOT,  # how far before the origin the cameras look, in distances
    centre: float = FRONTAL,  # yaw that the path circles around
    turn: float = math.tau,  # radians from the first frame to the last
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """An ellipse before a face, of cameras that look at a point in it (EG3D, Ray Conditioning).

    The originals have ROUNDED_FRONTAL for FRONTAL, 6.28 for `turn`, and leave out the last frame.
    """
    t = _turns(num_frames) * (turn / math.tau)
    yaw = 2 * FRONTAL - (centre + yaw_diff * t.sin())  # theirs grows the other way
    polar = torch.arccos(1 - 2 * (pitch + pitch_diff * t.cos()) / math.pi)
    outward = Cameras.from_angles(yaw, polar, fov).origin
    return look_at(outward, (0.0, 0.0, pivot), fov).to(dtype)


def face(path: Cameras, front_yaw: float, radius: float = 1.0) -> Cameras:
    """Turn a path around the frontal camera into one around yaw `front_yaw`, at a distance."""
    if path.angles is not None:
        yaw, pitch = path.angles.unbind(-1)
        return Cameras.from_angles(yaw + (front_yaw - FRONTAL), pitch, path.fov, radius)
    cos, sin = math.cos(front_yaw - FRONTAL), math.sin(front_yaw - FRONTAL)
    turn = path.cam2world.new_tensor([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    cam2world = path.cam2world.clone()
    cam2world[:, :3] = turn @ cam2world[:, :3]
    cam2world[:, :3, 3] *= radius
    return replace(path, cam2world=cam2world)


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

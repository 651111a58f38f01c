"""Camera paths on the command line: --trajectory and its parameters."""

import argparse
from typing import Any

import torch

from inference.options import positive
from rendering.cameras import Cameras
from rendering.trajectories import CLOSED, FRAMES, TRAJECTORIES, face
from stages import Stage

# flag -> meaning; each belongs to the trajectories that have a parameter of that name
NUMBERS = {
    "pitch": "radians from straight above: what front, front_circle, wiggle (pi/2) and face_circle"
    " (pi/2 - 0.05) circle around, the height of orbit (pi/4) and points (1.57)",
    "zoom": "degrees by which front's field of view breathes (5)",
    "wobble": "radians by which orbit swings up and down (0; 0.2 in interpolations)",
    "yaw_diff": "radians to either side, of front_circle (0.3) and face_circle (0.35)",
    "pitch_diff": "radians up and down, of front_circle (0.2), wiggle (0.5), face_circle (0.25)",
    "fov_diff": "degrees by which front_circle's field of view breathes (1)",
    "yaw_left": "radians from the front where line and wiggle begin (-1.57)",
    "yaw_right": "radians from the front where line and wiggle end (1.57)",
    "pitch_left": "radians from straight above where line begins (0.835)",
    "pitch_right": "radians from straight above where line ends (0.835)",
    "pivot": "distances before the centre that face_circle's cameras look at (0.2 / 2.7)",
}


def add_trajectory(parser: argparse.ArgumentParser, default: str | None = "front") -> None:
    """Add --trajectory, --num_frames, --fov, and a flag for every parameter of a trajectory.

    With `default` None the script chooses one itself.
    """
    group = parser.add_argument_group(
        "camera path",
        "front, orbit (pi-GAN); front_circle, points, line, wiggle (EpiGRAF); face_circle (Ray\n"
        "Conditioning). Yaw counts from the middle of the pose law; a parameter that the path\n"
        "does not have is refused.",
    )
    add = group.add_argument
    add("--trajectory", type=_trajectory, default=default, metavar="NAME",
        help=f"one of {', '.join(TRAJECTORIES)} ({default or 'as above'})")  # fmt: skip
    add("--num_frames", type=positive,
        help="frames (36; front_circle 64, face_circle 120, line and wiggle 16, points one"
        " each)")  # fmt: skip
    add("--loop", action="store_true",
        help="leave out a closed path's last frame, which repeats the first")  # fmt: skip
    add("--fov", type=float, help="degrees of view, in place of the curriculum's")
    for name, meaning in NUMBERS.items():
        add(f"--{name}", type=float, metavar="X", help=meaning)
    add("--yaws", type=float, nargs="+", metavar="YAW",
        help="radians from the front of points, held equally long (0 -0.3 0.3)")  # fmt: skip


def camera_path(
    args: argparse.Namespace,
    stage: Stage,
    *,
    num_frames: int | None = None,
    closed: bool = False,
    **defaults: Any,
) -> Cameras:
    """The path that the flags ask for, around the middle of the stage's pose law.

    `num_frames` overrules --num_frames. `closed` is --loop for paths that can: one frame less of
    the path, so that it can be repeated without one shown twice. `defaults` replace a parameter's
    own default where a trajectory has it. Raises ValueError for a parameter that it does not have.
    """
    name = args.trajectory
    given = {n: getattr(args, n) for n in (*NUMBERS, "yaws") if getattr(args, n) is not None}
    options = TRAJECTORIES.arguments(name, defaults, given)
    frames = num_frames or path_frames(args)
    fov = stage.fov if args.fov is None else args.fov
    closed = closed or args.loop
    if closed and name not in CLOSED:
        if args.loop:
            raise ValueError(f"--loop needs a closed path ({', '.join(CLOSED)}), got {name}")
        closed = False
    path = TRAJECTORIES[name](frames + closed, fov, dtype=torch.float64, **options)
    if not 0 < float(path.fov.min()) <= float(path.fov.max()) < 180:
        raise ValueError(f"the field of view must stay between 0 and 180 degrees, got {fov}")
    return face(path[:frames], stage.h_mean, stage.radius).to(torch.float32)


def path_frames(args: argparse.Namespace) -> int:
    """Frames of the path: as asked for, else the originals' number; points have one each."""
    own = FRAMES[args.trajectory]
    if args.trajectory == "points" and args.yaws:
        own = len(args.yaws)
    return args.num_frames or own


def _trajectory(name: str) -> str:
    try:
        return TRAJECTORIES.canonical(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error

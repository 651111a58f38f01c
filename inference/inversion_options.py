"""The flags of inverse_render.py that say how a style, a camera and weights are fitted."""

import argparse
import math
from dataclasses import replace
from pathlib import Path

from generators import Generator
from generators.base import RadianceGenerator
from inference.inversion import FLAT_PRIOR, SCHEDULES, Schedule
from inference.options import positive
from inference.perceptual import SOURCES, WEIGHTS_VARIABLE

EDIT_STEPS = 350  # of tuning, with --edit


def add_style(parser: argparse.ArgumentParser) -> None:
    """Add what concerns the fit of the style."""
    add = parser.add_argument_group("style").add_argument
    principal, free = SCHEDULES["principal"], SCHEDULES["free"]
    add("--steps", type=positive, help=f"of fitting ({principal.steps}; free: {free.steps})")
    add("--style_space", choices=list(SCHEDULES), default="principal",
        help="along the generator's own styles, or every number by itself (principal)")  # fmt: skip
    add("--lr", type=not_negative,
        help=f"of the style; x0.75 every seventh of the steps ({principal.lr}; free:"
        f" {free.lr})")  # fmt: skip
    add("--weight_decay", type=not_negative,
        help=f"pulls the style to its start ({principal.weight_decay:g}; free:"
        f" {free.weight_decay})")  # fmt: skip
    add("--prior", type=not_negative,
        help="how much it counts that styles be like the generator's own: times the mean square"
        f" of the coordinates (0; without geometry, where unlike styles do not turn, {FLAT_PRIOR};"
        " not with free)")  # fmt: skip
    add("--noise", type=not_negative,
        help=f"on the style, fading to 0 (0.1; where there are no trials {principal.noise}; free:"
        f" {free.noise})")  # fmt: skip
    add("--seed", type=int, default=0, help="of that noise (0)")
    add("--latent", type=Path, metavar="FILE",
        help="start from the style and the camera of this file, not from the average")  # fmt: skip
    add("--loss", choices=["mse", "lpips", "both"], default="mse", help="what is minimised (mse)")
    add("--lpips_net", choices=list(SOURCES), default="vgg", help="network of LPIPS (vgg)")
    files = " or ".join(source.url.rpartition("/")[2] for source in SOURCES.values())
    add("--lpips_weights", type=Path, metavar="FILE",
        help=f"torchvision's {files} (default: the file that {WEIGHTS_VARIABLE} names, else a"
        " download)")  # fmt: skip


def add_camera(parser: argparse.ArgumentParser) -> None:
    """Add what concerns the camera of the picture."""
    add = parser.add_argument_group("camera of the picture").add_argument
    add("--yaw", type=finite, help="radians from the pose law's middle (0)")
    add("--pitch", type=finite, help="likewise, downwards (0)")
    add("--fov", type=_degrees, help="field of view, degrees (the curriculum's)")
    add("--fit_pose", action="store_true",
        help="fit yaw and pitch too, from those given or else from poses tried out")  # fmt: skip
    add("--pose_lr", type=not_negative, default=Schedule().pose_lr,
        help=f"learning rate of yaw and pitch ({Schedule().pose_lr})")  # fmt: skip


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """Add what concerns the generator's weights."""
    add = parser.add_argument_group("pivotal tuning").add_argument
    add("--edit", action="store_true",
        help="--fit_pose unless --yaw or --pitch is given, and --pivotal_steps"
        f" {EDIT_STEPS}")  # fmt: skip
    add("--pivotal_steps", type=positive, metavar="N",
        help="tune the generator's weights around the fitted style (no tuning)")  # fmt: skip
    add("--pivotal_lr", type=not_negative, default=3e-4, help="their learning rate (0.0003)")
    add("--locality", type=not_negative, default=0.1,
        help="how much it counts that other sides change (0.1)")  # fmt: skip


def expand_edit(args: argparse.Namespace) -> None:
    """Set what --edit stands for."""
    if args.edit:
        args.fit_pose = args.fit_pose or (args.yaw is None and args.pitch is None)
        args.pivotal_steps = args.pivotal_steps or EDIT_STEPS


def expand_prior(args: argparse.Namespace, generator: Generator) -> None:
    """Set what --prior is by default; refuse one where there are no coordinates."""
    free = args.style_space == "free"
    if free and args.prior:
        raise ValueError("--prior is for --style_space principal: free styles have no coordinates")
    if args.prior is None and generator.sees_cameras and not free:
        args.prior = 0.0 if isinstance(generator, RadianceGenerator) else FLAT_PRIOR


def schedule_of(args: argparse.Namespace) -> Schedule:
    """How the style is to be fitted: what was given, else the defaults of its space."""
    given = {
        name: getattr(args, name)
        for name in ("steps", "lr", "pose_lr", "weight_decay", "noise", "prior")
        if getattr(args, name) is not None
    }
    return replace(SCHEDULES[args.style_space], **given)


def finite(text: str) -> float:
    """A number that is neither infinite nor none at all."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def not_negative(text: str) -> float:
    """A finite number from 0."""
    value = finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text!r}")
    return value


def _degrees(text: str) -> float:
    value = finite(text)
    if not 0 < value < 180:
        raise argparse.ArgumentTypeError(f"must be between 0 and 180 degrees, got {text!r}")
    return value

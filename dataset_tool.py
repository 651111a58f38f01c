"""Make data sets: a zip of equal, square pictures with a `dataset.json` among them.

    python dataset_tool.py toys --num 4000 --img_size 64 --output toys.zip

`toys` renders the embedded data set of snow figures (`toys/`), with the exact camera of every
picture. The same arguments give the same bytes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from inference.options import parse_device, run_script
from toys.dataset import POSES, write_toys


def parse_args() -> argparse.Namespace:
    """Read the command line; every subcommand sets `run`, the function that does its work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_toys(commands)
    return parser.parse_args()


def add_toys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand that renders snow figures."""
    parser = commands.add_parser(
        "toys",
        help="render snow figures",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=make_toys)
    add = parser.add_argument
    add("--num", type=int, required=True, help="pictures")
    add("--img_size", type=int, required=True, help="pixels per side")
    add("--output", type=Path, required=True, help="zip to write")
    add("--seed", type=int, default=0, help="another seed gives other figures and poses")
    add("--device", type=parse_device, default="cpu", help="where to render")
    add("--fov", type=float, default=POSES.fov, help="field of view, degrees")
    add("--radius", type=float, default=POSES.radius, help="distance of the cameras")
    add("--h_mean", type=float, default=POSES.h_mean, help="middle yaw; pi/2 is the front")
    add("--h_stddev", type=float, default=POSES.h_stddev, help="yaw to both sides of it")
    add("--v_mean", type=float, default=POSES.v_mean, help="middle pitch, the angle from +y")
    add("--v_stddev", type=float, default=POSES.v_stddev, help="pitch to both sides of it")


def make_toys(args: argparse.Namespace) -> None:
    """Render the figures and write the zip."""
    poses = replace(
        POSES,
        fov=args.fov,
        radius=args.radius,
        h_mean=args.h_mean,
        h_stddev=args.h_stddev,
        v_mean=args.v_mean,
        v_stddev=args.v_stddev,
    )
    write_toys(args.output, args.num, args.img_size, args.seed, poses=poses, device=args.device)


def main() -> None:
    """Run one subcommand."""
    args = parse_args()
    args.run(args)


if __name__ == "__main__":
    run_script(main)

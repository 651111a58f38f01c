"""Make data sets: a zip of equal, square pictures with a `dataset.json` among them.

    python dataset_tool.py convert --source photos/ --dest photos.zip --resolution 256x256 \\
        --transform center-crop
    python dataset_tool.py check photos.zip
    python dataset_tool.py toys --num 4000 --img_size 64 --output toys.zip

`convert` takes a folder, a glob, a zip, or a .txt list of paths (each with a tab and a class
number, if there are classes), and writes a zip, or a folder, as StyleGAN and EpiGRAF read them (see
`dataset_writer`). Labels and cameras of the source's dataset.json go along. What is skipped,
dropped or passed over is printed with the reason. The word `convert` may be left out.

`--cameras angles` turns camera labels of 25 numbers into yaw, pitch and roll, `--cameras labels`
the other way, where that is exact. `check` prints classes and the distribution of the cameras, and
what is wrong about it with the fix.

`toys` renders the embedded data set of snow figures (`toys/`), with the exact camera of every
picture. The same arguments give the same bytes.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from dataset_cameras import CAMERAS, ORIGIN, describe, report_cameras
from dataset_sources import LABELS, open_source, source_annotations
from dataset_writer import write_dataset
from image_windows import TRANSFORMS
from inference.options import parse_device, positive, run_script
from toys.dataset import POSES, write_toys


def parse_args() -> argparse.Namespace:
    """Read the command line; every subcommand sets `run`, the function that does its work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_convert(commands)
    add_check(commands)
    add_toys(commands)
    words = sys.argv[1:]
    if words and words[0].startswith("--") and words[0] != "--help":
        words = ["convert", *words]
    return parser.parse_args(words)


def add_convert(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand that converts pictures."""
    parser = commands.add_parser("convert", help="convert a folder, zip or list of pictures")
    parser.set_defaults(run=convert)
    add = parser.add_argument
    add("--source", required=True, help="folder, glob, zip or .txt list")
    add("--dest", "--output", type=Path, required=True, help="new .zip, or a new folder")
    add("--resolution", type=parse_resolution, metavar="WxH", help="default: as they are")
    add("--transform", choices=TRANSFORMS, help="what is kept of them; default: resize the whole")
    add("--max_images", "--max-images", type=positive, metavar="N", help="the first N only")
    add("--labels", choices=LABELS, default="table", help="whence classes come (default: table)")
    add("--mirror", action="store_true", help="write every picture also flipped")
    add("--frontal_yaw", type=float, help="for --mirror: yaw seen in the face, 0 or 1.5708")
    add("--add_yaw", type=float, default=0.0, help="radians to add to the yaw of camera_angles")
    add("--cameras", choices=CAMERAS, default="keep", help="their form in dataset.json")
    add("--pivot", type=float, nargs=3, default=ORIGIN, help="what cameras look at, for angles")
    add("--num_workers", type=int, default=os.cpu_count() or 1, help="threads (default: all)")


def parse_resolution(text: str) -> tuple[int, int]:
    """Width and height: "256x256", or "256" for both."""
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"must be like 256x256, got {text!r}")
    return sides[0], sides[-1]


def convert(args: argparse.Namespace) -> None:
    """Convert the pictures and print what became of them."""
    report = write_dataset(
        args.source,
        args.dest,
        resolution=args.resolution,
        transform=args.transform,
        max_images=args.max_images,
        labels=args.labels,
        mirror=args.mirror,
        frontal_yaw=args.frontal_yaw,
        add_yaw=args.add_yaw,
        cameras=args.cameras,
        pivot=tuple(args.pivot),
        num_workers=args.num_workers,
    )
    print(report)


def add_check(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand that tells what a data set holds."""
    parser = commands.add_parser("check", help="classes and cameras of a data set, their faults")
    parser.set_defaults(run=check)
    parser.add_argument("source", help="folder, glob, zip or .txt list")
    parser.add_argument("--frontal_yaw", type=float, help="yaw of the front; default: its own")


def check(args: argparse.Namespace) -> None:
    """Print classes and cameras; exit with 1 if something is wrong about the cameras."""
    files, listed = open_source(args.source)
    notes, _, _ = source_annotations(files, listed, "table")
    print(describe(files, notes, args.frontal_yaw))
    report = report_cameras(notes, args.frontal_yaw)
    if report is not None and report.problems:
        sys.exit(1)


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

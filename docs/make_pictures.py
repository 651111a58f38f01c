"""Make the README's pictures from a trained run, with the project's own scripts.

  python docs/make_pictures.py runs/toys

Writes into docs/images: demo_views.png (eight seeds from five sides), demo_turnaround.png (once
round each), demo_layers.png (colours, depth and normals of one seed), demo_mesh.png (its mesh from
several sides) and demo_turn.gif (a loop of four seeds, small enough for a page).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST_GIF = 1_500_000  # bytes
FINE = ("--psi", "0.8", "--ray_step_multiplier", "3")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="the run's directory, or its generator.pth")
    add("--output_dir", type=Path, default=ROOT / "docs" / "images",
        help="where pictures go (docs/images)")  # fmt: skip
    add("--seed", default="1", help="the seed of layers and mesh (1)")
    add("--gif_frames", default="24", help="frames of the GIF (24)")
    add("--voxel_resolution", default="128", help="of the mesh (128)")
    add("--only", nargs="+", choices=PICTURES, metavar="PICTURE",
        help=f"make these alone: {' '.join(PICTURES)}")  # fmt: skip
    return parser.parse_args()


def views(args: argparse.Namespace, work: Path) -> None:
    """Eight seeds from five sides all round."""
    yaws = ["-2.513", "-1.257", "0", "1.257", "2.513"]
    words = ["--seeds", "0-7", "--yaws", *yaws, "--columns", "2", "--image_size", "128"]
    _script("render_multiview_images", args, work, *words)
    _keep(work / "overview.png", args, "demo_views.png")


def turnaround(args: argparse.Namespace, work: Path) -> None:
    """Eight seeds from twelve sides."""
    words = ["--seeds", "0-7", "--turnaround", "12", "--image_size", "64"]
    _script("render_multiview_images", args, work, *words)
    _keep(work / "overview.png", args, "demo_turnaround.png")


def layers(args: argparse.Namespace, work: Path) -> None:
    """One seed from eight sides: colours, depth, normals."""
    words = ["--seeds", args.seed, "--turnaround", "8", "--depth", "--normals"]
    words += ["--image_size", "128"]
    _script("render_multiview_images", args, work, *words)
    _keep(work / f"grid_{args.seed}.png", args, "demo_layers.png")


def mesh(args: argparse.Namespace, work: Path) -> None:
    """One seed's mesh, in its colours and in clay."""
    words = ["--seeds", args.seed, "--preview", "--psi", "0.8", "--image_size", "160"]
    words += ["--voxel_resolution", args.voxel_resolution]
    _run("extract_shapes", args.run, work, words)
    _keep(work / f"{args.seed}.png", args, "demo_mesh.png")


def turn(args: argparse.Namespace, work: Path) -> None:
    """A loop of four seeds."""
    words = ["--seeds", "0-3", "--grid", "4x1", "--format", "gif", "--fps", "12", "--loop"]
    words += ["--trajectory", "orbit", "--pitch", "1.2", "--num_frames", args.gif_frames]
    words += ["--image_size", "96"]
    _script("render_video", args, work, *words)
    size = (work / "grid.gif").stat().st_size
    if size > LARGEST_GIF:
        sys.exit(f"error: the GIF has {size} bytes, more than {LARGEST_GIF}: ask for fewer frames")
    _keep(work / "grid.gif", args, "demo_turn.gif")


PICTURES = {f.__name__: f for f in (views, turnaround, layers, mesh, turn)}


def _script(name: str, args: argparse.Namespace, work: Path, *words: str) -> None:
    _run(name, args.run, work, [*words, *FINE])


def _run(name: str, run: Path, work: Path, words: Sequence[str]) -> None:
    """Run one of the project's scripts; its own message and exit code are the user's."""
    command = [sys.executable, str(ROOT / f"{name}.py"), str(run), "--output_dir", str(work)]
    done = subprocess.run([*command, *words])
    if done.returncode:
        sys.exit(done.returncode)


def _keep(made: Path, args: argparse.Namespace, name: str) -> None:
    args.output_dir.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, args.output_dir / name)
    print(f"wrote {args.output_dir / name}")


def main() -> None:
    """Make what is asked for, each in a folder of its own that goes away."""
    args = parse_args()
    for name in args.only or PICTURES:
        with tempfile.TemporaryDirectory() as work:
            PICTURES[name](args, Path(work))


if __name__ == "__main__":
    main()

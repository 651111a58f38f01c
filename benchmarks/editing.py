"""Edit pictures of Toys that a run has never seen, and hold every side against the truth.

  PYTHONPATH=. python benchmarks/editing.py runs/raycond --figures 0-3 --output_dir editing

Each figure, of another seed than training's, is drawn from the camera that Toys gives it;
`inverse_render.py --edit` gets picture and camera, and the result is looked at from eight sides.
Prints the PSNR of the picture, fitted and tuned, the mean PSNR of the other sides, and the mean and
largest error of the yaw that the sides show, judged by the network of `metrics.pose`; then the
means. Writes strips.png: of each figure a row of truth and a row of views, the picture's own first.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curriculums import stage_at
from datasets import open_dataset
from inference.checkpoint import checkpoint_step, load_generator
from inference.inversion import psnr
from inference.latents import load_latents
from inference.media import save_png, tile, to_uint8
from inference.options import parse_seeds, positive, run_script
from inference.views import front_pitch
from metrics.pose import PoseRegressor, train_pose_regressor, wrap
from rendering.cameras import Cameras
from stages import Stage
from toys.dataset import POSES, toy_cameras
from toys.render import render_figures
from toys.scenes import Figures

ROOT = Path(__file__).parents[1]
TOYS_SEED = 1  # training's figures are of seed 0
LESSONS = 4000  # pictures that poses are learned from
SIDES = 8


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="the run's directory")
    add("--figures", type=parse_seeds, default=[0, 1, 2, 3], help="numbers of the figures (0-3)")
    add("--output_dir", type=Path, default=Path("editing"), help="where files go (editing)")
    add("--image_size", type=positive, default=32, help="pixels per side (32)")
    add("--lessons", type=positive, default=LESSONS, help="pictures to learn poses from (4000)")
    add("--flags", nargs=argparse.REMAINDER, default=[], help="more of inverse_render.py; the last")
    return parser.parse_args()


def pose_network(size: int, lessons: int) -> PoseRegressor:
    """What tells the side that a picture of Toys shows."""
    dataset = open_dataset("Toys", "", size, toys_num=lessons)
    assert dataset.camera_angles is not None
    images = torch.cat([dataset.batch(part).images for part in torch.arange(lessons).split(256)])
    return train_pose_regressor(images, dataset.camera_angles[:lessons, :2])[0]


def draw(figure: int, cameras: Cameras, size: int) -> Tensor:
    """The true pictures of a figure."""
    return render_figures(Figures.sample(TOYS_SEED, [figure] * len(cameras)), cameras, size).image


def edit(figure: int, stage: Stage, args: argparse.Namespace) -> tuple[dict[str, float], Tensor]:
    """Edit one figure's picture; what it says, and its sides (SIDES, 3, N, N)."""
    folder = args.output_dir / str(figure)
    camera = toy_cameras(TOYS_SEED, [figure])
    save_png(folder / "target.png", to_uint8(draw(figure, camera, args.image_size))[0])
    yaw, pitch = camera.yaw_pitch[0].tolist()
    command = [sys.executable, str(ROOT / "inverse_render.py"), str(args.run)]
    command += [str(folder / "target.png"), "--edit", "--no_video", "--output_dir", str(folder)]
    command += [f"--yaw={yaw - stage.h_mean}", f"--pitch={pitch - front_pitch(stage)}"]
    command += ["--image_size", str(args.image_size), *args.flags]
    subprocess.run(command, check=True)
    with np.load(folder / "latent.npz") as facts:
        said = {name: float(facts[name]) for name in ("psnr", "tuned_psnr")}
    generator, _ = load_generator(folder / "tuned")
    w, cameras = load_latents(folder / "latent.npz"), sides_of(figure)
    settings = stage.eval_settings(resolution=args.image_size, num_steps=2 * stage.num_steps)
    with torch.no_grad():
        images = [generator.synthesis(w, at, settings).image for at in cameras]
    return said, torch.cat(images).clamp(-1, 1)


def sides_of(figure: int) -> Cameras:
    """Cameras all the way round, of which the picture's is the first."""
    yaw, pitch = toy_cameras(TOYS_SEED, [figure]).yaw_pitch[0]
    turn = torch.arange(SIDES) * (2 * math.pi / SIDES)
    return Cameras.from_angles(yaw + turn, pitch, POSES.fov, POSES.radius)


def main() -> None:
    """Edit, measure, save."""
    args = parse_args()
    curriculum = load_generator(args.run)[1]
    stage = stage_at(curriculum, checkpoint_step(args.run))
    network = pose_network(args.image_size, args.lessons)
    rows, strips = [], []
    for figure in args.figures:
        said, views = edit(figure, stage, args)
        cameras = sides_of(figure)
        truth = draw(figure, cameras, args.image_size)
        wrong = torch.rad2deg(wrap(network(views) - cameras.yaw_pitch)[:, 0].abs())
        others = [psnr(a, b) for a, b in zip(views[1:], truth[1:], strict=True)]
        said |= {"sides": sum(others) / len(others)}
        said |= {"yaw_error": float(wrong.mean()), "largest": float(wrong.max())}
        print(f"figure {figure}: {json.dumps({k: round(v, 2) for k, v in said.items()})}")
        rows.append(said)
        strips += [truth, views]
    save_png(args.output_dir / "strips.png", tile(to_uint8(torch.cat(strips)), SIDES))
    means = {name: round(sum(row[name] for row in rows) / len(rows), 2) for name in rows[0]}
    print(f"mean: {json.dumps(means)}")


if __name__ == "__main__":
    run_script(main)

"""Render seeds of a trained generator from several sides.

  python render_multiview_images.py runs/celeba/generator.pth --seeds 0 1 2 3
  python render_multiview_images.py runs/toys --seeds 0-7 --turnaround 12 --depth
  python render_multiview_images.py runs/toys --latent fitted.npz --normals
  python render_multiview_images.py runs/stylegan3 --seeds 0-15 --psi 0.5 --translate 0.1,0

Writes grid_<seed>.png, a row of views per seed (below it rows of depth, normals and opacity if
asked for), and overview.png with all of them. Of a 2D generator, which has no sides, it is one
picture per seed unless angles are given, and the overview is a grid of seeds. Pictures are
deterministic, and colours are the generator's own: nothing is stretched to the picture's minimum
and maximum.
"""

import argparse
import math
from pathlib import Path

import torch

from inference.layers import add_layers, chosen_layers, photograph
from inference.media import save_png, tile
from inference.model import Model, add_model, open_model
from inference.options import positive, run_script
from inference.views import front_pitch
from rendering.cameras import Cameras

YAWS = (-0.5, -0.25, 0.0, 0.25, 0.5)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("imgs"), help="where pictures go (imgs)")
    add("--yaws", type=float, nargs="+", metavar="YAW",
        help="radians from the pose law's middle (-0.5 -0.25 0 0.25 0.5; 2D: 0)")  # fmt: skip
    add("--pitches", type=float, nargs="+", default=[0.0], metavar="PITCH",
        help="radians from the pose law's middle, downwards; a row of views each (0)")  # fmt: skip
    add("--turnaround", type=positive, metavar="N", help="N views all the way round, for --yaws")
    add("--columns", type=positive, metavar="N",
        help="strips side by side in the overview (1; single pictures: a square)")  # fmt: skip
    add_layers(parser, "in rows of their own")
    return parser.parse_args()


def place_cameras(args: argparse.Namespace, model: Model) -> Cameras:
    """The views of one seed: every pitch, and every yaw for each."""
    yaws = args.yaws or (YAWS if model.generator.sees_cameras else YAWS[2:3])
    if args.turnaround:
        yaws = [2 * math.pi * i / args.turnaround for i in range(args.turnaround)]
    pitch, yaw = torch.cartesian_prod(torch.tensor(args.pitches), torch.tensor(yaws)).unbind(-1)
    stage = model.stage
    return Cameras.from_angles(
        stage.h_mean + yaw, front_pitch(stage) + pitch, stage.fov, stage.radius
    ).to(model.device)


def main() -> None:
    """Render and save."""
    args = parse_args()
    layers = chosen_layers(args)
    model = open_model(args)
    settings = model.settings(args)
    cameras = place_cameras(args, model)
    strips = []
    for name, w in model.styles(args):
        scene = model.scene(w, args, name)
        views = [photograph(scene, camera, settings, layers) for camera in cameras]
        rows = torch.cat([torch.cat(kind) for kind in zip(*views, strict=True)])
        strip = tile(rows, columns=len(cameras) // len(args.pitches))
        save_png(args.output_dir / f"grid_{name}.png", strip)
        strips.append(strip)
    columns = args.columns or (1 if len(cameras) > 1 else math.ceil(math.sqrt(len(strips))))
    save_png(args.output_dir / "overview.png", tile(torch.stack(strips), columns))
    print(f"wrote {len(strips)} strips and overview.png to {args.output_dir}")


if __name__ == "__main__":
    run_script(main)

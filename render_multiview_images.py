"""Render seeds of a trained generator from several sides.

  python render_multiview_images.py runs/celeba/generator.pth --seeds 0 1 2 3
  python render_multiview_images.py runs/toys --seeds 0-7 --turnaround 12 --depth

Writes grid_<seed>.png, a row of views per seed (below it rows of depth and opacity if asked for),
and overview.png with all of them. Pictures are deterministic, and colours are the generator's own:
nothing is stretched to the picture's minimum and maximum.
"""

import argparse
import math
from pathlib import Path

import torch

from curriculums import find_curriculum, stage_at
from inference.checkpoint import checkpoint_step, load_generator
from inference.media import depth_image, save_png, tile, to_uint8
from inference.options import add_device, add_seeds, flatten, positive, run_script
from inference.views import front_pitch, render_views, seeded_latents
from rendering.cameras import Cameras
from rendering.renderer import Rendering
from rendering.settings import RenderSettings
from stages import Stage


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("path", type=Path, help="a generator.pth, or the run's directory that holds it")
    add_seeds(parser)
    add("--output_dir", type=Path, default=Path("imgs"), help="where pictures go (imgs)")
    add("--image_size", type=positive, default=256, help="pixels per side (256)")
    add("--psi", type=float, default=0.7, help="truncation: 1 is none, 0 the average (0.7)")
    add("--yaws", type=float, nargs="+", default=[-0.5, -0.25, 0.0, 0.25, 0.5], metavar="YAW",
        help="radians from the pose law's middle (-0.5 -0.25 0 0.25 0.5)")  # fmt: skip
    add("--pitches", type=float, nargs="+", default=[0.0], metavar="PITCH",
        help="radians from the pose law's middle, downwards; a row of views each (0)")  # fmt: skip
    add("--turnaround", type=positive, metavar="N", help="N views all the way round, for --yaws")
    add("--ray_step_multiplier", type=positive, default=2,
        help="samples per ray, as a multiple of those in training (2)")  # fmt: skip
    add("--max_batch_size", type=positive, default=2_400_000,
        help="field points computed at once; less takes less memory (2400000)")  # fmt: skip
    add("--lock_view_dependence", action="store_true", help="colours as seen from the front")
    add("--depth", action="store_true", help="add rows of depth: near is white")
    add("--opacity", action="store_true", help="add rows of opacity")
    add("--ema", default="ema.pth", help="average of the weights to use, or 'none' (ema.pth)")
    add("--curriculum", help="cameras and settings of another curriculum than the checkpoint's")
    add_device(parser)
    return parser.parse_args()


def place_cameras(args: argparse.Namespace, stage: Stage) -> Cameras:
    """The views of one seed: every pitch, and every yaw for each."""
    yaws = args.yaws
    if args.turnaround:
        yaws = [2 * math.pi * i / args.turnaround for i in range(args.turnaround)]
    pitch, yaw = torch.cartesian_prod(torch.tensor(args.pitches), torch.tensor(yaws)).unbind(-1)
    return Cameras.from_angles(
        stage.h_mean + yaw, front_pitch(stage) + pitch, stage.fov, stage.radius
    )


def rows_of(
    rendering: Rendering, settings: RenderSettings, args: argparse.Namespace
) -> list[torch.Tensor]:
    """Bytes (views, height, width, 3) of colour and of whatever else was asked for."""
    rows = [to_uint8(rendering.image)]
    if args.depth or args.opacity:
        if rendering.depth is None or rendering.opacity is None:
            raise ValueError("--depth and --opacity need a radiance generator, this is a 2D one")
        if args.depth:
            depth = depth_image(
                rendering.depth,
                rendering.opacity,
                settings.ray_start,
                settings.ray_end,
                last_back=settings.last_back,
            )
            rows.append(to_uint8(depth.expand(-1, 3, -1, -1)))
        if args.opacity:
            opacity = 2 * rendering.opacity[:, None] - 1
            rows.append(to_uint8(opacity.expand(-1, 3, -1, -1)))
    return rows


def main() -> None:
    """Render and save."""
    args = parse_args()
    ema = None if args.ema == "none" else args.ema
    generator, curriculum = load_generator(args.path, args.device, ema)
    if args.curriculum:
        curriculum = find_curriculum(args.curriculum)
    stage = stage_at(curriculum, checkpoint_step(args.path))
    settings = stage.eval_settings(
        resolution=args.image_size,
        num_steps=stage.num_steps * args.ray_step_multiplier,
        lock_view_dependence=args.lock_view_dependence,
        max_batch_size=args.max_batch_size,
    )
    cameras = place_cameras(args, stage).to(args.device)
    strips = []
    for seed in flatten(args.seeds):
        z = seeded_latents([seed], generator.latent_dim, stage.z_dist).to(args.device)
        w = generator.mapping(z, psi=args.psi)
        w = w.expand(len(cameras), *w.shape[1:])
        views = render_views(generator, w, cameras, settings)
        kinds = zip(*(rows_of(v, settings, args) for v in views), strict=True)
        rows = torch.cat([torch.cat(kind) for kind in kinds])
        strip = tile(rows, columns=len(cameras) // len(args.pitches))
        save_png(args.output_dir / f"grid_{seed}.png", strip)
        strips.append(strip)
    save_png(args.output_dir / "overview.png", tile(torch.stack(strips), columns=1))
    print(f"wrote {len(strips)} strips and overview.png to {args.output_dir}")


if __name__ == "__main__":
    run_script(main)

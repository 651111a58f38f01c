"""Film the way from seed to seed through the space of styles, in a closed loop.

  python render_video_interpolation.py runs/celeba/generator.pth --seeds 0 1 2 3
  python render_video_interpolation.py runs/toys --seeds 0-7 --interpolation cubic --w_frames 24
  python render_video_interpolation.py runs/stylegan2 --seeds 0-31 --grid 4x2 --w_frames 60

Writes interp.mp4. By default the camera runs its whole path from each seed to the next, as in the
original, and both ends of each stretch are shown. With --w_frames there are so many frames per
seed, no frame is shown twice, and the camera runs its path once while the styles close their loop:
the film can be repeated without a seam. With --grid every cell has its own share of the seeds, in
their order. Truncated styles are interpolated; a 2D generator needs no camera.
"""

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from inference.films import add_film, save_film
from inference.interpolation import KINDS, interpolate_loop
from inference.layers import add_layers, chosen_layers, compose
from inference.model import Model, add_model, open_model
from inference.options import positive, run_script
from inference.paths import add_trajectory, camera_path, path_frames
from rendering.cameras import Cameras

WOBBLE = 0.2  # the original's orbit swings in interpolations


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    add = parser.add_argument
    add("--interpolation", choices=KINDS, default="linear",
        help="straight from style to style, a smooth curve, or StyleGAN's (linear)")  # fmt: skip
    add("--w_frames", type=positive, metavar="N", help="frames from each seed to the next")
    add_layers(parser, "beside the colours")
    add_film(parser)
    add_trajectory(parser)
    return parser.parse_args()


def schedule(args: argparse.Namespace, model: Model, keys: int) -> tuple[Tensor, Cameras]:
    """The phase of the loop of `keys` styles (n,), and the camera (n,), of every frame."""
    if args.w_frames is None:
        frames = path_frames(args)
        path = camera_path(args, model.stage, wobble=WOBBLE)
        stretch = torch.linspace(0, 1, frames, dtype=torch.float64)
        phases = torch.cat([i + stretch for i in range(keys)])
        return phases, Cameras.cat([path] * keys)
    if args.num_frames is not None:
        raise ValueError("--w_frames settles the number of frames: leave out --num_frames")
    frames = keys * args.w_frames
    path = camera_path(args, model.stage, num_frames=frames, closed=True, wobble=WOBBLE)
    return torch.arange(frames, dtype=torch.float64) / args.w_frames, path


def share(styles: Sequence[Tensor], cells: int) -> list[Tensor]:
    """Each cell's styles (keys, ...), in their order."""
    if len(styles) % cells:
        raise ValueError(
            f"--grid has {cells} cells: the number of seeds must be a multiple of that, "
            f"got {len(styles)}"
        )
    keys = len(styles) // cells
    return [torch.cat(list(styles[i * keys : (i + 1) * keys])) for i in range(cells)]


def main() -> None:
    """Render and encode."""
    args = parse_args()
    layers = chosen_layers(args)
    model = open_model(args)
    settings = model.settings(args)
    cells = share([w for _, w in model.styles(args)], args.grid.cells if args.grid else 1)
    phases, cameras = schedule(args, model, len(cells[0]))
    cameras = cameras.to(model.device)

    def frames() -> Iterator[Tensor]:
        for i in tqdm(range(len(phases)), unit="frame", disable=None):
            styles = [
                interpolate_loop(keys, phases[i : i + 1], args.interpolation) for keys in cells
            ]
            scenes = [model.scene(w, args, f"cell {c}") for c, w in enumerate(styles)]
            yield compose(
                scenes, cameras[i], settings, layers, args.grid.columns if args.grid else 1
            )

    made = save_film(frames(), "interp", args)
    print(f"wrote {made}: {len(phases)} frames through {sum(map(len, cells))} styles")


if __name__ == "__main__":
    run_script(main)

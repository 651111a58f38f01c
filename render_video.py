"""Film seeds of a trained generator along a camera path.

  python render_video.py runs/celeba/generator.pth --seeds 0-3 --trajectory orbit
  python render_video.py runs/toys --seeds 0-7 --grid 4x2 --trajectory orbit --pitch 1.2
  python render_video.py runs/toys --latent fitted.npz --depth --normals --format gif

Writes <seed>.mp4 for each seed, or with --grid one film of all of them, grid.mp4. Frames are
deterministic and go to the encoder one by one: memory does not grow with a film's length. A 2D
generator makes no difference between cameras: see render_video_interpolation.py.
"""

import argparse
from collections.abc import Iterator

from torch import Tensor
from tqdm import tqdm

from inference.films import add_film, save_film
from inference.layers import add_layers, chosen_layers, compose
from inference.model import add_model, open_model
from inference.options import run_script
from inference.paths import add_trajectory, camera_path
from inference.scene import Scene


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    add_layers(parser, "beside the colours")
    add_film(parser)
    add_trajectory(parser)
    return parser.parse_args()


def main() -> None:
    """Render and encode."""
    args = parse_args()
    layers = chosen_layers(args)
    model = open_model(args)
    settings = model.settings(args)
    cameras = camera_path(args, model.stage).to(model.device)
    styles = model.styles(args)
    films = args.grid.films(styles) if args.grid else {name: [(name, w)] for name, w in styles}
    columns = args.grid.columns if args.grid else 1

    def frames(scenes: list[Scene]) -> Iterator[Tensor]:
        for camera in cameras:
            yield compose(scenes, camera, settings, layers, columns)
            progress.update()

    with tqdm(total=len(films) * len(cameras), unit="frame", disable=None) as progress:
        for film, cells in films.items():
            scenes = [model.scene(w, args, name) for name, w in cells]
            save_film(frames(scenes), film, args)
    print(f"wrote {len(films)} films of {len(cameras)} frames to {args.output_dir}")


if __name__ == "__main__":
    run_script(main)

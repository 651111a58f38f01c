"""EpiGRAF's visualisations, by their names, of any trained generator.

  python visualize.py front_grid runs/ffhq --seeds 0-3
  python visualize.py video_grid runs/ffhq --seeds 0-15 --trajectory wiggle
  python visualize.py interp_video runs/ffhq --seeds 0-3

  front_grid         a large picture from the first camera, the others in a row below it
  minigrid           a row of all cameras' pictures
  video              a film per seed
  video_grid         films of 4 x 4 seeds (--grid for others)
  interp             a row of steps from each even seed to the next, odd one
  interp_video       a film of that, while the camera moves
  interp_video_grid  a film with these steps side by side
  density            raw densities in a cube (.npy, axes x y z), and a picture from above
  interp_density     likewise of every step
  bg_nobg            the frontal picture with its background, and on white

The camera path is points for the pictures and front_circle for the films, or any other
(--trajectory). render_video.py, render_video_interpolation.py and render_multiview_images.py do
the same and more. Of a run's directory the best checkpoint is shown if measurements chose one.
"""

import argparse
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from inference.checkpoint import best_checkpoint
from inference.films import Grid, add_film, save_film
from inference.interpolation import interpolate_line
from inference.layers import compose
from inference.media import resize, save_png
from inference.model import Model, add_model, open_model
from inference.options import positive, run_script
from inference.paths import add_trajectory, camera_path
from inference.scene import Scene
from ops.registry import nearest
from rendering.cameras import Cameras
from rendering.field import Field, background_of, raw_density
from rendering.grid import voxel_lattice
from rendering.settings import RenderSettings

ABOVE = 3 * math.pi / 8  # pitch of pictures without a path of their own
STILLS = ("front_grid", "minigrid")


class Darkness:
    """A background without light."""

    num_draws = 0

    def __call__(
        self,
        origins: Tensor,
        directions: Tensor,
        positions: Tensor,
        u: Tensor | None,
        *,
        white_back: bool,
    ) -> Tensor:
        """Nothing, in every channel."""
        return torch.zeros_like(directions[..., :1])


class Foreground:
    """A field with darkness in place of its background, if it has one."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self.background = None if background_of(field) is None else Darkness()

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return self._field(points, directions)


class Visualizer:
    """A method for each name; each writes its files and returns nothing."""

    def __init__(self, args: argparse.Namespace, model: Model) -> None:
        self.args, self.model = args, model
        self.settings = model.settings(args)
        if args.trajectory is None:
            args.trajectory = "points" if args.name in STILLS else "front_circle"
        self.path = camera_path(args, model.stage).to(model.device)
        self.styles = model.styles(args)

    def front_grid(self) -> None:
        """One large picture over small ones."""
        for name, scene in self._scenes():
            first, *others = (self._picture(scene, camera) for camera in self.path)
            if others:
                side = -(-first.shape[0] // len(others))
                row = torch.cat([resize(picture, side) for picture in others], dim=1)
                first = torch.cat([resize(first, row.shape[1]), row])
            self._save(f"front_grid_{name}", first)

    def minigrid(self) -> None:
        """A row of pictures per seed, and all of them."""
        rows = []
        for name, scene in self._scenes():
            rows.append(torch.cat([self._picture(scene, camera) for camera in self.path], dim=1))
            self._save(f"minigrid_{name}", rows[-1])
        self._save("minigrid", torch.cat(rows))

    def video(self) -> None:
        """A film per seed."""
        for name, scene in self._scenes():
            self._film(name, self._turn([scene], 1))

    def video_grid(self) -> None:
        """Films of several seeds each."""
        grid = self.args.grid or Grid(4, 4)
        for name, cells in grid.films(self.styles).items():
            scenes = [self._scene(w, seed) for seed, w in cells]
            self._film(f"video_{name}", self._turn(scenes, grid.columns))

    def interp(self) -> None:
        """A row per pair of seeds."""
        camera = self._camera(ABOVE)
        rows = [
            torch.cat([self._picture(scene, camera) for scene in self._steps(name, a, b)], dim=1)
            for name, a, b in self._pairs()
        ]
        self._save("interp", torch.cat(rows))

    def interp_video(self) -> None:
        """A film per pair: style and camera move together."""
        for name, a, b in self._pairs():
            ways = interpolate_line(a, b, len(self.path))
            looks = zip(ways.split(1), self.path, strict=True)
            self._film(name, (self._picture(self._scene(w, name), c) for w, c in looks))

    def interp_video_grid(self) -> None:
        """A film per pair: every step sees the whole camera path."""
        for name, a, b in self._pairs():
            scenes = self._steps(name, a, b)
            self._film(name, self._turn(scenes, len(scenes)))

    def density(self) -> None:
        """A volume and a picture per seed."""
        for name, scene in self._scenes():
            self._volume(name, scene)

    def interp_density(self) -> None:
        """A volume and a picture per step."""
        for name, a, b in self._pairs():
            for i, scene in enumerate(self._steps(name, a, b)):
                self._volume(f"{name}_{i}", scene)

    def bg_nobg(self) -> None:
        """Two pictures per seed: as it is, and without a background of whatever kind."""
        white = dataclasses.replace(self.settings, white_back=True, last_back=False)
        for name, scene in self._scenes():
            bare = self._scene(scene.w, name)
            bare.field = Foreground(self._field(bare))
            camera = self._camera(math.pi / 2)
            pair = [self._picture(scene, camera), self._picture(bare, camera, white)]
            self._save(f"bg_nobg_{name}", torch.cat(pair, dim=1))

    def _scene(self, w: Tensor, name: str) -> Scene:
        return self.model.scene(w, self.args, name)

    def _scenes(self) -> Iterator[tuple[str, Scene]]:
        for name, w in self.styles:
            yield name, self._scene(w, name)

    def _pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Names and styles of the first and second seed, the third and fourth, ..."""
        if len(self.styles) % 2:
            raise ValueError(f"{self.args.name} needs pairs of seeds, got {len(self.styles)}")
        for (a, first), (b, second) in zip(self.styles[::2], self.styles[1::2], strict=True):
            yield f"interp_{a}_{b}", first, second

    def _steps(self, name: str, a: Tensor, b: Tensor) -> list[Scene]:
        """Scenes on the way from one style to another."""
        ways = interpolate_line(a, b, self.args.num_interp_steps)
        return [self._scene(w, name) for w in ways.split(1)]

    def _camera(self, pitch: float) -> Cameras:
        """One from the front."""
        stage = self.model.stage
        yaw = torch.tensor([stage.h_mean])
        return Cameras.from_angles(yaw, pitch, stage.fov, stage.radius).to(self.model.device)

    def _picture(
        self, scene: Scene, camera: Cameras, settings: RenderSettings | None = None
    ) -> Tensor:
        return compose([scene], camera, settings or self.settings)

    def _turn(self, scenes: Sequence[Scene], columns: int) -> Iterator[Tensor]:
        for camera in self.path:
            yield compose(scenes, camera, self.settings, columns=columns)

    def _film(self, name: str, frames: Iterator[Tensor]) -> None:
        bar = tqdm(frames, total=len(self.path), desc=name, unit="frame", disable=None)
        save_film(bar, name, self.args)

    def _save(self, name: str, pixels: Tensor) -> None:
        save_png(self.args.output_dir / f"{name}.png", pixels)

    def _field(self, scene: Scene) -> Field:
        if scene.field is None:
            raise ValueError(f"{self.args.name} needs a radiance generator, this is a 2D one")
        return scene.field

    def _volume(self, name: str, scene: Scene) -> None:
        """Raw densities on a lattice around the origin, slice by slice, and a picture."""
        field, n = self._field(scene), self.args.voxel_resolution
        stage = self.model.stage
        side = self.args.cube_size or 2 * stage.radius * math.tan(math.radians(stage.fov) / 2)
        volume = np.empty((n, n, n), np.float32)
        for x in range(n):
            points = voxel_lattice(
                n, side, start=x * n * n, stop=(x + 1) * n * n, device=self.model.device
            )
            with torch.no_grad():
                volume[x] = raw_density(field, points[None]).reshape(n, n).float().cpu().numpy()
        self._save(f"density_{name}", self._picture(scene, self._camera(ABOVE)))
        np.save(self.args.output_dir / f"density_{name}.npy", volume)


NAMES = [name for name in vars(Visualizer) if not name.startswith("_")]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", type=_known, help="what to show: see above")
    add_model(parser)
    add = parser.add_argument
    add("--num_interp_steps", type=positive, default=6, metavar="N",
        help="steps of interp, interp_video_grid, interp_density, with both ends (6)")  # fmt: skip
    add("--voxel_resolution", type=positive, default=128, metavar="N",
        help="densities along each side of the cube (128)")  # fmt: skip
    add("--cube_size", type=_length, metavar="SIDE",
        help="of the cube, in world units (what the frontal camera sees)")  # fmt: skip
    add_film(parser)
    add_trajectory(parser, None)
    parser.set_defaults(fps=30.0, crf=10, output_dir=Path("visualizations"))
    return parser.parse_args()


def main() -> None:
    """Show."""
    args = parse_args()
    if args.voxel_resolution < 2:
        raise ValueError("--voxel_resolution must be at least 2")
    args.path = best_checkpoint(args.path)
    print(f"showing {args.path}")
    getattr(Visualizer(args, open_model(args)), args.name)()
    print(f"wrote {args.name} to {args.output_dir}")


def _known(name: str) -> str:
    if name not in NAMES:
        raise argparse.ArgumentTypeError(f"unknown name {name!r}{nearest(name, NAMES)}")
    return name


def _length(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a length above 0, got {text!r}")
    return value


if __name__ == "__main__":
    run_script(main)

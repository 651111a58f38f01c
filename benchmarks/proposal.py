"""Few samples, placed by a density grid, against the plain reference: closeness to the truth, time.

  PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/proposal.py runs/fitted_wall

The truth of each seed is a picture of 384 evenly spaced samples per ray, without chance. The plain
reference (benchmarks/reference.py) draws its samples' places at random, as the original does. All
sides take turns. `first` is one frame of a scene that nothing is known of, the grid's cost
included; `known`, one more of it; `film`, a frame of a film (--num_frames) that goes to and fro
before the scene: of a few frames, and its share of the grid, which grows with what is seen. Prints
JSON: PSNR of pictures in 0..1 (the mean, the worst, and the least by which a seed's exceeds the
reference's; all of the first frame), evaluations per ray, seconds and ratios to the reference,
medians over the seeds. Folding a style, milliseconds, and compiling, seconds once, are not counted.
On a CPU, seconds are those that the process computes. `--picture` saves a row per seed: the truth,
the reference, then ours in the order of the line, without the film.
"""

import argparse
import dataclasses
import math
import os
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.reference import reference_render
from benchmarks.render import CountedField
from benchmarks.timing import clock_of, interleave, report
from curriculums import stage_at
from generators.pigan import PiGAN
from inference.checkpoint import checkpoint_step, load_generator
from inference.media import save_png, tile, to_uint8
from inference.options import add_device, add_seeds, flatten, positive
from inference.scene import Scene
from inference.views import front_pitch, seeded_latents
from rendering.cameras import Cameras
from rendering.proposal import Proposal
from rendering.settings import RenderSettings
from stages import Stage

DENSE = 384  # samples of the truth
SWEEP = 0.3  # radians that the film goes to either side
Row = dict[str, float]


def psnr(a: Tensor, b: Tensor) -> float:
    """Of pictures in [-1, 1], on the scale of 0..1."""
    return -10 * math.log10(max(float((a - b).square().mean()) / 4, 1e-12))


class Ours:
    """One scene with one number of samples and one precision, ready to be timed."""

    def __init__(
        self,
        generator: PiGAN,
        w: Tensor,
        samples: int,
        dtype: torch.dtype | None,
        settings: RenderSettings,
    ) -> None:
        self.samples, self.settings = samples, settings
        self.scene = Scene(generator, w, proposal=samples, dtype=dtype)
        self.field = CountedField(self.scene)

    def look_first(self, camera: Cameras) -> Tensor:
        """The picture of a scene that nothing is known of."""
        self.forget()
        return self.look(camera)

    def forget(self) -> None:
        """Know nothing of the scene again."""
        self.scene.proposal = Proposal(self.samples)

    def extend(self, camera: Cameras) -> None:
        """Find the density that a camera sees, as `look` does."""
        proposal, field = self.scene.proposal, self.scene.field
        assert proposal is not None and field is not None
        dtype, device = self.scene.dtype, camera.cam2world.device.type
        with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            proposal.extend(field, camera, self.settings)

    def look(self, camera: Cameras) -> Tensor:
        """The picture that a camera takes."""
        return self.scene.look(camera, self.settings).image


def measure(
    generator: PiGAN, w: Tensor, stage: Stage, settings: RenderSettings, args: argparse.Namespace
) -> tuple[dict[str, Row], list[Tensor]]:
    """Numbers of the reference and of each kind of ours, for one style; pictures, truth first."""
    device = w.device
    yaws = args.yaw + SWEEP * torch.sin(torch.linspace(0, 2 * math.pi, args.num_frames + 1)[:-1])
    film = Cameras.from_angles(stage.h_mean + yaws, front_pitch(stage), stage.fov, stage.radius)
    film = film.to(device)
    camera = film[0]
    rng = torch.Generator(device).manual_seed(0)
    dense = dataclasses.replace(settings, num_steps=DENSE, hierarchical=False)
    truth = Scene(generator, w, exact=True).look(camera, dense).image
    drawn = dataclasses.replace(settings, jitter=True)

    @torch.no_grad()
    def plain() -> Tensor:
        return reference_render(generator, w, camera, drawn, rng)

    pictures = [truth, plain()]
    rows = {"plain": {"psnr": psnr(pictures[1], truth), "points": 2.0 * settings.num_steps}}
    sides = {
        f"{samples}{'_bf16' if dtype else ''}": Ours(generator, w, samples, dtype, settings)
        for samples in args.samples
        for dtype in (None, torch.bfloat16)
    }
    turns: dict[str, Callable[[], object]] = {"plain": plain}
    for name, ours in sides.items():
        turns[f"first_{name}"] = lambda ours=ours: ours.look_first(camera)
        turns[name] = lambda ours=ours: ours.look(camera)
    seconds = interleave(turns, args.rounds, device)
    rays = settings.resolution**2
    rows["plain"]["s"] = seconds["plain"]
    for name, ours in sides.items():
        ours.field.taken()
        pictures.append(ours.look_first(camera))
        row = {"psnr": psnr(pictures[-1], truth)}
        both = ours.field.taken() / rays
        ours.look(camera)
        row["points"] = ours.field.taken() / rays
        row["grid_points"] = both - row["points"]
        row |= {"s": seconds[name], "first_s": seconds[f"first_{name}"]}
        row["film_s"] = film_seconds(ours, film, args.film_frames)
        row |= {f"ratio_{k}": seconds["plain"] / row[f"{k}_s"] for k in ("first", "film")}
        rows[name] = row | {"ratio_known": seconds["plain"] / row["s"]}
    return rows, pictures


def film_seconds(ours: Ours, film: Cameras, frames: int) -> float:
    """Seconds of a frame of a film: the grid of all of them is found, some are rendered."""
    clock = clock_of(film.cam2world.device)
    ours.forget()
    began = clock()
    for camera in film:
        ours.extend(camera)
    found = clock()
    picked = film[torch.linspace(0, len(film) - 1, min(frames, len(film))).long()]
    for camera in picked:
        ours.look(camera)
    return (found - began) / len(film) + (clock() - found) / len(picked)


def summary(seeds: list[dict[str, Row]]) -> dict[str, dict[str, float]]:
    """Medians over the seeds of every side's numbers; of PSNR the mean, and the worst."""
    lines = {}
    for name in seeds[0]:
        rows = [seed[name] for seed in seeds]
        line = {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
        line["psnr"] = round(statistics.mean(row["psnr"] for row in rows), 2)
        line["worst_psnr"] = round(min(row["psnr"] for row in rows), 2)
        gain = min(
            row["psnr"] - seed["plain"]["psnr"] for row, seed in zip(rows, seeds, strict=True)
        )
        lines[name] = line | {"least_gain": round(gain, 2)}
    return lines


def main() -> None:
    """Time all sides and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("path", type=Path, help="a generator.pth of a PiGAN, or the run's directory that holds it")
    add_seeds(parser, "0-1")
    add(
        "--samples",
        type=positive,
        nargs="+",
        default=[4, 5, 8, 16],
        help="most of a ray (4 5 8 16)",
    )
    add("--psi", type=float, default=1.0, help="truncation (1: none)")
    add("--yaw", type=float, default=0.25, help="radians from the pose law's middle (0.25)")
    add("--image_size", type=positive, default=128, help="pixels per side (128)")
    add("--num_steps", type=positive, default=24, help="the reference's, of each pass (24)")
    add("--num_frames", type=positive, default=36, help="frames of the film (36)")
    add("--film_frames", type=positive, default=4, help="frames of it that are rendered (4)")
    add("--rounds", type=positive, default=2, help="turns (2)")
    add("--picture", type=Path, help="a .png to save")
    add_device(parser)
    args = parser.parse_args()
    device = torch.device(args.device)
    generator, curriculum = load_generator(args.path, device)
    if not isinstance(generator, PiGAN) or generator.siren.bound_radius:
        parser.error("the reference draws a PiGAN's field without bounds alone")
    if device.type == "cpu" and shutil.which(os.environ.get("CXX") or "g++"):
        generator.compile_field()
    stage = stage_at(curriculum, checkpoint_step(args.path))
    settings = dataclasses.replace(
        stage.eval_settings(
            resolution=args.image_size, num_steps=args.num_steps, max_batch_size=2_400_000
        ),
        hierarchical=True,
    )
    seeds, pictures = [], []
    for seed in flatten(args.seeds):
        z = seeded_latents([seed], generator.latent_dim, stage.z_dist).to(device)
        with torch.no_grad():
            w = generator.mapping(z, psi=args.psi)
        rows, row = measure(generator, w, stage, settings, args)
        seeds.append(rows)
        pictures += row
    if args.picture is not None:
        save_png(
            args.picture, tile(to_uint8(torch.cat(pictures)), columns=len(pictures) // len(seeds))
        )
    numbers = {
        "run": args.path.name,
        "image_size": args.image_size,
        "samples": f"{args.num_steps}+{args.num_steps}",
        "frames": args.num_frames,
        "seeds": len(seeds),
        "compiled": generator.siren.compiled,
    }
    report("proposal", device, numbers | summary(seeds))


if __name__ == "__main__":
    main()

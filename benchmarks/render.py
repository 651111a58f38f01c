"""An orbit around one latent: empty space left out against every sample evaluated.

  PYTHONPATH=. python benchmarks/render.py runs/toys --seeds 0-2 --rounds 6

Per seed, frames of the orbit are rendered both ways in turns; a video's time is that of its frames
plus finding empty space once. Prints evaluations of the field, seconds and the worst PSNR of a
frame; then how much longer pictures, and small ones, take when the field is built anew for each of
them: styles folded into weights, planes painted. On the CPU, seconds are those that the process
computes, so that neighbours do not count.
"""

import argparse
import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import interleave, report
from curriculums import stage_at
from generators.base import RadianceGenerator
from inference.checkpoint import checkpoint_step, load_generator
from inference.options import add_device, add_seeds, flatten, positive
from inference.scene import Scene
from inference.views import seeded_latents
from rendering.cameras import Cameras
from rendering.field import raw_density
from rendering.settings import RenderSettings
from rendering.trajectories import orbit


def clock(device: torch.device) -> Callable[[], float]:
    """What seconds are taken from."""
    return time.process_time if device.type == "cpu" else time.perf_counter


class CountedField:
    """A field that counts the points that it is asked for."""

    def __init__(self, scene: Scene) -> None:
        assert scene.field is not None
        self.field, self.points = scene.field, 0
        scene.field = self

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        self.points += points.shape[0] * points.shape[1]
        return self.field(points, directions)

    def density(self, points: Tensor) -> Tensor:
        """Raw density, by the cheapest way that the field offers."""
        self.points += points.shape[0] * points.shape[1]
        return raw_density(self.field, points)

    def taken(self) -> int:
        """Points since the last question."""
        points, self.points = self.points, 0
        return points


def skipping(
    generator: RadianceGenerator, w: Tensor, cameras: Cameras, settings: RenderSettings, rounds: int
) -> dict[str, float]:
    """Evaluations, seconds and PSNR of frames of an orbit around one style, both ways."""
    full, sparse = Scene(generator, w, exact=True), Scene(generator, w)
    full_points, sparse_points = CountedField(full), CountedField(sparse)
    sparse.find_occupancy(cameras[0], settings)
    grid_points = sparse_points.taken()
    picked = cameras[torch.linspace(0, len(cameras) - 1, rounds + 1).long()]
    pictures: dict[str, list[Tensor]] = {"full": [], "skipping": []}

    def show(name: str, scene: Scene, frames: cycle) -> None:
        pictures[name].append(scene.look(next(frames), settings).image)

    frames = {name: cycle(picked) for name in pictures}
    scenes = {"full": full, "skipping": sparse}
    device, seconds_of = w.device, clock(w.device)
    seconds = interleave(
        {k: lambda k=k: show(k, scenes[k], frames[k]) for k in pictures},
        rounds,
        device,
        clock(device),
    )
    grid = interleave(
        {"grid": lambda: sparse.find_occupancy(cameras[0], settings)}, 2, device, seconds_of
    )
    sparse_points.taken()
    sparse.look(cameras[0], settings)
    full_points.taken()
    full.look(cameras[0], settings)
    errors = [
        float((a - b).square().mean()) / 4  # of a range of 2
        for a, b in zip(*pictures.values(), strict=True)
    ]
    return {
        "full_points": full_points.taken(),
        "skipping_points": sparse_points.taken(),
        "grid_points": grid_points,
        **{f"{k}_s": v for k, v in (seconds | grid).items()},
        "psnr": -10 * math.log10(max(*errors, 1e-12)),
    }


def rebuilding(
    generator: RadianceGenerator, z: Tensor, cameras: Cameras, settings: RenderSettings, rounds: int
) -> dict[str, float]:
    """Seconds of pictures with the field built once and built anew, from the latent on."""
    scene = Scene(generator, generator.mapping(z), exact=True)

    def anew() -> None:
        with torch.no_grad():
            generator.synthesis(generator.mapping(z), cameras[0], settings)

    kinds = {"once": lambda: scene.look(cameras[0], settings), "anew": anew}
    return interleave(kinds, rounds, z.device, clock(z.device))


def main() -> None:
    """Time both and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("path", type=Path, help="a generator.pth, or the run's directory that holds it")
    add_seeds(parser)
    add("--psi", type=float, default=0.7, help="truncation (0.7)")
    add("--image_size", type=positive, default=256, help="pixels per side (256)")
    add("--small_size", type=positive, default=16, help="the same of the pictures of fields (16)")
    add("--num_steps", type=positive, default=48, help="samples per ray of each pass (48)")
    add("--num_frames", type=positive, default=36, help="frames of the orbit (36)")
    add("--rounds", type=positive, default=6, help="frames that are timed (6)")
    add_device(parser)
    args = parser.parse_args()
    device = torch.device(args.device)
    generator, curriculum = load_generator(args.path, device)
    if not isinstance(generator, RadianceGenerator):
        parser.error("a 2D generator has no field to look at")
    stage = stage_at(curriculum, checkpoint_step(args.path))
    settings = dataclasses.replace(
        stage.eval_settings(
            resolution=args.image_size, num_steps=args.num_steps, max_batch_size=2_400_000
        ),
        hierarchical=True,
    )
    small = dataclasses.replace(settings, resolution=args.small_size, num_steps=12)
    cameras = orbit(args.num_frames, stage.fov).to(args.device)
    rows, fields, wholes = [], [], []
    for seed in flatten(args.seeds):
        z = seeded_latents([seed], generator.latent_dim, stage.z_dist).to(device)
        with torch.no_grad():
            w = generator.mapping(z, psi=args.psi)
        rows.append(skipping(generator, w, cameras, settings, args.rounds))
        fields.append(rebuilding(generator, z, cameras, small, 20 * args.rounds))
        wholes.append(rebuilding(generator, z, cameras, settings, args.rounds))
    report("render", device, summary(rows, fields, args) | whole_pictures(wholes))


def whole_pictures(wholes: list[dict[str, float]]) -> dict[str, object]:
    """Medians over the seeds: pictures of the full size, their field built once and anew."""
    once, anew = (statistics.median(w[kind] for w in wholes) for kind in ("once", "anew"))
    ratio = statistics.median(w["anew"] / w["once"] for w in wholes)
    return {"once_s": round(once, 4), "anew_s": round(anew, 4), "anew_ratio": round(ratio, 3)}


def summary(
    rows: list[dict[str, float]], fields: list[dict[str, float]], args: argparse.Namespace
) -> dict[str, object]:
    """One line's numbers: medians over the seeds, the worst PSNR, ratios of whole orbits."""

    def median(name: str) -> float:
        return statistics.median(row[name] for row in rows)

    def gains(kind: str) -> list[float]:
        frames = args.num_frames
        full = [frames * r[f"full_{kind}"] for r in rows]
        sparse = [frames * r[f"skipping_{kind}"] + r[f"grid_{kind}"] for r in rows]
        return [a / b for a, b in zip(full, sparse, strict=True)]

    return {
        "image_size": args.image_size,
        "samples": f"{args.num_steps}+{args.num_steps}",
        "frames": args.num_frames,
        "seeds": len(rows),
        **{k: round(median(k)) for k in ("full_points", "skipping_points", "grid_points")},
        **{k: round(median(k), 4) for k in ("full_s", "skipping_s", "grid_s")},
        "points_ratio": round(statistics.median(gains("points")), 2),
        "ratio": round(statistics.median(gains("s")), 2),
        "ratio_of_each_seed": [round(r, 2) for r in gains("s")],
        "worst_psnr": round(min(row["psnr"] for row in rows), 1),
        "small_size": args.small_size,
        "built_anew_ratio": round(statistics.median(f["anew"] / f["once"] for f in fields), 3),
    }


if __name__ == "__main__":
    main()

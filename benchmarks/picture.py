"""One picture the original's way against ours with the same samples, in every precision.

  PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/picture.py runs/fitted_wall --seeds 0-1

Both sides place their samples alike and draw nothing at random (`jitter` off), so that pictures can
be compared: `psnr` is the worst of all views against the reference's (benchmarks/reference.py;
--compile_reference adds torch.compile of it). "every sample" evaluates what the reference does;
"skipping" leaves out empty, hidden and crowded samples (rendering/sparse.py). `ratio` compares the
seconds of pictures, `one_frame` adds finding empty space to the only picture that there is, `film`
to the first of --num_frames. The mean of 10,000 latents, which the original estimates anew for
every picture, is not counted against it, nor are folding a style and compiling (seconds, once)
against ours. `per_ray` is of the last view, without the search. Fields with a `bound_radius` are
refused: the reference knows none.
"""

import argparse
import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.reference import reference_field, reference_render
from benchmarks.render import CountedField
from benchmarks.timing import interleave, report
from curriculums import stage_at
from generators.pigan import PiGAN
from inference.checkpoint import checkpoint_step, load_generator
from inference.options import add_device, add_seeds, flatten, positive
from inference.scene import Scene
from inference.views import seeded_latents
from rendering.cameras import Cameras
from rendering.settings import RenderSettings
from stages import Stage

Kind = tuple[bool, bool, torch.dtype | None]  # every sample, compiled, 16-bit products


def kinds(device: torch.device) -> dict[str, Kind]:
    """Our ways: every sample or skipping; on a CPU compiled, too, and in bf16."""
    ways: dict[str, tuple[bool, torch.dtype | None]] = {"fp32": (False, None)}
    if device.type == "cpu" and shutil.which(os.environ.get("CXX") or "g++"):
        ways |= {"compiled": (True, None), "compiled bf16": (True, torch.bfloat16)}
    return {
        f"{name}, {way}": (exact, *ways[way])
        for name, exact in (("every sample", True), ("skipping", False))
        for way in ways
    }


class Contest:
    """One style, seen by the same cameras in all ways."""

    def __init__(
        self, generator: PiGAN, w: Tensor, cameras: Cameras, settings: RenderSettings
    ) -> None:
        self.generator, self.w, self.cameras, self.settings = generator, w, cameras, settings
        self.pictures: dict[str, list[Tensor]] = {}
        self.evaluations: dict[str, int] = {}
        self.scenes: dict[str, tuple[Scene, CountedField, bool]] = {}

    def add(self, name: str, kind: Kind) -> None:
        """A way of ours, with its scene built and empty space found."""
        exact, compiled, dtype = kind
        scene = Scene(self.generator, self.w, exact=exact, dtype=dtype)
        self.scenes[name] = scene, CountedField(scene), compiled
        if not exact:
            self.search(name)

    def search(self, name: str) -> None:
        """Find empty space."""
        scene, _, self.generator.siren.compiled = self.scenes[name]
        dtype = scene.dtype
        with torch.autocast(self.w.device.type, dtype=dtype, enabled=dtype is not None):
            scene.find_occupancy(self.cameras[0], self.settings)

    def look(self, name: str, view: int) -> None:
        """Take a picture."""
        scene, counted, self.generator.siren.compiled = self.scenes[name]
        counted.taken()
        self._keep(name, scene.look(self.cameras[view], self.settings).image)
        self.evaluations[name] = counted.taken()

    @torch.no_grad()
    def reference(self, name: str, field: Callable[..., Tensor], view: int) -> None:
        """Take it the original's way."""
        camera, settings = self.cameras[view], self.settings
        image = reference_render(self.generator, self.w, camera, settings, field=field)
        self._keep(name, image)

    def psnr(self, name: str) -> float:
        """The worst of the views, in dB."""
        pairs = zip(self.pictures["reference"], self.pictures[name], strict=True)
        worst = max(float((a - b).square().mean()) / 4 for a, b in pairs)  # of a range of 2
        return -10 * math.log10(max(worst, 1e-12))

    def _keep(self, name: str, image: Tensor) -> None:
        self.pictures.setdefault(name, []).append(image)


def race(
    contest: Contest,
    views: int,
    num_frames: int,
    references: Mapping[str, Callable[..., Tensor]],
) -> dict[str, dict[str, float]]:
    """Seconds, ratios, evaluations per ray and PSNR of every way; references' come first."""
    device = contest.w.device
    for name, kind in kinds(device).items():
        contest.add(name, kind)
    takes = {name: partial(contest.reference, name, f) for name, f in references.items()}
    takes |= {name: partial(contest.look, name) for name in contest.scenes}
    view = {name: cycle(range(views)) for name in takes}
    candidates = {name: lambda name=name: takes[name](next(view[name])) for name in takes}
    seconds = interleave(candidates, views, device)
    sparse = [name for name, (scene, _, _) in contest.scenes.items() if not scene.exact]
    search = interleave({name: partial(contest.search, name) for name in sparse}, 2, device)
    rows = {name: {"s": seconds[name]} for name in references}
    for name in contest.scenes:
        taken, paid = seconds[name], search.get(name, 0.0)
        film = num_frames * taken + paid
        rows[name] = {
            "s": taken,
            "search_s": paid,
            "ratio": seconds["reference"] / taken,
            "one_frame": seconds["reference"] / (taken + paid),
            "film": num_frames * seconds["reference"] / film,
            "per_ray": contest.evaluations[name] / contest.settings.resolution**2,
            "psnr": contest.psnr(name),
        }
    return rows


def view_cameras(stage: Stage, views: int) -> Cameras:
    """Cameras side by side, one and a half standard deviations of the yaw to either side."""
    yaw = stage.h_mean + stage.h_stddev * torch.linspace(-1.5, 1.5, views + 2)[1:-1]
    return Cameras.from_angles(yaw, torch.full_like(yaw, stage.v_mean), stage.fov, stage.radius)


def main() -> None:
    """Time all ways in turns and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("path", type=Path, help="a pi-GAN's generator.pth, or the run's directory that holds it")
    add_seeds(parser, "0-1")
    add("--psi", type=float, default=1.0, help="truncation (1: none)")
    add("--image_size", type=positive, default=128, help="pixels per side (128)")
    add("--num_steps", type=positive, default=24, help="samples per ray of each pass (24)")
    add("--views", type=positive, default=3, help="views that are timed (3)")
    add("--num_frames", type=positive, default=36, help="frames of the film (36)")
    add("--compile_reference", action="store_true", help="also torch.compile of the reference")
    add_device(parser)
    args = parser.parse_args()
    device = torch.device(args.device)
    generator, curriculum = load_generator(args.path, device)
    if not isinstance(generator, PiGAN) or generator.siren.bound_radius:
        parser.error("the reference is of pi-GAN without bound_radius")
    stage = stage_at(curriculum, checkpoint_step(args.path))
    settings = dataclasses.replace(
        stage.eval_settings(
            resolution=args.image_size, num_steps=args.num_steps, max_batch_size=2_400_000
        ),
        hierarchical=True,
    )
    cameras = view_cameras(stage, args.views).to(args.device)
    references: dict[str, Callable[..., Tensor]] = {"reference": reference_field}
    if args.compile_reference:
        references["compiled reference"] = torch.compile(reference_field)
    for seed in flatten(args.seeds):
        z = seeded_latents([seed], generator.latent_dim, stage.z_dist).to(device)
        with torch.no_grad():
            w = generator.mapping(z, psi=args.psi)
        contest = Contest(generator, w, cameras, settings)
        for name, row in race(contest, args.views, args.num_frames, references).items():
            numbers = {
                key: round(value, 4 if key.endswith("s") else 2) for key, value in row.items()
            }
            samples = f"{args.num_steps}+{args.num_steps}"
            line = {"image_size": args.image_size, "samples": samples, "seed": seed, "way": name}
            report("picture", device, line | numbers)


if __name__ == "__main__":
    main()

"""Extracting a surface: all voxels against those near it, and against the original's way.

  PYTHONPATH=. python benchmarks/shapes.py runs/toys --voxel_resolution 256

Near the surface alone: in full precision, and on a CPU with a compiler also as `--compile` and
`--compile --precision bf16` do it. Each side ends with the same marching cubes; its vertices, one
for each lattice edge that the surface cuts, are compared in voxels. The reference
(benchmarks/reference.py) evaluates colour and density of every voxel, 100,000 at a time, as the
original does. Surveying level and cube, normals and colours are on neither side. On the CPU seconds
are those that the process computes. Without a run the field is an untrained one, which is no guide
to a trained one.
"""

import argparse
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from scipy.spatial import KDTree
from torch import Tensor

from benchmarks.reference import reference_field
from benchmarks.timing import interleave, report
from curriculums import Curriculum, Toys, stage_at
from generators import Generator
from generators.pigan import PiGAN
from inference.checkpoint import build_generator, checkpoint_step, load_generator
from inference.options import add_device, positive
from inference.shapes import find_surface, look_around
from inference.views import seeded_latents
from rendering.grid import FieldDensity, dense_slabs, voxel_lattice
from rendering.surface import level_surface
from rendering.survey import enclosing_cube, surface_level
from stages import Stage

REFERENCE_BATCH = 100_000


def load(path: Path | None, device: str) -> tuple[Generator, Stage]:
    """A run's generator, or an untrained one of the Toys curriculum."""
    curriculum: Curriculum = Toys
    if path is not None:
        generator, curriculum = load_generator(path, device)
        return generator, stage_at(curriculum, checkpoint_step(path))
    torch.manual_seed(0)
    stage = stage_at(curriculum, 0)
    generator, _ = build_generator(stage)
    generator.update_w_avg()
    return generator.to(device).eval().requires_grad_(False), stage


class Contest:
    """The same surface of one style, found in several ways."""

    def __init__(self, generator: PiGAN, w: Tensor, stage: Stage, resolution: int) -> None:
        self.generator, self.w, self.resolution = generator, w, resolution
        self.density = FieldDensity(generator.field(w))
        seen = look_around(self.density, stage, stage.eval_settings(), w.device)
        self.level = surface_level(seen, stage.eval_settings())
        self.cube_size = enclosing_cube(seen)
        self.vertices: dict[str, Tensor] = {}
        self.evaluations: dict[str, int] = {}

    def near(self, name: str, dtype: torch.dtype | None = None, *, compiled: bool = False) -> None:
        """Only where the surface runs, searched with products of `dtype`; None: fp32."""
        self.generator.siren.compiled = compiled
        field = self.generator.field(self.w)
        density, rough = FieldDensity(field), FieldDensity(field, dtype) if dtype else None
        mesh = find_surface(
            density, self.resolution, self.cube_size, self.level, self.w.device, rough
        )
        self.generator.siren.compiled = False
        evaluations = density.evaluations + (rough.evaluations if rough else 0)
        self._note(name, mesh.vertices, evaluations)

    def dense(self) -> None:
        """The density of every voxel, as fast as the field can."""
        slabs = dense_slabs(self.density, self.resolution, self.cube_size, device=self.w.device)
        self._march("dense", torch.stack(list(slabs)))

    @torch.no_grad()
    def reference(
        self, name: str = "reference", field: Callable[..., Tensor] = reference_field
    ) -> None:
        """Colour and density of every voxel, layer by layer."""
        n, parts = self.resolution, []
        for start in range(0, n**3, REFERENCE_BATCH):
            stop = min(start + REFERENCE_BATCH, n**3)
            points = voxel_lattice(n, self.cube_size, start=start, stop=stop, device=self.w.device)
            views = torch.zeros_like(points)
            values = field(self.generator, self.w, points[None], views[None])[0, :, 3]
            inside = self.generator.siren.inside(points[None])
            parts.append(values if inside is None else torch.where(inside[0], values, -1e4))
        self._march(name, torch.cat(parts).reshape(n, n, n))

    def apart(self, name: str) -> float:
        """Largest distance, in voxels, of a vertex from the nearest of every voxel's mesh."""
        one, other = (KDTree(self.vertices[k].cpu().numpy()) for k in ("dense", name))
        farthest = max(one.query(other.data)[0].max(), other.query(one.data)[0].max())
        return float(farthest) / (self.cube_size / (self.resolution - 1))

    def _march(self, name: str, volume: Tensor) -> None:
        vertices, _ = level_surface(volume, self.level, self.cube_size)
        self._note(name, vertices, volume.numel())

    def _note(self, name: str, vertices: Tensor, evaluations: int) -> None:
        self.vertices[name], self.evaluations[name] = vertices, evaluations


def main() -> None:
    """Extract in turns, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("path", type=Path, nargs="?", help="a trained pi-GAN's run (default: an untrained one)")
    add("--voxel_resolution", type=positive, default=64, help="voxels per side (64)")
    add("--rounds", type=positive, default=1, help="turns that are timed (1)")
    add("--psi", type=float, default=0.5, help="truncation of seed 0 (0.5)")
    add("--no_warm_up", action="store_true", help="no turn that is not timed: minutes fewer")
    add("--no_reference", action="store_true", help="leave out the original's way, the slowest")
    add("--compile_reference", action="store_true", help="also torch.compile of the original's way")
    add_device(parser)
    args = parser.parse_args()
    device = torch.device(args.device)
    generator, stage = load(args.path, args.device)
    assert isinstance(generator, PiGAN)
    w = generator.mapping(seeded_latents([0], generator.latent_dim).to(device), psi=args.psi)
    contest = Contest(generator, w, stage, args.voxel_resolution)
    candidates = {"near": partial(contest.near, "near"), "dense": contest.dense}
    if device.type == "cpu" and shutil.which(os.environ.get("CXX") or "g++"):
        candidates["near_compiled"] = partial(contest.near, "near_compiled", compiled=True)
        mixed = partial(contest.near, "near_mixed", torch.bfloat16, compiled=True)
        candidates["near_mixed"] = mixed
    if not args.no_reference:
        candidates["reference"] = contest.reference
    if args.compile_reference:
        compiled = torch.compile(reference_field)
        name = "compiled_reference"
        candidates[name] = partial(contest.reference, name, compiled)
    seconds = interleave(candidates, args.rounds, device, warm_up=not args.no_warm_up)
    numbers: dict[str, object] = {
        "voxel_resolution": args.voxel_resolution,
        "level": round(contest.level, 3),
        "cube_size": round(contest.cube_size, 4),
    }
    slowest = "dense" if args.no_reference else "reference"
    for name, taken in seconds.items():
        numbers[name] = {
            "s": round(taken, 3),
            "ratio": round(seconds[slowest] / taken, 1),
            "evaluations": contest.evaluations[name],
            "vertices": len(contest.vertices[name]),
            "apart_voxels": round(contest.apart(name), 6),
        }
    report("shapes", device, numbers)


if __name__ == "__main__":
    main()

"""A training step on patches, and on whole images, against the images' resolution.

  PYTHONPATH=. python benchmarks/patches.py --plot docs/images/patches.png
  PYTHONPATH=. python benchmarks/patches.py --device cuda --patch_size 64 --planes 256 --steps 48

Both players are EpiGRAF's, the discriminator as deep for all. Whole images stop at --largest_whole
pixels. Memory is the peak on a GPU; elsewhere it is what the step keeps for its backward passes,
and seconds are those that the process computes. Needs matplotlib for the plot; prints JSON.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import interleave, report
from curriculums import stage_at
from inference.options import add_device, positive, run_script
from recipes.epigraf import megascans_food
from training.build import build_players
from training.distributed import World
from training.fakes import Sampler
from training.players import Moment, Reals
from training.random import Streams
from training.steps import discriminator_step, generator_step, r1_step


class Match:
    """Small EpiGRAF players that train on random pictures of one size."""

    def __init__(self, args: argparse.Namespace, img_size: int, patch_size: int | None) -> None:
        device = torch.device(args.device)
        curriculum = megascans_food(img_size=img_size, batch_size=args.batch_size)
        curriculum["generator_options"] |= {
            "plane_resolution": args.planes,
            "channel_max": args.width,
        }
        curriculum["discriminator_options"] |= {
            "channel_max": args.width,
            "resolution": max(args.img_sizes),
            "patch_size": patch_size or img_size,
        }
        curriculum |= {
            "label_dim": 0,
            "patch_size": patch_size,
            "patch_options": {"anneal_kimg": 0} if patch_size else {},
            "num_steps": args.steps,
            "precision": "fp32",
            "augment": "noaug",
            "blur_init_sigma": 0,
            "blur_fade_kimg": 0,
        }
        self.stage = stage_at(curriculum, 0)
        self.streams = Streams(0, 0, device)
        self.players, _ = build_players(
            self.stage, 0, World(0, 1, device), self.streams.rendering, self.streams.chance
        )
        settings = self.stage.render_settings(0, resolution=patch_size or img_size)
        self.moment = Moment(self.stage, 0, 1.0, settings)
        group = self.players.discriminator.group_size(args.batch_size)
        generator = self.players.generator
        self.sampler = Sampler(self.stage, generator, self.streams, group_size=group)
        self.pictures = torch.rand(args.batch_size, 3, img_size, img_size, device=device) * 2 - 1

    def step(self) -> None:
        """A step of both players with its R1 penalty, from whole real pictures on."""
        reals = self.sampler.windows(Reals(self.pictures), 0)
        discriminator_step(self.players, self.moment, reals, self.sampler.fakes(0))
        r1_step(self.players, self.moment, reals, 1)
        generator_step(self.players, self.moment, self.sampler.fakes(0))

    def megabytes(self) -> float:
        """Memory of a step: its peak on a GPU, what it keeps for backward passes elsewhere."""
        device = self.pictures.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.step()
            return torch.cuda.max_memory_allocated(device) / 2**20
        kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.step()
        return kept / 2**20


def plot(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Memory and time against resolution, for patches and for whole images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6))
    for kind in ("patches", "whole"):
        chosen = [row for row in rows if row["kind"] == kind]
        label = f"patches of {args.patch_size}" if kind == "patches" else "whole images"
        for axis, key in zip(axes, ("megabytes", "seconds"), strict=True):
            sizes = [row["img_size"] for row in chosen]
            axis.plot(sizes, [row[key] for row in chosen], marker="o", label=label)
            axis.set(xscale="log", yscale="log", xlabel="image resolution", ylabel=key)
            axis.set_xticks(args.img_sizes, [str(size) for size in args.img_sizes])
            axis.minorticks_off()
            numbers = [row[key] for row in rows]
            axis.set_ylim(min(numbers) / 3, max(numbers) * 3)
    axes[0].legend()
    figure.suptitle(f"A training step of EpiGRAF, {args.batch_size} pictures")
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.plot, dpi=110, bbox_inches="tight")


def main() -> None:
    """Measure every size in both ways, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--img_sizes", type=positive, nargs="+", default=[64, 128, 256, 512], help="(64 .. 512)")
    add("--patch_size", type=positive, default=16, help="pixels per side (16)")
    add("--largest_whole", type=positive, default=64, help="whole images up to this size (64)")
    add("--batch_size", type=positive, default=4, help="pictures per step (4)")
    add("--planes", type=positive, default=32, help="texels per side (32)")
    add("--steps", type=positive, default=8, help="coarse samples per ray (8)")
    add("--width", type=positive, default=32, help="largest number of channels (32)")
    add("--rounds", type=positive, default=3, help="timed steps of each (3)")
    add("--plot", type=Path, help="where the plot goes")
    add_device(parser)
    args = parser.parse_args()
    cases: list[tuple[str, int]] = [("patches", size) for size in args.img_sizes]
    cases += [("whole", size) for size in args.img_sizes if size <= args.largest_whole]
    rows = []
    for kind, size in cases:
        match = Match(args, size, args.patch_size if kind == "patches" else None)
        device = match.pictures.device
        megabytes = match.megabytes()
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        seconds = interleave({"step": match.step}, args.rounds, device, clock)["step"]
        row = {"kind": kind, "img_size": size, "megabytes": megabytes, "seconds": seconds}
        rows.append(row)
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        report("patches", device, {**rounded, "patch_size": args.patch_size})
    if args.plot:
        plot(rows, args)


if __name__ == "__main__":
    run_script(main)

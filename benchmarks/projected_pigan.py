"""pi-GAN's field on Toys under its own discriminator and under the projected one, time for time.

  PYTHONPATH=. python benchmarks/projected_pigan.py --output_dir runs/pigans \
      --plot docs/images/projected_pigan.png
  ... --own runs/toys --projected runs/toys_projected      # trained with --eval_freq 400 before

Trains both curricula, or takes runs that were. A run's time is its steps' times what a step of
their stage costs, which is measured here, both in turns: seconds that the process computes, so
that neighbours do not count. Compared at the end of the shorter one are the sliced Wasserstein
distance and view consistency, between measurements along straight lines, and of the last
checkpoints the errors of poses that a regressor reads off their pictures. Needs matplotlib for the
plot; prints JSON.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import interleave, report
from curriculums import CURRICULA, Curriculum, stage_at, stage_starts
from datasets import open_dataset
from inference.checkpoint import checkpoint_step, load_generator
from inference.options import positive, run_script
from inference.plots import read_metrics
from rendering.cameras import Cameras
from training.build import build_players
from training.distributed import World
from training.evaluate import measure
from training.geometry import measure_geometry
from training.players import Draw, Moment, Reals
from training.reference import make_reference
from training.steps import discriminator_step, generator_step
from training.trainer import RunOptions, Trainer

CURRICULUM = {"own": "Toys", "projected": "ToysProjectedPiGAN"}
TITLES = {"own": "pi-GAN's own discriminator", "projected": "projected discriminator"}
WARM = 1_000  # a step whose density noise has faded
ALONE = World(0, 1, torch.device("cpu"))
POSES = ("yaw_error", "yaw_aligned", "yaw_chance", "yaw_floor", "pitch_error", "pitch_floor")


def train(kind: str, args: argparse.Namespace) -> Path:
    """The directory of a run of a curriculum from its beginning."""
    run = args.output_dir / kind
    options = RunOptions(run, n_steps=args.n_steps, eval_freq=args.every, seed=args.seed)
    Trainer(CURRICULA[CURRICULUM[kind]], options, ALONE, measure).fit()
    return run


def a_step(curriculum: Curriculum, start: int) -> Any:
    """Both players' steps in the stage that begins at `start`, as a function."""
    stage = stage_at(curriculum, start)
    players, _ = build_players(
        stage_at(curriculum, 0), 0, ALONE, torch.Generator(), torch.Generator()
    )
    batch = stage.batch_size // stage.batch_split
    settings = stage.render_settings(WARM, resolution=stage.img_size)
    moment = Moment(stage, WARM, 1.0, settings)
    z = torch.randn(batch, stage.latent_dim, generator=torch.Generator().manual_seed(0))
    cameras = Cameras.sample(stage.pose_law(), batch, torch.Generator().manual_seed(0))
    draws = [Draw(z, cameras)] * stage.batch_split
    images = torch.rand(stage.batch_size, 3, stage.img_size, stage.img_size) * 2 - 1
    reals = Reals(images, Cameras.cat([cameras] * stage.batch_split))

    def step() -> None:
        discriminator_step(players, moment, reals, draws)
        generator_step(players, moment, draws)

    return step


def costs(runs: Mapping[str, Path], rounds: int) -> dict[str, dict[int, float]]:
    """Seconds of a step, by run and the step at which it takes effect."""
    found: dict[str, dict[int, float]] = {kind: {} for kind in runs}
    torch.manual_seed(0)
    curricula = {kind: load_generator(run, ema=None)[1] for kind, run in runs.items()}
    starts = sorted({s for c in curricula.values() for s in stage_starts(c)})
    for start in starts:
        steps = {
            kind: a_step(c, start) for kind, c in curricula.items() if start in stage_starts(c)
        }
        times = interleave(steps, rounds, torch.device("cpu"), time.process_time)
        for kind, value in times.items():
            found[kind][start] = value
    return found


def seconds_at(step: int, cost: Mapping[int, float]) -> float:
    """What training to a step costs."""
    starts = sorted(cost)
    ends = [*starts[1:], max(step, starts[-1])]
    spans = zip(starts, ends, strict=True)
    return sum(cost[a] * max(0, min(step, b) - a) for a, b in spans)


def curves_of(run: Path, cost: Mapping[int, float]) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds and values of what a run measured."""
    return {
        key: ([seconds_at(step, cost) for step, _ in curve], [value for _, value in curve])
        for key, curve in read_metrics(run).items()
        if key in ("swd", "view_consistency")
    }


def poses_of(
    runs: Mapping[str, Path], scenes: int, device: torch.device | str = "cpu"
) -> dict[str, dict[str, float]]:
    """Pose errors of the runs' last averages, from pictures of one size."""
    stages = {
        kind: stage_at(load_generator(run, ema=None)[1], checkpoint_step(run))
        for kind, run in runs.items()
    }
    size = min(stage.img_size for stage in stages.values())
    stage = dataclasses.replace(stages["own"], img_size=size)
    options = {"progress": False, **stage.dataset_options}
    dataset = open_dataset(stage.dataset, stage.dataset_path, size, **options)
    reference = make_reference(dataset, stage, device, figures=0)
    found = {}
    for kind, run in runs.items():
        settings = stages[kind].eval_settings(resolution=size, num_steps=2 * stage.num_steps)
        numbers = measure_geometry(
            load_generator(run, device)[0],
            stages[kind],
            num_images=scenes,
            settings=settings,
            reference=reference,
        )
        found[kind] = {key: round(numbers[key], 2) for key in POSES} | {"pose_img_size": size}
    return found


def compare(runs: Mapping[str, Path], args: argparse.Namespace) -> dict[str, Any]:
    """A row per run, after drawing the plot that was asked for."""
    cost = costs(runs, args.rounds)
    curves = {kind: curves_of(run, cost[kind]) for kind, run in runs.items()}
    ends = {kind: seconds_at(checkpoint_step(run), cost[kind]) for kind, run in runs.items()}
    budget = min(ends.values())
    if args.plot:
        plot(curves, args.plot)
    poses = poses_of(runs, args.scenes)
    rows: dict[str, Any] = {"budget_s": round(budget, 1)}
    for kind, run in runs.items():
        row: dict[str, Any] = {"seconds_per_step": {s: round(c, 3) for s, c in cost[kind].items()}}
        row["steps"], row["total_s"] = checkpoint_step(run), round(ends[kind], 1)
        for key, (seconds, values) in curves[kind].items():
            row[f"{key}_at_budget"] = round(float(np.interp(budget, seconds, values)), 3)
            row[f"{key}_last"] = round(values[-1], 3)
        rows[kind] = row | poses[kind]
    return rows


def plot(curves: Mapping[str, Any], file: Path) -> None:
    """Distance and view consistency against seconds of training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(7, 6))
    for kind, colour in zip(TITLES, ("tab:blue", "tab:orange"), strict=True):
        for axes, key in ((above, "swd"), (below, "view_consistency")):
            axes.plot(*curves[kind][key], "o-", color=colour, label=TITLES[kind])
    above.set_ylabel("sliced Wasserstein distance")
    above.set_yscale("log")
    above.legend()
    below.set_ylabel("view consistency")
    below.set_xlabel("seconds of one core")
    figure.suptitle("pi-GAN on Toys")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, bbox_inches="tight")


def main() -> None:
    """Train what is not there, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("runs/pigans"), help="where runs go")
    add("--own", type=Path, help="a run of Toys (default: train one)")
    add("--projected", type=Path, help="a run of ToysProjectedPiGAN (default: train one)")
    add("--n_steps", type=positive, help="of each run (default: to the curriculum's end)")
    add("--every", type=positive, default=400, help="steps between measurements (400)")
    add("--scenes", type=positive, default=64, help="of which poses are read (64)")
    add("--rounds", type=positive, default=5, help="of timing steps (5)")
    add("--seed", type=int, default=0, help="of runs that are trained (0)")
    add("--plot", type=Path, help="where the plot goes")
    args = parser.parse_args()
    runs = {kind: getattr(args, kind) or train(kind, args) for kind in CURRICULUM}
    report("projected_pigan", torch.device("cpu"), compare(runs, args))


if __name__ == "__main__":
    run_script(main)

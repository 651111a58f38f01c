"""Path lengths and equivariance of a generator, measured by all processes together.

Samples come in batches of four (two for path lengths), as in StyleGAN; batch k belongs to process
k mod size and draws from its own random generator, so that the number of processes does not matter.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from inference.samples import Samples
from metrics.equivariance import (
    ROTATE_MAX,
    TRANSLATE_MAX,
    SquaredError,
    compare_fractional,
    compare_integer,
    compare_rotated,
)
from metrics.path_length import path_distances, trimmed_mean
from training.distributed import World
from training.random import derive_seed

PATH_BATCH, MOTION_BATCH = 2, 4
EQUIVARIANCE = ("eqt_int", "eqt_frac", "eqr")
FAR = 1 << 30  # from the seeds of paths' beginnings to those of their ends; CPUs look at 32 bits


def path_length(
    world: World, samples: Samples, distance: Callable[[Tensor, Tensor], Tensor], count: int
) -> float:
    """PPL of `count` steps in w at the ends of paths (StyleGAN's ppl2_wend).

    A 3D generator is looked at from the same camera before and after the step.
    """

    def measure(numbers: Sequence[int]) -> Tensor:
        samples.redraw_noise(_rng(samples, "path noise", numbers[0]))
        draw = samples.draw(numbers, world.device)
        other = samples.draw([n + FAR for n in numbers], world.device)

        def style(z: Tensor) -> Tensor:
            ends = z.chunk(2)
            return torch.cat([samples.generator.mapping(e, draw.label, draw.cameras) for e in ends])

        return path_distances(
            style,
            lambda w: samples.still(w, draw.cameras),
            distance,
            (draw.z, other.z),
            torch.zeros(len(numbers), device=world.device),
        ).cpu()

    parts = _share_out(world, count, PATH_BATCH, measure, "path length")
    return trimmed_mean(torch.cat(parts))


def equivariance(
    world: World, samples: Samples, kinds: Sequence[str], count: int
) -> dict[str, float]:
    """EQ-T, EQ-T_frac and EQ-R in dB, those of `kinds`, from `count` samples."""
    kinds = [kind for kind in EQUIVARIANCE if kind in kinds]

    def measure(numbers: Sequence[int]) -> dict[str, SquaredError]:
        rng = _rng(samples, "motion", numbers[0])
        draw = samples.draw(numbers, world.device)
        w = samples.generator.mapping(draw.z, draw.label)
        # every kind's move is drawn, so that the others' numbers do not depend on what is asked
        moves = {
            "eqt_int": (torch.rand(2, generator=rng) * 2 - 1) * TRANSLATE_MAX,
            "eqt_frac": (torch.rand(2, generator=rng) * 2 - 1) * TRANSLATE_MAX,
            "eqr": float(torch.rand((), generator=rng) * 2 - 1) * ROTATE_MAX,
        }
        compare: dict[str, Callable[..., None]] = {
            "eqt_int": compare_integer,
            "eqt_frac": compare_fractional,
            "eqr": compare_rotated,
        }
        original = samples.moved(w, torch.eye(3))
        errors = {kind: SquaredError() for kind in kinds}
        for kind, error in errors.items():
            compare[kind](lambda t: samples.moved(w, t), original, moves[kind], error)
        return errors

    parts = _share_out(world, count, MOTION_BATCH, measure, "equivariance")
    totals = {kind: SquaredError() for kind in kinds}
    for errors in parts:
        for kind, error in errors.items():
            totals[kind].error += error.error
            totals[kind].count += error.count
    return {kind: total.psnr() for kind, total in totals.items()}


def _rng(samples: Samples, purpose: str, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(samples.seed, purpose, number))


@torch.no_grad()
def _share_out(
    world: World, count: int, batch: int, measure: Callable[[Sequence[int]], Any], title: str
) -> list[Any]:
    """What `measure` makes of every batch of numbers, in order, on every process."""
    starts, found = range(0, count, batch), {}
    mine = range(world.rank, len(starts), world.size)
    for k in tqdm(mine, title, disable=not world.is_main):
        found[k] = measure(range(starts[k], min(starts[k] + batch, count)))
    joined = {k: value for part in world.gather(found) for k, value in part.items()}
    return [joined[k] for k in sorted(joined)]

"""A training step replayed as a CUDA graph (training/graphs.py), against the same step as ever.

  PYTHONPATH=. python benchmarks/gpu.py --only graphs

`host_ms` is how long Python is busy with a step: where that is all of the time, the device waits
for it, and a graph helps; where the device is busy all the time, it cannot.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.timing import interleave
from benchmarks.train_step import Work, leave_empty, make_work
from training.graphs import GraphedSteps
from training.players import Reals

TRIES = 40  # steps until one is recorded: an overflow of the loss scale puts it off


def rows(device: torch.device, step: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """A step of the curriculum with these keys changed, and a small one that waits for Python."""
    if device.type != "cuda":
        return {"skipped": "graphs are CUDA's"}
    numbers = {}
    small = {**step, "batch_size": 8, "batch_split": 1, "img_size": 32}
    for name, changes in {"whole": step, "8 pictures of 32 pixels": small}.items():
        work = make_work(device, {**changes, "precision": "auto"})
        leave_empty(work, 0.57)
        numbers[name] = measure(work, GraphedSteps(), rounds, device)
    return numbers


def measure(work: Work, graphs: GraphedSteps, rounds: int, device: torch.device) -> dict[str, Any]:
    """Milliseconds of both sides, or why there is no graph."""

    def replayed() -> None:
        graphs(work.ours, work.moment, Reals(work.images), lambda: work.draws)

    for _ in range(TRIES):
        if not graphs.replays and graphs.problem is None:
            replayed()
    if not graphs.replays:
        return {"no graph": graphs.problem or f"no step of {TRIES} was finite"}
    sides: dict[str, Callable[[], object]] = {"as ever": work.our_step, "replayed": replayed}
    seconds = interleave(sides, rounds, device)
    busy = {name: busy_seconds(run, rounds, device) for name, run in sides.items()}
    return {
        "ms": {name: 1e3 * s for name, s in seconds.items()},
        "host_ms": {name: 1e3 * s for name, s in busy.items()},
        "ratio": seconds["as ever"] / seconds["replayed"],
    }


def busy_seconds(run: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Median seconds until Python has nothing more to do, whatever the device has."""
    times = []
    for _ in range(rounds):
        _wait(device)
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    _wait(device)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

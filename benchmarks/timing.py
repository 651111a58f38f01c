"""Interleaved timing: machines slow down and speed up, ratios of neighbours do not."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    clock: Callable[[], float] | None = None,
    *,
    warm_up: bool = True,
) -> dict[str, float]:
    """Median seconds of each candidate, run in turns after one warm-up round.

    On a CPU they are those that the process computes, if no `clock` says otherwise: neighbours do
    not count.
    """
    clock = clock or clock_of(device)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(0 if warm_up else 1, rounds + 1):
        for name, run in candidates.items():
            _wait(device)
            began = clock()
            run()
            _wait(device)
            if round_number > 0:
                seconds[name].append(clock() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def clock_of(device: torch.device) -> Callable[[], float]:
    """What seconds are taken from."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def report(benchmark: str, device: torch.device, numbers: Mapping[str, Any]) -> None:
    """Print one line of JSON with the hardware that it holds for."""
    hardware = platform.processor() or platform.machine()
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    line = {
        "benchmark": benchmark,
        "hardware": f"{hardware}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        **numbers,
    }
    print(json.dumps(line))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

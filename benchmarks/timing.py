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
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each candidate, run in turns after one warm-up round.

    With `time.process_time` for a clock, they are those that the process computes: neighbours do
    not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds + 1):
        for name, run in candidates.items():
            _wait(device)
            began = clock()
            run()
            _wait(device)
            if round_number > 0:
                seconds[name].append(clock() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


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

"""The benchmark of memory measures what it says, on a step of a few seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import run_main

from benchmarks import memory
from benchmarks.train_step import make_work


def test_kept_bytes_are_those_of_the_reference_and_hardly_any_of_ours() -> None:
    work = make_work(
        torch.device("cpu"),
        {"batch_size": 1, "batch_split": 1, "img_size": 8, "num_steps": 3, "precision": "fp32",
         "generator_options.hidden_dim": 16, "generator_options.mapping_dim": 8},
    )  # fmt: skip
    ours, reference = (memory.kept(work, side) for side in memory.SIDES)
    points = 8 * 8 * 6
    activations = 4 * 16 * points  # bytes of one layer's, in single precision
    # of nine layers: the product's input, the FiLM product's, the sine's; and half as much again
    assert 9 * 3 * activations < reference < 9 * 5 * activations
    assert ours < 9 * activations


PROGRAM = """
import torch
from benchmarks import memory
assert memory.resident() > 50 * memory.MB
step = lambda: torch.ones(64 * memory.MB // 4)  # written to, so that it is there
print(memory.peak(step, torch.device("cpu")) / memory.MB)
"""


def test_the_peak_is_what_a_step_takes_above_what_there_was() -> None:
    # in a process of its own: the highest mark is of a whole process, whatever ran in it before
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert 60 <= float(result.stdout) < 90


@pytest.mark.slow
def test_one_line_has_both_sides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    arguments = ["--img_size", "8", "--device", "cpu"]
    assert run_main("benchmarks/memory.py", arguments, monkeypatch) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["benchmark"] == "memory" and line["kept_ratio"] > 5
    assert line["reference_peak_mb"] > line["ours_peak_mb"] > 0

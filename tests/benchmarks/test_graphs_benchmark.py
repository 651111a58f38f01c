"""The row of CUDA graphs, in the emulator."""

import pytest
import torch
from graph_emulator import Emulator

from benchmarks import gpu, graphs
from benchmarks.train_step import make_work
from training.graphs import GraphedSteps

CPU = torch.device("cpu")


def test_both_sides_are_timed_and_the_step_is_replayed() -> None:
    work, graphed = make_work(CPU, gpu.TINY.step), GraphedSteps(Emulator())
    work.ours.generator.allow_second_derivatives()  # not the CPU's blocks, which wait
    numbers = graphs.measure(work, graphed, 2, CPU)
    assert graphed.replays >= 2 + 2
    assert numbers["ratio"] == numbers["ms"]["as ever"] / numbers["ms"]["replayed"]
    assert min(numbers["host_ms"].values()) > 0


def test_a_step_that_cannot_be_recorded_says_why() -> None:
    work = make_work(CPU, gpu.TINY.step)  # the CPU's blocks look for samples that teach
    with pytest.warns(UserWarning, match="not used"):
        numbers = graphs.measure(work, GraphedSteps(Emulator()), 1, CPU)
    assert "synchronizing" in numbers["no graph"]

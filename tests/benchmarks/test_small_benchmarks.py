"""The data loader's and the cost benchmark, at tiny sizes."""

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import cost, dataloader
from benchmarks.gpu import TINY
from benchmarks.train_step import make_work
from datasets import open_dataset


def test_the_plain_data_set_holds_the_same_pictures_as_ours(tmp_path: Path) -> None:
    path = dataloader.make_pictures(tmp_path, 3)
    ours = open_dataset("Carla", path, 16, cache_dir=tmp_path / "cache", progress=False)
    plain = dataloader.PlainDataset(path, "Carla", 16)
    assert len(plain) == len(ours) == 3
    batch = ours.batch(torch.arange(3)).images
    for index in range(3):
        torch.testing.assert_close(plain[index], batch[index])


def test_both_loaders_are_timed_on_batches_of_one_shape(tmp_path: Path) -> None:
    args = argparse.Namespace(dataset="CelebA", img_size=8, batch_size=2, rounds=1, workers=0)
    path = dataloader.make_pictures(tmp_path, 4)
    seconds, opening = dataloader.compare(path, args, tmp_path / "cache")
    assert set(seconds) == {"ours", "reference"} and min(seconds.values()) > 0
    assert opening["first_open_s"] >= opening["open_s"]


def test_the_sides_of_the_cost_plot_leave_no_gradient_behind() -> None:
    work = make_work(torch.device("cpu"), {**TINY.step, "batch_split": 1, "precision": "fp32"})
    for run in cost.sides_of(work).values():
        run()
    for side in (work.ours, work.plain):
        assert all(p.grad is None for p in side.generator.parameters())


def test_every_axis_of_the_cost_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curves = {
        axis: {"picture, ours": [float(v) for v in values], "picture, reference": [1.0] * 4}
        for axis, values in cost.AXES.items()
    }
    cost.plot(curves, tmp_path / "cost.png")
    assert (tmp_path / "cost.png").stat().st_size > 10_000

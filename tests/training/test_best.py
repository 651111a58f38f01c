"""The best checkpoint of a run: which one it is, and that a kill never loses it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_curriculum, write_pictures

from inference.checkpoint import load_generator
from metrics.protocols import PROTOCOLS
from training import best as module
from training.best import Best
from training.distributed import World
from training.trainer import RunOptions, Trainer

SWD, SCORE = PROTOCOLS["swd"], PROTOCOLS["is"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A directory with a checkpoint that says what it is."""
    (tmp_path / "generator.pth").write_text("first")
    return tmp_path


def line(value: float, key: str = "swd", protocol: str = "p") -> dict[str, Any]:
    return {"protocol": protocol, key: value}


def kept(directory: Path) -> str:
    return (directory / "best" / "generator.pth").read_text()


def write(directory: Path, text: str) -> None:
    """As a save does: a new file takes the place of the old one."""
    (directory / "new").write_text(text)
    (directory / "new").replace(directory / "generator.pth")


def test_the_first_is_the_best_so_far_and_then_the_better_ones(run: Path) -> None:
    best = Best(run)
    assert best.is_beaten_by(line(5), SWD)
    best.keep(line(5))
    assert not best.is_beaten_by(line(5), SWD) and not best.is_beaten_by(line(6), SWD)
    assert Best(run).is_beaten_by(line(4), SWD)
    assert not best.is_beaten_by(line(float("nan")), SWD)
    assert not best.is_beaten_by({}, SWD)


def test_some_numbers_are_better_when_higher(run: Path) -> None:
    best = Best(run)
    best.keep(line(2, "is"))
    assert best.is_beaten_by(line(3, "is"), SCORE) and not best.is_beaten_by(line(1, "is"), SCORE)


def test_numbers_of_another_protocol_are_not_compared(run: Path) -> None:
    best = Best(run)
    best.keep(line(5, protocol="16 px"))
    assert best.is_beaten_by(line(9, protocol="32 px"), SWD)


def test_what_is_kept_stays_as_it_was(run: Path) -> None:
    Best(run).keep(line(5))
    write(run, "second")
    assert kept(run) == "first"
    Best(run).keep(line(4))
    assert kept(run) == "second" and Best(run).record()["swd"] == 4
    assert sorted(p.name for p in run.iterdir()) == ["best", "generator.pth"]


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_leaves_the_old_one_or_the_new_one(
    run: Path, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Best(run).keep(line(5))
    write(run, "second")
    rename, done = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        Best(run).keep(line(4))
    monkeypatch.undo()
    value = Best(run).record()["swd"]
    assert (value, kept(run)) == ((5, "first"), (4, "second"))[renames]
    Best(run).keep(line(3))
    assert Best(run).record()["swd"] == 3


def test_a_half_written_one_is_no_best(run: Path) -> None:
    shutil.copytree(run, run / "best.new")
    assert Best(run).record() == {}
    (run / "best").mkdir()
    (run / "best" / module.RECORD).write_text("{cut")
    assert Best(run).record() == {}


def test_a_run_keeps_its_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    curriculum = tiny_curriculum(write_pictures(tmp_path / "pictures"))
    values = iter([3.0, 2.0, 4.0])
    options = RunOptions(tmp_path / "run", n_steps=3, eval_freq=1)
    world = World(0, 1, torch.device("cpu"))
    Trainer(curriculum, options, world, evaluate=lambda _: line(next(values))).fit()
    record = json.loads((tmp_path / "run" / "best" / "metrics.json").read_text())
    assert (record["step"], record["swd"]) == (2, 2.0)
    held = torch.load(tmp_path / "run" / "best" / "generator.pth", weights_only=True)
    assert held["step"] == 2
    load_generator(tmp_path / "run" / "best")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(text)["swd"] for text in lines] == [3.0, 2.0, 4.0]

"""What a run does when its files cannot be written, are half written, or are somebody else's."""

import dataclasses
import errno
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_curriculum, write_pictures

import train
from curriculums import Curriculum
from inference import checkpoint
from inference.checkpoint import read_file, save_files
from training.distributed import World
from training.trainer import RunOptions, Trainer

CPU = torch.device("cpu")
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def curriculum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Curriculum:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("training.log._tensorboard", lambda directory, step: None)
    pictures = write_pictures(tmp_path / "pictures")
    return tiny_curriculum(pictures, "sample_images=1", "0.img_size=4", "6.img_size=4")


def full_disk(*_: Any, **__: Any) -> None:
    raise FULL


def test_samples_and_snapshots_that_find_no_room_do_not_end_a_run(
    curriculum: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = RunOptions(tmp_path / "run", n_steps=2, sample_interval=1, model_save_interval=1)
    trainer = Trainer(curriculum, options, World(0, 1, CPU))
    monkeypatch.setattr("training.previews.save_png", full_disk)
    monkeypatch.setattr("training.state.RunState.snapshot", full_disk)
    assert trainer.fit() == "n_steps reached"
    told = capsys.readouterr().out
    for complaint in ("step 1: a sample grid was not written", "step 2: a snapshot was not"):
        assert complaint in told
    assert read_file(tmp_path / "run/trainer.pth")["step"] == 2


def test_a_last_save_without_room_is_an_error_and_is_not_tried_twice(
    curriculum: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saving is a meeting of all processes: one that failed alone must not call it again."""
    options = RunOptions(tmp_path / "run", n_steps=2, sample_interval=2)
    trainer = Trainer(curriculum, options, World(0, 1, CPU))
    tried = []

    def fail(*_: Any) -> None:
        tried.append(trainer.state.step)
        raise FULL

    monkeypatch.setattr(trainer.state, "save", fail)
    with pytest.raises(OSError, match="the last checkpoint in .*run is an older one"):
        trainer.fit()
    assert tried == [2]


@dataclasses.dataclass(frozen=True)
class Asking(World):
    """Several processes that agree with this one, and count how often they are asked."""

    asked: list[bool] = dataclasses.field(default_factory=list)

    def any(self, flag: bool) -> bool:
        self.asked.append(flag)
        return flag

    def gather(self, value: Any) -> list[Any]:
        return [value, value]

    def average_gradients(self, parameters: Any) -> None:
        pass

    def barrier(self) -> None:
        pass


def test_several_processes_do_not_wait_for_each_other_every_step(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    world = Asking(0, 2, CPU)
    options = RunOptions(tmp_path / "run", n_steps=21)
    Trainer(curriculum, options, world).fit()
    assert world.asked == [False] * 3  # at steps 0, 10 and 20


def test_measurements_after_the_resumed_step_are_forgotten(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    def evaluate(trainer: Trainer) -> dict[str, Any]:
        return {"swd": float(trainer.state.step)}

    def fit(n_steps: int, load: Path | None = None) -> list[int]:
        options = RunOptions(tmp_path / "run", load, n_steps=n_steps, eval_freq=1)
        Trainer(curriculum, options, World(0, 1, CPU), evaluate).fit()
        lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]

    assert fit(2) == [1, 2]
    with (tmp_path / "run/metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3, "swd": 9}\n{"st')  # by a run that was killed at step 4
    assert fit(4, tmp_path / "run") == [1, 2, 3, 4]


@pytest.mark.parametrize("option", ["num_workers=1", "progress=False", "nearest=True"])
def test_a_data_set_option_of_the_curriculum_wins_over_the_trainers(
    curriculum: Curriculum, tmp_path: Path, option: str
) -> None:
    name, value = option.split("=")
    options = {**curriculum["dataset_options"], name: json.loads(value.lower())}
    changed = {**curriculum, "dataset_options": options}
    assert len(Trainer(changed, RunOptions(tmp_path / "run"), World(0, 1, CPU)).dataset) == 12


# -- directories of other runs


def arguments(load: Path | None, output: Path) -> Namespace:
    return Namespace(load_dir=load, output_dir=output)


def files(step: int) -> dict[str, dict[str, Any]]:
    return {name: {"format": 1, "step": step} for name in ("generator.pth", "trainer.pth")}


def cut_off(directory: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Save step 1, then step 2 up to its journal; what lies in the directory then."""
    save_files(directory, files(1))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "recover", lambda _: None)
        save_files(directory, files(2))
    return {p.name for p in directory.iterdir()}


def test_starting_from_another_run_leaves_its_directory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still be training: what looks like a leftover may be a save in progress."""
    there = cut_off(tmp_path / "a", monkeypatch)
    assert len(there) == 5
    train.check_directories(arguments(tmp_path / "a", tmp_path / "b"))
    assert {p.name for p in (tmp_path / "a").iterdir()} == there
    assert read_file(tmp_path / "a/generator.pth")["step"] == 2


def test_going_on_with_a_run_finishes_its_last_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(tmp_path / "a", monkeypatch)
    train.check_directories(arguments(tmp_path / "a", tmp_path / "a"))
    assert {p.name for p in (tmp_path / "a").iterdir()} == set(files(0))
    assert read_file(tmp_path / "a/generator.pth")["step"] == 2


def first_save_cut_off(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "recover", lambda _: None)
        save_files(directory, files(1))


@pytest.mark.parametrize("make", [lambda d, _: save_files(d, files(1)), first_save_cut_off])
def test_a_run_is_never_written_over_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:  # fmt: skip
    make(tmp_path / "a", monkeypatch)
    for load in (None, tmp_path / "b"):
        with pytest.raises(ValueError, match="already holds a run: go on with --load_dir"):
            train.check_directories(arguments(load, tmp_path / "a"))
    train.check_directories(arguments(None, tmp_path / "c"))

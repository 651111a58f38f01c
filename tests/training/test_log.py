"""What a run tells: log.jsonl, TensorBoard, and means that never look at the device."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_curriculum, write_pictures

from training import log
from training.distributed import World
from training.log import Averages, RunLog, forget_after
from training.trainer import RunOptions, Trainer


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TensorBoard."""
    monkeypatch.setattr(log, "_tensorboard", lambda directory, step: None)


def lines(file: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in file.read_text().splitlines()]


@pytest.fixture
def run_log(tmp_path: Path, quiet: None) -> Iterator[RunLog]:
    opened = RunLog(tmp_path, step=0, last_step=100)
    yield opened
    opened.close()


# -- log.jsonl


def test_a_line_has_the_step_the_time_and_the_numbers(tmp_path: Path, run_log: RunLog) -> None:
    run_log.enter_stage("16x16", 0, 50)
    run_log.advance()
    run_log.write(20, {"loss_d": 1.25, "skipped": 3})
    run_log.write(40, {"loss_g": 0.5})
    first, second = lines(tmp_path / "log.jsonl")
    assert (first["step"], first["loss_d"], first["skipped"]) == (20, 1.25, 3)
    assert (second["step"], second["loss_g"]) == (40, 0.5)
    assert second["time"] >= first["time"] > 1.6e9


@pytest.mark.parametrize("name", ["log.jsonl", "metrics.jsonl"])
def test_what_was_written_after_the_resumed_step_is_forgotten(
    tmp_path: Path, quiet: None, name: str
) -> None:
    rows = [json.dumps({"step": s, "n": s / 10}) for s in (20, 40, 60, 80)]
    (tmp_path / name).write_text("\n".join(rows) + '\n{"step": 90, "lo')
    RunLog(tmp_path, step=60, last_step=None).close()
    assert [line["step"] for line in lines(tmp_path / name)] == [20, 40, 60]
    assert {p.name for p in tmp_path.iterdir()} == {name}


@pytest.mark.parametrize("damage", ["", "\0\0\0", "5", "null", "[1]", '{"n": 1}', "{", '"step"'])
def test_a_damaged_line_is_dropped_alone(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(f'{{"step": 1}}\n{damage}\n{{"step": 2}}\n')
    forget_after(file, 5)
    assert [line["step"] for line in lines(file)] == [1, 2]


def test_forgetting_makes_no_file(tmp_path: Path) -> None:
    forget_after(tmp_path / "log.jsonl", 5)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_a_line_and_not_the_run(
    tmp_path: Path, run_log: RunLog, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.jsonl").mkdir()  # nothing can be appended to this
    run_log.write(20, {"loss_d": 1.0})
    assert "step 20: log.jsonl was not written" in capsys.readouterr().out
    with run_log.surviving(30, "a sample grid"):
        raise OSError(errno.ENOSPC, "No space left on device")
    told = capsys.readouterr().out
    assert "step 30: a sample grid was not written: [Errno 28] No space left on device" in told
    with pytest.raises(ValueError), run_log.surviving(30, "a sample grid"):
        raise ValueError("a bug is not a full disk")


def test_tensorboard_gets_scalars_and_pictures(tmp_path: Path) -> None:
    opened = RunLog(tmp_path, step=0, last_step=None)
    opened.write(20, {"loss_d": 1.25, "protocol": "text is no scalar"})
    opened.picture(20, "fixed", torch.zeros(4, 5, 3, dtype=torch.uint8))
    opened.close()
    (events,) = tmp_path.glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert b"loss_d" in content and b"fixed" in content and b"protocol" not in content


# -- means


def test_means_are_taken_and_begun_anew() -> None:
    averages = Averages()
    for value in (1.0, 2.0, 6.0):
        averages.add({"a": torch.tensor(value), "b": torch.tensor(2 * value)})
    assert averages.take() == {"a": 3.0, "b": 6.0}
    assert averages.take() == {}
    averages.add({"a": torch.tensor(5.0)})
    assert averages.take() == {"a": 5.0}


def test_what_is_not_finite_does_not_count() -> None:
    averages = Averages()
    for value in (1.0, float("nan"), float("inf"), 3.0):
        averages.add({"a": torch.tensor(value), "never": torch.tensor(float("nan"))})
    assert averages.take() == {"a": 2.0}


def test_a_number_that_comes_later_has_its_own_mean() -> None:
    averages = Averages()
    averages.add({"a": torch.tensor(1.0)})
    averages.add({"a": torch.tensor(3.0), "r1": torch.tensor(8.0)})
    assert averages.take() == {"a": 2.0, "r1": 8.0}


def test_adding_never_reads_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    averages = Averages()

    def read(*_: Any) -> float:
        raise AssertionError("the host waited for the device")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu"):
            patch.setattr(torch.Tensor, name, read)
        averages.add({"a": torch.tensor(1.0)})
        averages.add({"a": torch.tensor(2.0)})
    assert averages.take() == {"a": 1.5}


# -- through the trainer


def test_a_run_whose_steps_were_skipped_logs_no_nan(
    tmp_path: Path, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    pictures = write_pictures(tmp_path / "pictures")
    curriculum = tiny_curriculum(pictures, "sample_images=1", "0.img_size=4", "6.img_size=4")
    monkeypatch.setattr("training.trainer.LOG_INTERVAL", 2)
    options = RunOptions(tmp_path / "run", n_steps=4)
    trainer = Trainer(curriculum, options, World(0, 1, torch.device("cpu")))
    discriminator = trainer.state.players.discriminator
    weight = list(discriminator.parameters())[-1]
    kept = weight.detach().clone()
    steps = []
    original = trainer.train_step

    def poisoned() -> None:
        steps.append(trainer.state.step)
        weight.data.copy_(kept if len(steps) > 3 else torch.full_like(kept, float("nan")))
        original()

    monkeypatch.setattr(trainer, "train_step", poisoned)
    trainer.fit()
    written = lines(tmp_path / "run" / "log.jsonl")
    assert written[-1]["step"] == 4 and written[-1]["skipped"] == 3
    assert written[-1]["loss_d"] > 0
    assert all("loss_d" not in line for line in written[:-1])

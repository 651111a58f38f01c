"""A run that was stopped goes on bit for bit; one that was killed loses no checkpoint."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import ROOT, differences, run_files, tiny_curriculum, write_pictures

from curriculums import Curriculum
from inference.checkpoint import load_generator, read_file, recover
from training.distributed import World
from training.evaluate import measure
from training.state import NotFiniteError
from training.trainer import RunOptions, Trainer

CPU = World(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))


def train(
    curriculum: Curriculum, output: Path, n_steps: int, load: Path | None = None, **options: Any
) -> Trainer:
    """Train to a step and return the trainer."""
    run = RunOptions(output, load, n_steps=n_steps, **options)
    trainer = Trainer(curriculum, run, CPU, evaluate=measure)
    trainer.fit()
    return trainer


@pytest.fixture
def curriculum(tmp_path: Path) -> Curriculum:
    return tiny_curriculum(write_pictures(tmp_path / "pictures"))


def test_twenty_steps_equal_ten_and_a_resume_and_ten_in_every_tensor(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    train(curriculum, tmp_path / "whole", 20)
    train(curriculum, tmp_path / "half", 10)
    half = run_files(tmp_path / "half")
    train(curriculum, tmp_path / "half", 20, load=tmp_path / "half")
    whole, resumed = run_files(tmp_path / "whole"), run_files(tmp_path / "half")
    assert len(whole) == 8
    assert differences(whole, resumed) == []
    assert differences(half, resumed) != []  # the comparison can fail


def test_saving_sampling_and_measuring_on_the_way_change_no_weight(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    train(curriculum, tmp_path / "busy", 9, sample_interval=2, model_save_interval=3, eval_freq=4)
    train(curriculum, tmp_path / "calm", 9)
    assert differences(run_files(tmp_path / "busy"), run_files(tmp_path / "calm")) == []


def test_a_run_leaves_what_the_readme_says(curriculum: Curriculum, tmp_path: Path) -> None:
    train(curriculum, tmp_path / "run", 8, sample_interval=4, model_save_interval=4, eval_freq=4)
    left = {p.relative_to(tmp_path / "run").as_posix() for p in (tmp_path / "run").rglob("*")}
    files = ["generator", "ema", "ema2", "discriminator", "optimizer_G", "optimizer_D"]
    expected = {f"{name}.pth" for name in (*files, "scaler", "trainer")}
    expected |= {"curriculum.json", "metrics.jsonl", "snapshots/000004/generator.pth"}
    grids = ("fixed", "tilted", "fixed_ema", "tilted_ema", "random")
    expected |= {f"samples/00000{step}_{grid}.png" for step in (0, 4, 8) for grid in grids}
    assert expected <= left
    assert read_file(tmp_path / "run/snapshots/000004/generator.pth")["step"] == 4
    generator, stored = load_generator(tmp_path / "run")
    assert stored == curriculum
    assert not generator.training


@pytest.mark.parametrize("scenes", [0, 2])
def test_scenes_are_held_against_each_other_if_asked(
    curriculum: Curriculum, tmp_path: Path, scenes: int
) -> None:
    train({**curriculum, "eval_scenes": scenes}, tmp_path / "run", 2, eval_freq=2)
    file = tmp_path / "run" / "metrics.jsonl"
    found = json.loads(file.read_text()) if file.exists() else {}
    assert ("view_consistency" in found) == (scenes > 0)


def test_sample_grids_have_the_size_that_the_curriculum_gives_them(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    train({**curriculum, "sample_size": 11}, tmp_path / "run", 1)
    with Image.open(tmp_path / "run" / "samples" / "000001_fixed.png") as grid:
        assert grid.size == (5 * 11, 11)


def test_the_curriculums_end_stops_cleanly_and_a_resume_there_does_nothing(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    short = {**curriculum, 40: {}, 3: {}}
    del short[6], short[40]
    trainer = Trainer(short, RunOptions(tmp_path / "run"), CPU)
    assert trainer.fit() == "the curriculum ends"
    assert trainer.state.step == 3
    before = run_files(tmp_path / "run")
    again = Trainer(short, RunOptions(tmp_path / "run", tmp_path / "run"), CPU)
    assert again.fit() == "the curriculum ends"
    assert differences(before, run_files(tmp_path / "run")) == []


def test_a_full_disk_leaves_the_last_checkpoint_and_training_goes_on(
    curriculum: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    train(curriculum, tmp_path / "run", 2)
    before = run_files(tmp_path / "run")
    original, written = torch.save, []

    def save_until_full(content: Any, stream: Any) -> None:
        written.append(stream)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        original(content, stream)

    monkeypatch.setattr(torch, "save", save_until_full)
    seen = []
    run = RunOptions(tmp_path / "run", tmp_path / "run", n_steps=6, sample_interval=3)
    trainer = Trainer(curriculum, run, CPU)

    def look_and_go_on() -> str | None:
        seen.append(differences(before, run_files(tmp_path / "run")))
        return Trainer._reason_to_stop(trainer)

    monkeypatch.setattr(trainer, "_reason_to_stop", look_and_go_on)
    trainer.fit()
    assert "step 3 was NOT saved" in capsys.readouterr().out
    assert seen[2] == []  # after the failed save at step 3 the old checkpoint is whole
    assert read_file(tmp_path / "run/generator.pth")["step"] == 6
    assert not list((tmp_path / "run").glob("*.new"))


def test_weights_that_are_not_finite_are_never_saved(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    trainer = train(curriculum, tmp_path / "run", 2)
    before = run_files(tmp_path / "run")
    next(trainer.state.players.generator.parameters()).data[0, 0] = float("nan")
    with pytest.raises(NotFiniteError, match="not finite"):
        trainer.state.save(tmp_path / "run", curriculum)
    assert differences(before, run_files(tmp_path / "run")) == []


def test_steps_that_are_not_finite_stop_training_with_advice(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    trainer = Trainer(curriculum, RunOptions(tmp_path / "run", n_steps=1000), CPU)
    next(trainer.state.players.discriminator.parameters()).data.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="lower gen_lr"):
        trainer.fit()
    assert not (tmp_path / "run/generator.pth").exists()


def command(output: Path, *arguments: str) -> list[str]:
    return [sys.executable, "train.py", "--device", "cpu", "--output_dir", str(output), *arguments]


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "PERIGAN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}


def write_json(curriculum: Curriculum, file: Path) -> Path:
    file.write_text(json.dumps(curriculum))
    return file


def wait_for(condition: Callable[[], Any], process: subprocess.Popen, seconds: float = 300) -> None:
    """Wait until something is so, as long as the process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended early"
        assert time.monotonic() < end
        time.sleep(0.02)


def test_sigterm_saves_and_leaves_cleanly(curriculum: Curriculum, tmp_path: Path) -> None:
    endless = {k: v for k, v in curriculum.items() if k != 40}
    file, run = write_json(endless, tmp_path / "tiny.json"), tmp_path / "run"
    process = subprocess.Popen(
        command(run, "--curriculum", str(file), "--sample_interval", "100000"),
        cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    wait_for(lambda: (run / "log.jsonl").exists() and (run / "log.jsonl").read_text(), process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "stopped by SIGTERM" in output
    assert "Traceback" not in output
    assert read_file(run / "generator.pth")["step"] >= 20


@pytest.mark.slow
def test_a_run_survives_being_killed_at_any_moment(curriculum: Curriculum, tmp_path: Path) -> None:
    """Twelve kills: some while it trains, some inside a save; each time it resumes."""
    endless = {k: v for k, v in curriculum.items() if k != 40}
    file, run = write_json(endless, tmp_path / "tiny.json"), tmp_path / "run"
    rng, reached = random.Random(0), 0
    arguments = ["--curriculum", str(file), "--sample_interval", "1", "--eval_freq", "0"]
    for kill in range(12):
        resume = ["--load_dir", str(run)] if reached else []
        process = subprocess.Popen(
            command(run, *arguments, *resume),
            cwd=ROOT, env=environment(tmp_path), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

        def moved_on(past: int = reached) -> bool:
            try:
                return read_file(run / "generator.pth")["step"] > past
            except (ValueError, OSError):
                return False

        wait_for(moved_on, process)
        if kill % 2:  # inside a save: as soon as a new file appears
            wait_for(lambda: any(run.glob("*.new")), process)
        else:
            time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.communicate()
        recover(run)
        steps = {read_file(f)["step"] for f in run.glob("*.pth")}
        assert len(steps) == 1, "the files of a checkpoint are of one step"
        assert len(list(run.glob("*.pth"))) == 8
        assert steps.pop() > reached
        reached = read_file(run / "generator.pth")["step"]
        load_generator(run)
    whole = {**endless}
    train(whole, tmp_path / "whole", reached, sample_interval=100_000)
    assert differences(run_files(tmp_path / "whole"), run_files(run)) == []

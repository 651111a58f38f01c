"""Two processes with half the batch each do what one does with the whole batch."""

from pathlib import Path

import pytest
import torch
from random_weights import write_noise
from rank_workers import evaluate, iterate, spawn, train
from tiny_networks import put_in_place
from tiny_runs import differences, run_files, tiny_curriculum, write_pictures

from curriculums import Curriculum


@pytest.fixture
def curriculum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Curriculum:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tiny_curriculum(write_pictures(tmp_path / "pictures"), "topk_v=1.0")


def test_half_the_batch_each_gives_the_gradients_of_the_whole(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    spawn(iterate, curriculum, tmp_path)
    iterate(0, 1, 0, curriculum, tmp_path)
    alone, *both = (torch.load(tmp_path / f"{n}.pth") for n in ("1-0", "2-0", "2-1"))
    assert differences(both[0], both[1]) == []  # the ranks agree to the bit
    for player in ("d", "g"):
        for ours, theirs in zip(both[0][player], alone[player], strict=True):
            # Adam's second moment after one step is the squared gradient, up to a factor
            scale = theirs.sqrt().max().clamp(min=1e-20)
            torch.testing.assert_close(ours.sqrt() / scale, theirs.sqrt() / scale,
                                       rtol=1e-4, atol=1e-5)  # fmt: skip


def test_two_processes_resume_bit_for_bit(curriculum: Curriculum, tmp_path: Path) -> None:
    spawn(train, curriculum, tmp_path / "whole", 8, None)
    spawn(train, curriculum, tmp_path / "half", 5, None)
    spawn(train, curriculum, tmp_path / "half", 8, tmp_path / "half")
    whole, half = run_files(tmp_path / "whole"), run_files(tmp_path / "half")
    assert len(whole["trainer.pth"]["streams"]) == 2
    assert differences(whole, half) == []


def test_two_processes_measure_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    reals = write_noise(tmp_path / "real", 9, seed=0, size=16)
    found = []
    for size in (2, 1):
        monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / f"cache{size}"))
        if size == 2:
            spawn(evaluate, reals, tmp_path)
        else:
            put_in_place(monkeypatch)
            evaluate(0, 1, 0, reals, tmp_path)
        found.append(torch.load(tmp_path / f"{size}.pth"))
    two, one = found
    assert {"fid", "kid", "is", "recall", "swd", "ppl", "eqt50k_int", "eqr50k"} <= set(one)
    assert two.pop("protocol") == one.pop("protocol")
    assert two == pytest.approx(one, rel=1e-9)
    zero = [key for key in ("fid", "kid", "swd", "ppl", "eqr50k") if not one[key]]
    assert not zero

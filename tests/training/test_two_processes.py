"""Two processes with half the batch each do what one does with the whole batch."""

from pathlib import Path

import pytest
import torch
from rank_workers import iterate, spawn, train
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

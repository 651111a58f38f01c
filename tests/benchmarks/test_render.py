"""The benchmark of rendering measures what it says, on a run of a second."""

import json
from pathlib import Path

import pytest
from tiny_runs import TINY, run_main

from curriculums import stage_at, with_overrides
from inference.checkpoint import build_generator, network_state, save_files


def test_one_line_has_evaluations_seconds_and_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    curriculum = with_overrides(TINY, ["dataset_path='nowhere'"])
    generator, record = build_generator(stage_at(curriculum, 3))
    state = network_state(generator, record, 3)
    save_files(tmp_path, {"generator.pth": {**state, "curriculum": curriculum}, "ema.pth": state})
    sizes = ["--image_size", "12", "--num_steps", "8", "--num_frames", "4", "--rounds", "1"]
    arguments = [str(tmp_path), "--seeds", "0-1", *sizes, "--device", "cpu"]
    assert run_main("benchmarks/render.py", arguments, monkeypatch) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["benchmark"] == "render" and line["seeds"] == 2
    assert line["full_points"] == 12 * 12 * 16
    assert 0 < line["skipping_points"] <= 1.5 * line["full_points"]
    assert 0 < line["grid_points"] < 2 * 12 * 12 * 8
    frames = 4 * line["full_points"] / (4 * line["skipping_points"] + line["grid_points"])
    assert line["points_ratio"] == pytest.approx(frames, rel=0.3)  # medians of two
    assert line["worst_psnr"] > 45
    assert line["ratio"] > 0 and line["built_anew_ratio"] > 0
    assert line["anew_ratio"] == pytest.approx(line["anew_s"] / line["once_s"], rel=0.5)

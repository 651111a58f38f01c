"""The benchmark of single pictures: every way of ours against the reference's picture."""

import json
from pathlib import Path

import pytest
from tiny_runs import run_main, write_run

from curriculums import Toys, stage_at
from inference.checkpoint import build_generator, network_state, save_files

SIZES = ["--image_size", "12", "--num_steps", "8", "--views", "1", "--device", "cpu"]


def test_ways_differ_in_what_they_evaluate_and_not_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    words = [str(run), "--seeds", "0", *SIZES]
    assert run_main("benchmarks/picture.py", words, monkeypatch) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ways = {line["way"]: line for line in lines}
    assert set(ways) >= {"reference", "every sample, fp32", "skipping, fp32"}
    full, sparse = ways["every sample, fp32"], ways["skipping, fp32"]
    assert full["per_ray"] == 16 and full["psnr"] > 70
    assert full["search_s"] == 0 and full["one_frame"] == full["ratio"]
    assert sparse["psnr"] > 30 and sparse["search_s"] > 0
    assert sparse["one_frame"] < sparse["film"] < sparse["ratio"] + 0.02


def test_a_field_with_bounds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, record = build_generator(stage_at(Toys, 0))
    state = network_state(generator, record, 0)
    save_files(tmp_path, {"generator.pth": {**state, "curriculum": Toys}, "ema.pth": state})
    assert run_main("benchmarks/picture.py", [str(tmp_path), *SIZES], monkeypatch) == 2
    assert "without bound_radius" in capsys.readouterr().err

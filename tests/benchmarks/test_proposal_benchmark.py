"""The benchmark of few samples measures what it says, on a run of a second."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import TINY, run_main, write_flat_run

from curriculums import stage_at, with_overrides
from inference.checkpoint import build_generator, network_state, save_files

SIZES = ["--image_size", "12", "--num_steps", "8", "--num_frames", "4", "--film_frames", "2"]


def write(folder: Path, *changes: str) -> Path:
    curriculum = with_overrides(TINY, ["dataset_path='nowhere'", *changes])
    generator, record = build_generator(stage_at(curriculum, 3))
    state = network_state(generator, record, 3)
    save_files(folder, {"generator.pth": {**state, "curriculum": curriculum}, "ema.pth": state})
    return folder


def test_one_line_has_closeness_evaluations_and_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(tmp_path)
    words = [str(run), "--seeds", "0-1", "--samples", "2", *SIZES, "--rounds", "1"]
    words += ["--picture", str(tmp_path / "rows.png")]
    assert run_main("benchmarks/proposal.py", [*words, "--device", "cpu"], monkeypatch) == 0
    with Image.open(tmp_path / "rows.png") as picture:
        assert picture.size == (4 * 12, 2 * 12)  # truth, plain, ours in fp32 and bf16
    line = json.loads(capsys.readouterr().out)
    assert line["benchmark"] == "proposal" and line["seeds"] == 2 and line["samples"] == "8+8"
    assert line["plain"]["points"] == 16 and line["plain"]["least_gain"] == 0
    for ours in (line["2"], line["2_bf16"]):
        assert 0 < ours["points"] <= 3.1  # two, the last, and what channels there are
        assert ours["grid_points"] > 1
        assert ours["psnr"] >= ours["worst_psnr"] > 10
        assert ours["first_s"] > 0 and ours["s"] > 0 and ours["film_s"] > 0
        # medians of two are means, of ratios not quite those of the means
        assert ours["ratio_first"] == pytest.approx(line["plain"]["s"] / ours["first_s"], rel=0.5)


def test_what_the_reference_cannot_draw_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bounded = write(
        tmp_path / "bounded",
        "generator_options={'hidden_dim': 8, 'num_layers': 2, 'bound_radius': 0.4}",
    )
    for run in (bounded, write_flat_run(tmp_path / "flat")):
        assert run_main("benchmarks/proposal.py", [str(run), *SIZES], monkeypatch) == 2
        assert "without bounds alone" in capsys.readouterr().err

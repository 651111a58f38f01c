"""The benchmarks of the projected discriminator measure what they say."""

import functools
import json
import sys
from pathlib import Path

import pytest
from tiny_runs import run_main

from benchmarks import projected_pigan
from benchmarks.projected_pigan import curves_of, plot, seconds_at
from curriculums import CURRICULA, with_overrides


def test_features_once_per_batch_are_cheaper_than_for_every_head(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--resolution", "32", "--batch_size", "1", "--rounds", "1", "--device", "cpu"]
    assert run_main("benchmarks/projected.py", words, monkeypatch) == 0
    line = json.loads(capsys.readouterr().out)
    for player in ("discriminator", "generator"):
        assert line[f"{player}_naive_s"] > 1.2 * line[f"{player}_ours_s"] > 0


@pytest.mark.parametrize(
    ("step", "seconds"), [(0, 0), (50, 25), (100, 50), (150, 150), (250, 350), (300, 370)]
)
def test_a_runs_time_is_what_its_steps_cost_in_their_stages(step: int, seconds: float) -> None:
    assert seconds_at(step, {0: 0.5, 100: 2.0, 250: 0.4}) == pytest.approx(seconds)


def test_curves_are_over_seconds_and_are_drawn(tmp_path: Path) -> None:
    lines = [
        {"step": step, "swd": 9.0 - step / 100, "view_consistency": step / 400, "solid": 1.0}
        for step in (100, 200, 300)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    curves = curves_of(tmp_path, {0: 0.5, 200: 1.0})
    assert curves["swd"] == ([50, 100, 200], [8.0, 7.0, 6.0])
    assert list(curves) == ["swd", "view_consistency"]
    pytest.importorskip("matplotlib")
    plot({"own": curves, "projected": curves}, tmp_path / "plots" / "curves.png")
    assert (tmp_path / "plots" / "curves.png").stat().st_size > 1000


SMALL = [
    "dataset_options={'toys_num': 24}",
    "generator_options.hidden_dim=8",
    "generator_options.num_layers=2",
    "0.batch_size=2",
    "0.num_steps=4",
    "eval_images=8",
    "eval_scenes=2",
    "sample_images=2",
]


def test_both_are_trained_timed_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    small = {
        name: with_overrides(CURRICULA[name], SMALL) for name in ("Toys", "ToysProjectedPiGAN")
    }
    for curriculum in small.values():
        del curriculum[1_200], curriculum[1_550]
    monkeypatch.setattr(projected_pigan, "CURRICULA", small)
    quick = functools.partial(projected_pigan.make_reference, steps=2)
    monkeypatch.setattr(projected_pigan, "make_reference", quick)
    words = ["--n_steps", "2", "--every", "1", "--rounds", "1", "--scenes", "2"]
    monkeypatch.setattr(sys, "argv", ["x", "--output_dir", str(tmp_path / "runs"), *words])
    projected_pigan.main()
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    totals = []
    for kind in ("own", "projected"):
        row = line[kind]
        assert row["steps"] == 2 and row["swd_at_budget"] > 0 and row["yaw_chance"] > 0
        assert row["total_s"] == pytest.approx(2 * row["seconds_per_step"]["0"], abs=0.06)
        totals.append(row["total_s"])
    assert line["budget_s"] == min(totals)

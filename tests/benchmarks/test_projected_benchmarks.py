"""The benchmarks of the projected discriminator measure what they say."""

import json
from pathlib import Path

import pytest
from tiny_runs import run_main

from benchmarks.projected_pigan import curves_of, plot, seconds_at


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

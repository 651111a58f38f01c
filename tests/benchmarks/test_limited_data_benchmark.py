"""The comparison of ADA trains both runs, measures them alike, and draws them."""

import json
from pathlib import Path

import pytest
from tiny_runs import run_main


@pytest.mark.slow
def test_both_runs_are_measured_and_drawn_and_differ_in_augmentation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    runs, plot = tmp_path / "runs", tmp_path / "plot.png"
    arguments = ["--steps", "8", "--every", "4", "--ada_kimg", "0.05", "--device", "cpu"]
    arguments += ["--output_dir", str(runs), "--plot", str(plot)]
    assert run_main("benchmarks/limited_data.py", arguments, monkeypatch) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    last = {line["mode"]: line for line in map(json.loads, printed)}
    assert last["noaug"]["p"] == 0 and last["ada"]["p"] >= 0
    curricula = {
        mode: json.loads((runs / f"{mode}_0/curriculum.json").read_text()) for mode in last
    }
    assert {mode: keys.pop("augment") for mode, keys in curricula.items()} == {m: m for m in last}
    assert curricula["noaug"] == curricula["ada"]
    for mode, line in last.items():
        assert line["step"] == 8 and 0 < line["best"] <= line["swd_unseen"]
        assert len((runs / f"{mode}_0" / "metrics.jsonl").read_text().splitlines()) == 2
    assert plot.read_bytes().startswith(b"\x89PNG")

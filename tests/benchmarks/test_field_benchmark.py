"""The benchmark of the field has a line for each candidate, and their errors are right."""

import json

import pytest
from tiny_runs import run_main


def test_every_candidate_has_a_line_per_direction(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--points", "200", "--rounds", "1", "--empty_share", "0.5", "--device", "cpu"]
    assert run_main("benchmarks/field.py", arguments, monkeypatch) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ["reference", "fp32", "compiled_fp32", "bf16", "compiled_bf16"]
    assert [line["candidate"] for line in lines] == 2 * names
    assert {line["direction"] for line in lines[:5]} == {"forward"}
    for line in lines:
        full = "bf16" not in line["candidate"]
        assert line["benchmark"] == "field" and line["points"] == 200
        assert line["ratio"] > 0 and line["us_per_point"] > 0
        assert 0 < line["color_error_max"] < (2e-6 if full else 5e-3)
        assert line["gradient_cosine"] > (1 - 1e-6 if full else 0.999)

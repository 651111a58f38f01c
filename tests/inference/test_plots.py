"""Curves of a run: what is read, where the ink is."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.plots import LINE, PANEL, draw_curves, plot_metrics, read_metrics, ticks


def write_run(folder: Path) -> Path:
    lines = [
        {"step": 400, "protocol": "swd, 4 images", "swd": 20.0, "seconds": 1.5},
        {"step": 200, "swd": 30.0, "view_consistency": 0.5, "flag": True},
        {"step": 400, "swd": 10.0, "view_consistency": float("nan")},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 600, "swd'
    (folder / "metrics.jsonl").write_text(text)
    return folder


def blue(image: Image.Image) -> np.ndarray:
    """Where a picture shows the colour of curves."""
    colour = np.array([int(LINE[i : i + 2], 16) for i in (1, 3, 5)])
    return np.asarray((np.abs(np.asarray(image).astype(int) - colour) < 40).all(-1))


def test_numbers_come_by_key_in_order_of_steps(tmp_path: Path) -> None:
    curves = read_metrics(write_run(tmp_path))
    assert curves == {"swd": [(200, 30.0), (400, 10.0)], "view_consistency": [(200, 0.5)]}


def test_a_run_without_measurements_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has not measured itself yet"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="holds no measurement"):
        read_metrics(tmp_path)


def test_the_picture_lies_in_the_runs_directory(tmp_path: Path) -> None:
    path = plot_metrics(write_run(tmp_path))
    assert path == tmp_path / "metrics.png"
    with Image.open(path) as image:
        assert image.size == (2 * PANEL[0], PANEL[1])
    other = plot_metrics(tmp_path, ["swd"], tmp_path / "new" / "swd.png")
    with Image.open(other) as image:
        assert image.size == PANEL
    with pytest.raises(ValueError, match="has not measured 'fid', only swd, view_consistency"):
        plot_metrics(tmp_path, ["fid"])


def test_a_curve_falls_where_its_values_fall() -> None:
    image = draw_curves({"down": [(0, 4.0), (10, 2.0), (20, 1.0)]})
    rows, columns = np.nonzero(blue(image))
    left = rows[columns < columns.min() + 5].mean()
    middle = rows[abs(columns - (columns.min() + columns.max()) / 2) < 3].mean()
    right = rows[columns > columns.max() - 5].mean()
    assert left < middle < right  # rows count downwards
    share = (middle - left) / (right - left)
    assert share == pytest.approx((4 - 2) / (4 - 1), abs=0.03)


def test_one_value_and_equal_values_are_drawn_too() -> None:
    for curve in ([(0, 0.0)], [(5, 3.0), (6, 3.0)]):
        assert blue(draw_curves({"flat": curve})).any()


def test_four_panels_take_two_rows() -> None:
    image = draw_curves({name: [(0, 1.0), (1, 2.0)] for name in "abcd"})
    assert image.size == (3 * PANEL[0], 2 * PANEL[1])
    assert not blue(image)[PANEL[1] :, PANEL[0] :].any()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.13, 0.52, [0.2, 0.3, 0.4, 0.5]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (400, 1600, [500, 1000, 1500]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)

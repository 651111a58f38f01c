"""Curves of a run's measurements as one picture, drawn with Pillow alone.

`plot_metrics` reads the run's metrics.jsonl and draws one panel per metric over the steps, each
with its own scale. Lines whose key is new begin where they were first measured.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Curve = Sequence[tuple[int, float]]  # steps and values, steps ascending

PANEL, MARGIN, TEXT = (420, 240), (62, 34, 16, 30), 13  # left, top, right, bottom
LINE, AXIS, GRID, INK = "#1f5fa8", "#888888", "#e4e4e4", "#222222"
PREFERRED = ("swd", "fid", "view_consistency", "reprojection_error", "yaw_error", "flatness")
SCALE = 2  # drawn this much larger, then shrunk: smooth lines


def read_metrics(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every number of a run's metrics.jsonl, by its key: (step, value), steps ascending.

    Half a line, left by a run that was killed, is passed over. Raises ValueError if there is none.
    """
    file = run / "metrics.jsonl" if run.is_dir() else run
    curves: dict[str, dict[int, float]] = {}
    if not file.is_file():
        raise ValueError(f"{file} does not exist: the run has not measured itself yet")
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            step = int(record["step"])
        except (ValueError, KeyError, TypeError):
            continue
        for key, value in record.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if key not in ("step", "seconds") and number and math.isfinite(value):
                curves.setdefault(key, {})[step] = float(value)
    if not curves:
        raise ValueError(f"{file} holds no measurement")
    return {key: sorted(values.items()) for key, values in curves.items()}


def plot_metrics(run: Path, keys: Sequence[str] | None = None, output: Path | None = None) -> Path:
    """Draw curves of a run into metrics.png in its directory, or into `output`; returns the path.

    `keys` default to those of PREFERRED that were measured, or everything if there are none.
    """
    curves = read_metrics(run)
    if keys is None:
        keys = [key for key in PREFERRED if key in curves] or sorted(curves)
    unknown = [key for key in keys if key not in curves]
    if unknown:
        raise ValueError(f"{run} has not measured {unknown[0]!r}, only {', '.join(sorted(curves))}")
    directory = run if run.is_dir() else run.parent
    output = output or directory / "metrics.png"
    output.parent.mkdir(parents=True, exist_ok=True)
    draw_curves({key: curves[key] for key in keys}).save(output)
    return output


def draw_curves(curves: Mapping[str, Curve]) -> Image.Image:
    """A panel per curve, at most three to a row."""
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    canvas = Image.new("RGB", (columns * PANEL[0], rows * PANEL[1]), "white")
    for i, (name, curve) in enumerate(curves.items()):
        place = (i % columns * PANEL[0], i // columns * PANEL[1])
        canvas.paste(_panel(name, curve), place)
    return canvas


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within low..high, 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _panel(name: str, curve: Curve) -> Image.Image:
    size = (PANEL[0] * SCALE, PANEL[1] * SCALE)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(TEXT * SCALE)
    left, top = MARGIN[0] * SCALE, MARGIN[1] * SCALE
    right, bottom = size[0] - MARGIN[2] * SCALE, size[1] - MARGIN[3] * SCALE
    x_range = _range([step for step, _ in curve], 0.0)
    y_range = _range([value for _, value in curve], 0.06)

    def at(step: float, value: float) -> tuple[float, float]:
        x = (step - x_range[0]) / (x_range[1] - x_range[0])
        y = (value - y_range[0]) / (y_range[1] - y_range[0])
        return left + x * (right - left), bottom - y * (bottom - top)

    for value in ticks(*y_range):
        y = at(x_range[0], value)[1]
        draw.line((left, y, right, y), GRID, SCALE)
        draw.text((left - 5 * SCALE, y), f"{value:g}", INK, font, anchor="rm")
    for step in ticks(*x_range):
        x = at(step, y_range[0])[0]
        draw.line((x, bottom, x, bottom + 4 * SCALE), AXIS, SCALE)
        draw.text((x, bottom + 6 * SCALE), f"{step:g}", INK, font, anchor="mt")
    draw.line((left, top, left, bottom, right, bottom), AXIS, SCALE)
    points = [at(step, value) for step, value in curve]
    draw.line(points, LINE, 2 * SCALE, joint="curve")
    for x, y in points:
        draw.circle((x, y), 3 * SCALE, LINE)
    title = f"{name}: {curve[-1][1]:.4g} at step {curve[-1][0]}"
    draw.text((left, 10 * SCALE), title, INK, font, anchor="lt")
    return image.resize(PANEL, Image.Resampling.LANCZOS)


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """The interval to show, never empty."""
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5 * max(abs(low), 1), high + 0.5 * max(abs(high), 1)
    return low - margin * (high - low), high + margin * (high - low)

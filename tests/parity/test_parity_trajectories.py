"""Camera paths of the original's videos."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from parity.support import Case, cases_of

from rendering.cameras import Cameras
from rendering.trajectories import FRONT_FOV, ROUNDED_FRONTAL, front, lower, orbit

DOUBLE = torch.float64
# the fixture's name of a path -> our path of so many frames for a curriculum's field of view
PATHS: dict[str, Callable[[int, float], Cameras]] = {
    "render_video_front": lambda n, fov: front(n, FRONT_FOV, dtype=DOUBLE),
    "render_video_orbit": lambda n, fov: orbit(n, fov, dtype=DOUBLE),
    "interpolation_front": lambda n, fov: front(n, fov, dtype=DOUBLE),
    "interpolation_orbit": lambda n, fov: orbit(n, fov, wobble=0.2, dtype=DOUBLE),
    "inverse_render_video": lambda n, fov: lower(n, fov, centre=ROUNDED_FRONTAL, dtype=DOUBLE),
    "inverse_render_video_loop": lambda n, fov: front(
        n, fov, centre=ROUNDED_FRONTAL, zoom=0.0, dtype=DOUBLE
    ),
}
CURRICULUM_FOV = 23.0


def path_parameters() -> list[Any]:
    return [
        pytest.param(*param.values, name, id=f"{param.id}:{name}")
        for param in cases_of("pigan", "trajectory")
        for name in param.values[0].spec["trajectories"]
    ]


@pytest.mark.parametrize("case, name", path_parameters())
def test_every_frame_of_a_path_is_the_originals(case: Case, name: str) -> None:
    expected = case.spec["trajectories"][name]
    part = re.search(r"_first_(\d+)_of_(\d+)$", name)
    frames = int(part[2]) if part else case.config["num_frames"]
    path = PATHS[name[: part.start()] if part else name](frames, CURRICULUM_FOV)
    yaw, pitch = path.yaw_pitch.unbind(-1)
    columns = {"pitch": pitch, "yaw": yaw, "fov_degrees": path.fov}
    assert len(expected) == (int(part[1]) if part else len(path))
    atol = case.spec["tolerance"]["atol"]
    for i, row in enumerate(expected):
        for column, value in zip(case.config["columns"], row, strict=False):
            actual = float(columns[column][i])
            assert actual == pytest.approx(parse(value), abs=atol), (i, column)


def parse(value: float | str) -> float:
    """A number, or "curriculum fov" with or without an offset."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"curriculum fov(?: \+ (-?[\d.]+))?", value)
    assert found, f"unknown entry {value!r}"
    return CURRICULUM_FOV + float(found[1] or 0)

"""EpiGRAF's camera paths, whose yaw is counted from the front at 0."""

from typing import Any

import pytest
import torch
from parity.support import Case, cases_of

from rendering.trajectories import TRAJECTORIES, face

NOT_OPTIONS = {"name", "num_frames", "fov"}


def path_parameters() -> list[Any]:
    return [
        pytest.param(*param.values, entry, id=f"{param.id}:{entry['id']}")
        for param in cases_of("epigraf", "camera")
        for entry in param.values[0].config.get("paths", [])
    ]


@pytest.mark.parametrize("case, entry", path_parameters())
def test_every_frame_of_a_path_is_the_originals(case: Case, entry: Any) -> None:
    camera, name = entry["camera"], entry["id"]
    expected = case.tensor(f"out/{name}/angles")
    options = {key: value for key, value in camera.items() if key not in NOT_OPTIONS}
    fov = camera.get("fov") or entry["default_fov"] or 20.0
    path = TRAJECTORIES[camera["name"]](len(expected), fov, dtype=torch.float64, **options)
    found = {"angles": face(path, 0.0).yaw_pitch, "fovs": path.fov}
    for output in ("angles", "fovs"):
        if f"out/{name}/{output}" in case.names:
            values = case.tensor(f"out/{name}/{output}")
            values = values[:, :2] if output == "angles" else values
            atol = case.spec["tolerance"][f"{name}/{output}"]["suggested_atol"]
            torch.testing.assert_close(
                found[output], values.double(), atol=atol, rtol=0, check_dtype=False
            )
    assert not expected[:, 2].any(), "these cameras stand upright"

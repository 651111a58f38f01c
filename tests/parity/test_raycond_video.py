"""Cameras and styles of the original's interpolation video, frame by frame."""

import math

import pytest
import torch
from parity.support import Case, cases_of
from torch import Tensor

from inference.interpolation import WRAPS, interpolate_loop
from rendering.camera_labels import labels_from_cameras
from rendering.trajectories import FRONTAL, PIVOT, ROUNDED_FRONTAL, face, face_circle

FOCAL = {"FFHQ": 4.2647, "AFHQ": 4.2647, "Shapenet": 1.7074}  # picture widths
RADIUS = 2.7  # for cars, too
ROUNDED_TURN = 6.28


def assert_close(case: Case, name: str, actual: Tensor) -> None:
    """The case's rule: relative L2, at least 1e-5."""
    expected = case.tensor(f"out/{name}").double()
    rule = case.spec["tolerance"]["per_output"][name]
    assert actual.shape == expected.shape
    error = float((actual.double() - expected).norm() / expected.norm())
    assert error <= max(20 * rule["rel_l2"], 1e-5), f"{name}: {error}"


@pytest.mark.parametrize("case", cases_of("raycond", "video_path"))
def test_every_camera_of_the_video_is_the_originals(case: Case) -> None:
    frames = case.config["keyframes"] * case.config["w_frames"]
    path = face_circle(
        frames + 1,
        2 * math.degrees(math.atan(0.5 / FOCAL[case.config["cfg"]])),
        pitch=ROUNDED_FRONTAL - 0.05,
        pivot=PIVOT,
        centre=ROUNDED_FRONTAL,
        turn=ROUNDED_TURN,
        dtype=torch.float64,
    )
    labels = labels_from_cameras(face(path[:frames], FRONTAL, RADIUS))
    assert_close(case, "labels", labels)


@pytest.mark.parametrize("case", cases_of("raycond", "video_path"))
def test_every_style_of_the_video_is_the_originals(case: Case) -> None:
    assert case.config["wraps"] == WRAPS and case.config["kind"] == "cubic"
    keys, frames = case.tensor("in/ws"), case.config["w_frames"]
    phases = torch.arange(len(keys) * frames, dtype=torch.float64) / frames
    assert_close(case, "w", interpolate_loop(keys, phases, "tiled"))

"""The cameras of EG3D-style data sets, made by ours, against the original's matrices.

The original's cameras look at a pivot from a sphere around the origin. It measures yaw the other
way round from -x, and warps pitch so that uniform numbers are uniform on the sphere.
"""

import math
from collections.abc import Mapping

import pytest
import torch
from parity.support import Case, cases_of
from torch import Tensor

from rendering.camera_labels import (
    fov_of_published,
    labels_from_cameras,
    look_at,
    nearest_point,
    orbit_angles,
    raw_cameras,
)
from rendering.cameras import PITCH_MARGIN

PIVOT = (0.0, 0.0, 0.2)
FACES = {"mean": (math.pi / 2, math.pi / 2), "std": (0.3, 0.155)}  # of the cases' random faces
WIDE = {"mean": (math.pi / 2, math.pi / 2), "std": (0.5, 0.4)}  # and of the uniform ones


def faces(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Directions of cameras by the original's yaw and pitch, world +y up."""
    pitch = pitch.clamp(PITCH_MARGIN, math.pi - PITCH_MARGIN)
    polar, around = torch.arccos(1 - 2 * pitch / math.pi), math.pi - yaw
    across = polar.sin()
    return torch.stack([across * around.cos(), polar.cos(), across * around.sin()], 1)


def cars(azimuth: Tensor, polar: Tensor) -> Tensor:
    """Directions of cameras by uniform azimuth in 0..1 and polar angle, world +z up."""
    around, across = 2 * math.pi * azimuth, polar.sin()
    return torch.stack([across * around.cos(), across * around.sin(), polar.cos()], 1)


def matrices(origin: Tensor, pivot: tuple[float, float, float], up: str) -> Tensor:
    cameras = look_at(origin, pivot, up=up)
    return labels_from_cameras(cameras)[:, :16].reshape(-1, 4, 4)


def drawn(case: Case, first: int, law: Mapping[str, tuple[float, float]], kind: str) -> Tensor:
    yaw_pitch = []
    for i in (0, 1):
        draws = case.tensor(f"in/draw_{first + i}").double().flatten()
        unit = {"uniform": 2 * draws - 1, "truncated": draws.clamp(-2, 2)}.get(kind, draws)
        yaw_pitch.append(law["mean"][i] + law["std"][i] * unit)
    return faces(*yaw_pitch)


def assert_close(case: Case, name: str, actual: Tensor) -> None:
    """The case's rule: relative L2, at least 1e-5."""
    expected = case.tensor(f"out/{name}").double()
    rule = case.spec["tolerance"]["per_output"][name]
    error = float((actual.double() - expected).norm() / expected.norm())
    assert error <= max(20 * rule["rel_l2"], 1e-5), f"{name}: {error}"


@pytest.mark.parametrize("case", cases_of("raycond", "cameras"))
def test_cameras_that_look_at_a_pivot_are_the_original_s(case: Case) -> None:
    grid = faces(*case.tensor("in/yaw_pitch").double().T)
    assert_close(case, "lookat_origin_r1", matrices(grid, (0, 0, 0), "y"))
    assert_close(case, "lookat_pivot_r2.7", matrices(2.7 * grid, PIVOT, "y"))
    normal = drawn(case, 0, FACES, "normal")
    assert_close(case, "lookat_random", matrices(2.7 * normal, PIVOT, "y"))
    truncated = drawn(case, 2, FACES, "truncated")
    assert_close(case, "lookat_random_truncated", matrices(2.7 * truncated, PIVOT, "y"))
    assert_close(case, "gaussian_random", matrices(drawn(case, 4, FACES, "normal"), (0, 0, 0), "y"))
    assert_close(case, "uniform_random", matrices(drawn(case, 6, WIDE, "uniform"), (0, 0, 0), "y"))


@pytest.mark.parametrize("case", cases_of("raycond", "cameras"))
def test_cameras_around_a_world_whose_z_is_up_are_the_original_s(case: Case) -> None:
    draws = [case.tensor(f"in/draw_{i}").double().flatten() for i in range(8, 12)]
    azimuth, height = case.tensor("in/hv").double().T
    for name, around, polar in (
        ("blender_hv_r1.3", azimuth, torch.arccos(2 * height - 1)),
        ("blender_uniform", draws[0], torch.arccos(2 * draws[1] - 1)),
        ("blender_upper", draws[2], torch.arccos(draws[3]) + 0.5),
    ):
        assert_close(case, name, matrices(1.3 * cars(around, polar), (0, 0, 0), "z"))


@pytest.mark.parametrize("case", cases_of("raycond", "cameras"))
def test_the_original_s_matrices_give_their_angles_back(case: Case) -> None:
    """All but the pose at the pole, which has none."""
    grid = case.tensor("in/yaw_pitch").double()[:4]
    expected = torch.arccos(1 - 2 * grid[:, 1] / math.pi)
    matrix = case.tensor("out/lookat_origin_r1").double()[:4]
    labels = torch.cat([matrix.flatten(1), torch.ones(4, 9, dtype=torch.float64)], 1)
    found = orbit_angles(raw_cameras(labels)).angles
    turned = (found[:, 0] - (math.pi - grid[:, 0]) + math.pi).remainder(2 * math.pi) - math.pi
    assert turned.abs().max() < 1e-4
    assert (found[:, 1] - expected).abs().max() < 1e-4 and found[:, 2].abs().max() < 1e-4
    matrix = case.tensor("out/lookat_pivot_r2.7").double()[:4]
    labels = torch.cat([matrix.flatten(1), torch.ones(4, 9, dtype=torch.float64)], 1)
    point, away = nearest_point(raw_cameras(labels))
    assert point.tolist() == pytest.approx(PIVOT, abs=1e-4) and away < 1e-4


@pytest.mark.parametrize("case", cases_of("raycond", "cameras"))
def test_published_fields_of_view_have_the_original_s_focal_lengths(case: Case) -> None:
    for i, degrees in enumerate(case.config["fovs"]):
        origin = torch.tensor([[0.0, 0, 1]], dtype=torch.float64)
        labels = labels_from_cameras(look_at(origin, fov=fov_of_published(degrees)))
        assert_close(case, f"fov_{i}", labels[0, 16:].reshape(3, 3))

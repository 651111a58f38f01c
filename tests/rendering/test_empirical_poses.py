"""Cameras drawn from a data set, and reports about how they are distributed."""

import math

import pytest
import torch
from torch import Tensor

from rendering.camera_labels import (
    OrbitAngles,
    cameras_from_labels,
    cameras_from_orbit,
    labels_from_cameras,
    mirror_labels,
)
from rendering.cameras import Cameras
from rendering.empirical_poses import EmpiricalPoses, check_angles, check_labels

FRONT = math.pi / 2


def normal_angles(count: int = 400, yaw: float = FRONT, std: float = 0.3) -> Tensor:
    noise = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return torch.tensor([yaw, 1.5, 0.0]) + noise * torch.tensor([std, 0.1, 0.02])


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- drawing


def test_drawn_cameras_are_those_of_the_data_equally_often():
    angles = normal_angles(4)
    poses = EmpiricalPoses.from_angles(angles, 30.0, 1.3)
    drawn = poses.sample(8000, seeded())
    yaw, pitch, roll = angles.unbind(1)
    exact = Cameras.from_angles(yaw, pitch, 30.0, 1.3, roll)
    same = (drawn.cam2world[:, None] == exact.cam2world).all(3).all(2)
    assert torch.equal(same.sum(1), torch.ones(8000, dtype=torch.long))
    # four standard deviations of a binomial count
    assert (same.sum(0) - 2000).abs().max() < 4 * math.sqrt(8000 * 0.25 * 0.75)


def test_a_share_of_the_drawn_cameras_is_mirrored():
    angles = torch.tensor([[0.3, 1.4, 0.1]])
    poses = EmpiricalPoses.from_angles(angles, 30.0, mirror=0.25, frontal_yaw=0.0)
    yaw = poses.sample(4000, seeded()).yaw_pitch[:, 0]
    torch.testing.assert_close(yaw.abs(), torch.full((4000,), 0.3))
    share = float((yaw < 0).float().mean())
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 4000))


def test_mirrored_cameras_are_the_mirrored_labels_cameras():
    orbit = OrbitAngles(normal_angles(5), torch.full((5,), 2.7), torch.full((5,), 13.0))
    labels = labels_from_cameras(cameras_from_orbit(orbit))
    every, flips = torch.arange(5), torch.tensor([True, False, True, True, False])
    from_labels = EmpiricalPoses.from_labels(labels, mirror=0.5).at(every, flips)
    from_angles = EmpiricalPoses.from_angles(orbit.angles, 13.0, 2.7, mirror=0.5).at(every, flips)
    expected = cameras_from_labels(torch.where(flips[:, None], mirror_labels(labels), labels))
    torch.testing.assert_close(from_labels.cam2world, expected.cam2world)
    torch.testing.assert_close(from_angles.cam2world, expected.cam2world, atol=1e-5, rtol=0)
    torch.testing.assert_close(from_labels.fov, from_angles.fov)


def test_a_draw_is_the_generator_s_and_tells_which_pictures():
    poses = EmpiricalPoses.from_angles(normal_angles(9), 30.0, mirror=0.5)
    indices, flips = poses.draw(6, seeded())
    expected = poses.at(indices, flips)
    torch.testing.assert_close(poses.sample(6, seeded()).cam2world, expected.cam2world)
    assert not torch.equal(poses.sample(6, seeded(2)).cam2world, expected.cam2world)
    assert len(poses) == 9


def test_poses_move_to_a_device():
    moved = EmpiricalPoses.from_angles(normal_angles(3), 30.0).to("meta")
    assert moved.cameras.cam2world.is_meta and moved.mirrored.fov.is_meta


# ---- reports


def test_a_centred_distribution_has_its_numbers_and_no_problem():
    angles = normal_angles()
    report = check_angles(angles)
    assert not report.problems and not report.all_round and report.count == 400
    for spread, values in zip((report.yaw, report.pitch, report.roll), angles.T, strict=True):
        assert spread.mean == pytest.approx(float(values.mean()), abs=0.01)
        assert spread.std == pytest.approx(float(values.std()), abs=0.01)
        assert spread.low == pytest.approx(float(values.min()), abs=1e-5)
        assert spread.high == pytest.approx(float(values.max()), abs=1e-5)
    assert str(report).startswith("400 cameras: yaw 1.5")


def test_means_and_ranges_do_not_break_where_angles_wrap():
    around_pi = normal_angles(yaw=math.pi)
    around_pi[:, 0] = (around_pi[:, 0] + math.pi).remainder(2 * math.pi) - math.pi
    report = check_angles(around_pi, frontal_yaw=-math.pi)
    assert report.yaw.std == pytest.approx(0.3, abs=0.03) and not report.problems
    assert abs(math.remainder(report.yaw.mean - math.pi, 2 * math.pi)) < 0.05


def test_cameras_on_all_sides_need_no_centre():
    angles = torch.stack([torch.linspace(-3, 3, 99), torch.full((99,), 1.4), torch.zeros(99)], 1)
    report = check_angles(angles)
    assert report.all_round and not report.problems and "from all sides" in str(report)


def test_a_few_cameras_are_not_blamed_for_chance():
    assert not check_angles(normal_angles(8, yaw=FRONT + 0.3, std=0.6)).problems


@pytest.mark.parametrize(
    ("angles", "frontal", "parts"),
    [
        (normal_angles(yaw=0.0), FRONT, ["the mean yaw is", "EpiGRAF's", "frontal_yaw to 0"]),
        (normal_angles(), 0.0, ["mean yaw is 1.5", "pi-GAN's convention", "frontal_yaw to 1.571"]),
        (normal_angles(yaw=0.8), 0.0, ["mean yaw is 0.798", "subtract 0.798"]),
        (torch.zeros(5, 3), 0.0, ["all 5 cameras have yaw 0.000", "placeholders", "sample_dist"]),
        (torch.tensor([[1.2, 1.5, 0.0]] * 5), FRONT, ["yaw 1.200 and pitch 1.500: nothing to"]),
        (normal_angles(std=0.0), FRONT, ["yaw is 1.571 in all 400", "exchanged?"]),
        (normal_angles() * torch.tensor([57.3, 1, 1]), FRONT, ["yaw goes up to 1", "degrees"]),
        (normal_angles() + torch.tensor([0, -1.4, 0]), FRONT, ["pitch runs from -", "elevation"]),
        (normal_angles() + torch.tensor([0, 1.2, 90]), FRONT, ["roll goes up to 90.1"]),
        (
            torch.stack([normal_angles()[:, 0], normal_angles()[:, 1] * 0.1, torch.zeros(400)], 1),
            FRONT,
            ["mean pitch is 0.15", "almost straight above"],
        ),
    ],
)
def test_what_is_wrong_is_told_with_numbers_and_the_fix(angles, frontal, parts):
    (problem,) = check_angles(angles, frontal).problems
    for part in parts:
        assert part in problem
    assert problem in str(check_angles(angles, frontal))


# ---- camera labels


def face_labels(count: int = 50, up: str = "y") -> Tensor:
    angles = normal_angles(count)
    orbit = OrbitAngles(angles, torch.full((count,), 2.7), torch.full((count,), 13.0))
    return labels_from_cameras(cameras_from_orbit(orbit, pivot=(0.0, 0.0, 0.2), up=up))


@pytest.mark.parametrize("up", ["y", "z"])
def test_labels_are_reported_by_the_angles_from_which_they_look(up):
    report, expected = check_labels(face_labels(up=up), up=up), check_angles(normal_angles(50))
    assert report.yaw == pytest.approx(expected.yaw, abs=1e-4)
    assert report.roll == pytest.approx(expected.roll, abs=1e-4)
    assert not report.problems


def test_matrices_of_the_wrong_direction_are_suspected():
    labels = face_labels()
    inverse = labels[:, :16].reshape(-1, 4, 4).inverse().flatten(1)
    around = check_labels(torch.cat([inverse, labels[:, 16:]], 1))
    assert not any("world2cam" in p for p in around.problems)  # the pivot is not the origin
    orbit = OrbitAngles(normal_angles(50), torch.full((50,), 2.7), torch.full((50,), 13.0))
    labels = labels_from_cameras(cameras_from_orbit(orbit))
    inverse = labels[:, :16].reshape(-1, 4, 4).inverse().flatten(1)
    problems = check_labels(torch.cat([inverse, labels[:, 16:]], 1)).problems
    assert any("all cameras stand at (" in p and "world2cam" in p for p in problems)


def test_cameras_that_all_look_away_are_suspected_of_another_convention():
    labels = face_labels()
    labels[:, [1, 2, 5, 6, 9, 10]] *= -1
    problems = check_labels(labels).problems
    assert any(
        "look away from the origin" in p and "second and third column" in p for p in problems
    )

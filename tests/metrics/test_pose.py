"""Pose errors by hand, and a regressor that learns poses from pictures."""

import math

import pytest
import torch
from torch import Tensor

from metrics.pose import PoseRegressor, pose_errors, shrink, train_pose_regressor, wrap
from rendering.cameras import Cameras
from toys.dataset import camera_angles, toy_cameras
from toys.render import render_figures
from toys.scenes import Figures


def degrees(*pairs: tuple[float, float]) -> Tensor:
    return torch.deg2rad(torch.tensor(pairs))


def test_yaw_is_a_circle() -> None:
    angles = torch.deg2rad(torch.tensor([190.0, -190, 360, 540, 10]))
    expected = torch.deg2rad(torch.tensor([-170.0, 170, 0, -180, 10]))
    torch.testing.assert_close(wrap(angles).cos(), expected.cos(), atol=1e-5, rtol=0)
    assert (wrap(angles).abs() <= math.pi + 1e-5).all()
    errors = pose_errors(degrees((179, 80), (10, 90)), degrees((-179, 70), (350, 95)))
    assert errors.yaw == pytest.approx((2 + 20) / 2, abs=1e-3)
    assert errors.pitch == pytest.approx((10 + 5) / 2, abs=1e-3)


def test_chance_is_the_error_of_exchanged_pictures() -> None:
    predicted, actual = degrees((0, 80), (90, 90), (200, 70)), degrees((5, 80), (95, 90), (180, 75))
    errors = pose_errors(predicted, actual)
    yaw = [abs(0 - 95), 180, 90 - 5, abs(90 - 180), 360 - 200 + 5, 200 - 95]
    pitch = [10, 5, 10, 15, 10, 20]
    assert errors.yaw_chance == pytest.approx(sum(yaw) / 6, abs=1e-3)
    assert errors.pitch_chance == pytest.approx(sum(pitch) / 6, abs=1e-3)


def test_chance_of_a_full_turn_is_a_right_angle(rng: torch.Generator) -> None:
    turn = 2 * math.pi * torch.rand(300, 2, generator=rng)
    errors = pose_errors(turn, turn + 0.1)
    assert errors.yaw_chance == pytest.approx(90, abs=1.5)


def test_a_common_turn_is_told_apart(rng: torch.Generator) -> None:
    actual = 6 * torch.rand(50, 2, generator=rng)
    turned = actual.clone()
    turned[:, 0] += math.radians(150)
    turned[::2, 0] += math.radians(4)
    errors = pose_errors(turned, actual)
    assert errors.yaw == pytest.approx(152, abs=1e-3)
    assert errors.yaw_offset == pytest.approx(152, abs=1e-3)
    assert errors.yaw_aligned == pytest.approx(2, abs=1e-3)


def test_too_few_poses_are_refused() -> None:
    with pytest.raises(ValueError, match="two or more poses of each kind, got 1 and 1"):
        pose_errors(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="needs pictures with cameras, got 2"):
        train_pose_regressor(torch.zeros(2, 3, 32, 32), torch.zeros(2, 2))


def toys(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """One figure from many sides: an easy lesson."""
    cameras = toy_cameras(seed, range(count))
    figures = Figures.sample(0, [0] * count)
    images = render_figures(figures, cameras, 32, samples=1).image
    return images, camera_angles(seed, range(count)).float()


@pytest.fixture(scope="module")
def trained() -> tuple[PoseRegressor, Tensor, Tensor]:
    images, poses = toys(600)
    network, errors = train_pose_regressor(images, poses, steps=150)
    assert errors.yaw < 15 and errors.pitch < 4
    assert errors.yaw_chance > 70
    return network, images, poses


def test_a_regressor_knows_poses_that_it_has_not_seen(trained) -> None:
    network, _, _ = trained
    images, poses = toys(60, seed=1)
    errors = pose_errors(network(images), poses)
    assert errors.yaw < 15 and errors.pitch < 4


def test_pictures_whose_yaw_is_ignored_fail(trained) -> None:
    network, _, _ = trained
    cameras = toy_cameras(1, range(60))
    stuck = Cameras.from_angles(1.0, cameras.yaw_pitch[:, 1], 50.0)
    images = render_figures(Figures.sample(0, [0] * 60), stuck, 32, samples=1).image
    errors = pose_errors(network(images), cameras.yaw_pitch)
    assert errors.yaw == pytest.approx(errors.yaw_chance, rel=0.1)
    assert errors.yaw_aligned > 60
    assert errors.pitch < 5  # which they do show


def test_pictures_of_any_size_are_judged(trained) -> None:
    network, images, _ = trained
    large = torch.nn.functional.interpolate(images[:4], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(network(large), network(images[:4]), atol=0.2, rtol=0)
    assert shrink(torch.zeros(1, 3, 50, 50)).shape == (1, 3, 32, 32)


def test_the_same_lesson_gives_the_same_network() -> None:
    images, poses = torch.rand(40, 3, 32, 32), torch.rand(40, 2)
    before = torch.random.get_rng_state()
    first, _ = train_pose_regressor(images, poses, steps=3, seed=4)
    assert torch.equal(before, torch.random.get_rng_state())
    second, _ = train_pose_regressor(images, poses, steps=3, seed=4)
    other, _ = train_pose_regressor(images, poses, steps=3, seed=5)
    assert torch.equal(first(images), second(images))
    assert not torch.equal(first(images), other(images))
    assert not any(p.requires_grad for p in first.parameters())

"""Spoofed poses: the same cameras, some with another's place."""

import torch

from rendering.cameras import Cameras
from training.poses import spoofed


def cameras(count: int) -> Cameras:
    return Cameras.from_angles(torch.arange(count) * 0.1, 1.2, 20.0)


def test_chosen_cameras_move_on_by_one_and_the_last_comes_first() -> None:
    u = torch.tensor([0.9, 0.1, 0.2, 0.8, 0.3])
    yaw = spoofed(cameras(5), 0.5, u).yaw_pitch[:, 0] * 10
    assert torch.equal(yaw.round(), torch.tensor([0.0, 4.0, 1.0, 3.0, 2.0]))


def test_nobody_is_spoofed_at_zero_and_everybody_at_one() -> None:
    u, given = torch.rand(6), cameras(6)
    assert torch.equal(spoofed(given, 0.0, u).cam2world, given.cam2world)
    assert torch.equal(spoofed(given, 1.0, u).cam2world, given.cam2world.roll(1, 0))


def test_the_cameras_that_were_given_stay_as_they_were() -> None:
    given = cameras(4)
    before = given.cam2world.clone()
    spoofed(given, 1.0, torch.rand(4))
    assert torch.equal(given.cam2world, before)

"""Silhouettes of a body are covered by their hull; those that contradict each other are cut."""

import math

import pytest
import torch
from torch import Tensor

from metrics.hull import hull_coverage
from rendering.cameras import Cameras

SIZE = 32
AROUND = Cameras.from_angles(torch.arange(8) * math.pi / 4 + 0.2, 1.3, 50.0)


def box(cameras: Cameras, sides: tuple[float, float, float]) -> Tensor:
    """Silhouettes of a box about the origin, by where rays enter and leave its slabs."""
    origins, directions = cameras.rays(SIZE, SIZE)
    half = torch.tensor(sides) / 2
    near, far = (-half - origins) / directions, (half - origins) / directions
    enter, leave = torch.minimum(near, far).amax(-1), torch.maximum(near, far).amin(-1)
    return (enter < leave).float().reshape(-1, SIZE, SIZE)


def coverage(silhouettes: Tensor, cameras: Cameras = AROUND) -> float:
    found = hull_coverage(silhouettes, cameras.cam2world, cameras.fov, 0.5)
    assert found is not None
    return found


def test_a_body_is_covered_whatever_its_shape_and_size_in_pixels() -> None:
    for sides in ((0.3, 0.3, 0.3), (0.6, 0.2, 0.1), (0.1, 0.5, 0.4)):
        shape = box(AROUND, sides)
        assert coverage(shape) > 0.97
        assert coverage(shape.repeat_interleave(2, 1).repeat_interleave(2, 2)) == coverage(shape)


def test_what_does_not_turn_is_cut_and_a_body_of_revolution_is_not() -> None:
    plank, ball = box(AROUND, (0.6, 0.2, 0.1)), box(AROUND, (0.2, 0.3, 0.2))
    assert coverage(plank[:1].expand_as(plank)) < 0.75
    assert coverage(ball[:1].expand_as(ball)) > 0.85


def test_turning_the_wrong_way_is_found_out() -> None:
    plank = box(AROUND, (0.6, 0.2, 0.1))
    yaw, pitch = AROUND.yaw_pitch.unbind(1)
    against = Cameras.from_angles(1.0 - yaw, pitch, AROUND.fov)
    assert coverage(plank, against) < coverage(plank) - 0.1


def test_what_is_in_one_view_only_counts_by_its_pixels() -> None:
    """A spot that no other view confirms: all of it is uncovered."""
    shape = box(AROUND, (0.3, 0.3, 0.3))
    spotted = shape.clone()
    spotted[0, 2:6, 2:6] = 1
    before, after = coverage(shape) * shape.sum(), coverage(spotted) * spotted.sum()
    assert float(after) == pytest.approx(float(before), abs=0.5)


def test_an_empty_scene_says_nothing() -> None:
    nothing = torch.zeros(8, SIZE, SIZE)
    assert hull_coverage(nothing, AROUND.cam2world, AROUND.fov, 0.5) is None

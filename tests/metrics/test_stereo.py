"""Pictures of a solid thing can be explained by one; pictures of unrelated things cannot."""

import math

import pytest
import torch
from torch import Tensor

from metrics.stereo import Seen, stereo_consistency
from rendering.cameras import Cameras

SIZE = 24


def ball(cameras: Cameras, phase: float = 0.0) -> Tensor:
    """A ball of radius 0.3 with coloured waves on it, on white."""
    origins, directions = cameras.rays(SIZE, SIZE)
    b = (origins * directions).sum(-1)
    under = b.square() - origins.square().sum(-1) + 0.3**2
    t = -b - under.clamp(min=0).sqrt()
    points = origins + t[..., None] * directions
    colour = torch.sin(12 * points + phase) * 0.8
    picture = torch.where((under > 0)[..., None], colour, 1.0)
    return picture.transpose(1, 2).reshape(-1, 3, SIZE, SIZE)


def cameras(turn: float = 0.0) -> Cameras:
    return Cameras.from_angles(torch.tensor([1.3, 1.6]) + turn, math.pi / 2, 45.0)


def score(source: Tensor, *others: tuple[Tensor, Cameras]) -> float | None:
    origins, directions = cameras().rays(SIZE, SIZE)
    seen = [Seen(target, at.cam2world, at.fov) for target, at in others]
    return stereo_consistency(source, seen, origins, directions, 0.5, 1.5)


def test_a_solid_ball_is_explained_and_one_that_does_not_turn_is_not() -> None:
    source = ball(cameras())
    solid = score(source, (ball(cameras(0.3)), cameras(0.3)))
    stuck = score(source, (source.flip(2), cameras(0.3)))
    assert solid is not None and stuck is not None
    assert solid > 0.9 and stuck < solid - 0.3


def test_wrong_cameras_explain_less() -> None:
    source, target = ball(cameras()), ball(cameras(0.3))
    right, wrong = (score(source, (target, cameras(turn))) for turn in (0.3, math.pi))
    assert right is not None and wrong is not None and wrong < right - 0.2


def test_the_same_view_explains_itself() -> None:
    source = ball(cameras())
    same = score(source, (source, cameras()))
    assert same == pytest.approx(1.0, abs=1e-3)


def test_an_empty_picture_says_nothing() -> None:
    blank = torch.ones(2, 3, SIZE, SIZE)
    assert score(blank, (blank, cameras())) is None


def test_a_surface_must_explain_both_neighbours_at_once() -> None:
    """At one distance per pixel: never better than each neighbour with a distance of its own."""
    source = ball(cameras())
    seen = [(ball(cameras(turn)), cameras(turn)) for turn in (-0.5, 0.5)]
    both, single = score(source, *seen), [score(source, one) for one in seen]
    again = score(source, seen[0], seen[0])
    assert both is not None and single[0] is not None and single[1] is not None
    assert 0.7 < both < (single[0] + single[1]) / 2 - 0.01
    assert again == pytest.approx(single[0], abs=1e-6)

"""Camera paths: closed, where they should be, in the precision asked for."""

import math

import pytest
import torch
from torch.testing import assert_close

from rendering.trajectories import (
    CLOSED,
    PIVOT,
    TRAJECTORIES,
    face,
    face_circle,
    front,
    front_circle,
    line,
    lower,
    orbit,
    points,
    wiggle,
)

FRONT = math.pi / 2


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_named_paths_look_at_the_origin_and_come_back_if_they_are_closed(name: str) -> None:
    path = TRAJECTORIES[name](9, 20.0)
    assert len(path) == 9 and path.cam2world.dtype == torch.float32
    gap = (path.cam2world[0] - path.cam2world[-1]).abs().max()
    assert (gap < 1e-6) == (name in CLOSED)
    assert_close(path.origin.norm(dim=1), torch.ones(9))
    pivot = torch.tensor([0, 0, PIVOT if name == "face_circle" else 0.0])
    inwards = torch.nn.functional.normalize(path.origin - pivot, dim=1)
    assert_close(path.cam2world[:, :3, 2], inwards)


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_a_path_that_faces_another_way_is_turned_and_moved_out(name: str) -> None:
    path = TRAJECTORIES[name](6, 20.0, dtype=torch.float64)
    turned = face(path, 0.3, radius=2.5)
    assert_close(turned.yaw_pitch[:, 0], path.yaw_pitch[:, 0] + 0.3 - FRONT)
    assert_close(turned.yaw_pitch[:, 1], path.yaw_pitch[:, 1])
    assert_close(turned.origin.norm(dim=-1), torch.full((6,), 2.5, dtype=torch.float64))
    assert_close(turned.fov, path.fov)


def test_a_circle_around_a_face_keeps_looking_at_it_wherever_its_front_is() -> None:
    path = face_circle(6, 20.0, pivot=0.3, dtype=torch.float64)
    turned = face(path, 0.7, radius=2.5)
    pivot = 2.5 * 0.3 * torch.tensor([math.cos(0.7), 0, math.sin(0.7)], dtype=torch.float64)
    offset = turned.origin - pivot
    missed = torch.linalg.cross(offset, turned.cam2world[:, :3, 2]).norm(dim=1)
    assert missed.max() < 1e-12 and (offset * turned.cam2world[:, :3, 2]).sum(1).min() > 1
    assert_close(face(path, FRONT).cam2world, path.cam2world)
    assert_close(torch.linalg.det(turned.cam2world[:, :3, :3]), torch.ones(6, dtype=torch.float64))


def test_a_circle_around_a_face_is_an_ellipse_on_the_sphere() -> None:
    path = face_circle(5, 20.0, yaw_diff=0.4, pitch_diff=0.2, pitch=1.5, pivot=0.0)
    yaw, pitch = path.yaw_pitch.unbind(1)
    assert_close(yaw - FRONT, torch.tensor([0, -0.4, 0, 0.4, 0]), atol=1e-6, rtol=0)
    height = torch.tensor([1.7, 1.5, 1.3, 1.5, 1.7])
    assert_close(pitch.cos(), 1 - 2 * height / math.pi)


def test_a_circle_reaches_its_sides_where_it_zooms() -> None:
    path = front_circle(5, 12.0, yaw_diff=0.5, pitch_diff=0.3, fov_diff=2.0, pitch=1.2)
    assert_close(
        path.yaw_pitch[:, 0] - FRONT, torch.tensor([0, 0.5, 0, -0.5, 0]), atol=1e-6, rtol=0
    )
    assert_close(
        path.yaw_pitch[:, 1] - 1.2, torch.tensor([0.3, 0, -0.3, 0, 0.3]), atol=1e-6, rtol=0
    )
    assert_close(path.fov, torch.tensor([12.0, 14, 12, 10, 12]))


def test_points_are_held_for_equal_times() -> None:
    path = points(6, 15.0, yaws=(0.0, -0.4, 0.2), pitch=1.3)
    expected = FRONT + torch.tensor([0, 0, -0.4, -0.4, 0.2, 0.2])
    assert_close(path.yaw_pitch[:, 0], expected)
    assert_close(path.yaw_pitch[:, 1], torch.full((6,), 1.3))
    for frames, yaws in ((4, (0.0, 1.0, 2.0)), (0, (0.0,)), (3, ())):
        with pytest.raises(ValueError, match="num_frames"):
            points(frames, 15.0, yaws=yaws)


def test_a_line_and_a_wiggle_go_from_left_to_right() -> None:
    straight = line(3, 30.0, yaw_left=-1, yaw_right=0.5, pitch_left=0.6, pitch_right=1.0)
    assert_close(straight.yaw_pitch[:, 0] - FRONT, torch.tensor([-1, -0.25, 0.5]))
    assert_close(straight.yaw_pitch[:, 1], torch.tensor([0.6, 0.8, 1.0]))
    swung = wiggle(3, 30.0, yaw_left=-1, yaw_right=0.5, pitch_diff=0.2, pitch=1.0)
    assert_close(swung.yaw_pitch[:, 0] - FRONT, torch.tensor([-1, -0.25, 0.5]))
    assert_close(swung.yaw_pitch[:, 1], torch.tensor([1.2, 0.8, 1.2]))


def test_the_front_path_can_be_raised() -> None:
    raised, level = front(5, 12.0, pitch=1.2), front(5, 12.0)
    assert_close(raised.yaw_pitch[:, 1], level.yaw_pitch[:, 1] + 1.2 - FRONT)
    assert_close(raised.yaw_pitch[:, 0], level.yaw_pitch[:, 0])


def test_an_orbit_keeps_its_height_and_goes_around_evenly() -> None:
    path = orbit(5, 30.0, pitch=1.0)
    assert_close(path.origin[:, 1], torch.full((5,), math.cos(1.0)))
    assert_close(path.yaw_pitch[:, 0], torch.linspace(0, math.tau, 5))
    assert_close(path.fov, torch.full((5,), 30.0))


def test_the_front_path_breathes_between_fov_and_fov_plus_twice_the_zoom() -> None:
    path = front(5, 12.0, zoom=3.0)
    assert_close(path.fov, torch.tensor([15.0, 18.0, 15.0, 12.0, 15.0]))
    assert_close(path.yaw_pitch[1] - math.pi / 2, torch.tensor([0.4, 0.0]), atol=1e-6, rtol=0)


def test_sinking_ends_where_the_front_path_starts() -> None:
    end, start = lower(7, 12.0)[-1], front(7, 12.0)[0]
    assert_close(end.cam2world, start.cam2world)


def test_unknown_paths_and_empty_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'orbit'"):
        TRAJECTORIES["orbti"]
    with pytest.raises(ValueError, match="num_frames"):
        front(0, 12.0)

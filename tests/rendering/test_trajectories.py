"""Camera paths: closed, where they should be, in the precision asked for."""

import math

import pytest
import torch
from torch.testing import assert_close

from rendering.trajectories import TRAJECTORIES, front, lower, orbit


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_named_paths_are_closed_and_look_at_the_origin(name: str) -> None:
    path = TRAJECTORIES[name](9, 20.0)
    assert len(path) == 9 and path.cam2world.dtype == torch.float32
    assert_close(path.cam2world[0], path.cam2world[-1], atol=1e-6, rtol=0)
    assert_close(path.cam2world[:, :3, 2], path.origin)  # unit radius, looking inwards


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

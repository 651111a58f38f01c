"""Where cameras stand, what they look at, which rays their pixels have, and how poses are drawn."""

import math
from typing import Any

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from rendering.cameras import PITCH_MARGIN, Cameras, Patch, frustum_reach
from rendering.settings import POSE_KINDS, PoseLaw

YAWS = st.floats(-7.0, 7.0)
PITCHES = st.floats(0.05, math.pi - 0.05)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def law(kind: str = "gaussian", **changes: Any) -> PoseLaw:
    values = {"h_mean": 1.5, "h_stddev": 0.3, "v_mean": 1.4, "v_stddev": 0.2, "fov": 12.0}
    return PoseLaw(kind, **{**values, **changes})


# -- matrices


def test_the_frontal_camera_stands_on_the_z_axis_and_looks_back_along_it() -> None:
    front = Cameras.from_angles(math.pi / 2, math.pi / 2, 12.0, radius=2.0)
    expected = torch.eye(4)
    expected[2, 3] = 2.0
    assert_close(front.cam2world[0], expected, atol=1e-6, rtol=0)


@given(YAWS, PITCHES, st.floats(0.1, 5.0))
@settings(max_examples=40)
def test_cameras_are_placed_by_a_tilt_a_turn_and_a_step_back(
    yaw: float, pitch: float, radius: float
) -> None:
    ours = Cameras.from_angles(double(yaw), pitch, 30.0, radius).cam2world[0]
    reference = torch.from_numpy(oracles.camera_matrix(yaw, pitch, radius))
    assert_close(ours, reference, atol=1e-9, rtol=1e-9)


@given(YAWS, st.floats(-1.0, 4.0), st.floats(-3.0, 3.0))
@settings(max_examples=40)
def test_rotations_are_right_handed_and_orthonormal_up_to_the_poles(
    yaw: float, pitch: float, roll: float
) -> None:
    rotation = Cameras.from_angles(double(yaw), pitch, 30.0, roll=roll).cam2world[0, :3, :3]
    assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(torch.linalg.det(rotation), torch.ones((), dtype=torch.float64))


def test_pitch_stays_off_the_poles() -> None:
    poles = Cameras.from_angles(1.0, double(-0.5, 0.0, math.pi, 9.0), 30.0)
    low, high = PITCH_MARGIN, math.pi - PITCH_MARGIN
    assert_close(poles.yaw_pitch[:, 1], double(low, low, high, high))
    assert torch.isfinite(poles.cam2world).all()


def test_roll_turns_the_camera_counter_clockwise_about_its_viewing_axis() -> None:
    straight = Cameras.from_angles(double(0.4), 1.1, 30.0)
    rolled = Cameras.from_angles(double(0.4), 1.1, 30.0, roll=math.pi / 2)
    right, up, back = straight.cam2world[0, :3, :3].unbind(-1)
    assert_close(rolled.cam2world[0, :3, :3], torch.stack([up, -right, back], dim=-1))
    assert_close(rolled.origin, straight.origin)


def test_arguments_broadcast_and_vectors_decide_the_type() -> None:
    cameras = Cameras.from_angles(double(0.1, 0.2, 0.3), torch.tensor(1.0), 30, radius=2)
    assert len(cameras) == 3
    assert cameras.cam2world.dtype == torch.float64
    assert_close(cameras.fov, double(30, 30, 30))
    assert_close(cameras.origin.norm(dim=-1), double(2, 2, 2))


def test_whole_numbers_make_floating_cameras() -> None:
    cameras = Cameras.from_angles(torch.tensor([1, 2]), 1, 30)
    assert cameras.cam2world.dtype == torch.get_default_dtype()
    assert_close(cameras.yaw_pitch[:, 0], torch.tensor([1.0, 2.0]))


def test_gradients_flow_from_a_camera_to_its_angles() -> None:
    def rays_of(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
        origins, directions = Cameras.from_angles(yaw, pitch, 30.0, roll=roll).rays(2, 2)
        return torch.cat([origins, directions])

    angles = [double(v).requires_grad_() for v in (0.7, 1.2, 0.3)]
    assert torch.autograd.gradcheck(rays_of, angles)


# -- what a batch of cameras remembers


def test_yaw_and_pitch_are_as_given_with_whole_turns() -> None:
    given_angles = Cameras.from_angles(double(0.5, 0.5 + 2 * math.pi), 1.2, 30.0).yaw_pitch
    assert_close(given_angles, torch.stack([double(0.5, 0.5 + 2 * math.pi), double(1.2, 1.2)], -1))


@given(st.floats(-3.1, 3.1), PITCHES)
@settings(max_examples=30)
def test_yaw_and_pitch_are_read_off_a_matrix(yaw: float, pitch: float) -> None:
    made = Cameras.from_angles(double(yaw), pitch, 30.0, radius=2.5)
    read = Cameras(made.cam2world, made.fov)
    assert_close(read.yaw_pitch, made.yaw_pitch, atol=1e-7, rtol=0)


def test_indexing_keeps_the_batch_axis_and_the_angles() -> None:
    cameras = Cameras.from_angles(double(0.1, 0.2, 0.3), 1.0, 30.0)
    for index, yaw in [(0, 0.1), (2, 0.3), (-1, 0.3), (-3, 0.1)]:
        one = cameras[index]
        assert len(one) == 1
        assert one.yaw_pitch[0, 0] == yaw
    assert len(cameras[1:]) == 2
    assert_close(cameras[torch.tensor([2, 0])].yaw_pitch[:, 0], double(0.3, 0.1))


@pytest.mark.parametrize("index", [3, -4])
def test_a_camera_that_is_not_there_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match="of a batch of 3"):
        Cameras.from_angles(double(0.1, 0.2, 0.3), 1.0, 30.0)[index]


def test_cat_undoes_iteration() -> None:
    cameras = Cameras.from_angles(double(0.1, 0.2, 0.3), 1.0, double(10, 20, 30))
    joined = Cameras.cat(list(cameras))
    assert_close(joined.cam2world, cameras.cam2world)
    assert_close(joined.fov, cameras.fov)
    assert_close(joined.yaw_pitch, cameras.yaw_pitch)


def test_cat_forgets_angles_that_some_do_not_have() -> None:
    cameras = Cameras.from_angles(double(0.1), 1.0, 30.0)
    joined = Cameras.cat([cameras, Cameras(cameras.cam2world, cameras.fov)])
    assert joined.angles is None
    assert_close(joined.yaw_pitch[0], joined.yaw_pitch[1])


def test_to_converts_everything() -> None:
    cameras = Cameras.from_angles(0.1, 1.0, 30.0).to(torch.float64)
    assert cameras.cam2world.dtype == cameras.fov.dtype == cameras.yaw_pitch.dtype == torch.float64


# -- rays


def test_rays_have_unit_length_and_start_at_the_camera() -> None:
    cameras = Cameras.from_angles(double(0.3, 2.0), 1.2, 40.0)
    origins, directions = cameras.rays(3, 5)
    assert origins.shape == directions.shape == (2, 15, 3)
    assert_close(directions.norm(dim=-1), torch.ones(2, 15, dtype=torch.float64))
    assert_close(origins, cameras.origin[:, None].expand(2, 15, 3))


def test_the_central_ray_meets_the_origin() -> None:
    cameras = Cameras.from_angles(double(0.3), 1.2, 40.0, radius=1.7)
    _, directions = cameras.rays(5, 5)
    assert_close(cameras.origin + 1.7 * directions[:, 12], torch.zeros(1, 3).double())


def test_corner_rays_leave_at_half_the_field_of_view_in_each_axis() -> None:
    _, directions = Cameras.from_angles(double(math.pi / 2), math.pi / 2, 40.0).rays(4, 4)
    grid = directions.reshape(4, 4, 3)
    edge = math.tan(math.radians(20))
    slope = grid[..., :2] / -grid[..., 2:]
    assert_close(slope[0, 0], double(-edge, edge))  # top left
    assert_close(slope[0, -1], double(edge, edge))
    assert_close(slope[-1, 0], double(-edge, -edge))


def test_pixels_are_row_major_with_rows_downwards_and_columns_rightwards() -> None:
    _, directions = Cameras.from_angles(double(math.pi / 2), math.pi / 2, 40.0).rays(3, 4)
    grid = directions.reshape(3, 4, 3)
    assert (grid[..., 0].diff(dim=1) > 0).all()
    assert (grid[..., 1].diff(dim=0) < 0).all()


def test_the_whole_image_is_the_patch_of_scale_one() -> None:
    cameras = Cameras.from_angles(double(0.3, 1.0), 1.2, 40.0)
    whole = Patch(torch.ones(2), torch.zeros(2, 2))
    assert_close(cameras.rays(4, 4, whole)[1], cameras.rays(4, 4)[1])


@given(st.integers(0, 4), st.integers(0, 4))
@settings(max_examples=15)
def test_a_patch_is_a_window_of_the_larger_image(column: int, row: int) -> None:
    # 9 x 9 pixels are 8 steps; a window of 5 x 5 pixels spans half of them
    camera = Cameras.from_angles(double(0.3), 1.2, 40.0)
    large = camera.rays(9, 9)[1].reshape(9, 9, 3)
    patch = Patch(double(0.5), double(column / 8, (4 - row) / 8)[None])
    small = camera.rays(5, 5, patch)[1].reshape(5, 5, 3)
    assert_close(small, large[row : row + 5, column : column + 5])


def test_each_image_has_a_patch_of_its_own() -> None:
    cameras = Cameras.from_angles(double(0.3, 0.9), 1.2, 40.0)
    patch = Patch(double(0.5, 0.25), torch.stack([double(0.1, 0.2), double(0.5, 0.6)]))
    both = cameras.rays(3, 3, patch)[1]
    for i in range(2):
        alone = Patch(patch.scale[i : i + 1], patch.offset[i : i + 1])
        assert_close(cameras[i].rays(3, 3, alone)[1], both[i : i + 1])


# -- pose laws


def angles(kind: str, count: int, **changes: Any) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    yaw, pitch = Cameras.sample(law(kind, **changes), count, rng).yaw_pitch.unbind(-1)
    return yaw, pitch


MOMENTS = {  # kind: (standard deviation, largest deviation) in units of stddev
    "uniform": (1 / math.sqrt(3), 1.0),
    "normal": (1.0, math.inf),
    "gaussian": (1.0, math.inf),
    "hybrid": (math.sqrt((4 / 3 + 1) / 2), math.inf),  # half U(-2, 2), half normal
    "truncated_gaussian": (0.8796, 2.0),
    "fixed": (0.0, 0.0),
}


@pytest.mark.parametrize("kind", MOMENTS)
def test_yaw_and_pitch_have_the_moments_of_their_law(kind: str) -> None:
    std, bound = MOMENTS[kind]
    for drawn, mean, stddev in zip(angles(kind, 40_000), (1.5, 1.4), (0.3, 0.2), strict=True):
        error = 5 * std * stddev / math.sqrt(40_000)
        assert abs(drawn.mean() - mean) <= error + 1e-6
        assert abs(drawn.std() - std * stddev) <= 2 * error + 1e-6
        assert (drawn - mean).abs().max() <= bound * stddev + 1e-6
        if bound < math.inf:
            assert (drawn - mean).abs().max() >= 0.97 * bound * stddev


def test_yaw_and_pitch_are_drawn_independently() -> None:
    for kind in ("uniform", "gaussian", "truncated_gaussian", "spherical_uniform"):
        correlation = torch.corrcoef(torch.stack(angles(kind, 20_000)))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(20_000), kind


def test_spherical_uniform_covers_the_sphere_evenly_by_area() -> None:
    full = {"h_stddev": math.pi, "v_mean": math.pi / 2, "v_stddev": math.pi / 2}
    yaw, pitch = angles("spherical_uniform", 40_000, **full)
    height = pitch.cos()  # uniform on (-1, 1): Archimedes' hat-box theorem
    shares = torch.histc(height, 8, -1, 1) / len(height)
    assert_close(shares, torch.full((8,), 1 / 8), atol=5 * math.sqrt(1 / 8 / 40_000), rtol=0)
    assert (yaw - 1.5).abs().max() <= math.pi + 1e-5


def test_spherical_uniform_without_spread_remaps_the_pitch() -> None:
    _, pitch = angles("spherical_uniform", 3, v_mean=math.pi / 4, v_stddev=0.0)
    assert_close(pitch, torch.full((3,), math.pi / 3))


def test_carla_poses_reach_from_the_zenith_almost_to_the_horizon() -> None:
    mean = math.pi / 4 * 85 / 90
    _, pitch = angles("spherical_uniform", 20_000, v_mean=mean, v_stddev=mean)
    assert pitch.min() < 0.02
    assert 1.50 < pitch.max() < 1.5155


def test_hybrid_tosses_a_coin_for_each_camera_or_for_the_batch() -> None:
    def extent(batch_coin: bool) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        fair = law("hybrid", h_mean=0.0, h_stddev=1.0, batch_coin=batch_coin)
        draws = [Cameras.sample(fair, 400, rng).yaw_pitch[:, 0] for _ in range(30)]
        return torch.stack(draws).abs().max(dim=1).values

    assert (extent(batch_coin=False) > 2).all()  # some of 200 normals always leave (-2, 2)
    uniform = (extent(batch_coin=True) <= 2).sum()
    assert 5 <= uniform <= 25  # whole batches are uniform, about half of them


@pytest.mark.parametrize("kind", POSE_KINDS)
def test_poses_come_from_the_generator_given_and_from_nothing_else(kind: str) -> None:
    first = Cameras.sample(law(kind), 5, torch.Generator().manual_seed(7))
    torch.rand(3)
    before = torch.get_rng_state()
    second = Cameras.sample(law(kind), 5, torch.Generator().manual_seed(7))
    assert_close(first.cam2world, second.cam2world, atol=0, rtol=0)
    assert torch.equal(before, torch.get_rng_state())
    other = Cameras.sample(law(kind), 5, torch.Generator().manual_seed(8))
    assert (kind == "fixed") == torch.equal(first.cam2world, other.cam2world)


def test_a_law_passes_on_its_field_of_view_and_radius() -> None:
    cameras = Cameras.sample(law(fov=33.0, radius=2.5), 4)
    assert_close(cameras.fov, torch.full((4,), 33.0))
    assert_close(cameras.origin.norm(dim=-1), torch.full((4,), 2.5))


def test_an_unknown_law_is_refused() -> None:
    with pytest.raises(ValueError, match="sample_dist must be one of .*, got 'gausian'"):
        law("gausian")


# -- windows and reach


def test_the_window_that_is_everything_changes_no_bit_of_the_rays() -> None:
    cameras = Cameras.from_angles(torch.tensor([0.3, 1.7]), 1.1, 33.0)
    for size in (5, 64, 127):
        whole, windowed = cameras.rays(size, size), cameras.rays(size, size, Patch.whole(2))
        assert torch.equal(whole[1], windowed[1])


def test_windows_can_be_selected() -> None:
    patch = Patch(torch.tensor([0.2, 0.3, 0.4]), torch.rand(3, 2))
    assert len(patch) == 3
    assert torch.equal(patch[1:].scale, patch.scale[1:])
    assert torch.equal(patch[1:].offset, patch.offset[1:])


@pytest.mark.parametrize(("fov", "near", "far"), [(12, 0.88, 1.12), (30, 0.75, 1.25), (60, 0.2, 1)])
def test_no_sample_lies_beyond_the_reach_and_some_pose_gets_there(
    fov: float, near: float, far: float
) -> None:
    reach = frustum_reach(fov, near, far)
    angles = torch.meshgrid(
        torch.linspace(0, 6.28, 120), torch.linspace(0.01, 3.13, 120), indexing="ij"
    )
    cameras = Cameras.from_angles(angles[0].flatten(), angles[1].flatten(), float(fov))
    origins, directions = cameras.rays(3, 3)
    t = torch.linspace(near, far, 5)[:, None, None, None]
    points = origins + t * directions
    assert float(points.norm(dim=-1).max()) == pytest.approx(reach, abs=1e-5)
    assert float(points.abs().max()) == pytest.approx(reach, rel=0.01)

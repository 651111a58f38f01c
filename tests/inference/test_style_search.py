"""Where fits start: cameras spread over the law, trials, and the best of them."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from generators.pigan import PiGAN
from inference.inversion import average_style, principal_directions
from inference.style_search import find_start, spread_cameras
from rendering.cameras import Cameras
from rendering.settings import PoseLaw, RenderSettings

Build = Callable[..., PiGAN]
SETTINGS = RenderSettings(12, 8, 0.7, 1.3, hierarchical=False, jitter=False, white_back=True)
LAW = PoseLaw("uniform", math.pi / 2, math.pi, 1.3, 0.2, 25.0)


@pytest.fixture
def generator(tiny_pigan: Build) -> PiGAN:
    """Something that looks different from every side."""
    torch.manual_seed(3)
    generator = tiny_pigan(hidden_dim=16, box_side=1.5, density_gain=60.0, bound_radius=0.25)
    with torch.no_grad():
        generator.get_parameter("siren.color_layer_linear.0.weight").mul_(8)
    generator.update_w_avg()
    return generator.requires_grad_(False)


def test_candidates_leave_no_side_of_a_full_turn_out() -> None:
    yaw = spread_cameras(LAW, 16).yaw_pitch[:, 0].sort().values
    assert len(yaw) == 16
    gaps = torch.cat([yaw, yaw[:1] + math.tau]).diff()
    assert gaps.max() < 0.8, "of the full turn, 16 cameras in two rows could do with 0.8"
    assert torch.equal(spread_cameras(LAW, 16).cam2world, spread_cameras(LAW, 16).cam2world)


def test_candidates_are_cameras_of_the_law() -> None:
    law = PoseLaw("uniform", 1.0, 0.3, 1.2, 0.1, 30.0, 1.4)
    cameras = spread_cameras(law, 9)
    yaw, pitch = cameras.yaw_pitch.unbind(-1)
    assert (yaw - 1.0).abs().max() <= 0.3 and (pitch - 1.2).abs().max() <= 0.1
    assert (cameras.fov == 30).all()
    torch.testing.assert_close(cameras.origin.norm(dim=-1), torch.full((9,), 1.4))


def test_the_side_that_a_picture_shows_is_found_over_a_full_turn(generator: PiGAN) -> None:
    directions = principal_directions(generator)
    w = average_style(generator) + directions[:1]
    camera = Cameras.from_angles(4.1, 1.3, 25.0)
    target = generator.synthesis(w, camera, replace(SETTINGS, resolution=24)).image
    found_w, found = find_start(
        generator, target, spread_cameras(LAW, 12), SETTINGS, directions, fit_pose=True,
        rounds=((12, 15, 0.1), (4, 40, 0.1), (1, 80, 0.1)),
    )  # fmt: skip
    apart = (found.yaw_pitch - camera.yaw_pitch + math.pi) % math.tau - math.pi
    assert apart.abs().max() < 0.15
    assert found_w.shape == w.shape and len(found) == 1


def test_trials_at_one_camera_end_with_the_best_of_them(generator: PiGAN) -> None:
    directions = principal_directions(generator)
    w = average_style(generator) + directions[:1]
    camera = Cameras.from_angles(4.1, 1.3, 25.0)
    target = generator.synthesis(w, camera, SETTINGS).image

    def error(trials: int) -> float:
        found, at = find_start(
            generator, target, Cameras.cat([camera] * trials), SETTINGS, directions,
            fit_pose=False, rounds=((trials, 40, 0.3),),
        )  # fmt: skip
        assert torch.equal(at.cam2world, camera.cam2world)
        return float((generator.synthesis(found, camera, SETTINGS).image - target).square().mean())

    start = generator.synthesis(average_style(generator), camera, SETTINGS).image
    before, after = float((start - target).square().mean()), error(4)
    assert after < before / 2
    assert after == error(4)

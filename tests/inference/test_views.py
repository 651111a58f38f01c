"""Latents by seed, the pitch that pictures are shown from, and views in batches."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from curriculums import CARLA, CATS, CelebA, stage_at
from generators.pigan import PiGAN
from inference.views import front_pitch, render_views, seeded_latents
from rendering.cameras import Cameras
from rendering.settings import PoseLaw, RenderSettings

Build = Callable[..., PiGAN]


@pytest.mark.parametrize("law", ["gaussian", "uniform"])
def test_a_seed_is_the_same_latent_alone_and_in_any_company(law: str) -> None:
    alone = seeded_latents([7], 5, law)
    together = seeded_latents([3, 7, 12, 7], 5, law)
    assert torch.equal(together[1], alone[0]) and torch.equal(together[3], alone[0])
    assert len(torch.unique(together, dim=0)) == 3


def test_a_seed_is_the_first_draw_of_a_generator_of_its_own() -> None:
    torch.manual_seed(99)  # the global generator has no part in it
    expected = torch.randn(6, generator=torch.Generator().manual_seed(2**40))
    assert torch.equal(seeded_latents([2**40], 6)[0], expected)


@pytest.mark.parametrize(("law", "std"), [("gaussian", 1.0), ("uniform", 3**-0.5)])
def test_latents_follow_their_law(law: str, std: float) -> None:
    z = seeded_latents(range(200), 50, law)
    assert abs(z.mean()) < 5 * std / 100
    assert z.std().item() == pytest.approx(std, rel=0.03)
    assert law == "gaussian" or (-1 <= z.min() < -0.99 and 0.99 < z.max() <= 1)


def test_pictures_are_shown_from_the_middle_of_the_pose_law() -> None:
    assert front_pitch(stage_at(CelebA, 0)) == math.pi / 2
    assert front_pitch(stage_at(CATS, 0)) == math.pi / 2
    # v_mean counts area there: half the pole's cap down to 85 degrees
    assert front_pitch(stage_at(CARLA, 0)) == pytest.approx(1.0148, abs=5e-5)


def test_half_of_spherical_poses_lie_above_the_front() -> None:
    stage = stage_at(CARLA, 0)
    poses = Cameras.sample(stage.pose_law(), 4000, torch.Generator().manual_seed(0)).yaw_pitch[:, 1]
    assert (poses < front_pitch(stage)).float().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("v_mean", "pitch"), [(0.0, 0.0), (-1.0, 0.0), (4.0, math.pi)])
def test_the_front_of_a_spherical_law_stays_on_the_sphere(v_mean: float, pitch: float) -> None:
    stage = dataclasses.replace(stage_at(CARLA, 0), v_mean=v_mean)
    assert front_pitch(stage) == pytest.approx(pitch)


def test_the_original_tools_looked_from_the_same_pitch() -> None:
    """A spherical law without spread draws exactly the front."""
    stage = stage_at(CARLA, 0)
    law = PoseLaw("spherical_uniform", 1.0, 0.0, stage.v_mean, 0.0, 30.0)
    drawn = Cameras.sample(law, 1).yaw_pitch[0, 1]
    assert drawn.item() == pytest.approx(front_pitch(stage), abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_views_are_the_same_in_batches_of_any_size(
    tiny_pigan: Build, tiny_settings: RenderSettings, batch_size: int
) -> None:
    generator = tiny_pigan()
    cameras = Cameras.from_angles(torch.linspace(1, 2, 3), 1.4, 20.0)
    w = generator.mapping(torch.randn(3, 6)).detach()
    whole = generator.synthesis(w, cameras, tiny_settings)
    parts = list(render_views(generator, w, cameras, tiny_settings, batch_size=batch_size))
    assert [len(p.image) for p in parts] == {1: [1, 1, 1], 2: [2, 1], 5: [3]}[batch_size]
    assert_close(torch.cat([p.image for p in parts]), whole.image, atol=1e-5, rtol=0)
    assert not parts[0].image.requires_grad


def test_a_style_needs_a_camera(tiny_pigan: Build, tiny_settings: RenderSettings) -> None:
    generator = tiny_pigan()
    cameras = Cameras.from_angles(torch.linspace(1, 2, 3), 1.4, 20.0)
    with pytest.raises(ValueError, match="a camera per style, got 2 styles, 3 cameras"):
        next(render_views(generator, generator.w_avg.expand(2, -1), cameras, tiny_settings))

"""A scene is what its generator makes, computed once."""

from typing import Any

import pytest
import torch
from tiny_plugins import build_generator, every_radiance_generator, settings_of, styles, views

from generators.pigan import PiGAN
from generators.stylegan2 import StyleGAN2
from inference.scene import Scene
from rendering.cameras import Cameras
from rendering.settings import RenderSettings

SETTINGS = RenderSettings(
    resolution=8, num_steps=4, ray_start=0.5, ray_end=1.5, jitter=False, white_back=True
)


def two_cameras() -> Cameras:
    return Cameras.from_angles(torch.tensor([1.2, 1.7]), torch.tensor([1.4, 1.5]), 30.0, 1.0)


def test_a_radiance_scene_shows_what_synthesis_shows_and_builds_its_field_once() -> None:
    generator = PiGAN(latent_dim=4, hidden_dim=8, num_layers=2, mapping_dim=8)
    built = []
    bind = generator.siren.bind
    generator.siren.bind = lambda w: built.append(1) or bind(w)  # pyright: ignore
    w = generator.mapping(torch.randn(1, 4, generator=torch.Generator().manual_seed(0)))
    scene = Scene(generator, w, exact=True)
    pictures = [scene.look(camera, SETTINGS) for camera in two_cameras()]
    assert len(built) == 1
    for camera, picture in zip(two_cameras(), pictures, strict=True):
        wanted = generator.synthesis(w, camera, SETTINGS)
        assert torch.equal(picture.image, wanted.image)
        assert picture.depth is not None and wanted.depth is not None
        assert torch.equal(picture.depth, wanted.depth)
        assert not picture.image.requires_grad


def test_a_2d_scene_is_its_generators_picture() -> None:
    generator = StyleGAN2(resolution=8, latent_dim=4, w_dim=4, channel_base=64, channel_max=8)
    w = generator.mapping(torch.randn(1, 4, generator=torch.Generator().manual_seed(0)))
    camera = two_cameras()[0]
    wanted = generator.synthesis(w, camera, SETTINGS)
    assert torch.equal(Scene(generator, w).look(camera, SETTINGS).image, wanted.image)


def test_a_scene_has_one_style() -> None:
    generator = PiGAN(latent_dim=4, hidden_dim=8, num_layers=2, mapping_dim=8)
    with pytest.raises(ValueError, match="one style, got 2"):
        Scene(generator, torch.zeros(2, 4 * 8 * 3))


def counting_points(scene: Scene) -> list[int]:
    """A list that collects how many points the scene's field is asked for."""
    field, asked = scene.field, []
    assert field is not None

    def look(points: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(points.shape[1])
        return field(points, directions)

    scene.field = look
    return asked


def bounded_scene(*, exact: bool = False) -> Scene:
    generator = PiGAN(
        latent_dim=4, hidden_dim=8, num_layers=2, mapping_dim=8, box_side=1.0, density_gain=300.0,
        bound_radius=0.2,
    )  # fmt: skip
    generator.siren.final_layer.bias.data += 0.1
    return Scene(generator, torch.zeros(1, generator.siren.style_dim), exact=exact)


def test_an_exact_scene_is_synthesis_to_the_bit() -> None:
    scene = bounded_scene(exact=True)
    for camera in two_cameras():
        wanted = scene.generator.synthesis(scene.w, camera, SETTINGS)
        assert torch.equal(scene.look(camera, SETTINGS).image, wanted.image)
    assert scene.occupancy is None


def test_empty_space_is_found_once_and_left_out() -> None:
    settings = RenderSettings(24, 24, 0.5, 1.5, jitter=False, white_back=True)
    scene = bounded_scene()
    asked = counting_points(scene)
    scene.look(two_cameras()[0], settings)
    found, first = scene.occupancy, sum(asked)
    asked.clear()
    sparse = scene.look(two_cameras()[1], settings)
    assert found is not None and scene.occupancy is found
    assert sum(asked) < 0.8 * first
    assert sum(asked) < 0.3 * 24 * 24 * 48
    full = scene.generator.synthesis(scene.w, two_cameras()[1], settings)
    assert full.image.std() > 0.1
    assert (sparse.image - full.image).square().mean() < 4 * 10**-4.5


def test_a_camera_that_sees_further_has_empty_space_sought_anew() -> None:
    scene = bounded_scene()
    scene.look(two_cameras()[0], SETTINGS)
    first = scene.occupancy
    assert first is not None
    wide = Cameras.from_angles(torch.tensor([1.2]), 1.4, 80.0)
    scene.look(wide, SETTINGS)
    second = scene.occupancy
    assert second is not None and second is not first and second.reach > first.reach
    scene.look(two_cameras()[0], SETTINGS)
    assert scene.occupancy is second


def test_density_noise_is_everywhere() -> None:
    scene = bounded_scene()
    noisy = RenderSettings(8, 4, 0.5, 1.5, jitter=False, noise_std=1.0)
    scene.look(two_cameras()[0], SETTINGS)
    torch.manual_seed(0)
    picture = scene.look(two_cameras()[0], noisy)
    torch.manual_seed(0)
    wanted = scene.generator.synthesis(scene.w, two_cameras()[0], noisy)
    assert torch.equal(picture.image, wanted.image)


@pytest.mark.parametrize("clamp_mode", ["relu", "softplus"])
@every_radiance_generator
def test_every_radiance_generator_looks_the_same_with_empty_space_left_out(
    name: str, options: dict[str, Any] | None, clamp_mode: str
) -> None:
    generator = build_generator(name, options)
    settings = settings_of(generator, num_steps=16, hierarchical=True, clamp_mode=clamp_mode)
    w = styles(generator, 1)
    full = Scene(generator, w, exact=True).look(views(1), settings)
    sparse = Scene(generator, w).look(views(1), settings)
    assert (sparse.image - full.image).square().mean() < 4 * 10**-4.5
    assert full.opacity is not None and sparse.opacity is not None
    assert (sparse.opacity - full.opacity).square().mean() < 10**-4.5


@every_radiance_generator
def test_every_radiance_generator_can_place_few_samples(
    name: str, options: dict[str, Any] | None
) -> None:
    generator = build_generator(name, options)
    settings = settings_of(generator, num_steps=48, hierarchical=True)
    w = styles(generator, 1)
    full = Scene(generator, w, exact=True).look(views(1), settings)
    seen = Scene(generator, w, proposal=16).look(views(1), settings)
    assert (seen.image - full.image).square().mean() < 4 * 10**-3.0
    assert full.opacity is not None and seen.opacity is not None
    assert (seen.opacity - full.opacity).square().mean() < 10**-3.0


def test_few_samples_make_a_picture_of_a_fraction_of_the_points_and_the_next_of_fewer_still() -> (
    None
):
    settings = RenderSettings(32, 24, 0.5, 1.5, jitter=False, white_back=True)
    generator = bounded_scene().generator
    scene = Scene(generator, torch.zeros(1, generator.w_avg.numel()), proposal=4)
    asked = counting_points(scene)
    scene.look(two_cameras()[0], settings)
    first = sum(asked)
    asked.clear()
    scene.look(two_cameras()[0], settings)
    assert sum(asked) < 0.5 * first
    assert sum(asked) < 32 * 32 * 48 / 12
    assert scene.occupancy is None


def test_a_scene_without_samples_to_place_refuses_a_proposal() -> None:
    flat = StyleGAN2(resolution=8, latent_dim=4, w_dim=4, channel_base=64, channel_max=8)
    w = flat.mapping(torch.randn(1, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="2D generator has no samples"):
        Scene(flat, w, proposal=4)
    generator = bounded_scene().generator
    with pytest.raises(ValueError, match="exact pictures need all samples"):
        Scene(generator, torch.zeros(1, generator.w_avg.numel()), exact=True, proposal=4)

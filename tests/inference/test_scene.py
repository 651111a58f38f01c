"""A scene is what its generator makes, computed once."""

import pytest
import torch

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
    scene = Scene(generator, w)
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

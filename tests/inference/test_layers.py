"""Layers of a view: depth without the background, and the normals of shapes with known ones."""

import math

import pytest
import torch
import torch.nn.functional as F
from oracles import BallField
from torch import Tensor
from torch.testing import assert_close

from generators.pigan import PiGAN
from generators.stylegan2 import StyleGAN2
from inference.layers import (
    LAYERS,
    compose,
    density_normals,
    expected_distance,
    normal_image,
    photograph,
)
from inference.media import to_uint8
from inference.scene import Scene
from rendering.cameras import Cameras
from rendering.renderer import render
from rendering.settings import RenderSettings

SETTINGS = RenderSettings(9, 60, 0.5, 1.5, hierarchical=False, jitter=False, white_back=True)


class Egg:
    """Raw density that rises inwards through an ellipsoid with half axes `axes`."""

    axes = torch.tensor([0.3, 0.2, 0.25])

    def __init__(self, gain: float = 500.0) -> None:
        self.gain = gain

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        inside = 1 - (points / self.axes).square().sum(-1, keepdim=True)
        return torch.zeros_like(points), self.gain * inside


def test_the_normals_of_a_field_point_down_its_density() -> None:
    points = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    expected = F.normalize(points / Egg.axes.square(), dim=-1)
    with torch.no_grad():
        normals = density_normals(Egg(), points)
    assert_close(normals, expected, atol=1e-5, rtol=0)
    assert not normals.requires_grad


def test_normals_of_a_long_list_of_points_are_those_of_its_parts() -> None:
    points = torch.randn(1, 10_000, 3)
    whole = density_normals(Egg(), points)
    assert_close(whole[:, 9_000:], density_normals(Egg(), points[:, 9_000:]))


@pytest.mark.parametrize("yaw", [math.pi / 2, 0.4])
def test_normals_are_shown_as_the_camera_sees_them(yaw: float) -> None:
    """Right is red, up is green, towards the camera is blue; emptiness is white."""
    camera = Cameras.from_angles(yaw, 1.3, 50.0)
    seen = render(Egg(), camera, SETTINGS)
    picture = normal_image(Egg(), camera, seen, SETTINGS)[0]
    assert picture.shape == (3, 9, 9)
    assert picture[2, 4, 4] > 0.85, "the middle looks at the camera"
    assert picture[0, 4, 6] > picture[0, 4, 4] + 0.2 > picture[0, 4, 2] + 0.4
    assert picture[1, 3, 4] > picture[1, 4, 4] + 0.2 > picture[1, 5, 4] + 0.4
    assert_close(picture[:, 0, 0], torch.ones(3))


def test_normals_of_an_egg_are_the_closed_form_where_light_comes_from() -> None:
    camera = Cameras.from_angles(1.0, 1.2, 50.0)
    settings = RenderSettings(9, 400, 0.5, 1.5, hierarchical=False, jitter=False)
    egg = Egg(gain=50_000)
    seen = render(egg, camera, settings)
    assert seen.opacity is not None
    picture = normal_image(egg, camera, seen, settings)
    origins, directions = camera.rays(9, 9)
    a, b = directions / Egg.axes, origins / Egg.axes  # |b + t a| = 1
    half, square = (a * b).sum(-1), a.square().sum(-1)
    root = half.square() - square * (b.square().sum(-1) - 1)
    t = (-half - root.clamp(min=0).sqrt()) / square
    world = F.normalize((origins + directions * t[..., None]) / Egg.axes.square(), dim=-1)
    expected = (world @ camera.cam2world[:, :3, :3])[0]
    hit = (seen.opacity.flatten() > 0.999) & (root[0] > 0.3)
    assert hit.sum() > 10
    found = picture[0].flatten(1).T
    angles = torch.rad2deg(torch.arccos((found * expected).sum(-1)[hit].clamp(-1, 1)))
    assert angles.max() < 3


@pytest.mark.parametrize("last_back", [False, True])
def test_the_expected_distance_is_the_surfaces_whatever_fills_the_background(
    last_back: bool,
) -> None:
    settings = RenderSettings(
        9, 100, 0.5, 1.5, hierarchical=False, jitter=False, last_back=last_back
    )
    seen = render(BallField(0.3), Cameras.from_angles(1.0, 1.2, 50.0), settings)
    distance = expected_distance(seen, settings)
    assert distance[0, 4, 4].item() == pytest.approx(0.7, abs=0.05)
    assert 0.5 <= distance.min() and distance.max() <= 1.5


def pigan_scene() -> Scene:
    generator = PiGAN(latent_dim=4, hidden_dim=8, num_layers=2, mapping_dim=8, density_gain=100.0)
    return Scene(generator, generator.mapping(torch.randn(1, 4)))


def test_layers_come_in_the_order_asked_for_and_colours_are_the_scenes() -> None:
    scene, camera = pigan_scene(), Cameras.from_angles(1.5, 1.4, 30.0)
    every = dict(zip(LAYERS, photograph(scene, camera, SETTINGS, LAYERS), strict=True))
    seen = scene.look(camera, SETTINGS)
    assert torch.equal(every["color"], to_uint8(seen.image))
    two = photograph(scene, camera, SETTINGS, ("opacity", "normals"))
    assert torch.equal(two[0], every["opacity"]) and torch.equal(two[1], every["normals"])
    assert all(p.shape == (1, 9, 9, 3) for p in every.values())
    assert len({p.numpy().tobytes() for p in every.values()}) == 4


def test_a_frame_is_a_grid_of_scenes_with_layers_side_by_side() -> None:
    scenes, camera = [pigan_scene() for _ in range(3)], Cameras.from_angles(1.5, 1.4, 30.0)
    frame = compose(scenes, camera, SETTINGS, ("color", "depth"), columns=2)
    assert frame.shape == (18, 36, 3)
    color, depth = photograph(scenes[2], camera, SETTINGS, ("color", "depth"))
    assert torch.equal(frame[9:, :9], color[0]) and torch.equal(frame[9:, 9:18], depth[0])
    assert (frame[9:, 18:] == 255).all()


@pytest.mark.parametrize("layer", LAYERS[1:])
def test_a_2d_generator_has_colours_only(layer: str) -> None:
    generator = StyleGAN2(resolution=8, latent_dim=4, w_dim=4, channel_base=64, channel_max=8)
    scene = Scene(generator, generator.mapping(torch.randn(1, 4)))
    settings = RenderSettings(8, 4, 0.5, 1.5, jitter=False)
    camera = Cameras.from_angles(1.5, 1.4, 30.0)
    assert len(photograph(scene, camera, settings)) == 1
    with pytest.raises(ValueError, match=f"{layer} needs a radiance generator"):
        photograph(scene, camera, settings, [layer])

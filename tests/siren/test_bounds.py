"""Fields with a bound: nothing beyond it, the same within it, and nothing computed for it."""

import pytest
import torch

from generators.pigan import PiGAN
from rendering.cameras import Cameras
from rendering.settings import RenderSettings
from siren.fields import SpatialSiren

RADIUS = 0.15


@pytest.fixture
def bounded() -> SpatialSiren:
    return SpatialSiren(hidden_dim=8, num_layers=2, bound_radius=RADIUS).double()


@pytest.mark.parametrize("blocked", [True, False])
def test_density_is_hopeless_outside_and_untouched_inside(
    bounded: SpatialSiren, blocked: bool
) -> None:
    bounded.blocked = blocked
    w = torch.randn(2, bounded.style_dim, dtype=torch.double)
    points = 0.1 * torch.randn(2, 400, 3, dtype=torch.double)
    directions = torch.randn(2, 400, 3, dtype=torch.double)
    _, density = bounded.bind(w)(points, directions)
    bounded.bound_radius = 0
    _, free = bounded.bind(w)(points, directions)
    inside = points.norm(dim=-1) <= RADIUS
    assert 0 < inside.sum() < inside.numel()
    torch.testing.assert_close(density[inside], free[inside])
    assert (density[~inside] <= -1000).all()


def test_blocks_and_plain_evaluation_agree_in_value_and_gradient(bounded: SpatialSiren) -> None:
    w = torch.randn(2, bounded.style_dim, dtype=torch.double, requires_grad=True)
    points = (0.1 * torch.randn(2, 300, 3, dtype=torch.double)).requires_grad_()
    directions = torch.randn(2, 300, 3, dtype=torch.double, requires_grad=True)
    inside = bounded.inside(points)
    assert inside is not None
    results = []
    for blocked in (True, False):
        bounded.blocked = blocked
        radiance, density = bounded.bind(w)(points, directions)
        radiance = radiance * inside[..., None]  # beyond the bound no picture shows it
        loss = radiance.square().sum() + density.relu().sum()
        inputs = [w, points, directions, *bounded.parameters()]
        results.append([radiance, density, *torch.autograd.grad(loss, inputs)])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_bounded_scene_stands_on_clean_white() -> None:
    generator = PiGAN(latent_dim=4, hidden_dim=8, num_layers=2, box_side=1.0, bound_radius=RADIUS)
    with torch.no_grad():
        generator.siren.final_layer.bias.fill_(50)  # dense wherever anything may be
    settings = RenderSettings(
        9, 24, 0.5, 1.5, hierarchical=False, jitter=False, white_back=True, noise_std=1.0
    )
    cameras = Cameras.from_angles(torch.tensor([0.3, 2.0]), 1.3, 50.0)
    picture = generator(torch.randn(2, 4), cameras, settings)
    _, directions = cameras.rays(9, 9)
    # a ray passes the origin at the sine of its angle to the view axis, for cameras at distance 1
    axis = -cameras.origin[:, None]
    beside = torch.linalg.cross(directions, axis.expand_as(directions)).norm(dim=-1)
    misses = (beside > RADIUS).reshape(2, 9, 9)
    assert picture.opacity is not None
    assert (picture.image.permute(0, 2, 3, 1)[misses] == 1).all()
    assert (picture.opacity[misses] == 0).all()
    assert (picture.opacity[beside.reshape(2, 9, 9) < RADIUS / 2] > 0.9).all()

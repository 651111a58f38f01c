"""Ray maps by closed forms, and what a network that sees them does."""

import math
from typing import Any

import pytest
import torch
from tiny_runs import differences
from torch.testing import assert_close

from generators.ray_conditioned import (
    RayConditionedStyleGAN2,
    RayConditionedStyleGAN3,
    ray_map,
)
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3
from interop.raycond import from_stock
from rendering.camera_labels import cameras_from_labels, labels_from_cameras, mirror_labels
from rendering.cameras import Cameras
from rendering.settings import RenderSettings

SIZES: dict[str, Any] = {
    "resolution": 16,
    "channel_base": 64,
    "channel_max": 8,
    "latent_dim": 4,
    "w_dim": 8,
}
SETTINGS = RenderSettings(16, 2, 0.5, 1.5, hierarchical=False, jitter=False)


def three_cameras() -> Cameras:
    return Cameras.from_angles(torch.tensor([0.5, 1.6, 2.9]), torch.tensor([1.2, 1.5, 0.9]), 30.0)


def test_the_middle_of_a_pinhole_map_looks_at_the_origin_and_misses_it_by_nothing() -> None:
    cameras = three_cameras()
    rays = ray_map(labels_from_cameras(cameras).double(), 9)[:, :, 4, 4]
    assert_close(rays[:, :3].float(), -cameras.origin, atol=1e-6, rtol=0)
    assert float(rays[:, 3:].abs().max()) < 1e-6


def test_a_ray_passes_through_points_on_it_whatever_the_size() -> None:
    """A point seen at a pixel's centre lies on that pixel's ray: its moment about it vanishes."""
    cameras = three_cameras()
    labels = labels_from_cameras(cameras).double()
    focal = labels[:, 16]
    for size in (4, 7, 16):
        rays = ray_map(labels, size)
        i, j, depth = 1, size - 1, 1.7
        seen = torch.tensor([(j + 0.5) / size - 0.5, (i + 0.5) / size - 0.5, 1.0]).double()
        local = depth * torch.stack([seen[0] / focal, seen[1] / focal, seen[2].expand(3)], dim=1)
        matrix = labels[:, :16].reshape(3, 4, 4)
        point = torch.einsum("bij,bj->bi", matrix[:, :3, :3], local) + matrix[:, :3, 3]
        direction, moment = rays[:, :3, i, j], rays[:, 3:, i, j]
        assert_close(direction.norm(dim=1), torch.ones(3).double())
        assert_close(torch.linalg.cross(point, direction), moment)


def test_pinhole_maps_of_half_the_size_are_between_the_whole_ones_pixels() -> None:
    """A pixel's centre lies amid the four that it is divided into, on the plane at distance 1."""
    labels = labels_from_cameras(Cameras.from_angles(1.2, 1.1, 25.0)).double()
    fine, coarse = ray_map(labels, 32)[:, :3], ray_map(labels, 16)[:, :3]
    axis = ray_map(labels, 1)[:, :3]
    on_plane = fine / (fine * axis).sum(1, keepdim=True)
    mean = torch.nn.functional.avg_pool2d(on_plane, 2)
    assert_close(torch.nn.functional.normalize(mean, dim=1), coarse)


def test_margins_go_on_with_the_rays_of_the_picture() -> None:
    labels = labels_from_cameras(three_cameras()).double()
    assert_close(ray_map(labels, 12, 8)[:, :, 2:-2, 2:-2], ray_map(labels, 8))


def test_one_camera_has_one_map_from_angles_a_matrix_or_a_label() -> None:
    angles = three_cameras()
    matrix = Cameras(angles.cam2world, angles.fov)
    label = cameras_from_labels(labels_from_cameras(angles))
    maps = [ray_map(labels_from_cameras(c), 8) for c in (angles, matrix, label)]
    assert_close(maps[1], maps[0], atol=1e-6, rtol=1e-6)
    assert_close(maps[2], maps[0], atol=1e-5, rtol=1e-5)


def test_a_flipped_picture_has_the_mirrored_cameras_map() -> None:
    labels = labels_from_cameras(three_cameras()).double()
    flipped = ray_map(mirror_labels(labels), 8)
    mirrored = ray_map(labels, 8).flip(3)
    mirrored[:, 2] *= -1  # yaw pi/2 is +z or -z: the plane of symmetry contains it ..
    differs = [k for k in range(3) if not torch.allclose(flipped[:, k], mirrored[:, k])]
    mirrored[:, 2] *= -1
    mirrored[:, 0] *= -1  # .. or x: one of the two axes is reflected, and moments turn with it
    other = [k for k in range(3) if not torch.allclose(flipped[:, k], mirrored[:, k])]
    assert not differs or not other


def test_the_reference_map_depends_on_the_size_and_exchanges_the_axes() -> None:
    labels = labels_from_cameras(Cameras.from_angles(1.2, 1.1, 25.0)).double()
    small, large = ray_map(labels, 4, mode="reference"), ray_map(labels, 8, mode="reference")
    assert_close(large[:, :, :4, :4], small)  # positions in pixels: the same from the corner on
    matrix = labels[:, :16].reshape(4, 4)
    focal = labels[0, 16]
    local = torch.stack([(2.5 - 0.5) / focal, (1.5 - 0.5) / focal, torch.ones(()).double()])
    direction = torch.nn.functional.normalize(matrix[:3, :3] @ local, dim=0)
    assert_close(small[0, :3, 2, 1], direction)


@pytest.mark.parametrize("kind", [RayConditionedStyleGAN2, RayConditionedStyleGAN3])
def test_another_camera_is_another_picture_of_the_same_style(kind: Any) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_layers": 4} if kind is RayConditionedStyleGAN3 else {}
    generator = kind(**SIZES, **options).eval()
    w = generator.mapping(torch.randn(1, 4)).expand(3, -1, -1)
    with torch.no_grad():
        images = generator.synthesis(w, three_cameras(), SETTINGS).image
        again = generator.synthesis(w, three_cameras(), SETTINGS).image
    assert torch.equal(images, again)
    assert float((images[0] - images[1]).abs().mean()) > 1e-3
    with pytest.raises(ValueError, match="needs cameras"):
        generator.synthesis(w, None, SETTINGS)


def test_a_network_with_rays_begins_as_the_stock_one() -> None:
    torch.manual_seed(0)
    z, cameras = torch.randn(3, 4), three_cameras()
    pairs: list[tuple[Any, Any, dict[str, Any]]] = [
        (StyleGAN2(**SIZES, mapping_layers=2), RayConditionedStyleGAN2, {"mapping_layers": 2}),
        (StyleGAN3(**SIZES, num_layers=4), RayConditionedStyleGAN3, {"num_layers": 4}),
    ]
    for stock, kind, options in pairs:
        stock = stock.eval()
        with torch.no_grad():
            plain = stock.synthesis(stock.mapping(z), cameras, SETTINGS).image
            for reference in (False, True):
                network = kind(**SIZES, **options).eval()
                state = from_stock(stock.state_dict(), network.state_dict(), reference=reference)
                if not reference:
                    assert not differences(network.adapted(stock.state_dict()), state)
                network.load_state_dict(state)
                image = network.synthesis(network.mapping(z), cameras, SETTINGS).image
                same = torch.allclose(image, plain, atol=1e-4, rtol=1e-4)
                assert same != reference, (kind.__name__, reference)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown ray_mode 'pinhol', did you mean 'pinhole'"):
        RayConditionedStyleGAN2(ray_mode="pinhol")
    assert math.isclose(float(ray_map(torch.zeros(1, 25), 2, mode="reference").abs().sum()), 0)

"""Backgrounds: inverted coordinates are points of the rays, pictures keep their place."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rendering.background import PlaneBackground, SphereBackground, inverted_sphere_points
from rendering.cameras import Cameras
from rendering.compositing import NEAR_DELTA
from rendering.renderer import render
from rendering.sampling import jittered_depths
from rendering.settings import RenderSettings

SETTINGS = RenderSettings(5, 8, 0.8, 1.2, hierarchical=False, jitter=False, clamp_mode="softplus")


def rays(radius: float = 1.0) -> tuple[Tensor, Tensor]:
    cameras = Cameras.from_angles(torch.tensor([0.3, 2.0]), 1.2, 50.0, radius)
    return cameras.rays(4, 4)


@pytest.mark.parametrize("radius", [0.1, 0.7, 1.0, 1.5])
def test_inverted_coordinates_are_those_of_points_on_the_ray(radius: float) -> None:
    origins, directions = rays(radius)
    disparity = torch.tensor([1.0, 0.7, 0.3, 0.05]).expand(2, 16, 4)
    points, t = inverted_sphere_points(origins, directions, disparity)
    assert_close(points[..., 3], disparity)
    assert_close(points[..., :3].norm(dim=-1), torch.ones(2, 16, 4))
    world = origins[:, :, None] + directions[:, :, None] * t[..., None]
    assert_close(world, points[..., :3] / disparity[..., None], atol=1e-3, rtol=1e-3)
    assert (t > 0).all()


def test_at_infinity_only_the_direction_counts() -> None:
    origins, directions = rays(0.6)
    points, t = inverted_sphere_points(origins, directions, torch.zeros(2, 16, 1))
    assert_close(points[:, :, 0, :3], directions, atol=1e-5, rtol=0)
    assert t.isfinite().all()


def test_rays_through_the_origin_and_beside_the_sphere_stay_finite() -> None:
    origins = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 3.0, 1.0]]])
    directions = torch.tensor([[[0.0, 0.0, -1.0], [0.0, 0.0, -1.0]]])
    points, t = inverted_sphere_points(origins, directions, torch.full((1, 2, 3), 0.5))
    assert points.isfinite().all() and t.isfinite().all()
    assert_close(points[0, 0, 0, :3], directions[0, 0])


def red(points: Tensor) -> Tensor:
    """Colours and density of a world that is the same everywhere."""
    return points.new_tensor([1.0, -1.0, -1.0, 0.3]).expand(*points.shape[:2], 4)


def test_a_uniform_world_is_seen_in_its_colour_whatever_the_density() -> None:
    background = SphereBackground(red, num_steps=5)
    seen = background(*rays(), None)
    assert_close(seen, torch.tensor([1.0, -1.0, -1.0]).expand(2, 16, 3))
    jittered = background(*rays(), None, torch.rand(2, 16, 5))
    assert_close(jittered, seen)


def test_disparities_descend_from_the_start_to_infinity_jittered_or_not() -> None:
    background = SphereBackground(red, num_steps=6, start=0.8)
    origins, _ = rays()
    for u in (None, torch.rand(2, 16, 6)):
        e = background.disparities(origins, u)
        assert (e[..., 1:] < e[..., :-1]).all() and e.max() <= 0.8 and e.min() >= 0


def test_a_picture_of_the_images_size_is_shown_pixel_by_pixel() -> None:
    picture = torch.randn(2, 3, 6, 6)
    x = torch.linspace(-1, 1, 6)
    positions = torch.stack(torch.broadcast_tensors(x, -x[:, None]), dim=-1)
    positions = positions.reshape(1, 36, 2).expand(2, -1, -1)
    anywhere = torch.zeros(2, 36, 3)
    seen = PlaneBackground(picture)(anywhere, anywhere, positions)
    assert_close(seen.transpose(1, 2).unflatten(2, (6, 6)), picture)


def test_a_picture_can_be_brought_to_another_size_first() -> None:
    picture = torch.randn(1, 3, 4, 4)
    background = PlaneBackground(picture, 7)
    assert background.picture.shape == (1, 3, 7, 7)
    corners = background.picture[..., ::6, ::6]
    assert_close(corners, picture[..., ::3, ::3])


@pytest.mark.parametrize(("steps", "start"), [(1, 1.0), (4, 0.0), (4, 1.5)])
def test_impossible_spheres_are_refused(steps: int, start: float) -> None:
    with pytest.raises(ValueError, match=f"got {steps} and {start}"):
        SphereBackground(red, steps, start)


# -- behind a field


class Fog:
    """The same colour and density everywhere, in front of a picture."""

    def __init__(self, raw: float, behind: float) -> None:
        self.raw = raw
        self.background = PlaneBackground(torch.full((1, 3, 2, 2), behind))

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(points, 0.25), torch.full_like(points[..., :1], self.raw)


def test_fog_in_front_of_a_background_is_beers_law() -> None:
    camera = Cameras.from_angles(1.0, 1.3, 20.0)
    result = render(Fog(0.5, -1.0), camera, SETTINGS)
    density = math.log1p(math.exp(0.5))
    arriving = math.exp(-density * 0.4)
    end = math.exp(-density * (0.4 + NEAR_DELTA))
    assert_close(result.image, torch.full((1, 3, 5, 5), 0.25 * (1 - end) - arriving))
    assert result.opacity is not None
    assert_close(result.opacity, torch.full((1, 5, 5), 1 - end))


def test_chunks_see_the_background_of_their_own_pixels() -> None:
    field = Fog(0.1, 0.0)
    field.background = PlaneBackground(torch.randn(1, 3, 5, 5))
    camera = Cameras.from_angles(1.0, 1.3, 20.0)
    whole = render(field, camera, SETTINGS).image
    settings = RenderSettings(**{**vars(SETTINGS), "max_batch_size": 30})
    assert_close(render(field, camera, settings).image, whole)


# -- jitter that stays inside


def test_jittered_depths_stay_between_neighbours_and_ends(rng: torch.Generator) -> None:
    t = torch.tensor([0.0, 1.0, 4.0, 5.0]).expand(1000, 4)
    moved = jittered_depths(t, torch.rand(1000, 4, generator=rng))
    low, high = torch.tensor([0.0, 0.5, 2.5, 4.5]), torch.tensor([0.5, 2.5, 4.5, 5.0])
    assert (moved >= low).all() and (moved <= high).all()
    assert_close(moved.mean(0), (low + high) / 2, atol=0.05, rtol=0)


def test_bounded_jitter_looks_between_the_ends_of_the_ray_only() -> None:
    seen: list[Tensor] = []

    def field(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(points)
        return torch.zeros_like(points), torch.zeros_like(points[..., :1])

    camera = Cameras.from_angles(1.0, 1.3, 20.0)
    for bounded in (False, True):
        settings = {**vars(SETTINGS), "jitter": True, "bounded_jitter": bounded}
        rng = torch.Generator().manual_seed(0)
        render(field, camera, RenderSettings(**settings), generator=rng)
        t = (seen.pop() - camera.origin[:, None]).norm(dim=-1)
        inside = bool((t >= 0.8 - 1e-6).all() and (t <= 1.2 + 1e-6).all())
        assert inside == bounded

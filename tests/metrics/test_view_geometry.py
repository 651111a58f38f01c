"""View consistency, flatness and exact errors on scenes whose geometry is a formula."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from oracles import BallField
from torch import Tensor
from torch.testing import assert_close

from metrics.geometry import (
    Views,
    billboard_share,
    flatness,
    project,
    reproject,
    surface_normals,
    view_consistency,
)
from rendering.cameras import Cameras
from rendering.renderer import render
from rendering.settings import RenderSettings

RADIUS, SIZE, FOV = 0.3, 48, 45.0
Colours = Callable[[Tensor], Tensor]  # world points (..., 3) -> colours in [-1, 1]


def ring(count: int = 2, step: float = 20.0, pitch: float = 1.4) -> Cameras:
    yaw = 0.3 + torch.deg2rad(torch.tensor(step)) * torch.arange(count)
    return Cameras.from_angles(yaw, pitch, FOV)


def paint(points: Tensor) -> Tensor:
    """Smooth colours that differ all over."""
    return torch.sin(7 * points + torch.tensor([0.0, 1.0, 2.0]))


def views_of(cameras: Cameras, distance: Tensor, hit: Tensor, colours: Colours = paint) -> Views:
    """Exact views from the distances (views, rays) at which rays meet a surface."""
    origins, directions = cameras.rays(SIZE, SIZE)
    grid = (len(cameras), SIZE, SIZE)
    points = (origins + directions * distance[..., None]).reshape(*grid, 3)
    opacity = hit.reshape(grid).float()
    image = torch.where(opacity[..., None] > 0, colours(points), torch.ones(3))
    return Views(image.movedim(-1, 1), points, opacity, cameras.cam2world, cameras.fov)


def ball(
    cameras: Cameras, colours: Colours = paint, centre: tuple[float, ...] = (0, 0, 0)
) -> Views:
    """An opaque ball by the quadratic formula."""
    origins, directions = cameras.rays(SIZE, SIZE)
    to_centre = torch.tensor(centre).float() - origins
    along = (to_centre * directions).sum(-1)
    root = along**2 - to_centre.square().sum(-1) + RADIUS**2
    return views_of(cameras, along - root.clamp(min=0).sqrt(), root > 0, colours)


def billboard(cameras: Cameras, normal: Tensor, colours: Colours = paint) -> Views:
    """A disk of radius RADIUS around the origin; `normal` (3,) or one per camera."""
    origins, directions = cameras.rays(SIZE, SIZE)
    normal = normal.expand(len(cameras), 3)[:, None]
    distance = -(origins * normal).sum(-1) / (directions * normal).sum(-1)
    points = origins + directions * distance[..., None]
    hit = (points.norm(dim=-1) < RADIUS) & (distance > 0)
    return views_of(cameras, torch.where(hit, distance, 1.0), hit, colours)


def pair(views: Views) -> tuple[Views, Views]:
    return views[:-1], views[1:]


# -- projection


def test_projection_inverts_the_cameras_rays() -> None:
    cameras = Cameras.from_angles(
        torch.tensor([0.3, 2.0]), 1.1, torch.tensor([30.0, 60.0]), 1.3, 0.4
    )
    origins, directions = cameras.rays(3, 5)
    place = project(origins + 0.7 * directions, cameras.cam2world, cameras.fov)
    x, y = torch.linspace(-1, 1, 5), torch.linspace(1, -1, 3)
    expected = torch.stack([x.expand(3, 5), y[:, None].expand(3, 5)], dim=-1).reshape(15, 2)
    assert_close(place, expected.expand(2, -1, -1), atol=1e-5, rtol=0)


def test_points_behind_the_camera_are_outside() -> None:
    cameras = ring(1)
    place = project(2 * cameras.origin[:, None], cameras.cam2world, cameras.fov)
    assert (place == math.inf).all()


# -- reprojection


@pytest.mark.parametrize("step", [5.0, 20.0, 45.0])
def test_a_solid_ball_is_found_again_where_it_should_be(step: float) -> None:
    source, target = pair(ball(ring(step=step)))
    found = reproject(source, target)
    seen = found.seen
    assert int(found.missing.sum()) <= 0.01 * int(seen.sum())  # at the very rim
    expected = paint(source.points.flatten(1, 2))
    assert (
        float((found.colour - expected)[seen].abs().max()) < 0.2
    )  # at the rim, where pixels are far apart
    assert float((found.colour - expected)[seen].abs().mean()) < 0.006
    # the far camera sees what faces it: all that is not seen too much from the side, nothing beyond
    outward = source.points.flatten(1, 2) / RADIUS
    eye = target.cam2world[:, None, :3, 3]
    facing = (outward * eye).sum(-1) - RADIUS  # > 0: on the visible cap
    solid = source.solid.flatten(1)
    assert seen[solid & (facing > 0.45)].all()
    assert not seen[facing < -0.2].any()
    if step > 30:
        assert found.hidden.any()


def test_the_error_of_a_solid_ball_vanishes_with_the_pixels() -> None:
    score = view_consistency(*pair(ball(ring(4))))
    assert score.error is not None and score.error < 0.003  # the colours' range being 1
    assert score.r2 > 0.999
    assert score.missing < 0.01
    assert 0.1 < score.solid < 0.5


def test_what_stands_behind_is_hidden_and_does_not_count() -> None:
    cameras = Cameras.from_angles(torch.tensor([math.pi / 2, 0.7]), 1.4, FOV)
    front, back = ball(cameras, centre=(0.3, 0, 0)), ball(cameras, centre=(-0.3, 0, 0))
    first = torch.where(front.solid & back.solid, front.distance < back.distance, front.solid)
    both = Views(
        torch.where(first[:, None], front.image, back.image),
        torch.where(first[..., None], front.points, back.points),
        torch.maximum(front.opacity, back.opacity),
        cameras.cam2world,
        cameras.fov,
    )
    source, target = pair(both)
    found = reproject(source, target)
    on_back = ~first[:-1].flatten(1) & source.solid.flatten(1)
    assert (found.hidden & on_back).any()
    assert int(found.missing.sum()) <= 0.01 * int(found.seen.sum())
    assert view_consistency(source, target).r2 > 0.995


def test_one_plain_colour_scores_nought_and_unrelated_colours_less() -> None:
    source, target = pair(ball(ring()))
    plain = dataclasses.replace(target, image=target.image * 0)
    mean = source.image.movedim(1, -1)[source.solid].mean(0)
    plain.image[:] = mean[:, None, None]
    # over what is seen only, whose mean differs a little from the whole surface's
    assert view_consistency(source, plain).r2 == pytest.approx(0, abs=0.05)
    assert view_consistency(source, dataclasses.replace(target, image=-target.image)).r2 == -1


def test_a_ball_whose_colours_turn_with_the_camera_is_inconsistent() -> None:
    cameras = ring(step=40.0)
    turned = [
        ball(camera, lambda p, c=camera: paint(p @ c.cam2world[0, :3, :3])) for camera in cameras
    ]
    score = view_consistency(turned[0], turned[1])
    assert score.missing < 0.01  # the shape alone is consistent
    assert score.r2 < 0.3 and score.error is not None and score.error > 0.1


def test_a_billboard_that_always_faces_the_camera_is_looked_past() -> None:
    cameras = ring(step=40.0)
    facing = billboard(cameras, cameras.origin, lambda p: paint(p))
    score = view_consistency(*pair(facing))
    still = view_consistency(*pair(billboard(cameras, cameras.origin[0])))
    assert score.missing > 0.1
    assert still.missing < 0.01 and still.r2 > 0.99


def test_fog_foretells_nothing() -> None:
    source, target = pair(ball(ring()))
    fog = dataclasses.replace(source, opacity=source.opacity * 0.8)
    score = view_consistency(fog, target)
    assert (score.r2, score.error, score.missing, score.solid) == (0.0, None, 0.0, 0.0)


def test_scenes_without_colours_are_not_blamed_for_it() -> None:
    grey = ball(ring(), lambda p: torch.full_like(p, 0.3))
    assert view_consistency(*pair(grey)).r2 == pytest.approx(1, abs=1e-4)


def test_a_rendered_ball_agrees_with_the_formula() -> None:
    """The whole chain, from a field to points, with distances that the renderer finds."""
    cameras = ring()
    settings = RenderSettings(SIZE, 96, 0.5, 1.5, jitter=False, white_back=True)
    made = render(BallField(RADIUS, (0.2, 0.5, 0.8)), cameras, settings)
    assert made.depth is not None and made.opacity is not None
    origins, directions = cameras.rays(SIZE, SIZE)
    points = (origins + directions * made.depth.flatten(1)[..., None]).reshape(2, SIZE, SIZE, 3)
    views = Views(2 * made.image - 1, points, made.opacity, cameras.cam2world, cameras.fov)
    assert_close(points[views.solid].norm(dim=-1).mean(), torch.tensor(RADIUS), atol=0.005, rtol=0)
    score = view_consistency(*pair(views))
    assert score.error is not None and score.error < 1e-5
    assert score.missing < 0.01


# -- flatness and normals


@pytest.mark.parametrize("turn", [0.0, 0.8])
def test_a_billboard_is_flat_however_it_is_turned(turn: float) -> None:
    cameras = ring(3)
    normal = torch.tensor([math.cos(0.5 + turn), 0.2, math.sin(0.5 + turn)])
    views = billboard(cameras, normal / normal.norm())
    assert flatness(views) == pytest.approx(1, abs=1e-3)
    assert billboard_share(views) == pytest.approx(1)


def test_a_ball_from_afar_is_not_flat() -> None:
    far = Cameras.from_angles(torch.tensor([0.3, 1.2]), 1.2, 0.75, 60.0)
    views = ball(far)
    assert flatness(views) == pytest.approx(0, abs=0.05)
    share = billboard_share(views)
    assert share == pytest.approx(math.sin(math.radians(15)) ** 2, abs=0.03)


def test_relief_is_measured_in_between() -> None:
    """A ball squeezed to a fifth along the viewing axis has a fifth of its relief."""
    far = Cameras.from_angles(math.pi / 2, math.pi / 2, 0.75, 60.0)  # looks along -z
    views = ball(far)
    squeezed = dataclasses.replace(views, points=views.points * torch.tensor([1, 1, 0.2]))
    full, left = flatness(views), flatness(squeezed)
    assert full is not None and left is not None
    assert 1 - left == pytest.approx(0.2 * (1 - full), rel=1e-4)


def test_nothing_has_no_shape() -> None:
    views = ball(ring())
    empty = dataclasses.replace(views, opacity=views.opacity * 0)
    assert flatness(empty) is None and billboard_share(empty) is None


def test_normals_of_a_ball_point_outwards() -> None:
    views = ball(ring())
    normals, known = surface_normals(views)
    outward = views.points / RADIUS
    cosine = (normals * outward).sum(-1)[known]
    assert 500 < int(known.sum()) < int(views.solid.sum())
    assert float(cosine.mean()) > 0.995
    assert float(cosine.min()) > 0.8
    assert_close(normals[known].norm(dim=-1), torch.ones(int(known.sum())))
    assert not normals[:, 0].any() and not known[:, :, -1].any()

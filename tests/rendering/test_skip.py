"""Occupied cells: whatever a picture could show lies in one, and empty space mostly does not."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import BallField, FogField
from torch import Tensor
from torch.testing import assert_close

from generators.pigan import PiGAN
from rendering.cameras import Cameras
from rendering.settings import RenderSettings
from rendering.skip import THIN, Occupancy, farthest, find_occupancy, visible_level

ZERO = torch.zeros(1, 1, 3)


def settings(**changes: Any) -> RenderSettings:
    values = {"resolution": 32, "num_steps": 40, "ray_start": 0.6, "ray_end": 1.4}
    return RenderSettings(**{**values, "jitter": False, "white_back": True, **changes})


def occupied(occupancy: Occupancy, points: Tensor, *, near: bool = False) -> Tensor:
    """The answer at points (n, 3), each the only sample of a ray of its own."""
    rays = points[None]
    depths = torch.zeros(1, len(points), 1)
    return occupancy.at(rays, torch.ones_like(rays), depths, near=near)[0, :, 0]


def in_ball(count: int, radius: float, rng: torch.Generator) -> Tensor:
    points = torch.randn(count, 3, generator=rng)
    lengths = torch.rand(count, 1, generator=rng) ** (1 / 3)
    return radius * lengths * points / points.norm(dim=-1, keepdim=True)


def counted(field: Any) -> tuple[Any, list[int]]:
    """The field, and a list that collects how many points it is asked for."""
    asked: list[int] = []

    def look(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(points.shape[1])
        return field(points, directions)

    return look, asked


def test_every_point_of_a_ball_is_in_an_occupied_cell_and_few_others_are(
    rng: torch.Generator,
) -> None:
    occupancy = find_occupancy(BallField(0.2), 0.5, settings())
    assert occupied(occupancy, in_ball(5000, 0.2, rng)).all()
    elsewhere = in_ball(20000, 0.5, rng)
    distance = elsewhere.norm(dim=-1)
    assert not occupied(occupancy, elsewhere[distance > 0.2 + 6 * occupancy.side]).any()
    ball = float((distance < 0.2).float().mean())
    assert ball < float(occupied(occupancy, elsewhere).float().mean()) < 2 * ball


@pytest.mark.parametrize("centre", [(0.3, 0.0, 0.0), (0.0, -0.25, 0.1), (0.1, 0.2, -0.3)])
def test_cells_have_the_worlds_axes(centre: tuple[float, ...], rng: torch.Generator) -> None:
    def field(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return BallField(0.08)(points - points.new_tensor(centre), directions)

    occupancy = find_occupancy(field, 0.5, settings())
    middle = torch.tensor(centre)
    assert occupied(occupancy, middle + in_ball(500, 0.08, rng)).all()
    far = in_ball(5000, 0.5, rng)
    far = far[(far - middle).norm(dim=-1) > 0.15]
    assert not occupied(occupancy, far).any()


@pytest.mark.parametrize("resolution", [8, 128])
@pytest.mark.parametrize("model", ["TallSiren", "SpatialSiren", "EmbeddingSiren128"])
def test_a_networks_density_lies_in_occupied_cells(
    model: str, resolution: int, tiny_pigan: Callable[..., PiGAN], rng: torch.Generator
) -> None:
    grid = {"grid_size": 6} if model.startswith("Embedding") else {}
    generator = tiny_pigan(model=model, box_side=1.0, density_gain=30.0, **grid)
    with torch.no_grad():
        field = generator.field(generator.mapping(torch.randn(1, 6, generator=rng)))
        points = in_ball(20000, 0.6, rng)
        raw = field.density(points[None])[0, :, 0]
        offset = raw.quantile(0.7)  # a third of space is occupied

    def raised(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(points), field.density(points) - offset

    occupancy = find_occupancy(raised, 0.6, settings(resolution=resolution))
    full = raw > offset
    found = occupied(occupancy, points)
    missed = float((full & ~found).float().sum() / full.float().sum())
    assert missed <= (0.0 if resolution == 128 else 0.005)
    assert float(found.float().mean()) >= 0.3
    if resolution == 128:
        assert float(found.float().mean()) < 0.85


def test_something_may_be_anywhere_outside() -> None:
    occupancy = find_occupancy(FogField(-1.0).__call__, 0.5, settings())
    inside = torch.tensor([[0.0, 0.0, 0.0], [0.49, 0.0, 0.0], [0.0, -0.3, 0.3]])
    assert not occupied(occupancy, inside).any()
    outside = torch.tensor(
        [[0.51, 0.0, 0.0], [0.0, -0.6, 0.0], [0.0, 0.0, 40.0], [-1e9, 0.0, 0.0], [0.4, 0.4, 0.4]]
    )
    assert occupied(occupancy, outside).all()


def test_the_first_and_last_cell_of_each_axis_are_their_own() -> None:
    for axis in range(3):
        for cell, place in ((0, -0.9), (3, 0.9)):
            cells = torch.zeros(4, 4, 4, dtype=torch.bool)
            index = [1, 1, 1]
            index[axis] = cell
            cells[tuple(index)] = True
            point = torch.full((1, 3), -0.3)
            point[0, axis] = place
            occupancy = Occupancy(cells, 1.0)
            assert occupied(occupancy, point).all()
            assert not occupied(occupancy, -point).any()
            assert occupied(occupancy, point + 0.2 * (torch.arange(3) != axis), near=True).all()


def test_what_a_wall_bounds_is_found_to_the_wall_and_no_further(rng: torch.Generator) -> None:
    void = -1e4

    def field(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        distance = points.norm(dim=-1, keepdim=True)
        ball = 40 * (0.2 - distance)
        return torch.zeros_like(points), torch.where(distance < 0.4, ball, void)

    occupancy = find_occupancy(field, 0.6, settings())
    assert occupied(occupancy, in_ball(2000, 0.2, rng)).all()
    beside_the_wall = in_ball(20000, 0.5, rng)
    beside_the_wall = beside_the_wall[beside_the_wall.norm(dim=-1) > 0.3]
    assert not occupied(occupancy, beside_the_wall).any()


def test_softplus_is_empty_where_a_whole_ray_shows_nothing() -> None:
    s = settings(clamp_mode="softplus", resolution=16)
    level = visible_level(s)
    thickness = math.log1p(math.exp(level)) * (s.ray_end - s.ray_start)
    assert_close(thickness, THIN)
    thinner, thicker = FogField(level - 0.01).__call__, FogField(level + 0.01).__call__
    assert find_occupancy(thinner, 0.1, s).share < 0.6  # the corners of the cube
    assert find_occupancy(thicker, 0.1, s).share == 1
    assert visible_level(settings()) == 0


def test_what_is_known_for_softplus_is_enough_for_relu_but_not_the_other_way_round() -> None:
    camera = Cameras.from_angles(0.3, 1.2, 20.0)
    relu, softplus = settings(resolution=8), settings(resolution=8, clamp_mode="softplus")
    reach = farthest(camera, relu)
    assert find_occupancy(FogField(-50.0).__call__, reach, softplus).holds(camera, relu)
    assert not find_occupancy(FogField(-50.0).__call__, reach, relu).holds(camera, softplus)


@pytest.mark.parametrize("fov", [8.0, 35.0, 80.0])
def test_samples_lie_within_what_farthest_says_for_all_cameras_turned_about_the_origin(
    fov: float,
) -> None:
    s = settings()
    cameras = Cameras.from_angles(
        torch.tensor([0.2, 1.5, 4.0, 2.0]), torch.tensor([0.4, 1.5, 2.8, 1e-4]), fov
    )
    origins, directions = cameras.rays(33, 33)
    slack = 0.4 / 39
    for t in (0.6 - slack, 0.8, 1.0, 1.4 + slack):
        lengths = (origins + directions * t).norm(dim=-1)
        assert lengths.max() <= farthest(cameras[0], s) + 1e-6
    # the corner's ray at the far end, by the law of cosines
    corner = math.atan(math.tan(math.radians(fov) / 2) * math.sqrt(2))
    ends = (1 + t**2 - 2 * t * math.cos(corner) for t in (0.6 - slack, 1.4 + slack))
    assert_close(farthest(cameras[0], s), math.sqrt(max(ends)), atol=1e-5, rtol=0)


def test_a_camera_that_sees_further_needs_another_occupancy() -> None:
    s = settings()
    near = Cameras.from_angles(0.3, 1.2, 20.0)
    occupancy = find_occupancy(FogField(-1.0).__call__, 1.01 * farthest(near, s), s)
    assert occupancy.holds(near, s)
    assert occupancy.holds(Cameras.from_angles(4.0, 0.2, 20.0), s)
    assert not occupancy.holds(Cameras.from_angles(0.3, 1.2, 60.0), s)
    assert not occupancy.holds(Cameras.from_angles(0.3, 1.2, 20.0, radius=1.3), s)
    assert not occupancy.holds(near, settings(ray_end=2.0))


@pytest.mark.parametrize("resolution", [8, 48])
def test_looking_costs_at_most_two_coarse_pictures(resolution: int) -> None:
    s = settings(resolution=resolution)
    field, asked = counted(BallField(0.2))
    find_occupancy(field, 0.6, s)
    assert sum(asked) < 2 * resolution**2 * s.num_steps
    crowd, asked = counted(FogField(1.0).__call__)
    find_occupancy(crowd, 0.6, s)
    assert sum(asked) < 2 * resolution**2 * s.num_steps


def test_rays_that_meet_something_are_picked_and_few_others() -> None:
    s = settings()
    camera = Cameras.from_angles(0.7, 1.1, 40.0)
    origins, directions = camera.rays(40, 40)
    occupancy = find_occupancy(BallField(0.15), 1.1 * farthest(camera, s), s)
    met = occupancy.rays(origins, directions, s)
    passed = (origins - (origins * directions).sum(-1, keepdim=True) * directions).norm(dim=-1)[0]
    assert set(met.tolist()) >= set((passed < 0.15).nonzero()[:, 0].tolist())
    assert float(passed[met].max()) < 0.15 + 8 * occupancy.side


def test_an_empty_scene_has_one_ray_left() -> None:
    s = settings()
    camera = Cameras.from_angles(0.7, 1.1, 40.0)
    occupancy = find_occupancy(FogField(-1.0).__call__, 1.2 * farthest(camera, s), s)
    assert occupancy.rays(*camera.rays(6, 6), s).tolist() == [0]
    assert not occupied(occupancy, ZERO[0]).any()

"""Distances to solids against dense samples of their surfaces, inside and out."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from toys.distances import ball_distance, cone_distance, drum_distance, ring_distance

# one solid of each kind: parameters
BALL = [0.1, -0.2, 0.05, 0.3]
CONE = [0.0, -0.1, 0.1, 0.2, 0.3, 0.2, -0.1, 0.05]
CAPSULE = [-0.2, 0.1, 0.0, 0.08, 0.2, 0.3, 0.1, 0.08]
DRUM = [0.1, 0.3, 0.15, 0.05]
RING = [-0.05, 0.3, 0.1]

Solid = Callable[[Tensor], Tensor]  # points (n, 3) -> distances (n,)


def solid(distance: Callable[..., Tensor], parameters: list[float]) -> Solid:
    """One solid as a function of points."""

    def evaluate(points: Tensor) -> Tensor:
        x, y, z = points.t()[:, None, None]
        return distance((x, y, z), torch.tensor(parameters).to(points)[None, None])[0, 0]

    return evaluate


SOLIDS: dict[str, Solid] = {
    "ball": solid(ball_distance, BALL),
    "cone": solid(cone_distance, CONE),
    "capsule": solid(cone_distance, CAPSULE),
    "drum": solid(drum_distance, DRUM),
    "ring": solid(ring_distance, RING),
}


def cloud(rng: torch.Generator, count: int = 400) -> Tensor:
    """Points in and around the solids, in double precision."""
    return 1.4 * torch.rand(count, 3, generator=rng, dtype=torch.float64) - 0.7


def profile_distance(points: Tensor, profile: Tensor, inside: Tensor) -> Tensor:
    """Signed distance to a surface of revolution whose profile (n, 2) is sampled densely."""
    half_plane = torch.stack([points[:, [0, 2]].norm(dim=1), points[:, 1]], dim=1)
    distance = torch.cdist(half_plane, profile).amin(dim=1)
    return torch.where(inside, -distance, distance)


def test_a_balls_distance_is_that_to_its_centre_less_the_radius(rng: torch.Generator) -> None:
    points = cloud(rng)
    centre = torch.tensor(BALL[:3], dtype=torch.float64)
    expected = (points - centre).norm(dim=1) - BALL[3]
    assert torch.allclose(SOLIDS["ball"](points), expected)


@pytest.mark.parametrize(("name", "parameters"), [("cone", CONE), ("capsule", CAPSULE)])
def test_a_cones_distance_is_the_least_of_the_balls_it_is_a_run_of(
    name: str, parameters: list[float], rng: torch.Generator
) -> None:
    points = cloud(rng)
    run = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None]
    first, last = torch.tensor(parameters, dtype=torch.float64).reshape(2, 4)
    balls = (1 - run) * first + run * last
    expected = (torch.cdist(points, balls[:, :3]) - balls[:, 3]).amin(dim=1)
    assert torch.allclose(SOLIDS[name](points), expected, atol=1e-6)


def test_a_drums_distance_is_that_to_its_profile(rng: torch.Generator) -> None:
    middle, radius, half, rounding = DRUM
    turn = torch.linspace(0, math.pi / 2, 2001, dtype=torch.float64)
    corner = torch.stack([turn.cos(), turn.sin()], dim=1) * rounding
    corner = corner + torch.tensor([radius - rounding, half - rounding])
    top = torch.linspace(0, radius - rounding, 4001, dtype=torch.float64)
    top = torch.stack([top, torch.full_like(top, half)], dim=1)
    side = torch.linspace(0, half - rounding, 4001, dtype=torch.float64)
    side = torch.stack([torch.full_like(side, radius), side], dim=1)
    upper = torch.cat([corner, top, side])
    profile = torch.cat([upper, upper * torch.tensor([1.0, -1.0])]) + torch.tensor([0.0, middle])

    points = cloud(rng)
    across, up = points[:, [0, 2]].norm(dim=1), (points[:, 1] - middle).abs()
    beyond = torch.stack([across - radius + rounding, up - half + rounding]).clamp_min(0)
    inside = beyond.norm(dim=0) < rounding
    assert 5 < inside.sum() < 395
    expected = profile_distance(points, profile, inside)
    assert torch.allclose(SOLIDS["drum"](points), expected, atol=1e-6)


def test_a_rings_distance_is_that_to_its_profile(rng: torch.Generator) -> None:
    height, circle, tube = RING
    turn = torch.linspace(0, 2 * math.pi, 20001, dtype=torch.float64)
    profile = torch.stack([circle + tube * turn.cos(), height + tube * turn.sin()], dim=1)
    points = cloud(rng)
    across = points[:, [0, 2]].norm(dim=1)
    inside = (across - circle) ** 2 + (points[:, 1] - height) ** 2 < tube**2
    assert 5 < inside.sum() < 395
    expected = profile_distance(points, profile, inside)
    assert torch.allclose(SOLIDS["ring"](points), expected, atol=1e-6)


@pytest.mark.parametrize("name", SOLIDS)
def test_the_slope_of_a_distance_is_1_outside(name: str, rng: torch.Generator) -> None:
    points, step = cloud(rng), 1e-6
    outside = points[SOLIDS[name](points) > 0.01]
    axes = step * torch.eye(3, dtype=torch.float64)
    slope = torch.stack(
        [(SOLIDS[name](outside + a) - SOLIDS[name](outside - a)) / (2 * step) for a in axes]
    )
    assert torch.allclose(slope.norm(dim=0), torch.ones(len(outside), dtype=torch.float64))

"""Errors against exact geometry, and sets of shapes."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from metrics.geometry import Views
from metrics.shapes import chamfer, match_shapes, surface_errors, surface_points
from rendering.cameras import Cameras
from toys.render import ToyRendering, render_figures
from toys.scenes import Figures

SIZE = 40


@pytest.fixture(scope="module")
def figure() -> tuple[ToyRendering, Views, Tensor]:
    """A figure from three sides: its exact rendering, as views, and normals with the axes last."""
    cameras = Cameras.from_angles(torch.tensor([0.5, 2.0, 4.0]), 1.3, 50.0)
    figures = Figures.sample(0, [3, 3, 3])
    exact = render_figures(figures, cameras, SIZE, samples=1)
    origins, directions = cameras.rays(SIZE, SIZE)
    points = (origins + directions * exact.depth.flatten(1)[..., None]).reshape(3, SIZE, SIZE, 3)
    views = Views(exact.image, points, exact.opacity, cameras.cam2world, cameras.fov)
    assert float(figures.distance(points.flatten(1, 2))[views.solid.flatten(1)].abs().max()) < 1e-3
    return exact, views, exact.normals.movedim(1, -1)


def moved(views: Views, along_the_ray: float) -> Views:
    eye = views.cam2world[:, None, None, :3, 3]
    away = views.points - eye
    away = away / away.norm(dim=-1, keepdim=True)
    return dataclasses.replace(views, points=views.points + along_the_ray * away)


def test_a_figure_has_no_errors_against_itself(figure) -> None:
    exact, views, normals = figure
    errors = surface_errors(views, exact.depth, exact.opacity, normals)
    assert errors.depth == pytest.approx(0, abs=1e-6)
    assert errors.silhouette == 1
    assert errors.normal is not None and errors.normal < 15  # differences straddle creases


def test_depth_errors_are_in_world_units_and_either_way(figure) -> None:
    exact, views, normals = figure
    for shift in (0.05, -0.02):
        errors = surface_errors(moved(views, shift), exact.depth, exact.opacity, normals)
        assert errors.depth == pytest.approx(abs(shift), abs=1e-5)


def test_normals_are_compared_in_degrees() -> None:
    """A plane seen from the front, against normals that lean by 30 degrees."""
    cameras = Cameras.from_angles(math.pi / 2, math.pi / 2, 50.0)
    origins, directions = cameras.rays(8, 8)
    t = 1 / -directions[..., 2]
    points = (origins + directions * t[..., None]).reshape(1, 8, 8, 3)
    ones = torch.ones(1, 8, 8)
    views = Views(torch.zeros(1, 3, 8, 8), points, ones, cameras.cam2world, cameras.fov)
    leaning = torch.tensor([0, math.sin(math.pi / 6), math.cos(math.pi / 6)]).expand(1, 8, 8, 3)
    errors = surface_errors(views, t.reshape(1, 8, 8), ones, leaning)
    assert errors.normal == pytest.approx(30, abs=1e-2)
    assert errors.depth == pytest.approx(0, abs=1e-6)


def test_silhouettes_are_compared_by_their_overlap(figure) -> None:
    exact, views, normals = figure
    half = exact.opacity.clone()
    half[:, :, : SIZE // 2] = 0
    left = float((half > 0.5).sum() / (exact.opacity > 0.5).sum())
    errors = surface_errors(views, exact.depth, half, normals)
    assert errors.silhouette == pytest.approx(left)
    nothing = surface_errors(views, exact.depth, half * 0, normals)
    assert (nothing.depth, nothing.normal, nothing.silhouette) == (None, None, 0)


# -- clouds


def test_chamfer_is_the_mean_of_both_ways(rng: torch.Generator) -> None:
    a, b = torch.randn(20, 3, generator=rng), torch.randn(30, 3, generator=rng)

    def one_way(p: Tensor, q: Tensor) -> float:
        return sum(min(float((x - y).norm()) for y in q) for x in p) / len(p)

    assert chamfer(a, b) == pytest.approx((one_way(a, b) + one_way(b, a)) / 2, rel=1e-4)
    assert chamfer(a, b) == pytest.approx(chamfer(b, a))
    assert chamfer(a, a.flip(0)) == pytest.approx(0, abs=1e-3)
    corner = torch.zeros(1, 3)
    assert chamfer(corner, torch.tensor([[3.0, 4, 0], [0, 0, 1]])) == pytest.approx((1 + 3) / 2)
    with pytest.raises(ValueError, match="empty point cloud"):
        chamfer(a, b[:0])


def test_surface_points_lie_on_the_surface_as_many_as_asked_for(figure) -> None:
    _, views, _ = figure
    solid = int(views.solid.sum())
    cloud = surface_points(views, 100)
    assert len(torch.unique(cloud, dim=0)) == 100
    seen = views.points[views.solid]
    assert float(torch.cdist(cloud, seen).amin(1).max()) < 1e-3
    again = surface_points(views, 2 * solid + 5)
    assert len(again) == 2 * solid + 5 and len(torch.unique(again, dim=0)) == solid
    empty = dataclasses.replace(views, opacity=views.opacity * 0)
    assert len(surface_points(empty, 10)) == 0


def test_shapes_are_matched_with_their_nearest_partners(rng: torch.Generator) -> None:
    base = torch.rand(40, 3, generator=rng)
    known = [base + torch.tensor([4.0 * i, 0, 0]) for i in range(4)]
    made = [known[2] + 1e-3, known[0] + 1e-3, known[2] - 1e-3]
    table = torch.tensor([[chamfer(m, k) for k in known] for m in made])
    result = match_shapes(table)
    assert result.partner == [2, 0, 2]
    assert result.coverage == 0.5
    nearest = [min(float(table[m, k]) for m in range(3)) for k in range(4)]
    assert result.distance == pytest.approx(sum(nearest) / 4)
    with pytest.raises(ValueError, match="shapes of both kinds, got 0 and 4"):
        match_shapes(table[:0])

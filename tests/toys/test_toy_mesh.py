"""Meshes of snow figures against their distances."""

import pytest
import torch
from torch import Tensor

from toys.anatomy import FIGURE_RADIUS
from toys.mesh import ToyMesh, figure_mesh
from toys.scenes import Figures


@pytest.fixture(scope="module")
def figure() -> Figures:
    return Figures.sample(0, [3])


@pytest.fixture(scope="module")
def mesh(figure: Figures) -> ToyMesh:
    return figure_mesh(figure, 64)


def volume(mesh: ToyMesh) -> Tensor:
    """Signed volume: positive if triangles are counter-clockwise from outside."""
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return (a * torch.cross(b, c, dim=-1)).sum() / 6


def test_vertices_lie_on_the_surface(figure: Figures, mesh: ToyMesh) -> None:
    away = figure.distance(mesh.vertices[None]).abs()
    assert away.quantile(0.95) < 1e-3
    assert away.max() < 2 * FIGURE_RADIUS / 63
    assert len(mesh.vertices) > 3000


def test_the_mesh_is_closed(mesh: ToyMesh) -> None:
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    backwards = edges.flip(1)
    forth = {tuple(e) for e in edges.tolist()}
    assert len(forth) == len(edges)  # no edge twice in one direction
    assert forth == {tuple(e) for e in backwards.tolist()}


def test_the_mesh_holds_the_points_inside(
    figure: Figures, mesh: ToyMesh, rng: torch.Generator
) -> None:
    side = 2 * FIGURE_RADIUS
    points = side * (torch.rand(1, 200_000, 3, generator=rng) - 0.5)
    share = (figure.distance(points) < 0).float().mean()
    assert volume(mesh).item() == pytest.approx(share.item() * side**3, rel=0.02)


def test_vertices_have_their_parts_colours(figure: Figures, mesh: ToyMesh) -> None:
    top = mesh.vertices[:, 1].argmax()
    bottom = mesh.vertices[:, 1].argmin()
    front = mesh.vertices[:, 2].argmax()
    body, _, nose, hat, _, _ = figure.colours[0]
    assert torch.equal(mesh.colours[top], hat)
    assert torch.equal(mesh.colours[bottom], body)
    assert torch.equal(mesh.colours[front], nose)


def test_a_mesh_is_made_of_one_figure() -> None:
    with pytest.raises(ValueError, match="one figure, got 2"):
        figure_mesh(Figures.sample(0, [0, 1]))

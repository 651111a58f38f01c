"""Marching cubes against surfaces that are known."""

import math

import pytest
import torch
from analytic_shapes import Distance, ball, box, ring, union
from torch import Tensor

from rendering.grid import voxel_lattice
from rendering.surface import level_surface

RESOLUTION, SIDE = 40, 1.0
VOXEL = SIDE / (RESOLUTION - 1)
BALL, RING = ball((0.1, -0.05, 0.15), 0.3), ring((-0.05, 0.1, 0.05), 0.25, 0.1)


def volume_of(distance: Distance) -> Tensor:
    return -distance(voxel_lattice(RESOLUTION, SIDE)).reshape(RESOLUTION, RESOLUTION, RESOLUTION)


def enclosed(vertices: Tensor, faces: Tensor) -> float:
    """Signed volume: positive if triangles are counter-clockwise seen from outside."""
    a, b, c = vertices.double()[faces].unbind(1)
    return ((a * torch.cross(b, c, dim=-1)).sum() / 6).item()


@pytest.mark.parametrize(
    ("solid", "size"),
    [(BALL, 4 / 3 * math.pi * 0.3**3), (RING, 2 * math.pi**2 * 0.25 * 0.1**2)],
    ids=["ball", "torus"],
)
def test_vertices_are_within_half_a_voxel_and_hold_the_solid(solid: Distance, size: float) -> None:
    vertices, faces = level_surface(volume_of(solid), 0.0, SIDE)
    assert len(vertices) > 1000
    assert solid(vertices).abs().max() < 0.5 * VOXEL
    assert enclosed(vertices, faces) == pytest.approx(size, rel=0.02)


def test_axes_and_directions_are_those_of_the_world() -> None:
    """Three arms of different lengths, one along each axis."""
    solid = union(
        box((0.2, 0, 0), (0.2, 0.05, 0.05)),
        box((0, 0.15, 0), (0.05, 0.15, 0.05)),
        box((0, 0, -0.1), (0.05, 0.05, 0.1)),
    )
    vertices, _ = level_surface(volume_of(solid), 0.0, SIDE)
    low, high = vertices.amin(0), vertices.amax(0)
    torch.testing.assert_close(high, torch.tensor([0.4, 0.3, 0.05]), atol=0.5 * VOXEL, rtol=0)
    torch.testing.assert_close(low, torch.tensor([-0.05, -0.05, -0.2]), atol=0.5 * VOXEL, rtol=0)


def test_every_edge_is_used_once_in_each_direction() -> None:
    _, faces = level_surface(volume_of(RING), 0.0, SIDE)
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forth = {tuple(e) for e in edges.tolist()}
    assert len(forth) == len(edges) and forth == {(b, a) for a, b in forth}


def test_distances_have_their_inside_below() -> None:
    vertices, faces = level_surface(volume_of(BALL), 0.02, SIDE)
    same, turned = level_surface(-volume_of(BALL), -0.02, SIDE, inside_above=False)
    assert enclosed(same, turned) == pytest.approx(enclosed(vertices, faces), rel=1e-4)
    radius = (same - torch.tensor([0.1, -0.05, 0.15])).norm(dim=-1)
    assert radius.mean() == pytest.approx(0.28, abs=0.1 * VOXEL)


@pytest.mark.parametrize("level", [-2.0, 7.0])
def test_a_level_out_of_range_is_told_with_the_range(level: float) -> None:
    volume = torch.rand(5, 5, 5)
    volume[0, 0, 0], volume[4, 4, 4] = -0.25, 1.5
    with pytest.raises(ValueError, match=f"level {level:g} has no surface.* -0.25 to 1.5"):
        level_surface(volume, level, 1.0)

"""Normals, colours, pieces and visibility of meshes of known solids."""

import dataclasses
import math

import pytest
import torch
from analytic_shapes import Distance, SolidField, SolidGenerator, ball, box, ring, union
from torch import Tensor
from torch.testing import assert_close

from inference.mesh import (
    Mesh,
    face_normals,
    largest_components,
    visible_faces,
    with_colours,
    with_normals,
)
from rendering.cameras import Cameras
from rendering.grid import FieldDensity, dense_slabs
from rendering.settings import PoseLaw, RenderSettings
from rendering.surface import level_surface

SETTINGS = RenderSettings(16, 24, 0.3, 1.7, hierarchical=False, jitter=False)
RESOLUTION = 48
VOXEL = 1 / (RESOLUTION - 1)
BALL, RING = ball((0.1, -0.05, 0.15), 0.3), ring((-0.05, 0.1, 0.05), 0.25, 0.1)


def mesh_of(solid: Distance, slope: float = 1000.0) -> Mesh:
    density = FieldDensity(SolidField(solid, slope))
    volume = torch.stack(list(dense_slabs(density, RESOLUTION, 1.0)))
    return with_normals(Mesh(*level_surface(volume, 0.0, 1.0)), density)


def uphill(solid: Distance, points: Tensor) -> Tensor:
    points = points.detach().double().requires_grad_()
    (slope,) = torch.autograd.grad(solid(points).sum(), points)
    return slope


def angles(a: Tensor, b: Tensor) -> Tensor:
    """Degrees between unit vectors."""
    return torch.rad2deg(2 * torch.arcsin(((a.double() - b).norm(dim=-1) / 2).clamp(max=1)))


@pytest.mark.parametrize("solid", [BALL, RING], ids=["ball", "torus"])
def test_normals_are_within_two_degrees_and_of_unit_length(solid: Distance) -> None:
    mesh = mesh_of(solid)
    assert mesh.normals is not None
    assert angles(mesh.normals, uphill(solid, mesh.vertices)).max() < 2
    assert_close(mesh.normals.norm(dim=-1), torch.ones(len(mesh.vertices)))


def test_where_the_density_is_flat_normals_are_those_of_the_triangles() -> None:
    def steps(points: Tensor) -> Tensor:
        return (BALL(points) < 0).float() + 0 * points.sum(-1)

    volume = torch.stack(list(dense_slabs(steps, RESOLUTION, 1.0)))
    mesh = with_normals(Mesh(*level_surface(volume, 0.5, 1.0)), steps)
    assert mesh.normals is not None and mesh.normals.isfinite().all()
    error = angles(mesh.normals, uphill(BALL, mesh.vertices))
    assert error.mean() < 15 and error.max() < 60  # a staircase, but never inside out


def test_triangles_turn_the_way_that_normals_point() -> None:
    mesh = mesh_of(RING)
    assert mesh.normals is not None
    corners = mesh.normals[mesh.faces].mean(1)
    assert ((face_normals(mesh) * corners).sum(-1) >= 0).all()


def test_colours_are_those_of_the_place() -> None:
    mesh = mesh_of(BALL)
    generator = SolidGenerator(SolidField(BALL))
    mesh = with_colours(mesh, generator, generator.solid, SETTINGS, 0.0, VOXEL)
    assert mesh.colours is not None
    assert (mesh.colours - (0.5 + 0.5 * mesh.vertices)).abs().max() < 1.5 * VOXEL


def test_colours_are_seen_along_the_normal() -> None:
    mesh = mesh_of(RING)
    generator = SolidGenerator(SolidField(RING, by_view=True))
    mesh = with_colours(mesh, generator, generator.solid, SETTINGS, 0.0, VOXEL)
    assert mesh.colours is not None and mesh.normals is not None
    assert_close(mesh.colours, 0.5 - 0.5 * mesh.normals, atol=1e-5, rtol=0)


def test_a_selection_keeps_what_its_vertices_carry() -> None:
    mesh = mesh_of(BALL)
    mesh = dataclasses.replace(mesh, colours=mesh.vertices + 0.5)
    wanted = mesh.vertices[mesh.faces][:, :, 1].amin(1) > 0.1
    part = mesh.select(wanted)
    assert len(part.faces) == wanted.sum() > 10
    assert_close(part.vertices[part.faces], mesh.vertices[mesh.faces[wanted]])
    assert part.colours is not None and part.normals is not None and mesh.normals is not None
    assert_close(part.colours, part.vertices + 0.5)
    assert_close(part.normals[part.faces], mesh.normals[mesh.faces[wanted]])
    assert set(part.faces.unique().tolist()) == set(range(len(part.vertices)))


PIECES = union(
    ball((-0.2, 0, 0), 0.25), ball((0.3, 0.2, 0.2), 0.12), ball((0.35, -0.35, -0.3), 0.05)
)


@pytest.mark.parametrize(
    ("count", "share", "kept"),
    [(1, 0.0, 1), (2, 0.0, 2), (9, 0.0, 3), (None, 0.0, 3), (None, 0.1, 2), (None, 0.5, 1)],
)
def test_the_largest_pieces_stay(count: int | None, share: float, kept: int) -> None:
    mesh = largest_components(mesh_of(PIECES), count, share)
    reach = [(-0.2, 0.0, 0.0, 0.25), (0.3, 0.2, 0.2, 0.12), (0.35, -0.35, -0.3, 0.05)]
    near = [((mesh.vertices - torch.tensor(r[:3])).norm(dim=-1) - r[3]).abs() < 0.02 for r in reach]
    assert [bool(n.any()) for n in near] == [i < kept for i in range(3)]
    assert torch.stack(near).any(0).all()


def test_a_slab_that_no_camera_can_see_is_hidden() -> None:
    """Cameras look down from above: the ball hides part of the slab below it, the ground all."""
    ground, slab = box((0, -0.2, 0), (0.45, 0.03, 0.45)), box((0, -0.36, 0), (0.2, 0.04, 0.2))
    mesh = mesh_of(union(ball((0, 0.05, 0), 0.2), ground, slab))
    law = PoseLaw("uniform", math.pi / 2, math.pi, 0.6, 0.2, 60.0)
    cameras = Cameras.sample(law, 24, torch.Generator().manual_seed(0))
    seen = visible_faces(mesh, cameras, SETTINGS)
    height = mesh.vertices[mesh.faces][:, :, 1]
    aside = mesh.vertices[mesh.faces][:, :, [0, 2]].abs().amax((1, 2))
    hidden = (height.amax(1) < -0.22) & (aside < 0.42)
    assert hidden.sum() > 1000 and not seen[hidden].any(), "the slab and the ground's underside"
    assert seen[height.amin(1) > 0.1].all(), "the ball's upper half"
    top = (height.amin(1) > -0.175) & (height.amax(1) < -0.165)
    middle = mesh.vertices[mesh.faces].mean(1)[:, [0, 2]].norm(dim=-1)
    assert seen[top & (middle > 0.3)].all(), "the ground around the ball"
    assert not seen[top & (middle < 0.05)].any(), "the ground under the ball"
    below = Cameras.from_angles(math.pi / 2, math.pi - 0.6, 60.0)
    assert visible_faces(mesh, below, SETTINGS)[height.amax(1) < -0.37].any()


def test_what_is_beyond_the_ends_of_rays_or_beside_the_picture_is_not_seen() -> None:
    mesh = mesh_of(ball((0, 0, 0), 0.3))
    camera = Cameras.from_angles(math.pi / 2, math.pi / 2, 60.0)
    front = mesh.vertices[mesh.faces][:, :, 2].amin(1)
    assert visible_faces(mesh, camera, SETTINGS)[front > 0.15].all()
    distance = (mesh.vertices - camera.origin).norm(dim=-1)[mesh.faces]
    late = dataclasses.replace(SETTINGS, ray_start=0.75)
    assert not visible_faces(mesh, camera, late)[distance.amax(1) < 0.75].any()
    early = dataclasses.replace(SETTINGS, ray_end=0.65)
    assert not visible_faces(mesh, camera, early).any()
    narrow = Cameras.from_angles(math.pi / 2, math.pi / 2, 10.0)
    beside = mesh.vertices[mesh.faces][:, :, 0].amin(1) > 0.15
    assert not visible_faces(mesh, narrow, SETTINGS)[beside].any()

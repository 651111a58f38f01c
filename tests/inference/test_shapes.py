"""A shape from a generator's style, against the pictures that the renderer makes of it."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from analytic_shapes import SolidField, SolidGenerator, ball, box, union
from tiny_plugins import TINY_GENERATORS
from tiny_runs import TINY
from torch import Tensor

from curriculums import Curriculum, stage_at
from generators import GENERATORS, RadianceGenerator
from inference.mesh import Mesh, face_normals
from inference.mesh_picture import draw_mesh
from inference.shapes import Extraction, extract_shape, raw_volume
from rendering.cameras import Cameras
from rendering.grid import voxel_lattice
from rendering.raster import project, rasterize
from rendering.renderer import render
from rendering.settings import RenderSettings
from stages import Stage
from toys.scenes import Figures

ALL_ROUND: Curriculum = {
    **TINY, "fov": 50, "ray_start": 0.5, "ray_end": 1.5, "sample_dist": "uniform",
    "h_mean": math.pi / 2, "h_stddev": math.pi, "v_mean": 1.3, "v_stddev": 0.26,
    0: {**TINY[0], "num_steps": 24},
}  # fmt: skip
RADIANCE = [
    (name, options)
    for name, variants in TINY_GENERATORS.items()
    if issubclass(GENERATORS[name], RadianceGenerator)
    for options in variants
]
STAGE: Stage = stage_at(ALL_ROUND, 0)
W = torch.zeros(1, 2)
VIEWS = Cameras.from_angles(torch.arange(8) * math.pi / 4, torch.tensor([1.1, 1.5] * 4), 50.0)
FIGURE = Figures.sample(0, [3])


def figure_generator(slope: float) -> SolidGenerator:
    """A snow figure, symmetric in nothing, with a border as fuzzy as `slope` says."""

    def distance(points: Tensor) -> Tensor:
        return FIGURE.distance(points.reshape(1, -1, 3)).reshape(points.shape[:-1])

    return SolidGenerator(SolidField(distance, slope))


def silhouettes(mesh: Mesh, size: int) -> Tensor:
    return torch.stack([rasterize(mesh.vertices, mesh.faces, v, size).face >= 0 for v in VIEWS])


@pytest.fixture(scope="module")
def sharp() -> SolidGenerator:
    return figure_generator(20_000.0)


@pytest.mark.parametrize(("slope", "least"), [(5000.0, 0.975), (20_000.0, 0.985)])
def test_silhouettes_are_those_of_the_pictures_from_eight_sides(slope: float, least: float) -> None:
    """Any mistake in an axis, a scale or the lattice would show."""
    generator = figure_generator(slope)
    shape = extract_shape(generator, W, STAGE, Extraction(resolution=72))
    settings = RenderSettings(64, 96, 0.5, 1.5, hierarchical=False, jitter=False)
    with torch.no_grad():
        parts = [render(generator.solid, view, settings).opacity for view in VIEWS]
    seen = torch.cat([p for p in parts if p is not None]) > 0.5
    mine = silhouettes(shape.mesh, 64)
    overlap = (seen & mine).sum((1, 2)) / (seen | mine).sum((1, 2))
    assert overlap.min() > least, overlap
    mirrored = dataclasses.replace(shape.mesh, vertices=-shape.mesh.vertices)
    assert ((seen & silhouettes(mirrored, 64)).sum() / seen.sum()) < 0.9, "the test can fail"


def test_what_was_measured_is_told(sharp: SolidGenerator) -> None:
    shape = extract_shape(sharp, W, STAGE, Extraction(resolution=40))
    assert 0.6 < shape.cube_size < 1.1
    assert abs(shape.level) < 20_000 * 0.01
    assert shape.mesh.vertices.abs().max() < shape.cube_size / 2
    given = Extraction(resolution=40, cube_size=0.9, level=3.0)
    again = extract_shape(sharp, W, STAGE, given)
    assert (again.cube_size, again.level) == (0.9, 3.0)
    assert len(again.mesh.vertices) > 1000


def test_a_level_out_of_reach_is_told_with_the_range() -> None:
    generator = SolidGenerator(SolidField(ball((0, 0, 0), 0.3), 10.0))
    with pytest.raises(ValueError, match=r"level 50 has no surface: .* from -5\.66.* to 3 in the "):
        extract_shape(generator, W, STAGE, Extraction(resolution=17, level=50.0, cube_size=1.0))


def test_auto_finds_a_level_in_a_cube_that_leaves_the_surface_out() -> None:
    generator = SolidGenerator(SolidField(ball((0, 0, 0), 0.3)))
    inside = extract_shape(generator, W, STAGE, Extraction(resolution=17, cube_size=0.2))
    assert 0.1 * 1000 < inside.level < 0.3 * 1000, "at most 0.17 from the middle"
    assert inside.mesh.vertices.norm(dim=-1).std() < 0.005
    flat = SolidGenerator(SolidField(lambda points: 0 * points[..., 0] - 1.0))
    with pytest.raises(ValueError, match="no surface: the density is 1000 everywhere"):
        extract_shape(flat, W, STAGE, Extraction(resolution=17, cube_size=0.2))


def test_crumbs_are_dropped_unless_they_are_asked_for() -> None:
    crumbs = union(ball((0, 0, 0), 0.2), ball((0.3, 0.1, 0.0), 0.018))
    generator = SolidGenerator(SolidField(crumbs))

    def reach(wanted: Extraction) -> float:
        return extract_shape(generator, W, STAGE, wanted).mesh.vertices[:, 0].max().item()

    one = Extraction(resolution=64, cube_size=0.7, level=0.0)
    assert reach(one) == pytest.approx(0.2, abs=0.01)
    assert reach(dataclasses.replace(one, share=0.0)) == pytest.approx(0.318, abs=0.01)
    assert reach(dataclasses.replace(one, share=0.0, pieces=1)) == pytest.approx(0.2, abs=0.01)


def test_visible_only_drops_the_slab_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cameras of the law look down on a ball above a slab that the ball's stand hides."""
    monkeypatch.setattr("inference.shapes.VISIBILITY_CAMERAS", 16)
    stage = stage_at({**ALL_ROUND, "v_mean": 0.6, "v_stddev": 0.2}, 0)
    solid = union(ball((0, 0.1, 0), 0.2), box((0, -0.15, 0), (0.3, 0.03, 0.3)),
                  box((0, -0.28, 0), (0.1, 0.03, 0.1)))  # fmt: skip
    generator = SolidGenerator(SolidField(solid))
    wanted = Extraction(resolution=48, cube_size=0.8, level=0.0)
    whole = extract_shape(generator, W, stage, wanted).mesh
    visible = extract_shape(generator, W, stage, dataclasses.replace(wanted, visible_only=True))
    assert whole.vertices[:, 1].min() < -0.3
    assert visible.mesh.vertices[:, 1].min() > -0.2
    top = [(mesh.vertices[:, 1] > 0.15).sum() for mesh in (whole, visible.mesh)]
    assert top[0] == top[1] > 100


def test_a_raw_volume_is_the_density_on_the_lattice(sharp: SolidGenerator) -> None:
    side, slabs = raw_volume(sharp, W, STAGE, Extraction(resolution=9, cube_size=0.9))
    expected = sharp.solid.density(voxel_lattice(9, 0.9)[None]).reshape(9, 9, 9)
    assert side == 0.9
    torch.testing.assert_close(torch.stack(list(slabs)), expected)
    measured, _ = raw_volume(sharp, W, STAGE, Extraction(resolution=9))
    assert measured == extract_shape(sharp, W, STAGE, Extraction(resolution=33)).cube_size


def test_depths_of_two_views_agree_about_the_surface(sharp: SolidGenerator) -> None:
    """What one camera sees, put into space, is where another camera's depth says it is."""
    size = 128
    settings = RenderSettings(size, 48, 0.5, 1.5, jitter=False)
    first, second = Cameras.from_angles(1.3, 1.4, 50.0), Cameras.from_angles(1.75, 1.2, 50.0)
    with torch.no_grad():
        views = [render(sharp.solid, camera, settings) for camera in (first, second)]
    (d0, o0), (d1, o1) = ((v.depth[0], v.opacity[0]) for v in views)  # type: ignore[index]
    origins, directions = first.rays(size, size)
    solid = o0.flatten() > 0.99
    points = (origins + directions * (d0 / o0.clamp(min=1e-3)).reshape(1, -1, 1))[0, solid]
    column, row, _ = project(points, second, size).round().long().clamp(0, size - 1).unbind(-1)
    there = (d1 / o1.clamp(min=1e-3))[row, column]
    apart = (points - second.origin).norm(dim=-1) - there
    open_to_both = (o1[row, column] > 0.99) & (apart < 0.05)  # else something stands in front
    assert open_to_both.sum() > 0.6 * solid.sum() > 500
    height = points[:, 1].max() - points[:, 1].min()
    assert apart[open_to_both].abs().median() < 0.01 * height


def test_a_drawn_mesh_stands_where_the_picture_shows_it(sharp: SolidGenerator) -> None:
    mesh = extract_shape(sharp, W, STAGE, Extraction(resolution=48)).mesh
    settings = RenderSettings(32, 96, 0.5, 1.5, hierarchical=False, white_back=True, jitter=False)
    with torch.no_grad():
        expected = 2 * render(sharp.solid, VIEWS[1], settings).image - 1
    drawn = draw_mesh(mesh, VIEWS[1], 32)
    clay = draw_mesh(mesh, VIEWS[1], 32, clay=True)
    assert (drawn - expected).abs().mean() < 0.04 < 0.1 < (1 - expected).abs().mean()
    assert ((clay < 0.99).any(1) == (drawn < 0.99).any(1)).float().mean() > 0.99
    assert clay.amin() > -1 and clay.std() > 0.1
    with pytest.raises(ValueError, match="no colours"):
        draw_mesh(dataclasses.replace(mesh, colours=None), VIEWS[1], 8)


@pytest.mark.parametrize(("name", "options"), RADIANCE)
def test_every_radiance_generator_has_shapes(name: str, options: dict[str, Any]) -> None:
    """Untrained, they are fog: a surface of it all the same."""
    generator = GENERATORS[name](**options).eval()
    assert isinstance(generator, RadianceGenerator)
    label = torch.eye(2)[:1] if generator.label_dim else None
    with torch.no_grad():
        w = generator.mapping(torch.randn(1, generator.latent_dim), label, VIEWS[0])
    mesh = extract_shape(generator, w, STAGE, Extraction(resolution=20, cube_size=0.2)).mesh
    assert len(mesh.faces) > 0 and mesh.normals is not None and mesh.colours is not None
    assert mesh.normals.isfinite().all() and not mesh.normals.requires_grad
    assert 0 <= mesh.colours.min() <= mesh.colours.max() <= 1
    outwards = (face_normals(mesh) * mesh.normals[mesh.faces].mean(1)).sum(-1)
    assert outwards.clamp(min=0).sum() > 0.8 * outwards.abs().sum()


def test_one_voxel_is_no_lattice() -> None:
    with pytest.raises(ValueError, match="voxel_resolution must be at least 2, got 1"):
        Extraction(resolution=1)

"""Pictures and geometry of snow figures against closed forms, a slow oracle and the mesh."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rendering.cameras import Cameras
from toys import render as toy_render
from toys.mesh import figure_mesh
from toys.render import ToyRendering, render_figures
from toys.scenes import PARTS, Figures

FRONT = math.pi / 2
RADIUS = 0.3


def lone_ball(centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Figures:
    """A figure that is nothing but a ball: all other solids are hidden in it."""
    x, y, z = centre
    ball, speck = [x, y, z, RADIUS], [x, y, z, 0.01]
    return Figures(
        balls=torch.tensor([[ball] + [speck] * 6]),
        cones=torch.tensor([[[x, y, z, 0.01, x, y, z + 0.01, 0.01]] * 4]),
        drums=torch.tensor([[[y, 0.02, 0.01, 0.005]] * 2]),
        rings=torch.tensor([[[y, 0.02, 0.01]]]),
        colours=torch.full((1, 6, 3), 0.5),
    )


def turned(figures: Figures, angle: float) -> Figures:
    """Figures turned so that what was seen from yaw is seen from yaw + angle."""
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
    balls, cones = figures.balls.clone(), figures.cones.clone()
    for solids, start in ((balls, 0), (cones, 0), (cones, 4)):
        solids[..., start : start + 3] = solids[..., start : start + 3] @ turn.T
    return replace(figures, balls=balls, cones=cones)


def seen_from(
    figures: Figures, yaw: float, pitch: float = 1.3, size: int = 32, samples: int = 1
) -> ToyRendering:
    """Every figure through the same camera."""
    cameras = Cameras.from_angles(torch.full((len(figures),), yaw), pitch, 50.0)
    return render_figures(figures, cameras, size, samples)


def parts_seen(figures: Figures, yaw: float, pitch: float = 1.3, size: int = 32) -> Tensor:
    """How many pixels show each part: (figures, PARTS)."""
    picture = seen_from(figures, yaw, pitch, size)
    cameras = Cameras.from_angles(torch.full((len(figures),), yaw), pitch, 50.0)
    origins, rays = cameras.rays(size, size)
    _, part = figures.signed_distance(origins + picture.depth.flatten(1)[..., None] * rays)
    seen = picture.opacity.flatten(1) == 1
    return torch.stack([((part == i) & seen).sum(1) for i in range(len(PARTS))], dim=1)


def march_slowly(figures: Figures, origins: Tensor, rays: Tensor) -> Tensor:
    """Depth at which each ray first is inside, by many small equal steps; infinite where never."""
    depth = torch.full(rays.shape[:2], math.inf)
    for t in torch.linspace(1.45, 0.55, 1001):
        inside = figures.distance(origins + t * rays) < 0
        depth = torch.where(inside, t, depth)
    return depth


# ---- closed forms


def test_the_depth_of_a_ball_is_where_rays_meet_the_sphere() -> None:
    centre = (0.05, -0.04, 0.02)
    cameras = Cameras.from_angles(2.0, 1.2, 50.0)
    picture = render_figures(lone_ball(centre), cameras, 33, samples=1)
    origins, rays = cameras.rays(33, 33)
    towards = torch.tensor(centre) - origins
    along = (towards * rays).sum(-1)
    under_root = along**2 - (towards * towards).sum(-1) + RADIUS**2
    sure = (under_root.abs() > 1e-3).reshape(1, 33, 33)  # not grazing
    expected = torch.where(under_root > 0, along - under_root.clamp_min(0).sqrt(), 0)
    expected = expected.reshape(1, 33, 33)
    assert torch.equal((picture.opacity > 0)[sure], (expected > 0)[sure])
    assert torch.allclose(picture.depth[sure], expected[sure], atol=2e-5)
    assert (expected > 0).sum() > 200


def test_the_normals_of_a_ball_point_away_from_its_centre() -> None:
    cameras = Cameras.from_angles(0.3, 1.4, 50.0)
    picture = render_figures(lone_ball(), cameras, 33, samples=1)
    origins, rays = cameras.rays(33, 33)
    points = origins + picture.depth.flatten(1)[..., None] * rays
    normals = picture.normals.flatten(2).transpose(1, 2)
    seen = picture.opacity.flatten() == 1
    assert torch.allclose(normals[0, seen], points[0, seen] / RADIUS, atol=5e-3)


def test_the_opacities_of_a_ball_add_up_to_its_outline() -> None:
    picture = render_figures(lone_ball(), Cameras.from_angles(1.0, 1.5, 50.0), 32, samples=4)
    spacing = 2 * math.tan(math.radians(25)) / 31  # of rays, at distance 1 along the axis
    outline = math.pi * math.tan(math.asin(RADIUS)) ** 2  # the cone of tangents, cut there
    assert picture.opacity.sum().item() == pytest.approx(outline / spacing**2, rel=3e-3)


# ---- geometry of figures


@pytest.mark.parametrize("yaw", [FRONT, 0.4, -1.9])
def test_pixel_centres_see_what_slow_marching_sees(yaw: float) -> None:
    figures = Figures.sample(4, range(3))
    cameras = Cameras.from_angles(torch.full((3,), yaw), 1.2, 50.0)
    picture = render_figures(figures, cameras, 24, samples=1)
    depth = march_slowly(figures, *cameras.rays(24, 24)).reshape(3, 24, 24)
    both = depth.isfinite() & (picture.opacity > 0)
    assert (depth.isfinite() != (picture.opacity > 0)).sum() <= 3  # rays that graze the outline
    assert (picture.depth[both] - depth[both]).abs().quantile(0.99) < 1e-3
    assert both.sum() > 300


def test_opacity_is_the_share_of_a_pixels_area_that_is_covered() -> None:
    size, samples = 16, 3
    figures, cameras = (
        Figures.sample(5, range(2)),
        Cameras.from_angles(torch.tensor([0.9, 2.5]), 1.3, 50.0),
    )
    offsets = (torch.arange(samples) + 0.5) / samples - 0.5
    places = -1 + 2 * (torch.arange(size)[:, None] + offsets).flatten() / (size - 1)
    y, x = torch.meshgrid(-places, places, indexing="ij")
    focal = torch.full_like(x, -1 / math.tan(math.radians(25)))
    rays = torch.nn.functional.normalize(torch.stack([x, y, focal], dim=-1).flatten(0, 1), dim=-1)
    rays = rays @ cameras.cam2world[:, :3, :3].transpose(1, 2)
    hits = march_slowly(figures, cameras.origin[:, None], rays).isfinite()
    boxes = hits.float().reshape(2, size, samples, size, samples).mean(dim=(2, 4))
    picture = render_figures(figures, cameras, size, samples)
    assert (picture.opacity - boxes).abs().mean() < 1e-3
    assert ((boxes > 0) & (boxes < 1)).sum() > 60


def test_normals_are_unit_and_face_the_camera() -> None:
    figures = Figures.sample(0, range(4))
    cameras = Cameras.from_angles(torch.tensor([0.0, 1.5, 3.0, 4.5]), 1.2, 50.0)
    picture = render_figures(figures, cameras, 32, samples=1)
    _, rays = cameras.rays(32, 32)
    normals = picture.normals.flatten(2).transpose(1, 2)
    seen = picture.opacity.flatten(1) == 1
    assert torch.allclose(normals[seen].norm(dim=-1), torch.ones(int(seen.sum())), atol=1e-5)
    assert (normals * rays).sum(-1)[seen].max() < 0.05
    assert torch.equal(normals[~seen], torch.zeros_like(normals[~seen]))


def test_a_turned_figure_looks_as_from_a_turned_camera() -> None:
    figures = Figures.sample(0, range(3))
    one = seen_from(figures, FRONT + 0.7, samples=3)
    other = seen_from(turned(figures, 0.9), FRONT + 1.6, samples=3)
    assert torch.allclose(one.opacity, other.opacity, atol=0.12)  # a ray on the edge may differ
    assert (one.opacity - other.opacity).abs().mean() < 1e-4
    assert (one.depth - other.depth).abs().mean() < 1e-4


def test_the_mesh_has_the_pictures_outline() -> None:
    figure, camera = Figures.sample(3, [1]), Cameras.from_angles(0.8, 1.2, 50.0)
    mesh = figure_mesh(figure, 48)
    origins, rays = camera.rays(20, 20)
    mask = render_figures(figure, camera, 20, samples=1).opacity.flatten() == 1
    hit = torch.stack([meets(mesh.vertices[mesh.faces], origins[0, 0], ray) for ray in rays[0]])
    assert (hit != mask).sum() <= 4  # the mesh's edges are cut
    assert mask.sum() > 80


def meets(triangles: Tensor, origin: Tensor, ray: Tensor) -> Tensor:
    """Whether a ray meets any triangle: its volumes with the three edges have one sign."""
    corners = triangles - origin
    around = torch.cross(corners, corners.roll(-1, dims=1), dim=-1) @ ray
    return ((around > 0).all(dim=1) | (around < 0).all(dim=1)).any()


# ---- what is where


def test_the_face_is_seen_from_the_front_and_from_nowhere_behind() -> None:
    figures = Figures.sample(0, range(30))
    nose, coal = PARTS.index("nose"), PARTS.index("coal")
    front, back = parts_seen(figures, FRONT), parts_seen(figures, -FRONT, pitch=FRONT)
    assert (front[:, [nose, coal]] >= 3).all()
    assert (back[:, [nose, coal]] == 0).all()


@pytest.mark.parametrize("yaw", [FRONT, 0.0, math.pi, -FRONT])
def test_body_hat_scarf_and_arms_are_seen_from_all_around(yaw: float) -> None:
    seen = parts_seen(Figures.sample(0, range(30)), yaw)
    for part, pixels in {"body": 40, "hat": 20, "scarf": 5, "arms": 5}.items():
        assert seen[:, PARTS.index(part)].min() >= pixels, part


def test_the_nose_sticks_out_to_the_right_where_the_front_is_on_the_right() -> None:
    # from +x the figure looks to the left of the picture, from -x to the right
    figures = Figures.sample(0, range(10))
    for yaw, side in ((0.0, slice(0, 11)), (math.pi, slice(21, 32))):
        picture = seen_from(figures, yaw, samples=3)
        orange = (picture.image[:, 0] > 0.4) & (picture.image[:, 2] < 0)
        beside = orange[:, 6:20]
        assert (beside[..., side].sum(dim=(1, 2)) >= 2).all()


def test_front_side_and_back_differ() -> None:
    figures = Figures.sample(0, range(10))
    front, side, back = (seen_from(figures, FRONT + a).image for a in (0, FRONT, math.pi))
    for one, other in ((front, back), (front, side), (side, back)):
        assert (one - other).abs().mean(dim=(1, 2, 3)).min() > 0.03


# ---- pictures


def test_the_background_is_white_and_empty() -> None:
    picture = seen_from(Figures.sample(0, range(4)), 0.5, samples=3)
    empty = picture.opacity == 0
    assert 0.4 < empty.float().mean() < 0.9
    assert (picture.image.movedim(1, -1)[empty] == 1).all()
    assert (picture.depth[empty] == 0).all()
    assert (picture.normals.movedim(1, -1)[empty] == 0).all()


def test_edges_are_antialiased_and_mix_with_white() -> None:
    one, many = (seen_from(lone_ball(), FRONT, size=24, samples=n) for n in (1, 4))
    assert set(one.opacity.unique().tolist()) == {0.0, 1.0}
    edge = (many.opacity > 0) & (many.opacity < 1)
    assert edge.sum() > 30
    grey = (many.image[:, 0] + 1) / 2
    share = many.opacity[edge]
    inside = (grey[edge] - (1 - share)) / share  # what the covered part of the pixel shows
    assert inside.min() > 0.3 and inside.max() < 0.5


def test_figures_are_bright_and_softly_shaded() -> None:
    picture = seen_from(lone_ball(), FRONT, size=32)
    grey = (picture.image[:, 0] + 1) / 2
    light = grey[picture.opacity == 1] / 0.5
    assert 0.55 < light.min() and light.max() <= 1
    assert light.max() - light.min() > 0.15


def test_a_place_has_one_colour_from_wherever_it_is_seen() -> None:
    figure = Figures.sample(6, [0])
    cameras = Cameras.from_angles(torch.tensor([1.2, 1.5]), 1.3, 50.0)
    both = Figures.sample(6, [0, 0])
    picture = render_figures(both, cameras, 48, samples=1)
    origins, rays = cameras.rays(48, 48)
    points = origins + picture.depth.flatten(1)[..., None] * rays
    colours = picture.image.flatten(2).transpose(1, 2)
    seen = picture.opacity.flatten(1) == 1
    apart = torch.cdist(points[0, seen[0]], points[1, seen[1]])
    nearest, match = apart.min(dim=1)
    close = nearest < 1.5e-3
    _, part = figure.signed_distance(points[:1, seen[0]])
    _, other = figure.signed_distance(points[1:, seen[1]])
    close &= part[0] == other[0, match]
    difference = (colours[0, seen[0]] - colours[1, seen[1]][match]).abs().amax(dim=1)
    assert close.sum() > 20
    assert difference[close].max() < 0.08


# ---- batches and bad input


def test_batches_and_their_cuts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = Figures.sample(0, range(5))
    cameras = Cameras.from_angles(torch.linspace(0, 6, 5), 1.3, 50.0)
    whole = render_figures(figures, cameras, 12, samples=2)
    monkeypatch.setattr(toy_render, "RAYS_AT_ONCE", 2 * 24**2)
    for name, cut in vars(render_figures(figures, cameras, 12, samples=2)).items():
        assert torch.allclose(getattr(whole, name), cut, atol=1e-5), name


def test_a_camera_that_looks_away_sees_nothing() -> None:
    camera = Cameras.from_angles(0.0, FRONT, 20.0, radius=1.0)
    aside = camera.cam2world.clone()
    aside[:, :3, 3] += torch.tensor([0.0, 3.0, 0.0])
    picture = render_figures(Figures.sample(0, [0]), replace(camera, cam2world=aside), 8)
    assert (picture.image == 1).all() and not picture.opacity.any()


@pytest.mark.parametrize(
    ("count", "radius", "resolution", "samples", "message"),
    [
        (2, 1.0, 8, 1, "one camera per figure, got 2 figures and 1 cameras"),
        (1, 1.0, 1, 1, "resolution must be at least 2"),
        (1, 1.0, 8, 0, "samples 1, got 8 and 0"),
        (1, 0.3, 8, 1, "farther away than 0.42, got 0.3"),
    ],
)
def test_impossible_pictures_are_refused(
    count: int, radius: float, resolution: int, samples: int, message: str
) -> None:
    cameras = Cameras.from_angles(0.0, 1.3, 50.0, radius)
    with pytest.raises(ValueError, match=message):
        render_figures(Figures.sample(0, range(count)), cameras, resolution, samples)


@pytest.mark.gpu
def test_the_gpu_draws_what_the_cpu_draws() -> None:
    figures, cameras = (
        Figures.sample(0, range(4)),
        Cameras.from_angles(torch.arange(4.0), 1.3, 50.0),
    )
    here = render_figures(figures, cameras, 32)
    there = render_figures(figures.to("cuda"), cameras.to("cuda"), 32)
    assert (here.image - there.image.cpu()).abs().mean() < 1e-4
    assert (here.depth - there.depth.cpu()).abs().mean() < 1e-4

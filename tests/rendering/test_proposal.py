"""Few samples placed by a density grid, against dense pictures and against plain ones."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generators.pigan import PiGAN
from inference.scene import Scene
from rendering.cameras import Cameras, Patch
from rendering.density_grid import DensityGrid
from rendering.field import Field
from rendering.proposal import Proposal, interpolate
from rendering.renderer import Rendering, render
from rendering.samples import LOCKED_DIRECTION
from rendering.settings import RenderSettings
from rendering.skip import find_occupancy

Raw = Callable[[Tensor], Tensor]  # points (1, n, 3) -> raw density (1, n)


def settings(**changes: Any) -> RenderSettings:
    values = {"resolution": 24, "num_steps": 24, "ray_start": 0.6, "ray_end": 1.4, "jitter": False}
    return RenderSettings(**{**values, **changes})


def camera(yaw: float = 1.2, pitch: float = 1.3, fov: float = 40.0) -> Cameras:
    return Cameras.from_angles(yaw, pitch, fov)


class Painted:
    """Colours that vary with the place and the view, on any raw density; counts its points."""

    def __init__(self, raw: Raw, channels: int = 3) -> None:
        rng = torch.Generator().manual_seed(3)
        self.raw, self.points = raw, 0
        self.waves = (
            torch.randn(6, channels, generator=rng) * torch.tensor([9.0, 9, 9, 2, 2, 2])[:, None]
        )
        self.views: list[Tensor] = []
        self.places: list[Tensor] = []

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        self.points += points.shape[1]
        self.views.append(directions[0])
        self.places.append(points[0])
        waves = torch.cat([points, directions], dim=-1) @ self.waves
        return torch.sigmoid(waves), self.raw(points)[..., None]

    def density(self, points: Tensor) -> Tensor:
        self.points += points.shape[1]
        return self.raw(points)[..., None]

    def taken(self) -> int:
        points, self.points = self.points, 0
        return points


def ball(points: Tensor, radius: float = 0.25) -> Tensor:
    return (4000 * (radius - points.norm(dim=-1))).clamp(-200, 200)


def shell(points: Tensor) -> Tensor:
    """Half transparent, its back seen through its front."""
    return 20 - 1500 * (points.norm(dim=-1) - 0.25).abs()


def wall(points: Tensor) -> Tensor:
    """A ball before a wall that is a third of the way to the last sample."""
    depth = (points - camera().origin).norm(dim=-1)
    return torch.maximum(ball(points, 0.15), (4000 * (depth - 1.25)).clamp(-200, 200))


def fog(points: Tensor) -> Tensor:
    return 2 + torch.sin(7 * points[..., 0]) + torch.cos(5 * points[..., 2])


def nothing(points: Tensor) -> Tensor:
    return torch.full_like(points[..., 0], -1.0)


SCENES = {f.__name__: f for f in (ball, shell, wall, fog)}
BACKGROUNDS: dict[str, dict[str, Any]] = {
    "black": {},
    "white_back": {"white_back": True},
    "last_back": {"last_back": True},
    "locked": {"lock_view_dependence": True},
    "softplus": {"clamp_mode": "softplus"},
}


def psnr(a: Tensor, b: Tensor) -> float:
    """Of pictures in 0..1."""
    return -10 * math.log10(max(float((a - b).square().mean()), 1e-12))


@torch.no_grad()
def truth_of(field: Field, cameras: Cameras, s: RenderSettings) -> Rendering:
    return render(field, cameras, dataclasses.replace(s, num_steps=384, hierarchical=False))


@torch.no_grad()
def propose(
    field: Field, cameras: Cameras, s: RenderSettings, samples: int = 8, **options: Any
) -> Rendering:
    return render(field, cameras, s, proposal=Proposal(samples), **options)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("scene", SCENES)
def test_pictures_are_as_close_to_a_dense_truth_as_plain_ones_with_far_fewer_points(
    scene: str, background: str
) -> None:
    field, s = Painted(SCENES[scene]), settings(resolution=40, **BACKGROUNDS[background])
    truth = truth_of(field, camera(), s)
    field.taken()
    with torch.no_grad():
        rng = torch.Generator().manual_seed(1)
        plain = render(field, camera(), dataclasses.replace(s, jitter=True), generator=rng)
    assert field.taken() == 40 * 40 * 48
    proposal = Proposal(8)
    with torch.no_grad():
        ours = render(field, camera(), s, proposal=proposal)
    assert proposal.grid is not None
    assert field.taken() - proposal.grid.points < 40 * 40 * 48 / 4.5
    assert psnr(ours.image, truth.image) > max(psnr(plain.image, truth.image), 26)
    for a, b, c in (
        (ours.opacity, plain.opacity, truth.opacity),
        (ours.depth, plain.depth, truth.depth),
    ):
        assert a is not None and b is not None and c is not None
        assert psnr(a / 1.4, c / 1.4) > min(psnr(b / 1.4, c / 1.4), 40)


@pytest.mark.parametrize("scene", ["wall", "fog"])
def test_more_samples_come_closer(scene: str) -> None:
    field, s = Painted(SCENES[scene]), settings()
    truth = truth_of(field, camera(), s).image
    errors = [psnr(propose(field, camera(), s, n).image, truth) for n in (1, 4, 16)]
    assert errors == sorted(errors)
    assert errors[-1] > errors[0] + 6


def test_a_thin_surface_takes_one_sample_and_fog_takes_all() -> None:
    def sharp(points: Tensor) -> Tensor:
        return (2e5 * ((points - camera().origin).norm(dim=-1) - 1.0)).clamp(-2e4, 2e4)

    s, rays = settings(), 24 * 24
    for raw, most, least in ((sharp, 1, 1), (fog, 8, 7)):
        field, proposal = Painted(raw), Proposal(8)
        with torch.no_grad():
            render(field, camera(), s, proposal=proposal)
        assert proposal.grid is not None
        samples = field.taken() - proposal.grid.points - 1  # one asks for the channels
        assert least * rays <= samples <= (most + 1) * rays  # and the last one's


def test_the_last_sample_is_the_background_where_nothing_is() -> None:
    field, s = Painted(nothing), settings(last_back=True)
    picture = propose(field, camera(), s)
    with torch.no_grad():
        origins, directions = camera().rays(24, 24)
        wanted = field(origins + 1.4 * directions, directions)[0]
    assert_close(picture.image.flatten(2).transpose(1, 2), wanted)
    assert picture.depth is not None and picture.opacity is not None
    assert_close(picture.depth, torch.full_like(picture.depth, 1.4))
    assert picture.opacity.abs().max() == 0


def test_the_last_sample_is_seen_past_a_ball_and_not_through_it() -> None:
    field, s = Painted(lambda p: ball(p, 0.2)), settings(last_back=True)
    picture, truth = propose(field, camera(), s), truth_of(field, camera(), s)
    assert psnr(picture.image, truth.image) > 35
    assert picture.opacity is not None and picture.depth is not None
    beside, on = picture.opacity < 1e-3, picture.opacity > 0.99
    assert beside.any() and on.any()
    assert_close(picture.image[:, :, beside[0]], truth.image[:, :, beside[0]], atol=1e-3, rtol=0)
    assert picture.depth[on].max() < 1.05


@pytest.mark.parametrize("background", ["white_back", "black"])
def test_nothing_costs_nothing(background: str) -> None:
    field, proposal, s = Painted(nothing), Proposal(8), settings(**BACKGROUNDS[background])
    with torch.no_grad():
        picture = render(field, camera(), s, proposal=proposal)
    assert torch.equal(picture.image, torch.full_like(picture.image, float(s.white_back)))
    assert proposal.grid is not None and field.taken() - proposal.grid.points <= 2


def test_the_last_sample_is_opaque_however_thin_the_mist() -> None:
    def mist(points: Tensor) -> Tensor:
        return 1e-3 * ((points - camera().origin).norm(dim=-1) - 1.39)

    picture = propose(Painted(mist), camera(), settings())
    assert picture.opacity is not None and picture.opacity.min() > 0.99


def test_nothing_is_looked_at_behind_what_is_opaque() -> None:
    field, s = Painted(wall), settings(last_back=True)
    proposal = Proposal(8)
    with torch.no_grad():
        proposal.extend(field, camera(), s)
        field.places.clear()
        render(field, camera(), s, proposal=proposal)
    depth = (torch.cat(field.places[1:]) - camera().origin).norm(dim=-1)
    assert 1.2 < depth.max() < 1.25 + 0.05


def test_locked_views_are_all_that_the_field_sees() -> None:
    field = Painted(wall)
    propose(field, camera(), settings(lock_view_dependence=True))
    views = torch.cat(field.views)
    assert torch.equal(views, torch.tensor(LOCKED_DIRECTION).expand_as(views))


class Sky:
    """A background that is the direction."""

    num_draws = 0

    def __call__(
        self, origins: Tensor, directions: Tensor, positions: Tensor, u: Any, *, white_back: bool
    ) -> Tensor:
        return directions.abs()


@pytest.mark.parametrize("clamp_mode", ["relu", "softplus"])
def test_a_background_is_seen_behind_the_field(clamp_mode: str) -> None:
    field, s = Painted(lambda p: ball(p) - 10), settings(clamp_mode=clamp_mode)
    field.background = Sky()  # pyright: ignore[reportAttributeAccessIssue]
    picture, truth = propose(field, camera(), s), truth_of(field, camera(), s)
    assert psnr(picture.image, truth.image) > 35
    corner = camera().rays(24, 24)[1][0, 0].abs()
    assert_close(picture.image[0, :, 0, 0], corner, atol=2e-3, rtol=0)


@pytest.mark.parametrize("channels", [1, 32])
def test_radiance_may_have_any_number_of_channels(channels: int) -> None:
    field, s = Painted(wall, channels), settings()
    picture, truth = propose(field, camera(), s), truth_of(field, camera(), s)
    assert picture.image.shape == (1, channels, 24, 24)
    assert psnr(picture.image, truth.image) > 30


def test_a_field_that_ends_is_seen_to_its_end_and_no_further() -> None:
    def cut(points: Tensor) -> Tensor:
        return torch.where(points.norm(dim=-1) < 0.25, 300.0, -1e6)

    s = settings(resolution=32, white_back=True)
    field = Painted(cut)
    picture, truth = propose(field, camera(), s), truth_of(field, camera(), s)
    assert picture.opacity is not None and truth.opacity is not None
    assert picture.opacity.sum() == pytest.approx(float(truth.opacity.sum()), rel=0.05)
    assert psnr(picture.image, truth.image) > 20


def test_a_jump_in_density_has_its_silhouette_and_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    def jump(points: Tensor) -> Tensor:
        return torch.where(points.norm(dim=-1) < 0.2, 300.0, -300.0)

    field, s = Painted(jump), settings(resolution=32)
    picture, truth = propose(field, camera(), s), truth_of(field, camera(), s)
    assert picture.opacity is not None and truth.opacity is not None
    assert ((picture.opacity > 0.5) != (truth.opacity > 0.5)).float().mean() < 2e-3
    assert picture.depth is not None and truth.depth is not None
    both = (picture.opacity > 0.5) & (truth.opacity > 0.5)
    assert (picture.depth - truth.depth)[both].abs().mean() < 0.8 / 46  # a step
    assert psnr(picture.image, truth.image) > 35


def test_a_window_of_the_picture_is_part_of_it() -> None:
    field, s = Painted(wall), settings(resolution=23)
    whole = propose(field, camera(), s)
    corner = Patch(torch.tensor([0.5]), torch.tensor([[0.0, 0.5]]))
    with torch.no_grad():
        proposal = Proposal(8)
        small = dataclasses.replace(s, resolution=12)
        part = render(field, camera(), small, proposal=proposal, patch=corner)
    assert_close(part.image, whole.image[:, :, :12, :12], atol=2e-3, rtol=0)


def test_chunks_change_nothing() -> None:
    field, s = Painted(wall), settings()
    whole = propose(field, camera(), s)
    chunked = propose(field, camera(), dataclasses.replace(s, max_batch_size=1000))
    assert_close(chunked.image, whole.image, atol=1e-5, rtol=0)


def test_a_grid_is_paid_once_and_grows_by_what_is_new() -> None:
    field, proposal, s = Painted(ball), Proposal(8), settings()
    taken = []
    for cameras in (camera(), camera(), camera(1.3), camera(4.0)):
        proposal.extend(field, cameras, s)
        taken.append(field.taken())
    assert taken[1] == 0
    assert 0 < taken[2] < 0.35 * taken[0]
    assert taken[2] < taken[3] < taken[0]
    assert proposal.grid is not None and proposal.grid.points == sum(taken)


def test_a_picture_hardly_depends_on_what_was_seen_before() -> None:
    field, s = Painted(wall), settings()
    fresh = propose(field, camera(), s)
    proposal = Proposal(8)
    with torch.no_grad():
        for yaw in (4.0, 1.0, 1.35):
            render(field, camera(yaw), s, proposal=proposal)
        later = render(field, camera(), s, proposal=proposal)
        again = render(field, camera(), s, proposal=proposal)
    assert psnr(fresh.image, later.image) > 45
    assert torch.equal(later.image, again.image)


def test_a_camera_that_sees_further_has_a_grid_of_its_own() -> None:
    field, proposal, s = Painted(ball), Proposal(8), settings()
    proposal.extend(field, camera(), s)
    first = proposal.grid
    proposal.extend(field, camera(0.3, 2.0), s)
    assert proposal.grid is first
    truth = truth_of(field, camera(fov=70.0), s)
    with torch.no_grad():
        wide = render(field, camera(fov=70.0), s, proposal=proposal)
    assert proposal.grid is not first
    assert psnr(wide.image, truth.image) > 30


def test_a_grid_is_exact_where_density_is_linear_and_has_the_worlds_axes() -> None:
    slope = torch.tensor([3.0, -5.0, 11.0])
    s = settings()
    grid = DensityGrid(0.7, s, torch.zeros(1))
    grid.extend(Painted(lambda p: p @ slope + 8), *camera().rays(60, 60), s)
    rays = camera(fov=36.0).rays(20, 20)
    t = torch.linspace(0.65, 1.35, 31).expand(1, 400, 31)
    place = rays[0][:, :, None] + rays[1][:, :, None] * t[..., None]
    assert_close(grid.at(*rays, t), place @ slope + 8, atol=2e-4, rtol=0)


def test_interpolation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    x, nodes = np.linspace(0, 1, 50), np.sort(rng.random((7, 4)), axis=-1)
    values = rng.random((7, 4, 2))
    wanted = [
        [np.interp(x, n, v[:, c]) for c in range(2)] for n, v in zip(nodes, values, strict=True)
    ]
    found = interpolate(
        torch.tensor(x).expand(1, 7, 50), torch.tensor(nodes)[None], torch.tensor(values)[None]
    )
    assert_close(found[0], torch.tensor(np.array(wanted)).transpose(1, 2))
    alone = interpolate(torch.rand(1, 2, 5), torch.rand(1, 2, 1), torch.ones(1, 2, 1, 3))
    assert torch.equal(alone, torch.ones(1, 2, 5, 3))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_networks_scene_looks_like_its_full_picture(
    dtype: torch.dtype | None, tiny_pigan: Callable[..., PiGAN]
) -> None:
    generator = tiny_pigan(box_side=1.0, density_gain=300.0, bound_radius=0.35, hidden_dim=16)
    generator.siren.final_layer.bias.data += 0.1
    w = torch.zeros(1, generator.siren.style_dim)
    s = settings(white_back=True, num_steps=48)
    exact = Scene(generator, w, exact=True).look(camera(), s)
    scene = Scene(generator, w, proposal=16, dtype=dtype)
    seen = scene.look(camera(), s)
    assert exact.image.std() > 0.05 and scene.occupancy is None
    assert psnr(seen.image / 2, exact.image / 2) > 30
    assert seen.image.dtype == torch.float32


def test_what_a_proposal_cannot_do_is_refused() -> None:
    field, s = Painted(ball), settings()
    with pytest.raises(ValueError, match="sample per ray or more, got 0"):
        Proposal(0)
    with pytest.raises(ValueError, match="no gradients"):
        render(field, camera(), s, proposal=Proposal(4))
    two = Cameras.cat([camera(), camera()])
    for cameras, changes, why in (
        (two, {}, "one scene and camera"),
        (camera(), {"noise_std": 1.0}, "noise_std must be 0"),
        (camera(), {"jitter": True}, "jitter must be False"),
    ):
        with pytest.raises(ValueError, match=why):
            propose(field, cameras, dataclasses.replace(s, **changes))
    occupancy = find_occupancy(field, 0.7, s)
    with torch.no_grad(), pytest.raises(ValueError, match="without occupancy"):
        render(field, camera(), s, proposal=Proposal(4), occupancy=occupancy)


def test_a_look_that_goes_far_does_not_spoil_the_next() -> None:
    s, field, proposal = settings(), Painted(ball), Proposal(8)
    with torch.no_grad():
        fresh = render(field, camera(), s, proposal=Proposal(8)).image
        render(field, camera(), dataclasses.replace(s, ray_end=9.0), proposal=proposal)
        after = render(field, camera(), s, proposal=proposal).image
    assert_close(after, fresh)

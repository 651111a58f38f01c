"""The one ray loop: analytic scenes, a slow oracle, chunks, noise, precision, gradients."""

import dataclasses
import math
from typing import Any

import oracles
import pytest
import torch
from oracles import BallField, FogField, WaveField
from torch import Tensor
from torch.testing import assert_close

from rendering.cameras import Cameras, Patch
from rendering.renderer import Rendering, render
from rendering.samples import LOCKED_DIRECTION
from rendering.settings import RenderSettings

HIERARCHICAL = pytest.mark.parametrize("hierarchical", [False, True])


def settings(**changes: Any) -> RenderSettings:
    values = {"resolution": 5, "num_steps": 6, "ray_start": 0.6, "ray_end": 1.4, "jitter": False}
    return RenderSettings(**{**values, **changes})


def two_cameras(dtype: torch.dtype = torch.float32) -> Cameras:
    return Cameras.from_angles(torch.tensor([0.4, 1.9], dtype=dtype), 1.2, 30.0)


def waves(dtype: torch.dtype = torch.float32) -> WaveField:
    rng = torch.Generator().manual_seed(5)
    return WaveField(torch.randn(6, 4, generator=rng, dtype=dtype).requires_grad_())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_same(a: Rendering, b: Rendering, atol: float) -> None:
    assert_close(a.image, b.image, atol=atol, rtol=0)
    assert_close(a.depth, b.depth, atol=atol, rtol=0)
    assert_close(a.opacity, b.opacity, atol=atol, rtol=0)


# -- scenes with known pictures


def ball_geometry(cameras: Cameras, resolution: int, radius: float) -> tuple[Tensor, Tensor]:
    """Where each ray enters a ball at the origin, and how long it stays inside (or below 0)."""
    origins, directions = cameras.rays(resolution, resolution)
    nearest = -(origins * directions).sum(-1)
    missed_by = origins.square().sum(-1) - nearest.square() - radius**2
    half = (-missed_by).clamp(min=0).sqrt()
    shape = (len(cameras), resolution, resolution)
    return (nearest - half).reshape(shape), torch.where(missed_by < 0, 2 * half, -1).reshape(shape)


@HIERARCHICAL
def test_a_ball_has_its_silhouette_and_depth(hierarchical: bool) -> None:
    cameras, steps = two_cameras(), 80
    entry, chord = ball_geometry(cameras, 12, 0.2)
    step = 0.8 / (steps - 1)
    picture = render(
        BallField(0.2), cameras, settings(resolution=12, num_steps=steps, hierarchical=hierarchical)
    )
    assert picture.depth is not None and picture.opacity is not None
    hit, missed = chord > step, chord < 0
    assert hit.sum() > 60 and missed.sum() > 60
    assert_close(picture.opacity[hit], torch.ones(int(hit.sum())))
    assert not picture.opacity[missed].any() and not picture.depth[missed].any()
    late = (picture.depth - entry)[hit]
    assert late.min() > -1e-5 and late.max() < step + 1e-5
    colour = picture.image.movedim(1, -1)
    assert_close(colour[hit], torch.tensor([0.25, 0.5, 0.75]).expand(int(hit.sum()), 3))
    assert not colour[missed].any()


def test_the_fine_pass_finds_surfaces_more_exactly() -> None:
    entry, chord = ball_geometry(two_cameras(), 12, 0.2)
    hit = chord > 0.06

    def error(hierarchical: bool) -> Tensor:
        s = settings(resolution=12, num_steps=16, hierarchical=hierarchical)
        depth = render(BallField(0.2), two_cameras(), s).depth
        assert depth is not None
        return (depth - entry)[hit].abs().mean()

    assert error(hierarchical=True) < 0.5 * error(hierarchical=False)


def test_a_camera_further_away_sees_the_ball_further_away() -> None:
    camera = Cameras.from_angles(0.3, 1.1, 20.0, radius=2.0)
    s = settings(num_steps=101, ray_start=1.0, ray_end=3.0, hierarchical=False)
    depth = render(BallField(0.5), camera, s).depth
    assert depth is not None
    assert 1.5 <= float(depth[0, 2, 2]) <= 1.52


def test_pictures_are_upright_and_not_mirrored() -> None:
    # red at +x (right of the frontal camera), green at +y (above), blue elsewhere
    class Corners:
        def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
            right, above = points[..., :1] > 0.02, points[..., 1:2] > 0.02
            colour = torch.cat([right, above, ~right & ~above], dim=-1).to(points.dtype)
            return colour, torch.full_like(points[..., :1], 1e6)

    front = Cameras.from_angles(math.pi / 2, math.pi / 2, 30.0)
    image = render(Corners(), front, settings(hierarchical=False)).image[0]
    assert image[:, 0, 0].tolist() == [0, 1, 0]
    assert image[:, 0, -1].tolist() == [1, 1, 0]
    assert image[:, -1, -1].tolist() == [1, 0, 0]
    assert image[:, -1, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("white_back", "last_back"), [(False, False), (True, False), (False, True)]
)
@HIERARCHICAL
def test_pictures_are_what_one_ray_at_a_time_gives(
    hierarchical: bool, white_back: bool, last_back: bool
) -> None:
    s = settings(
        resolution=3, hierarchical=hierarchical, white_back=white_back, last_back=last_back
    )
    field, pose = waves(torch.float64), (0.7, 1.1, 35.0, 1.1)
    yaw, pitch, fov, radius = pose
    camera = Cameras.from_angles(torch.tensor([yaw], dtype=torch.float64), pitch, fov, radius)
    with torch.no_grad():
        ours = render(field, camera, s)
        assert ours.depth is not None and ours.opacity is not None
        for row in range(3):
            for column in range(3):
                colour, depth, opacity = oracles.render_pixel(field, s, pose, row, column)
                assert_close(ours.image[0, :, row, column].tolist(), colour, atol=1e-8, rtol=1e-6)
                assert_close(float(ours.depth[0, row, column]), depth, atol=1e-8, rtol=1e-6)
                assert_close(float(ours.opacity[0, row, column]), opacity, atol=1e-8, rtol=1e-6)


def test_softplus_reaches_the_integral() -> None:
    s = settings(resolution=3, clamp_mode="softplus", hierarchical=True)
    field = waves(torch.float64)
    camera = Cameras.from_angles(torch.tensor([0.7], dtype=torch.float64), 1.1, 35.0)
    with torch.no_grad():
        ours = render(field, camera, s).image[0, :, 1, 2].tolist()
        colour, _, _ = oracles.render_pixel(field, s, (0.7, 1.1, 35.0, 1.0), 1, 2)
    assert_close(ours, colour, atol=1e-8, rtol=1e-6)


def test_empty_space_shows_the_background() -> None:
    nothing = FogField(-1.0)
    assert not render(nothing, two_cameras(), settings()).image.any()
    white = render(nothing, two_cameras(), settings(white_back=True))
    assert (white.image == 1).all()
    assert white.opacity is not None and not white.opacity.any()
    last = render(nothing, two_cameras(), settings(last_back=True, ray_end=1.25))
    assert last.depth is not None
    assert_close(last.depth, torch.full((2, 5, 5), 1.25))


# -- invariances


def test_turning_camera_and_scene_together_changes_nothing() -> None:
    field, turn = waves(torch.float64), 0.8
    cos, sin = math.cos(turn), math.sin(turn)
    # yaw grows from +x to +z: a turn by -angle about +y
    rotation = torch.tensor([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], dtype=torch.float64)

    def turned(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return field(points @ rotation, directions @ rotation)  # the inverse turn, on rows

    yaw = torch.tensor([0.3], dtype=torch.float64)
    with torch.no_grad():
        before = render(field, Cameras.from_angles(yaw, 1.2, 30.0), settings())
        after = render(turned, Cameras.from_angles(yaw + turn, 1.2, 30.0), settings())
        elsewhere = render(field, Cameras.from_angles(yaw + turn, 1.2, 30.0), settings())
    assert_same(after, before, atol=1e-9)
    assert (elsewhere.image - before.image).abs().max() > 0.05


@HIERARCHICAL
def test_each_camera_is_rendered_as_if_it_were_alone(hierarchical: bool) -> None:
    cameras, field = two_cameras(), waves()
    with torch.no_grad():
        both = render(field, cameras, settings(hierarchical=hierarchical))
        for i, camera in enumerate(cameras):
            alone = render(field, camera, settings(hierarchical=hierarchical))
            assert_close(alone.image[0], both.image[i], atol=1e-6, rtol=0)


@pytest.mark.parametrize("max_batch_size", [1, 24, 100, 10**9])
@HIERARCHICAL
def test_chunks_change_neither_picture_nor_gradient(
    hierarchical: bool, max_batch_size: int
) -> None:
    def picture(max_batch_size: int | None) -> tuple[Rendering, Tensor]:
        s = settings(
            hierarchical=hierarchical, max_batch_size=max_batch_size, jitter=True, noise_std=1.0
        )
        field = waves(torch.float64)
        result = render(field, two_cameras(torch.float64), s, generator=seeded())
        assert result.depth is not None
        (result.image.square().sum() + result.depth.sum()).backward()
        assert field.weights.grad is not None
        return result, field.weights.grad

    whole, gradient = picture(None)
    chunked, chunked_gradient = picture(max_batch_size)
    assert_same(chunked, whole, atol=1e-12)
    assert_close(chunked_gradient, gradient, atol=1e-10, rtol=1e-9)
    assert gradient.abs().min() > 0


@pytest.mark.parametrize("max_batch_size", [12, 50, 299, 300])
def test_no_more_points_than_allowed_are_evaluated_at_once(max_batch_size: int) -> None:
    field = waves()
    with torch.no_grad():
        render(field, two_cameras(), settings(max_batch_size=max_batch_size))
    assert max(field.evaluated) <= max_batch_size
    assert sum(field.evaluated) == 2 * (2 * 25 * 6)  # coarse and fine, 2 cameras, 25 rays, 6 steps
    rays = max_batch_size // (2 * 6)
    assert len(field.evaluated) == 2 * math.ceil(25 / rays)


def test_without_gradients_nothing_is_evaluated_twice() -> None:
    field = waves()
    with torch.no_grad():
        render(field, two_cameras(), settings(hierarchical=False, max_batch_size=100))
    once = sum(field.evaluated)
    field.evaluated.clear()
    render(
        field, two_cameras(), settings(hierarchical=False, max_batch_size=100)
    ).image.sum().backward()
    assert sum(field.evaluated) == 2 * once  # chunks are recomputed in the backward pass


@HIERARCHICAL
def test_a_patch_is_a_window_of_the_larger_picture(hierarchical: bool) -> None:
    cameras, field = two_cameras(), waves()
    large = settings(resolution=9, hierarchical=hierarchical)
    patch = Patch(torch.tensor([0.5, 0.5]), torch.tensor([[0.25, 0.125], [0.0, 0.5]]))
    with torch.no_grad():
        whole = render(field, cameras, large)
        window = render(field, cameras, dataclasses.replace(large, resolution=5), patch=patch)
    assert_close(window.image[0], whole.image[0, :, 3:8, 2:7], atol=1e-5, rtol=0)
    assert_close(window.image[1], whole.image[1, :, 0:5, 0:5], atol=1e-5, rtol=0)


# -- randomness


@HIERARCHICAL
def test_without_jitter_a_picture_draws_no_random_number(hierarchical: bool) -> None:
    rng, state = seeded(), torch.get_rng_state()
    before = rng.get_state()
    s = settings(hierarchical=hierarchical)
    first = render(waves(), two_cameras(), s, generator=rng)
    second = render(waves(), two_cameras(), s)
    assert_same(first, second, atol=0)
    assert torch.equal(before, rng.get_state())
    assert torch.equal(state, torch.get_rng_state())


def test_jitter_comes_from_the_generator_and_differs_between_pictures() -> None:
    twice = Cameras.cat([two_cameras()[0]] * 2)
    s = settings(jitter=True)
    first = render(waves(), twice, s, generator=seeded(1))
    assert_same(first, render(waves(), twice, s, generator=seeded(1)), atol=0)
    assert not torch.equal(first.image, render(waves(), twice, s, generator=seeded(2)).image)
    assert not torch.equal(first.image[0], first.image[1])


class Recorder(FogField):
    """Notes how far from the camera at radius 1 its points lie."""

    def __init__(self, density: float) -> None:
        super().__init__(density)
        self.depths: list[Tensor] = []

    def record(self, cameras: Cameras, s: RenderSettings) -> list[Tensor]:
        self.origin = cameras.origin[:, None]
        render(self, cameras, s, generator=seeded())
        return self.depths

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        depths = (points - self.origin).norm(dim=-1)
        self.depths.append(depths.reshape(len(points), 25, -1))
        return super().__call__(points, directions)


def test_coarse_samples_lie_in_their_strata_with_jitter_and_on_the_grid_without() -> None:
    grid = torch.linspace(0.6, 1.4, 6).expand(2, 25, 6)
    s = settings(hierarchical=False)
    (plain,) = Recorder(1.0).record(two_cameras(), s)
    assert_close(plain, grid)
    (jittered,) = Recorder(1.0).record(two_cameras(), dataclasses.replace(s, jitter=True))
    offset = (jittered - grid) / 0.16
    assert offset.abs().max() <= 0.5 + 1e-5
    assert offset.std() > 0.25  # 1 / sqrt(12) = 0.29


def test_fine_samples_are_random_with_jitter_and_quantiles_without() -> None:
    _, fine = Recorder(-1.0).record(two_cameras(), settings())  # no mass: evenly spread
    expected = 0.68 + (torch.arange(6) + 0.5) / 6 * 0.64  # between the outermost midpoints
    assert_close(fine, expected.expand(2, 25, 6), atol=1e-5, rtol=0)
    coarse, fine = Recorder(-1.0).record(two_cameras(), settings(jitter=True))
    assert fine.std(dim=(0, 1)).min() > 0.1  # no longer in strata of their own
    first, last = (coarse[..., :2].mean(-1), coarse[..., -2:].mean(-1))
    assert (fine >= first[..., None] - 1e-4).all() and (fine <= last[..., None] + 1e-4).all()


def test_density_noise_is_normal_with_the_standard_deviation_asked_for() -> None:
    class Slab:  # raw density 5 at the first sample, far below zero at the second
        def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
            raw = torch.tensor([5.0, -1e6]).repeat(points.shape[1] // 2)
            return torch.ones_like(points), raw.expand(len(points), -1)[..., None]

    s = settings(resolution=64, num_steps=2, hierarchical=False, noise_std=0.7)
    opacity = render(Slab(), two_cameras(), s, generator=seeded()).opacity
    assert opacity is not None
    noise = -torch.log1p(-opacity.double()) / 0.8 - 5
    count = noise.numel()
    assert abs(noise.mean()) < 5 * 0.7 / math.sqrt(count)
    assert abs(noise.std() - 0.7) < 5 * 0.7 / math.sqrt(2 * count)
    assert abs(noise[0].flatten() @ noise[1].flatten()) / (count / 2) < 5 * 0.49 / math.sqrt(
        count / 2
    )
    kurtosis = ((noise / 0.7) ** 4).mean()
    assert abs(kurtosis - 3) < 5 * math.sqrt(96 / count)


def test_no_noise_draws_no_number_beyond_the_jitter() -> None:
    def state_after(noise_std: float) -> Tensor:
        rng = seeded()
        s = settings(jitter=True, hierarchical=False, noise_std=noise_std)
        render(waves(), two_cameras(), s, generator=rng)
        return rng.get_state()

    rng = seeded()
    torch.rand(2, 25, 6, generator=rng)
    assert torch.equal(state_after(0.0), rng.get_state())
    assert not torch.equal(state_after(0.5), rng.get_state())


# -- view direction


def test_the_field_sees_the_direction_of_each_ray() -> None:
    cameras = two_cameras()
    image = render(FogField(1e6, lambda d: d), cameras, settings()).image
    directions = cameras.rays(5, 5)[1].transpose(1, 2).reshape(2, 3, 5, 5)
    assert_close(image, directions)


def test_a_locked_view_direction_changes_colours_and_leaves_geometry() -> None:
    cameras, field = two_cameras(), waves()
    free = render(field, cameras, settings(hierarchical=False))
    fog = FogField(1e6, lambda d: d)
    locked = render(fog, cameras, settings(lock_view_dependence=True)).image
    assert_close(locked, torch.tensor(LOCKED_DIRECTION)[None, :, None, None].expand(2, 3, 5, 5))
    field.weights.data[3:, 3] = 0  # density that does not depend on the direction
    free = render(field, cameras, settings())
    locked = render(field, cameras, settings(lock_view_dependence=True))
    assert_close(locked.depth, free.depth)
    assert (locked.image - free.image).abs().max() > 1e-3


# -- precision


@HIERARCHICAL
def test_geometry_and_integration_keep_full_precision_under_autocast(hierarchical: bool) -> None:
    s = settings(hierarchical=hierarchical, num_steps=12)
    plain = render(BallField(0.2), two_cameras(), s)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = render(BallField(0.2), two_cameras(), s)
    assert mixed.image.dtype == torch.float32
    assert_same(mixed, plain, atol=0)


@pytest.mark.parametrize("max_batch_size", [None, 60])
def test_only_the_field_follows_autocast(max_batch_size: int | None) -> None:
    seen = []

    class Probe(WaveField):
        def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
            seen.append((points.dtype, (points @ self.weights[:3]).dtype))
            return super().__call__(points, directions)

    field = Probe(waves().weights.detach().requires_grad_())
    s = settings(hierarchical=False, max_batch_size=max_batch_size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        picture = render(field, two_cameras(), s)
    forward = len(seen)
    picture.image.sum().backward()  # chunks are recomputed in the precision of the forward pass
    assert (len(seen) > forward) == (max_batch_size is not None)
    assert set(seen) == {(torch.float32, torch.bfloat16)}
    assert picture.image.dtype == torch.float32
    exact = render(field, two_cameras(), s).image
    assert 0 < (picture.image - exact).abs().max() < 0.2


# -- gradients


def test_a_picture_has_the_gradient_of_its_formula() -> None:
    weights = waves(torch.float64).weights.detach()
    cameras = two_cameras(torch.float64)[0]

    def picture(weights: Tensor) -> tuple[Tensor, ...]:
        s = settings(resolution=2, hierarchical=False, clamp_mode="softplus")
        result = render(WaveField(weights), cameras, s)
        assert result.depth is not None
        return result.image, result.depth

    assert torch.autograd.gradcheck(picture, weights.requires_grad_())


def test_gradients_reach_the_camera() -> None:
    def picture(yaw: Tensor, pitch: Tensor) -> Tensor:
        s = settings(resolution=2, hierarchical=False, clamp_mode="softplus")
        return render(waves(torch.float64), Cameras.from_angles(yaw, pitch, 30.0), s).image

    angles = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.4, 1.2)]
    assert torch.autograd.gradcheck(picture, angles)


def test_both_passes_send_gradients_to_the_field() -> None:
    # all gradient comes through values at sample points: each of them is asked for one
    class Values:
        def __init__(self) -> None:
            self.raw: list[Tensor] = []

        def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
            self.raw.append(torch.full_like(points[..., :1], 0.5).requires_grad_())
            return points, self.raw[-1]

    field = Values()
    render(field, two_cameras(), settings()).image.square().sum().backward()
    coarse, fine = (raw.grad for raw in field.raw)
    assert coarse is not None and coarse.any()
    assert fine is not None and fine.any()


def test_the_field_may_have_any_number_of_channels() -> None:
    def field(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(*points.shape[:2], 7), torch.full_like(points[..., :1], 1e6)

    assert_close(render(field, two_cameras(), settings()).image, torch.ones(2, 7, 5, 5))

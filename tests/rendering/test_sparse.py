"""Pictures that leave out empty, hidden and crowded samples against pictures that do not."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import BallField, FogField
from torch import Tensor
from torch.testing import assert_close

from generators.pigan import PiGAN
from rendering.cameras import Cameras, Patch
from rendering.field import Field
from rendering.renderer import Rendering, render
from rendering.settings import RenderSettings
from rendering.skip import farthest, find_occupancy
from rendering.sparse import FAINT, SECTION

BACKGROUNDS: dict[str, dict[str, Any]] = {
    "black": {},
    "white_back": {"white_back": True},
    "last_back": {"last_back": True},
    "locked": {"lock_view_dependence": True},
}
PASSES = pytest.mark.parametrize("hierarchical", [False, True], ids=["coarse", "fine"])
CLAMPS = pytest.mark.parametrize("clamp_mode", ["relu", "softplus"])


def settings(**changes: Any) -> RenderSettings:
    values = {"resolution": 16, "num_steps": 24, "ray_start": 0.6, "ray_end": 1.4, "jitter": False}
    return RenderSettings(**{**values, **changes})


def camera(yaw: float = 1.2, pitch: float = 1.3, fov: float = 40.0) -> Cameras:
    return Cameras.from_angles(yaw, pitch, fov)


class Counted:
    """A field that counts the points it is asked for."""

    def __init__(self, field: Field) -> None:
        self.field, self.points = field, 0

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        self.points += points.shape[1]
        return self.field(points, directions)


class Blobs:
    """Soft coloured blobs of any number of channels, as smooth as a trained scene."""

    def __init__(self, channels: int = 3, gain: float = 300.0) -> None:
        rng = torch.Generator().manual_seed(3)
        self.centres = 0.5 * torch.rand(5, 3, generator=rng) - 0.25
        self.colours = torch.randn(6, channels, generator=rng)
        self.gain = gain

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        offsets = points[..., None, :] - self.centres
        near = torch.exp(-offsets.square().sum(-1) / 0.1**2)
        waves = torch.cat([12 * points, 2 * directions], dim=-1) @ self.colours
        return torch.sigmoid(waves), self.gain * (near.sum(-1, keepdim=True) - 0.4)


class Raised:
    """Of a network's scene only the densest part of space, as in a trained one."""

    def __init__(self, generator: PiGAN, reach: float, share: float, softplus: bool) -> None:
        rng = torch.Generator().manual_seed(4)
        z = torch.randn(1, generator.latent_dim, generator=rng)
        self.field = generator.field(generator.mapping(z))
        points = (2 * torch.rand(1, 3000, 3, generator=rng) - 1) * reach
        self.offset = self.field.density(points).quantile(1 - share) + 10 * softplus

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        radiance, raw = self.field(points, directions)
        return radiance, raw - self.offset


def psnr(a: Tensor, b: Tensor) -> float:
    """Of pictures in 0..1."""
    return -10 * math.log10(max(float((a - b).square().mean()), 1e-12))


@torch.no_grad()
def both(
    field: Field, cameras: Cameras, s: RenderSettings, **options: Any
) -> tuple[Rendering, Rendering, float]:
    """The full picture, the sparse one, and how many times fewer points that one took."""
    occupancy = find_occupancy(field, 1.02 * farthest(cameras, s), s)
    counted = Counted(field)
    seed = torch.Generator
    full = render(counted, cameras, s, generator=seed().manual_seed(1), **options)
    points, counted.points = counted.points, 0
    rng = seed().manual_seed(1)
    sparse = render(counted, cameras, s, generator=rng, occupancy=occupancy, **options)
    return full, sparse, points / counted.points


def assert_alike(full: Rendering, sparse: Rendering, s: RenderSettings) -> None:
    """45 dB in colour, and as much in opacity and depth."""
    assert full.image.std() > 0.003  # something is seen
    assert psnr(full.image, sparse.image) > 45
    assert full.opacity is not None and sparse.opacity is not None
    assert full.depth is not None and sparse.depth is not None
    assert psnr(full.opacity, sparse.opacity) > 45
    assert psnr(full.depth / s.ray_end, sparse.depth / s.ray_end) > 45


@PASSES
@CLAMPS
@pytest.mark.parametrize(
    ("background", "share"),
    [("black", 0.1), ("white_back", 0.5), ("last_back", 0.1), ("last_back", 0.5), ("locked", 0.3)],
)
@pytest.mark.parametrize(
    ("model", "gain"),
    [
        ("TallSiren", 10.0),
        ("SpatialSiren", 100.0),
        ("EmbeddingSiren128", 30.0),
        ("EmbeddingSiren256", 300.0),
    ],
)
def test_random_networks_look_the_same(
    model: str,
    gain: float,
    share: float,
    background: str,
    clamp_mode: str,
    hierarchical: bool,
    tiny_pigan: Callable[..., PiGAN],
) -> None:
    grid = {"grid_size": 8} if model.startswith("Embedding") else {}
    generator = tiny_pigan(model=model, density_gain=gain, hidden_dim=16, **grid)
    boxed = model != "TallSiren"
    near, far, fov = (0.88, 1.12, 12.0) if boxed else (0.6, 1.4, 40.0)
    s = settings(
        resolution=12,
        ray_start=near,
        ray_end=far,
        hierarchical=hierarchical,
        clamp_mode=clamp_mode,
        **BACKGROUNDS[background],
    )
    softplus = clamp_mode == "softplus"
    with torch.no_grad():
        field = Raised(generator, 0.1 if boxed else 0.4, share, softplus)
    full, sparse, _ = both(field, camera(fov=fov), s)
    assert_alike(full, sparse, s)


@pytest.mark.parametrize("background", ["black", "white_back", "last_back"])
@CLAMPS
@PASSES
def test_smooth_scenes_look_the_same_and_take_a_fifth_of_the_points(
    hierarchical: bool, clamp_mode: str, background: str
) -> None:
    s = settings(
        resolution=20,
        num_steps=48,
        hierarchical=hierarchical,
        clamp_mode=clamp_mode,
        **BACKGROUNDS[background],
    )
    full, sparse, fewer = both(Blobs(), camera(), s)
    assert_alike(full, sparse, s)
    assert fewer > 5


@pytest.mark.parametrize("channels", [1, 32])
def test_radiance_may_have_any_number_of_channels(channels: int) -> None:
    s = settings(white_back=True)
    full, sparse, fewer = both(Blobs(channels), camera(), s)
    assert full.image.shape[1] == channels
    assert_alike(full, sparse, s)
    assert fewer > 3


@PASSES
def test_random_depths_are_the_same_ones(hierarchical: bool) -> None:
    s = settings(jitter=True, hierarchical=hierarchical)
    full, sparse, fewer = both(Blobs(), camera(), s)
    assert_alike(full, sparse, s)
    assert fewer > 2


@PASSES
def test_a_hard_ball_has_its_silhouette_and_depth(hierarchical: bool) -> None:
    s = settings(resolution=32, hierarchical=hierarchical)
    full, sparse, fewer = both(BallField(0.2), camera(), s)
    assert torch.equal(full.opacity, sparse.opacity)  # pyright: ignore[reportArgumentType]
    assert_close(full.depth, sparse.depth, atol=1e-5, rtol=0)
    assert_close(full.image, sparse.image, atol=1e-5, rtol=0)
    assert fewer > 5


def test_nothing_is_looked_at_behind_what_is_opaque() -> None:
    s = settings(num_steps=60, hierarchical=False)
    seen = []

    def wall(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(points[0])
        raw = torch.full_like(points[..., :1], 300.0)
        return torch.ones_like(points), raw

    occupancy = find_occupancy(FogField(300.0).__call__, 1.02 * farthest(camera(), s), s)
    with torch.no_grad():
        picture = render(wall, camera(), s, occupancy=occupancy)
    depth = (torch.cat(seen) - camera().origin).norm(dim=-1)
    # light falls below FAINT 0.02 behind the first sample: the first section, of steps of 0.0136
    assert -math.log(FAINT) / 300 < 0.025
    assert depth.max() < 0.6 + SECTION * 0.8 / 59 + 1e-5
    assert (1 - picture.image).abs().max() <= FAINT


def test_the_last_sample_is_the_background_where_nothing_is() -> None:
    def field(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(9 * points), torch.full_like(points[..., :1], -1.0)

    s = settings(last_back=True)
    full, sparse, fewer = both(field, camera(), s)
    assert_close(sparse.image, full.image)
    assert full.image.std() > 0.1
    assert fewer > 20  # one sample of 48 is looked at


def test_the_last_sample_is_opaque_however_thin_the_mist() -> None:
    def mist(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        far = (points - camera().origin.to(points)).norm(dim=-1, keepdim=True) - 1.39
        return torch.full_like(points, 0.7), 1e-3 * far

    full, sparse, _ = both(mist, camera(), settings(hierarchical=False))
    assert full.opacity is not None and full.opacity.min() > 0.99
    assert_close(sparse.image, full.image)


def test_what_lies_outside_of_the_known_cube_is_seen_too() -> None:
    s = settings()
    occupancy = find_occupancy(Blobs(), 0.1, s)  # a small part of the scene
    with torch.no_grad():
        full = render(Blobs(), camera(), s)
        sparse = render(Blobs(), camera(), s, occupancy=occupancy)
    assert_alike(full, sparse, s)


def test_a_camera_beside_the_scene_sees_the_same() -> None:
    s = settings(ray_start=0.05, ray_end=1.2)
    moved = camera()
    shift = torch.eye(4)
    shift[:3, 3] = torch.tensor([0.3, -0.2, 0.1])
    moved = dataclasses.replace(moved, cam2world=shift @ moved.cam2world)
    full, sparse, fewer = both(Blobs(), moved, s)
    assert_alike(full, sparse, s)
    assert fewer > 3


def test_an_empty_scene_is_its_background() -> None:
    for white_back in (False, True):
        s = settings(white_back=white_back)
        full, sparse, fewer = both(FogField(-1.0).__call__, camera(), s)
        assert torch.equal(sparse.image, full.image)
        assert sparse.opacity is not None and not sparse.opacity.any()
        assert fewer > 1000


@pytest.mark.parametrize("points", [240, 4000])
def test_bundles_change_nothing(points: int) -> None:
    s = settings(last_back=True)
    whole = both(Blobs(), camera(), s)[1]
    parts = both(Blobs(), camera(), dataclasses.replace(s, max_batch_size=points))[1]
    assert_close(parts.image, whole.image, atol=1e-6, rtol=0)
    assert_close(parts.depth, whole.depth, atol=1e-6, rtol=0)


def test_a_window_of_the_picture_looks_the_same() -> None:
    s = settings()
    window = Patch(torch.tensor([0.5]), torch.tensor([[0.2, 0.3]]))
    full, sparse, _ = both(Blobs(), camera(), s, patch=window)
    assert_alike(full, sparse, s)


def test_16_bit_fields_are_looked_at_in_16_bits() -> None:
    seen = set()

    def field(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        radiance, raw = Blobs()(points, directions)
        mixed = radiance @ torch.eye(3)
        seen.add(mixed.dtype)
        return mixed, raw

    s = settings()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        occupancy = find_occupancy(field, 0.7, s)
        picture = render(field, camera(), s, occupancy=occupancy)
    assert seen == {torch.bfloat16}
    assert picture.image.dtype == torch.float32
    full = render(Blobs(), camera(), s)
    assert psnr(picture.image, full.image) > 40  # 8 bits of mantissa


def test_gradients_noise_and_batches_are_refused() -> None:
    s = settings()
    occupancy = find_occupancy(Blobs(), 0.7, s)
    with pytest.raises(ValueError, match=r"no gradients: render under torch\.no_grad"):
        render(Blobs(), camera(), s, occupancy=occupancy)
    with torch.no_grad():
        two = Cameras.cat([camera(), camera()])
        with pytest.raises(ValueError, match="one scene and camera at a time, got 2"):
            render(Blobs(), two, s, occupancy=occupancy)
        with pytest.raises(ValueError, match=r"noise_std must be 0 to leave out.*got 0\.5"):
            render(Blobs(), camera(), settings(noise_std=0.5), occupancy=occupancy)

"""16-bit products of a field's blocks: what they cost in pictures and gradients, and what not."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generators.pigan import PiGAN
from rendering.cameras import Cameras
from rendering.settings import RenderSettings
from siren.layers import SineLayer

BF16 = torch.bfloat16
SETTINGS = RenderSettings(20, 16, 0.88, 1.12, jitter=False, white_back=True)
COMPILED = pytest.mark.parametrize("compiled", [False, True])


@contextmanager
def mixed() -> Iterator[None]:
    with torch.autocast("cpu", dtype=BF16):
        yield


def fitted(steps: int) -> tuple[PiGAN, Tensor]:
    """A field of 4 x 64 that has learned a wavy, striped ball, and its style."""
    generator = PiGAN(latent_dim=8, hidden_dim=64, num_layers=4, mapping_dim=8, density_gain=300.0)
    w = generator.mapping(torch.randn(1, 8)).detach()
    optimizer = torch.optim.Adam(generator.siren.parameters())
    loss = torch.tensor(torch.inf)
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * 0.03 ** (i / steps)
        points = 0.24 * torch.rand(1, 1024, 3) - 0.12
        radius = points.norm(dim=-1, keepdim=True)
        edge = 0.07 + 0.01 * torch.sin(40 * points[..., :1])
        radiance, density = generator.field(w)(points, points / radius)
        loss = (radiance - 0.5 - 0.4 * torch.sin(50 * points)).square().mean()
        loss = loss + (density / 100 - 30 * (edge - radius).clamp(-0.05, 0.05)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    return generator, w


@pytest.fixture(scope="module")
def ball() -> tuple[PiGAN, Tensor]:
    torch.manual_seed(0)
    return fitted(250)


def camera() -> Cameras:
    return Cameras.from_angles(torch.tensor([1.8]), 1.4, 12.0)


@torch.no_grad()
def picture(generator: PiGAN, w: Tensor, settings: RenderSettings) -> Tensor:
    rng = torch.Generator().manual_seed(3)
    return generator.synthesis(w, camera(), settings, generator=rng).image


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(float((a - b).square().mean()) / 4)


def shades(settings: str) -> RenderSettings:
    kinds = {
        "white_back": {},
        "last_back": {"white_back": False, "last_back": True},
        "noise": {"noise_std": 0.5, "jitter": True},
        "lock_view_dependence": {"lock_view_dependence": True},
        "softplus": {"clamp_mode": "softplus"},
    }
    return dataclasses.replace(SETTINGS, **kinds[settings])


# -- pictures


@COMPILED
@pytest.mark.parametrize(
    "kind", ["white_back", "last_back", "noise", "lock_view_dependence", "softplus"]
)
def test_pictures_of_a_fitted_field_keep_60_db(
    kind: str, compiled: bool, ball: tuple[PiGAN, Tensor]
) -> None:
    generator, w = ball
    generator.siren.compiled = compiled
    settings = shades(kind)
    full = picture(generator, w, settings)
    with mixed():
        rounded = picture(generator, w, settings)
    assert full.std() > 0.3 and rounded.dtype == torch.float32
    assert 60 < psnr(rounded, full) < 90


@COMPILED
def test_pictures_of_the_full_sized_field_keep_60_db(compiled: bool) -> None:
    generator = PiGAN(latent_dim=8, mapping_dim=8)
    w = generator.mapping(torch.randn(1, 8))
    generator.siren.compiled = compiled
    settings = dataclasses.replace(
        SETTINGS, resolution=10, num_steps=8, last_back=True, white_back=False
    )
    full = picture(generator, w, settings)
    with mixed():
        rounded = picture(generator, w, settings)
    assert 60 < psnr(rounded, full) < 90


# -- gradients


@COMPILED
def test_gradients_keep_their_direction(compiled: bool, ball: tuple[PiGAN, Tensor]) -> None:
    generator, w = ball
    generator.siren.compiled = compiled
    w = w.clone().requires_grad_()
    points = 0.2 * torch.rand(1, 1500, 3) - 0.1
    views = torch.nn.functional.normalize(torch.randn_like(points), dim=-1)
    mix = torch.randn(1, 1500, 4) / torch.tensor([1, 1, 1, 100])
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=BF16, enabled=enabled):
            out = torch.cat(generator.field(w)(points, views), dim=-1)
        weights = [w, *generator.siren.parameters()]
        grads = torch.autograd.grad((out * mix).sum(), weights)
        found.append((grads[0].flatten(), torch.cat([g.flatten() for g in grads[1:]])))
    for full, rounded in zip(*found, strict=True):
        assert 0.999 < torch.cosine_similarity(full, rounded, dim=0)
        assert not torch.equal(full, rounded)


@COMPILED
def test_points_of_zero_gradient_are_left_out_in_16_bits_too(
    compiled: bool, ball: tuple[PiGAN, Tensor]
) -> None:
    generator, w = ball
    generator.siren.compiled = compiled
    points = (0.2 * torch.rand(1, 40, 3) - 0.1).requires_grad_()
    with mixed():
        radiance, density = generator.field(w)(points, torch.ones_like(points))
    taught = torch.arange(40) % 4 == 0
    (grad,) = torch.autograd.grad((density[0] * taught[:, None]).sum(), points)
    assert grad[0][taught].any(-1).all() and not grad[0][~taught].any()


# -- one layer


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("rows", [(), (13,)], ids=["a start", "a start per point"])
def test_a_layer_is_the_sine_of_its_rounded_product(
    dtype: torch.dtype, rows: tuple[int, ...]
) -> None:
    x, weight = (2 * torch.rand(13, 6) - 1).to(dtype), 2.5 * torch.randn(37, 6)
    start = 3 * torch.randn(*rows, 37)
    phase = x.double() @ weight.to(dtype).double().t() + start
    layer = SineLayer(weight, first=False, dtype=dtype)
    y, slope = layer.sine_and_cosine(x, start)
    assert torch.equal(y, layer.sine(x, start)) and y.dtype == dtype
    rounding = 2**-9 if dtype == BF16 else 1e-5
    assert_close(y.double(), phase.sin(), atol=rounding, rtol=0)
    assert_close(slope.double(), phase.cos(), atol=1e-5, rtol=0)


def test_coordinates_are_not_rounded() -> None:
    x, weight = 1 + torch.rand(50, 3) / 1000, 20 * torch.randn(8, 3)
    layer = SineLayer(weight, first=True, dtype=BF16)
    _, slope = layer.sine_and_cosine(x, torch.zeros(8))
    assert_close(slope, (x @ weight.t()).cos(), atol=1e-4, rtol=0)


# -- density alone


@COMPILED
def test_density_alone_is_the_density_of_the_whole_in_16_bits(
    compiled: bool, ball: tuple[PiGAN, Tensor]
) -> None:
    generator, w = ball
    generator.siren.compiled = compiled
    points = 0.2 * torch.rand(1, 30, 3) - 0.1
    field = generator.field(w)
    with torch.no_grad(), mixed():
        assert torch.equal(field.density(points), field(points, points)[1])


def test_density_alone_does_not_touch_the_colour_layer(
    ball: tuple[PiGAN, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, w = ball
    generator.siren.compiled = False
    field, points = generator.field(w), 0.2 * torch.rand(1, 30, 3) - 0.1
    monkeypatch.delattr("siren.layers.TorchScene._color_start")
    with torch.no_grad():
        assert field.density(points).shape == (1, 30, 1)
        with pytest.raises(AttributeError):
            field(points, points)


def test_a_field_in_double_precision_is_left_to_torch(ball: tuple[PiGAN, Tensor]) -> None:
    w = ball[1].double()
    generator = PiGAN(latent_dim=8, hidden_dim=64, num_layers=4, mapping_dim=8).double()
    points = 0.1 * torch.randn(1, 9, 3, dtype=torch.float64)
    plain = generator.field(w)(points, points)
    generator.siren.compiled = True
    assert torch.equal(generator.field(w)(points, points)[0], plain[0])

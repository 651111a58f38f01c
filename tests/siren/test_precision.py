"""16-bit products of a field's blocks: what they cost in pictures and gradients, and what not."""

import dataclasses
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generators.pigan import PiGAN
from rendering.cameras import Cameras
from rendering.settings import RenderSettings
from siren import native
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


def test_points_of_zero_gradient_are_left_out_in_16_bits_too(ball: tuple[PiGAN, Tensor]) -> None:
    generator, w = ball
    generator.siren.compiled = False
    points = (0.2 * torch.rand(1, 40, 3) - 0.1).requires_grad_()
    with mixed():
        radiance, density = generator.field(w)(points, torch.ones_like(points))
    taught = torch.arange(40) % 4 == 0
    (grad,) = torch.autograd.grad((density[0] * taught[:, None]).sum(), points)
    assert grad[0][taught].any(-1).all() and not grad[0][~taught].any()


# -- one layer


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("sizes", [(1, 2, 3), (13, 6, 37), (40, 64, 64), (205, 256, 32)])
def test_a_layer_is_the_sine_of_its_rounded_product(
    dtype: torch.dtype, sizes: tuple[int, int, int]
) -> None:
    points, inputs, outputs = sizes
    x = (2 * torch.rand(points, inputs) - 1).to(dtype)
    weight = torch.randn(outputs, inputs) * 6 / inputs**0.5
    phase = x.double() @ weight.to(dtype).double().t()
    for start in (3 * torch.randn(outputs), 3 * torch.randn(points, outputs)):
        for library in (None, native.compiled()):
            layer = SineLayer(weight, first=False, dtype=dtype, library=library)
            y, slope = layer.sine_and_cosine(x, start)
            assert torch.equal(y, layer.sine(x, start)) and y.dtype == dtype
            rounding = 2**-9 if dtype == BF16 else 1e-5
            assert_close(y.double(), (phase + start).sin(), atol=rounding, rtol=0)
            assert_close(slope.double(), (phase + start).cos(), atol=1e-5, rtol=0)


def test_the_compiled_sine_is_good_to_seven_digits_at_any_phase() -> None:
    library = native.compiled()
    start = torch.linspace(-300, 300, 1 << 14)
    nothing = torch.zeros(1, 1)
    layer = SineLayer(torch.zeros(len(start), 1), first=True, dtype=torch.float32, library=library)
    y, slope = layer.sine_and_cosine(nothing, start)
    assert_close(y[0].double(), start.double().sin(), atol=2e-7, rtol=0)
    assert_close(slope[0].double(), start.double().cos(), atol=2e-7, rtol=0)
    assert layer.sine(nothing, start.new_full((len(start),), torch.inf)).isnan().all()


def test_coordinates_are_not_rounded() -> None:
    x, weight = 1 + torch.rand(50, 3) / 1000, 20 * torch.randn(8, 3)
    for library in (None, native.compiled()):
        layer = SineLayer(weight, first=True, dtype=BF16, library=library)
        _, slope = layer.sine_and_cosine(x, torch.zeros(8))
        assert_close(slope, (x @ weight.t()).cos(), atol=1e-4, rtol=0)


# -- the compiler


def test_without_a_compiler_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    native.compiled.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="no-such-compiler was not found: install it, or name"):
        native.compiled()


def test_what_the_compiler_complains_about_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    native.compiled.cache_clear()
    monkeypatch.setattr(native, "FLAGS", ("--no-such-flag",))
    with pytest.raises(ValueError, match="cannot compile native.cpp: .*no-such-flag"):
        native.compiled()
    native.compiled.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86 processors")
def test_a_processor_without_16_bit_products_rounds_activations_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    native.compiled.cache_clear()
    monkeypatch.setattr(native, "TARGETS", (("-march=x86-64-v3",),))  # AVX2
    library = native.compiled()
    native.compiled.cache_clear()
    assert not library.has_bf16 and not library.takes(torch.zeros(2, 2, dtype=BF16))
    x, weight, start = torch.rand(77, 9), 2 * torch.randn(37, 9), torch.randn(37)
    exact = (x.double() @ weight.double().t() + start).sin()
    for dtype in (torch.float32, BF16):
        layer = SineLayer(weight, first=True, dtype=dtype, library=library)
        y = layer.sine(x, start)
        assert_close(y.double(), exact, atol=2**-9 if dtype == BF16 else 2e-6, rtol=0)
    assert torch.equal(y, SineLayer(weight, first=True, dtype=torch.float32, library=library)
                       .sine(x, start).to(BF16))  # fmt: skip


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
    field, points = generator.field(w), 0.2 * torch.rand(1, 30, 3) - 0.1
    monkeypatch.delattr("siren.blocks._color_start")
    with torch.no_grad():
        assert field.density(points).shape == (1, 30, 1)
        with pytest.raises(NameError):
            field(points, points)


def test_a_field_in_double_precision_is_left_to_torch(ball: tuple[PiGAN, Tensor]) -> None:
    w = ball[1].double()
    generator = PiGAN(latent_dim=8, hidden_dim=64, num_layers=4, mapping_dim=8).double()
    points = 0.1 * torch.randn(1, 9, 3, dtype=torch.float64)
    plain = generator.field(w)(points, points)
    generator.siren.compiled = True
    assert torch.equal(generator.field(w)(points, points)[0], plain[0])


def test_the_number_of_threads_changes_nothing() -> None:
    library = native.compiled()
    x, start = 2 * torch.rand(1500, 8) - 1, torch.randn(1500, 40)
    layer = SineLayer(torch.randn(40, 8), first=False, dtype=torch.float32, library=library)
    alone = layer.sine(x, start)
    torch.set_num_threads(2)
    try:
        assert torch.equal(layer.sine(x, start), alone)
    finally:
        torch.set_num_threads(1)

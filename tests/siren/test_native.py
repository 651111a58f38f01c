"""The compiled field is torch's: values, gradients of everything, at every size and precision."""

import os
import platform
import shutil
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from siren import native
from siren.blocks import prepare_scenes
from siren.fields import FIELDS
from siren.layers import Affine, TorchScene, Weights
from siren.native import Library, NativeScene

BF16 = torch.bfloat16
NEEDS_BF16 = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX") or "g++") is None or BF16 not in native.compiled().dtypes,
    reason="this processor multiplies no bf16",
)
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(BF16, marks=NEEDS_BF16)], ids=str
)
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86 processors")


class Size(NamedTuple):
    hidden: int
    layers: int  # without the colour layer
    features: int = 3
    views: bool = True
    points: int = 50


SIZES = [
    Size(64, 2),
    Size(48, 1, points=1),  # one layer, one point, half a panel
    Size(33, 3, views=False, points=300),  # odd, and more points than one chunk
    Size(6, 2, features=1, points=97),
    Size(128, 2, features=35, points=96),  # as EmbeddingSiren128
    Size(40, 2, features=64, points=7),
]


def affine(out: int, inputs: int) -> Affine:
    return 1.7 * torch.randn(out, inputs) / inputs**0.5, torch.randn(out)


def field(size: Size) -> Weights:
    widths = [size.features] + [size.hidden] * (size.layers + 1)
    layers = [affine(size.hidden, width) for width in widths[:-1]]
    layers[-1] = affine(size.hidden, size.hidden + 3 * size.views)
    return Weights(layers, affine(1, size.hidden), affine(3, size.hidden))


def scenes(
    weights: Weights, size: Size, dtype: torch.dtype, library: Library | None = None
) -> tuple[TorchScene, NativeScene]:
    """Torch's and the compiled one."""
    library = library or native.compiled()
    ours = TorchScene(weights, view_direction=size.views, dtype=dtype)
    return ours, NativeScene(weights, view_direction=size.views, dtype=dtype, library=library)


def inputs(size: Size) -> tuple[Tensor, Tensor | None]:
    x, views = 2 * torch.rand(size.points, size.features) - 1, torch.randn(size.points, 3)
    return x, views if size.views else None


def gradients(
    scene: TorchScene | NativeScene, weights: Weights, given: tuple[Tensor, Tensor | None]
) -> list[Tensor]:
    """Of all weights and biases, then of the inputs, for gradients of the outputs from one seed."""
    rng = torch.Generator().manual_seed(5)
    mix = torch.randn(len(given[0]), 4, generator=rng)
    pairs = [*weights.layers, weights.density, weights.radiance]
    flat = [torch.ones_like(tensor) for pair in pairs for tensor in pair]
    own = list(zip(flat[::2], flat[1::2], strict=True))
    sums = Weights(own[:-2], own[-2], own[-1])
    views_too = given[1] is not None
    found = scene.backward(
        *given, mix[:, :3], mix[:, 3:], sums, points_too=True, views_too=views_too
    )
    return [total - 1 for total in flat] + [grad for grad in found if grad is not None]


def assert_near(found: Tensor, expected: Tensor, relative: float) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert float((found - expected).norm()) <= relative * float(expected.norm())


# -- against torch


@DTYPES
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_compiled_values_and_gradients_are_torchs(
    size: Size, threads: int, dtype: torch.dtype
) -> None:
    weights, given = field(size), inputs(size)
    ours, compiled = scenes(weights, size, dtype)
    torch.set_num_threads(threads)
    try:
        pairs = [*zip(compiled.evaluate(*given), ours.evaluate(*given), strict=True)]
        pairs += [(compiled.density(given[0]), ours.density(given[0]))]
        pairs += zip(
            gradients(compiled, weights, given), gradients(ours, weights, given), strict=True
        )
    finally:
        torch.set_num_threads(1)
    assert len(pairs) == 3 + 2 * (size.layers + 3) + 1 + size.views
    for k, (found, expected) in enumerate(pairs):
        assert expected.norm() > 0
        rounding = 5e-4 if k < 3 else 1e-2  # some 16-bit activations are rounded the other way
        assert_near(found, expected, 3e-6 if dtype == torch.float32 else rounding)


def test_in_full_precision_the_error_is_as_small_as_torchs() -> None:
    size = Size(256, 8, points=200)
    weights, given = field(size), inputs(size)
    wide = Weights(
        [(w.double(), b.double()) for w, b in weights.layers],
        (weights.density[0].double(), weights.density[1].double()),
        (weights.radiance[0].double(), weights.radiance[1].double()),
    )
    views = given[1]
    assert views is not None
    exact = TorchScene(wide, view_direction=True, dtype=torch.float64)
    truth = exact.evaluate(given[0].double(), views.double())
    errors = [
        [float((a.double() - b).norm()) for a, b in zip(scene.evaluate(*given), truth, strict=True)]
        for scene in scenes(weights, size, torch.float32)
    ]
    for ours, compiled in zip(*errors, strict=True):
        assert 0 < compiled < 1.5 * ours


@DTYPES
def test_the_number_of_threads_changes_no_value(dtype: torch.dtype) -> None:
    size = Size(40, 2, points=500)
    _, compiled = scenes(field(size), size, dtype)
    given = inputs(size)
    alone = compiled.evaluate(*given)
    torch.set_num_threads(2)
    try:
        assert all(map(torch.equal, compiled.evaluate(*given), alone))
    finally:
        torch.set_num_threads(1)


def test_inputs_may_lie_anywhere_in_memory() -> None:
    size = Size(40, 2)
    weights, (x, views) = field(size), inputs(size)
    assert views is not None
    apart = x.t().contiguous().t(), torch.cat([views, views], dim=1)[:, :3]
    _, compiled = scenes(weights, size, torch.float32)
    assert all(map(torch.equal, compiled.evaluate(*apart), compiled.evaluate(x, views)))
    grads = gradients(compiled, weights, apart), gradients(compiled, weights, (x, views))
    assert all(map(torch.equal, *grads))


@DTYPES
def test_density_alone_is_the_density_of_the_whole(dtype: torch.dtype) -> None:
    size = Size(40, 2, points=100)
    _, compiled = scenes(field(size), size, dtype)
    x, views = inputs(size)
    assert torch.equal(compiled.density(x), compiled.evaluate(x, views)[1])


def test_only_what_is_wanted_of_the_inputs_gradients_is_given() -> None:
    size = Size(40, 1)
    weights, given = field(size), inputs(size)
    _, compiled = scenes(weights, size, torch.float32)
    grads = torch.randn(size.points, 3), torch.randn(size.points, 1)
    for points_too in (True, False):
        for views_too in (True, False):
            found = compiled.backward(
                *given, *grads, weights, points_too=points_too, views_too=views_too
            )
            assert [grad is not None for grad in found] == [points_too, views_too]


@pytest.mark.parametrize("name", ["SpatialSiren", "EmbeddingSiren128"])
@pytest.mark.parametrize(("views", "bound"), [(True, 0.0), (False, 0.0), (True, 0.11)])
def test_a_compiled_network_is_the_plain_one(name: str, views: bool, bound: float) -> None:
    network = FIELDS[name](
        hidden_dim=40,
        num_layers=2,
        density_gain=3.0,
        view_direction=views,
        bound_radius=bound,
        grid_size=4 if name.startswith("Embedding") else None,
    )
    w = 0.3 * torch.randn(2, network.style_dim)
    place, directions = 0.24 * torch.rand(2, 150, 3) - 0.12, torch.randn(2, 150, 3)
    given = [v.requires_grad_() for v in (w, place, directions)]
    mix = torch.randn(2, 150, 4)
    mix[:, ::3] = 0
    network.compiled, found = True, []
    for network.blocked in (True, False):
        out = torch.cat(network.bind(given[0])(given[1], given[2]), dim=-1)
        grads = torch.autograd.grad(
            (out * mix).sum(), [*given, *network.parameters()], allow_unused=True
        )
        found.append([out.detach(), *(grad for grad in grads if grad is not None)])
    for ours, plain in zip(*found, strict=True):
        assert_near(ours, plain, 1e-5)


# -- sines


def line(dtype: torch.dtype, slope: float = 1.0) -> NativeScene:
    """Its density is sin(slope x), for one coordinate x."""
    first = torch.zeros(5, 1)
    first[2] = slope
    nothing = torch.zeros(5)
    head = (torch.nn.functional.one_hot(torch.tensor([2]), 5).float(), torch.zeros(1))
    weights = Weights(
        [(first, nothing), (torch.zeros(5, 5), nothing)], head, (torch.zeros(3, 5), torch.zeros(3))
    )
    return scenes(weights, Size(5, 1, 1, views=False), dtype)[1]


def test_the_sine_and_its_derivative_are_good_to_seven_digits_up_to_300_radians() -> None:
    scene, x = line(torch.float32), torch.linspace(-300, 300, 1 << 14)[:, None]
    assert_close(scene.density(x).double(), x.double().sin(), atol=2e-7, rtol=0)
    weights = field(Size(5, 1, 1, views=False))
    grads = torch.zeros(len(x), 3), torch.ones(len(x), 1)
    slope, _ = scene.backward(x, None, *grads, weights, points_too=True, views_too=False)
    assert slope is not None
    assert_close(slope.double(), x.double().cos(), atol=2e-7, rtol=0)


def test_a_phase_that_is_no_number_gives_none() -> None:
    assert line(torch.float32).density(torch.tensor([[torch.inf], [torch.nan]])).isnan().all()


@NEEDS_BF16
def test_coordinates_are_not_rounded() -> None:
    x = 1 + torch.rand(50, 1) / 1000
    sine = line(BF16, slope=20.0).density(x)
    assert_close(sine, (20 * x).sin(), atol=2**-9, rtol=0)


# -- other processors, and none


@X86
@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3"])  # SSE2 and AVX2
def test_a_lesser_processor_gives_the_same_and_leaves_16_bits_to_torch(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.compiled.cache_clear()
    monkeypatch.setattr(native, "TARGETS", ((f"-march={target}",),))
    library = native.compiled()
    native.compiled.cache_clear()
    size = Size(40, 2, features=35)
    weights, given = field(size), inputs(size)
    ours, compiled = scenes(weights, size, torch.float32, library)
    for a, b in zip(compiled.evaluate(*given), ours.evaluate(*given), strict=True):
        assert_near(a, b, 3e-6)
    pairs = gradients(compiled, weights, given), gradients(ours, weights, given)
    for a, b in zip(*pairs, strict=True):
        assert_near(a, b, 3e-6)
    assert library.dtypes == {torch.float32} and not library.takes(weights, BF16)


@pytest.mark.parametrize(
    ("dtype", "wide", "taken"),
    [(torch.float32, False, True), (torch.float32, True, False), (torch.float16, False, False)],
)
def test_what_the_library_cannot_do_is_left_to_torch(
    dtype: torch.dtype, wide: bool, taken: bool
) -> None:
    weights = field(Size(8, 1))
    layers = [(w[None].double() if wide else w[None], b[None, None]) for w, b in weights.layers]
    (scene,) = prepare_scenes(
        layers,
        weights.density,
        weights.radiance,
        view_direction=True,
        dtype=dtype,
        library=native.compiled(),
    )
    assert isinstance(scene, NativeScene) == taken


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

"""FiLM sine layers: the folded form is sin(frequency * (W x + b) + phase), value and gradient."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from siren.film import FilmLayer, affine, initial_bound, sine_affine


def modulated() -> tuple[FilmLayer, Tensor, Tensor, Tensor]:
    """A layer, points (2, 4, 5), and a frequency and a phase per style and unit."""
    layer = FilmLayer(5, 3).double()
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    frequency = 30 + 15 * torch.randn(2, 3, dtype=torch.float64)
    return layer, x, frequency, torch.randn(2, 3, dtype=torch.float64)


def test_the_folded_layer_is_the_modulated_sine() -> None:
    layer, x, frequency, phase = modulated()
    ours = sine_affine(x, *layer.fold(frequency, phase))
    plain = torch.sin(frequency[:, None] * layer.layer(x) + phase[:, None])
    assert_close(ours, plain)


def test_the_folded_layer_has_the_gradients_of_the_modulated_sine() -> None:
    layer, x, frequency, phase = modulated()
    inputs = [v.requires_grad_() for v in (x, frequency, phase)] + list(layer.parameters())
    ours = sine_affine(x, *layer.fold(frequency, phase))
    plain = torch.sin(frequency[:, None] * layer.layer(x) + phase[:, None])
    weights = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, weights),
        torch.autograd.grad(plain, inputs, weights),
        strict=True,
    ):
        assert b.abs().max() > 1e-3
        assert_close(a, b)


def test_each_style_modulates_its_own_points_only() -> None:
    layer, x, frequency, phase = modulated()
    both = sine_affine(x, *layer.fold(frequency, phase))
    second = sine_affine(x[1:], *layer.fold(frequency[1:], phase[1:]))
    assert_close(both[1:], second)


@pytest.mark.parametrize(("first", "bound"), [(True, 1 / 3), (False, math.sqrt(6 / 64) / 25)])
def test_initial_weights_are_uniform_within_their_bound(first: bool, bound: float) -> None:
    weight = FilmLayer(64, 400, first=first).layer.weight
    assert 0.99 * bound < weight.abs().max() <= bound
    assert_close(float(weight.detach().std()), bound / math.sqrt(3), rtol=0.02, atol=0)


def test_initial_bound_is_that_of_a_sine_of_frequency_25() -> None:
    assert_close(initial_bound(6), 1 / 25)


def test_a_sine_keeps_its_phase_in_full_precision_under_autocast() -> None:
    # a bias of hundreds of radians: in 16 bits it would be off by more than a quarter turn
    x, weight = torch.rand(1, 50, 3), torch.rand(1, 4, 3)
    bias = 700 + torch.rand(1, 1, 4)
    exact = sine_affine(x, weight, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = sine_affine(x, weight, bias)
    assert mixed.dtype == torch.float32
    assert_close(mixed, exact, atol=0.02, rtol=0)


def test_autocast_makes_the_product_a_16_bit_one() -> None:
    x, weight, bias = torch.rand(1, 5, 3), torch.rand(1, 4, 3), torch.zeros(1, 1, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = affine(x, weight, bias)
    assert_close(product, product.bfloat16().float(), atol=0, rtol=0)
    assert not torch.equal(product, affine(x, weight, bias))

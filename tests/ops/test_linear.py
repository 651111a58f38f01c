"""The equalised linear layer."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from ops.linear import EqualizedLinear


@pytest.mark.parametrize("activation", ["linear", "lrelu"])
@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_weights_are_scaled_when_used(activation: str, lr_multiplier: float) -> None:
    layer = EqualizedLinear(8, 5, activation=activation, lr_multiplier=lr_multiplier, bias_init=0.5)
    x = torch.randn(3, 8)
    weight = layer.weight * (lr_multiplier / math.sqrt(8))
    expected = F.linear(x, weight, torch.full((5,), 0.5))
    if activation == "lrelu":
        expected = F.leaky_relu(expected, 0.2) * math.sqrt(2)
    assert_close(layer(x), expected)


def test_the_start_does_not_depend_on_the_learning_rate_multiplier() -> None:
    x = torch.randn(500, 64)
    for lr_multiplier in (1.0, 0.01):
        layer = EqualizedLinear(64, 64, lr_multiplier=lr_multiplier)
        assert float(layer(x).detach().std()) == pytest.approx(1, abs=0.1)


def test_a_gradient_step_moves_the_output_less_at_a_low_multiplier() -> None:
    x = torch.randn(16, 8)
    moved = []
    for lr_multiplier in (1.0, 0.01):
        layer = EqualizedLinear(8, 4, lr_multiplier=lr_multiplier)
        before = layer(x)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
        before.square().sum().backward()
        optimizer.step()
        moved.append(float((layer(x) - before).detach().abs().max()))
    assert moved[1] == pytest.approx(moved[0] * 0.01, rel=0.5)


def test_bias_and_weights_may_start_anywhere() -> None:
    layer = EqualizedLinear(6, 4, weight_std=0, bias_init=(1, 0, 0, 2))
    assert_close(layer(torch.randn(2, 6)), torch.tensor([[1.0, 0, 0, 2]] * 2))
    assert EqualizedLinear(6, 4, bias=False).bias is None


@pytest.mark.parametrize("activation", ["linear", "lrelu", "tanh"])
def test_the_layer_has_derivatives_of_every_order(activation: str) -> None:
    layer = EqualizedLinear(3, 2, activation=activation).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": w}, (x,))

    assert gradcheck(function, (x, w))
    assert gradgradcheck(function, (x, w))

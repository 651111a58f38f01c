"""bias_act against the formulas, and the memory that it needs."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from ops.activation import ACTIVATIONS, bias_act

FORMULAS = {
    "linear": lambda x: x,
    "relu": lambda x: x.clamp(min=0),
    "lrelu": lambda x: torch.where(x > 0, x, 0.2 * x),
    "tanh": lambda x: torch.tanh(x),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "elu": lambda x: torch.where(x > 0, x, torch.expm1(x)),
    "selu": lambda x: (
        1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * torch.expm1(x))
    ),
    "softplus": lambda x: torch.log1p(torch.exp(x)),
    "swish": lambda x: x / (1 + torch.exp(-x)),
}
every_activation = pytest.mark.parametrize("act", ACTIVATIONS)


@every_activation
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_bias_activation_gain_and_clamp_follow_each_other(act: str, clamp: float | None) -> None:
    x, b = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    actual = bias_act(x, b, act=act, clamp=clamp)
    expected = FORMULAS[act](x + b[:, None]) * ACTIVATIONS[act].gain
    expected = expected if clamp is None else expected.clamp(-clamp, clamp)
    assert_close(actual, expected)
    assert_close(bias_act(x, b, act=act, gain=-1.5), FORMULAS[act](x + b[:, None]) * -1.5)


@every_activation
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("clamp", [None, 0.6])
def test_bias_act_has_derivatives_of_every_order(
    act: str, with_bias: bool, clamp: float | None
) -> None:
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, dtype=torch.float64, requires_grad=with_bias)

    def function(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x, b if with_bias else None, act=act, gain=1.3, clamp=clamp)

    assert gradcheck(function, (x, b))
    assert gradgradcheck(function, (x, b))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, -0.5])
def test_alpha_is_the_slope_of_the_leaky_relu(alpha: float) -> None:
    x = torch.tensor([-2.0, 3.0], requires_grad=True)
    y = bias_act(x, act="lrelu", alpha=alpha, gain=2, dim=0)
    assert_close(y, torch.tensor([-4.0 * alpha, 6.0]))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert_close(gradient, torch.tensor([2.0 * alpha, 2.0]))


def test_default_gains_keep_unit_variance_through_rectifiers() -> None:
    x = torch.randn(100_000)
    assert bias_act(x, act="relu", dim=0).square().mean() == pytest.approx(1, abs=0.02)
    variance = bias_act(x, act="lrelu", dim=0).square().mean()
    assert variance == pytest.approx(1 + 0.2**2, abs=0.02)
    assert ACTIVATIONS["lrelu"].gain == math.sqrt(2)


def test_a_layer_keeps_only_its_result_for_the_backward_pass() -> None:
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = bias_act(x * 1, torch.zeros(3), act="lrelu", clamp=0.5)
    assert sum(t.numel() for t in kept) == y.numel()
    assert torch.equal(kept[0], y)


def test_the_input_is_left_alone() -> None:
    x = torch.randn(2, 3)
    before = x.clone()
    bias_act(x, torch.ones(3), act="lrelu", gain=1, clamp=0.1)
    bias_act(x, act="relu")
    assert torch.equal(x, before)


def test_the_layout_and_type_of_pictures_are_kept() -> None:
    x = torch.randn(2, 4, 8, 8, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    y = bias_act(x, torch.ones(4, dtype=torch.bfloat16), act="lrelu", clamp=2)
    assert y.dtype == x.dtype and y.is_contiguous(memory_format=torch.channels_last)
    assert_close(
        y.float(), F.leaky_relu(x.float() + 1, 0.2).mul(2**0.5).clamp(-2, 2), atol=0.02, rtol=0.02
    )


def test_a_clamp_of_zero_is_a_clamp() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    y = bias_act(x, clamp=0)
    assert not y.any()
    assert not torch.autograd.grad(y.sum(), x)[0].any()


def test_impossible_activations_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'lrelu'"):
        bias_act(torch.ones(1, 1), act="leaky_lrelu")
    with pytest.raises(ValueError, match="clamp must not be negative"):
        bias_act(torch.ones(1, 1), clamp=-1)

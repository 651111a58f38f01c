"""Bias, activation, gain and clamp in one step, as StyleGAN's layers use them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.registry import nearest

LEAKY_SLOPE = 0.2


class Activation(NamedTuple):
    """A function and the gain that keeps unit variance behind it."""

    function: Callable[[Tensor], Tensor]
    gain: float


ACTIVATIONS = {
    "linear": Activation(lambda x: x, 1.0),
    "relu": Activation(F.relu, math.sqrt(2)),
    "lrelu": Activation(F.leaky_relu, math.sqrt(2)),
    "tanh": Activation(torch.tanh, 1.0),
    "sigmoid": Activation(torch.sigmoid, 1.0),
    "elu": Activation(F.elu, 1.0),
    "selu": Activation(F.selu, 1.0),
    "softplus": Activation(F.softplus, 1.0),
    "swish": Activation(F.silu, math.sqrt(2)),
}
SLOPES = {"linear": 1.0, "relu": 0.0, "lrelu": LEAKY_SLOPE}  # piecewise linear: below 0


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """clamp(gain * act(x + b)), the bias along `dim`.

    `alpha` is the slope of "lrelu" below zero (0.2) and nothing to the others. `gain` defaults to
    the activation's own; `clamp` bounds the result on both sides.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"unknown activation {act!r}{nearest(act, ACTIVATIONS)}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp must not be negative, got {clamp}")
    gain = ACTIVATIONS[act].gain if gain is None else gain
    if b is not None:
        b = b.reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    slope = alpha if act == "lrelu" and alpha is not None else SLOPES.get(act, -1.0)
    if slope >= 0 and gain > 0:
        if slope == gain == 1 and clamp is None:
            return x if b is None else x + b
        return _PiecewiseLinear.apply(x, b, slope, gain, clamp)
    x = x if b is None else x + b
    y = F.leaky_relu(x, slope) if act == "lrelu" else ACTIVATIONS[act].function(x)
    y = y * gain
    return y if clamp is None else F.hardtanh(y, -clamp, clamp)


class _PiecewiseLinear(torch.autograd.Function):
    """clamp(gain * leaky_relu(x + b)) whose gradient is read off its own result.

    The next layer keeps the result anyway, so that the activation costs no memory; three passes
    over it, of which two are in place, are all of the forward pass.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, x: Tensor, b: Tensor | None, slope: float, gain: float, clamp: float | None
    ) -> Tensor:
        y = x * gain if b is None else torch.add(b * gain, x, alpha=gain)
        if slope != 1:
            F.leaky_relu_(y, slope)
        if clamp is not None:
            y.clamp_(-clamp, clamp)
        ctx.save_for_backward(y)
        ctx.constants = slope, gain, clamp
        ctx.bias_shape = None if b is None else b.shape
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        y = ctx.saved_tensors[0].detach()  # which piece a pixel is on is constant
        slope, gain, clamp = ctx.constants
        if slope != 1:
            grad = torch.ops.aten.leaky_relu_backward(grad, y, slope, False)
        if clamp is not None:
            grad = torch.ops.aten.hardtanh_backward(grad, y, -clamp, clamp)
        if gain != 1:
            grad = grad * gain
        grad_b = grad.sum_to_size(ctx.bias_shape) if ctx.needs_input_grad[1] else None
        return grad, grad_b, None, None, None

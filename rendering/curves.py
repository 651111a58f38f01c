"""Polynomials through samples along rays, for many gaps between neighbouring samples at once.

Each gap has its own: factors of 1, x, x^2, x^3 and x^4, where x runs from 0 to 1 in the gap, and
the unit is the distance of samples. `values` are whatever is interpolated side by side. A curve
that misses a value found inside of its gap by so much is bent to go through it.
"""

import torch
from torch import Tensor

from ops.shapes import Float, Int

# factors of the quartics that are 0 at four samples, the first, second or third of which begins
# the gap, and their values in its middle
QUARTICS = ((0.0, -6.0, 11.0, -6.0, 1.0), (0.0, 2.0, -1.0, -2.0, 1.0), (0.0, -2.0, -1.0, 2.0, 1.0))
MIDDLES = (-0.9375, 0.5625, -0.9375)


def cubics(
    nodes: Float[Tensor, "gaps 4 values"], edge: Int[Tensor, " gaps"]
) -> Float[Tensor, "5 gaps values"]:
    """Cubics through four evenly spaced samples, number `edge` of which begins the gap."""
    first = nodes[:, 1:] - nodes[:, :-1]
    second = first[:, 1:] - first[:, :-1]
    cubic = (second[:, 1] - second[:, 0]) / 6
    square = second[:, 0] / 2 - 3 * cubic
    linear = first[:, 0] - square - cubic
    at = edge[:, None]  # so far, x counts from the first sample
    constant = nodes[:, 0] + at * (linear + at * (square + at * cubic))
    linear = linear + at * (2 * square + 3 * at * cubic)
    square = square + 3 * at * cubic
    return torch.stack([constant, linear, square, cubic, torch.zeros_like(cubic)])


def bend_in_middle(
    curves: Float[Tensor, "5 gaps values"],
    edge: Int[Tensor, " gaps"],
    miss: Float[Tensor, "gaps values"],
) -> Float[Tensor, "5 gaps values"]:
    """Cubics bent by `miss` at 1/2; they go through the same four samples."""
    scale = miss / miss.new_tensor(MIDDLES)[edge, None]
    return curves + miss.new_tensor(QUARTICS)[edge].t()[..., None] * scale


def bend_at_quarters(
    curves: Float[Tensor, "5 gaps values"],
    first: Float[Tensor, "gaps values"],
    second: Float[Tensor, "gaps values"],
) -> Float[Tensor, "5 gaps values"]:
    """Curves bent by so much at 1/4 and at 3/4; at 0, 1/2 and 1 they stay."""
    # by x (x - 1/2) (x - 1) (a + b x), where the first three are 3/64 at 1/4 and -3/64 at 3/4
    b = -(first + second) * (128 / 3)
    a = first * (64 / 3) - b / 4
    bend = torch.stack([torch.zeros_like(a), a / 2, (b - 3 * a) / 2, a - 1.5 * b, b])
    return curves + bend


def evaluate(
    curves: Float[Tensor, "5 gaps values"], x: Float[Tensor, " n"], gap: Int[Tensor, " n"]
) -> Float[Tensor, "n values"]:
    """Values at x, each in the gap of that number."""
    x = x[:, None].repeat(1, curves.shape[-1])  # torch is slow at short rows that are broadcast
    values = curves[4].index_select(0, gap)
    for power in (3, 2, 1, 0):
        values = values.mul_(x).add_(curves[power].index_select(0, gap))
    return values

"""The fully connected layer with an equalised learning rate (Progressive GAN, section 4.1)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.activation import bias_act
from ops.shapes import Float


class EqualizedLinear(nn.Module):
    """act(W x + b) whose weights are stored at unit variance and scaled when used.

    Every weight then moves at the same relative speed under Adam, `lr_multiplier` times slower
    than the rest of the network.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: str = "linear",  # a name of ops.activation.ACTIVATIONS; its gain is applied
        lr_multiplier: float = 1.0,
        bias_init: float | Sequence[float] = 0.0,
        weight_std: float = 1.0,  # of the initial weights, in units of the equalised scale
    ) -> None:
        super().__init__()
        self.activation = activation
        self.lr_multiplier = lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        weight = torch.randn(out_features, in_features) * (weight_std / lr_multiplier)
        self.weight = nn.Parameter(weight)
        initial = torch.as_tensor(bias_init, dtype=torch.float32) / lr_multiplier
        self.bias = nn.Parameter(initial.expand(out_features).clone()) if bias else None

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Activations with the activation's own gain."""
        weight = self.weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype) * self.lr_multiplier
        x = x * self.weight_gain  # far fewer numbers than the weight has
        if self.activation == "linear":
            return F.linear(x, weight, bias)
        return bias_act(F.linear(x, weight), bias, dim=-1, act=self.activation)

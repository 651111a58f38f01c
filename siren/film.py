"""The FiLM sine layer (pi-GAN, section 3.1): y = sin(frequency * (W x + b) + phase).

For a fixed latent the modulation is part of the affine map: with W' = frequency * W and
b' = frequency * b + phase the layer is sin(W' x + b'), one batched product and one sine for all
points of an image. Nothing is ever multiplied point by point.
"""

import math

import torch
from torch import Tensor, nn

from ops.shapes import Float


def initial_bound(fan_in: int) -> float:
    """Half width of the uniform initial weights behind a sine of frequency 25 (SIREN, 3.2)."""
    return math.sqrt(6 / fan_in) / 25


class FilmLayer(nn.Module):
    """An affine map whose output a style scales and shifts before the sine."""

    def __init__(self, in_features: int, out_features: int, *, first: bool = False) -> None:
        """`first` layers take coordinates: their weights are U(+-1/3) (SIREN, section 3.2)."""
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        bound = 1 / 3 if first else initial_bound(in_features)
        nn.init.uniform_(self.layer.weight, -bound, bound)

    def fold(
        self, frequency: Float[Tensor, "batch out"], phase: Float[Tensor, "batch out"]
    ) -> tuple[Float[Tensor, "batch out in"], Float[Tensor, "batch 1 out"]]:
        """Weight and bias of the affine map inside the sine, one per style."""
        weight = frequency[:, :, None] * self.layer.weight
        bias = torch.addcmul(phase, frequency, self.layer.bias)
        return weight, bias[:, None]


def sine_affine(
    x: Float[Tensor, "batch n in"],
    weight: Float[Tensor, "batch out in"],
    bias: Float[Tensor, "batch 1 out"],
) -> Float[Tensor, "batch n out"]:
    """sin(W' x + b') with the phase in at least single precision, whatever autocast says.

    The phase reaches tens of radians; rounded to 16 bits it would ruin the picture.
    """
    return torch.sin(affine(x, weight, bias))


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Batched W' x + b'. Under autocast the product is 16 bit, the sum full precision."""
    if autocasting(x):
        return torch.bmm(x, weight.transpose(1, 2)).to(bias.dtype) + bias
    return torch.baddbmm(bias, x, weight.transpose(1, 2))


def autocasting(x: Tensor) -> bool:
    """Whether matrix products on this tensor's device are asked to be 16 bit."""
    return torch.is_autocast_enabled(x.device.type)

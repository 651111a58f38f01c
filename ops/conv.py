"""Convolutions that know where they are, and the initial weights of discriminators.

CoordConv (Liu et al. 2018, section 3): a convolution that also sees each pixel's row and column,
both from -1 to 1, as two further input channels. Their share of the output is the same for every
image, so it is computed once per batch and added: no enlarged copy of the input is ever made.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.shapes import Float

LEAKY_SLOPE = 0.2


class CoordConv2d(nn.Module):
    """A 3x3 convolution with zero padding over the image channels, then row, then column.

    The weights of the two coordinate channels are a parameter of their own, `coordinate_weight`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        """Initial weights are PyTorch's for a plain convolution of `in_channels` + 2 channels."""
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.coordinate_weight = nn.Parameter(torch.empty(out_channels, 2, 3, 3))
        self.bias = nn.Parameter(torch.empty(out_channels))
        bound = 1 / math.sqrt(fan_in(self))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(
        self, x: Float[Tensor, "batch in height width"]
    ) -> Float[Tensor, "batch out out_height out_width"]:
        """Convolve features and coordinates."""
        height, width = x.shape[-2:]
        weight = self.coordinate_weight
        grid = coordinate_grid(height, width, weight.device, weight.dtype)
        offset = F.conv2d(grid, weight, self.bias, self.stride, padding=1)
        return F.conv2d(x, self.weight, None, self.stride, padding=1) + offset


@lru_cache(maxsize=64)
def coordinate_grid(
    height: int, width: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "1 2 height width"]:
    """Row then column of every pixel, both from -1 to 1, shared by all callers: do not modify."""
    with torch.inference_mode(False):  # training must be able to use what inference cached
        rows = torch.linspace(-1, 1, height, device=device, dtype=dtype)
        columns = torch.linspace(-1, 1, width, device=device, dtype=dtype)
        return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]


def fan_in(layer: nn.Conv2d | CoordConv2d) -> int:
    """Inputs that one output of the layer sees, coordinates included."""
    inputs = layer.weight[0].numel()
    if isinstance(layer, CoordConv2d):
        inputs += layer.coordinate_weight[0].numel()
    return inputs


@torch.no_grad()
def kaiming_leaky_(layer: nn.Conv2d | CoordConv2d) -> None:
    """Kaiming-normal weights for what follows: a leaky ReLU of slope LEAKY_SLOPE."""
    std = math.sqrt(2 / (1 + LEAKY_SLOPE**2) / fan_in(layer))
    layer.weight.normal_(0, std)
    if isinstance(layer, CoordConv2d):
        layer.coordinate_weight.normal_(0, std)

"""The network behind EpiGRAF's "sphere" background: styled perceptrons over 4D points.

Points are (direction, disparity) in the inverted coordinates of rendering.background. Every block
adds its colours and density to those of the block before.
"""

import math

import torch
from torch import Tensor, nn

from ops.activation import bias_act
from ops.encoding import ScalarEncoder
from ops.linear import EqualizedLinear
from ops.norm import EPSILON
from ops.registry import nearest
from ops.shapes import Float

POINT_DIM = 4
MODULATIONS = ("styles", "tanh", "sigmoid", "demod")


class ModulatedLinear(nn.Module):
    """A linear layer whose weights a style changes.

    With "styles", per input, as in StyleGAN2 (demodulated, or with `is_output` scaled by the number
    of inputs, without activation). Else by a matrix of low rank of the style's numbers,
    W (1 + f(L R / sqrt(rank))), f being tanh or sigmoid - 1/2; "demod" scales each output's weights
    to unit norm in place of f (INR-GAN, Skorokhodov et al. 2021, section 3.1).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        w_dim: int,
        modulation: str = "styles",
        rank: int = 3,  # of the matrix; nothing to "styles"
        is_output: bool = False,
    ) -> None:
        super().__init__()
        self.modulation, self.rank, self.is_output = modulation, rank, is_output
        numbers = in_features if modulation == "styles" else rank * (in_features + out_features)
        offset = 1.0 if modulation == "styles" else 0.0
        self.affine = EqualizedLinear(w_dim, numbers, bias_init=offset)
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(
        self, x: Float[Tensor, "batch n in"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch n out"]:
        """Features, or colours and density from an output layer."""
        y = x @ self.weights(w).transpose(1, 2)
        return bias_act(y, self.bias, dim=-1, act="linear" if self.is_output else "lrelu")

    def weights(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch out in"]:
        """Each sample's own weights."""
        out_features, in_features = self.weight.shape
        numbers = self.affine(w)
        if self.modulation == "styles":
            changed = self.weight * numbers[:, None]
            if self.is_output:
                return changed / math.sqrt(in_features)
            return changed * (changed.square().sum(-1, keepdim=True) + EPSILON).rsqrt()
        split = out_features * self.rank
        left = numbers[:, :split].unflatten(1, (out_features, self.rank))
        right = numbers[:, split:].unflatten(1, (self.rank, in_features))
        product = left @ right / math.sqrt(self.rank)
        if self.modulation == "tanh":
            product = product.tanh()
        elif self.modulation == "sigmoid":
            product = product.sigmoid() - 0.5
        changed = self.weight * (1 + product)
        if self.modulation == "demod":
            changed = changed * (changed.square().sum(-1, keepdim=True) + EPSILON).rsqrt()
        return changed


class SphereBlock(nn.Module):
    """One or two styled layers, and what they add to the output."""

    def __init__(
        self,
        in_features: int,  # 0: the first block, which sees the points
        width: int,
        *,
        w_dim: int,
        periods: float,
        modulation: str,
        rank: int,
    ) -> None:
        super().__init__()
        styled = {"w_dim": w_dim, "modulation": modulation, "rank": rank}
        self.points: ScalarEncoder | None = None
        self.linear0: ModulatedLinear | None = None
        if in_features:
            self.linear0 = ModulatedLinear(in_features, width, **styled)
        else:
            self.points = ScalarEncoder(POINT_DIM, multiplier=periods)
        inputs = self.points.out_dim if self.points else width
        self.linear1 = ModulatedLinear(inputs, width, **styled)
        self.to_out = ModulatedLinear(width, POINT_DIM, w_dim=w_dim, is_output=True)

    @property
    def num_layers(self) -> int:
        """Layers with a style of their own, without the output's."""
        return 1 if self.linear0 is None else 2

    def forward(
        self, x: Float[Tensor, "batch n in"], w: Float[Tensor, "batch slots w_dim"]
    ) -> tuple[Float[Tensor, "batch n width"], Float[Tensor, "batch n 4"]]:
        """Features for the next block, and this one's share of the output."""
        if self.points is not None:
            x = self.points(x)
        if self.linear0 is not None:
            x = self.linear0(x, w[:, 0])
        x = self.linear1(x, w[:, self.num_layers - 1])
        return x, self.to_out(x, w[:, self.num_layers])


class SphereNetwork(nn.Module):
    """Styles and 4D points to colours and raw density, blocks sharing styles as StyleGAN2's do."""

    def __init__(
        self,
        *,
        w_dim: int,
        num_blocks: int = 2,
        channel_base: int = 32768,  # width of block i: channel_base / 2^(i + 2)..
        channel_max: int = 128,  # ..but at most so many
        periods: float = 64.0,  # of the fastest wave that sees the points
        modulation: str = "styles",  # one of MODULATIONS
        rank: int = 3,  # of the low-rank modulations
    ) -> None:
        super().__init__()
        if modulation not in MODULATIONS:
            raise ValueError(f"unknown modulation {modulation!r}{nearest(modulation, MODULATIONS)}")
        if num_blocks < 1:
            raise ValueError(f"a sphere background needs at least 1 block, got {num_blocks}")
        widths = [min(channel_base >> (i + 2), channel_max) for i in range(num_blocks)]
        self.blocks = nn.ModuleList(
            SphereBlock(
                widths[i - 1] if i else 0,
                widths[i],
                w_dim=w_dim,
                periods=periods,
                modulation=modulation,
                rank=rank,
            )
            for i in range(num_blocks)
        )

    @property
    def num_ws(self) -> int:
        """Style slots: one per layer and one for the last output."""
        return 2 * len(self.blocks)

    def forward(
        self, points: Float[Tensor, "batch n 4"], w: Float[Tensor, "batch slots w_dim"]
    ) -> Float[Tensor, "batch n 4"]:
        """Colours, nominally in [-1, 1], and raw density at (direction, disparity)."""
        x, out, start = points, None, 0
        for block in self.blocks:
            assert isinstance(block, SphereBlock)
            x, share = block(x, w[:, start : start + block.num_layers + 1])
            out = share if out is None else out + share
            start += block.num_layers
        assert out is not None
        return out

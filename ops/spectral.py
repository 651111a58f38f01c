"""Layers whose weights are divided by their largest singular value (Miyato et al. 2018).

The value is estimated by power iteration: singular vectors u and v are part of a layer's state, and
every pass in training mode moves them by one iteration before they are used. In evaluation they
rest. The weight as a matrix has an output per row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.shapes import Float

EPSILON = 1e-12
FIRST_ITERATIONS = 20  # at construction: of random vectors the estimate would be near 0


class _Spectral(nn.Module):
    """What the layers share; `weight` is the one before the division."""

    weight: Tensor
    weight_u: Tensor
    weight_v: Tensor
    output_axis: int = 0  # of the weight

    def start(self) -> None:
        """Register singular vectors that already fit the initial weight."""
        matrix = self.matrix().detach()
        u = F.normalize(torch.randn(len(matrix)), dim=0, eps=EPSILON)
        v = torch.zeros(matrix.shape[1])
        for _ in range(FIRST_ITERATIONS):
            u, v = iterate(matrix, u)
        self.register_buffer("weight_u", u)
        self.register_buffer("weight_v", v)

    def matrix(self) -> Float[Tensor, "outputs inputs"]:
        """The weight with an output per row."""
        return self.weight.transpose(0, self.output_axis).flatten(1)

    def normalized_weight(self) -> Tensor:
        """The weight over its largest singular value, through which gradients flow as well."""
        with torch.autocast(self.weight.device.type, enabled=False):
            matrix = self.matrix()
            if self.training:
                with torch.no_grad():
                    u, v = iterate(matrix, self.weight_u)
                    self.weight_u.copy_(u)
                    self.weight_v.copy_(v)
            else:  # copies: a later pass may move the vectors before this one's gradient is taken
                u, v = self.weight_u.clone(), self.weight_v.clone()
            return self.weight / torch.dot(u, torch.mv(matrix, v))


def iterate(
    matrix: Float[Tensor, "outputs inputs"], u: Float[Tensor, " outputs"]
) -> tuple[Float[Tensor, " outputs"], Float[Tensor, " inputs"]]:
    """One power iteration: v follows u, then u follows v."""
    v = F.normalize(torch.mv(matrix.t(), u), dim=0, eps=EPSILON)
    return F.normalize(torch.mv(matrix, v), dim=0, eps=EPSILON), v


class SpectralConv2d(_Spectral, nn.Conv2d):
    """A convolution with spectral normalisation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        nn.Conv2d.__init__(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
        )
        self.start()

    def forward(self, input: Tensor) -> Tensor:
        """Convolve."""
        return self._conv_forward(input, self.normalized_weight(), self.bias)


class SpectralConvTranspose2d(_Spectral, nn.ConvTranspose2d):
    """A transposed convolution without bias, stride and padding, with spectral normalisation."""

    output_axis = 1

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        nn.ConvTranspose2d.__init__(self, in_channels, out_channels, kernel_size, bias=False)
        self.start()

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve; there is one output size only."""
        assert output_size is None
        return F.conv_transpose2d(input, self.normalized_weight())


class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer with bias, with spectral normalisation."""

    def __init__(self, in_features: int, out_features: int) -> None:
        nn.Linear.__init__(self, in_features, out_features)
        self.start()

    def forward(self, input: Tensor) -> Tensor:
        """Multiply and add the bias."""
        return F.linear(input, self.normalized_weight(), self.bias)

"""pi-GAN's progressive discriminators: residual blocks of CoordConvs and average pooling.

The encoder variant also guesses latent and pose, for the identity losses that the original's code
added after the paper.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from discriminators.base import DISCRIMINATORS
from discriminators.pyramid import PyramidDiscriminator
from ops.conv import LEAKY_SLOPE, CoordConv2d
from ops.shapes import Float


class ResidualBlock(nn.Module):
    """Two CoordConvs and a pooled skip connection; halves the side of its input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """The skip connection has weights only where the number of channels changes."""
        super().__init__()
        self.conv0 = CoordConv2d(in_channels, out_channels)
        self.conv1 = CoordConv2d(out_channels, out_channels)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(
        self, x: Float[Tensor, "batch in size size"]
    ) -> Float[Tensor, "batch out half half"]:
        """The sum of both paths, scaled to keep their variance."""
        y = F.leaky_relu(self.conv0(x), LEAKY_SLOPE)
        y = F.leaky_relu(self.conv1(y), LEAKY_SLOPE)
        x = F.avg_pool2d(x, 2)
        if self.skip is not None:
            x = self.skip(x)
        return (F.avg_pool2d(y, 2) + x) / math.sqrt(2)


@DISCRIMINATORS.register("ProgressiveDiscriminator")
class ProgressiveDiscriminator(PyramidDiscriminator):
    """A logit per picture."""

    def build_block(self, in_channels: int, out_channels: int) -> ResidualBlock:
        """A residual CoordConv block."""
        return ResidualBlock(in_channels, out_channels)


@DISCRIMINATORS.register("ProgressiveEncoderDiscriminator")
class ProgressiveEncoderDiscriminator(ProgressiveDiscriminator):
    """A logit, a latent and a pose per picture."""

    predicts_latent = True
    predicts_pose = True

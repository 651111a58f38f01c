"""pi-GAN's strided discriminators: residual blocks that halve by a stride in place of pooling.

The CCS variants use CoordConvs; the encoder variant also guesses latent and pose.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from discriminators.base import DISCRIMINATORS
from discriminators.pyramid import PyramidDiscriminator
from ops.conv import LEAKY_SLOPE, CoordConv2d, kaiming_leaky_
from ops.shapes import Float


class StridedBlock(nn.Module):
    """Two 3x3 convolutions and a strided skip connection; halves the side of its input."""

    def __init__(self, in_channels: int, out_channels: int, *, coordinates: bool) -> None:
        """With `coordinates` both 3x3 convolutions are CoordConvs."""
        super().__init__()
        if coordinates:
            self.conv0 = CoordConv2d(in_channels, out_channels)
            self.conv1 = CoordConv2d(out_channels, out_channels, stride=2)
        else:
            self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
            self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1, stride=2)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, stride=2)
        for conv in (self.conv0, self.conv1):
            kaiming_leaky_(conv)

    def forward(
        self, x: Float[Tensor, "batch in size size"]
    ) -> Float[Tensor, "batch out half half"]:
        """The sum of both paths, scaled to keep their variance."""
        y = F.leaky_relu(self.conv0(x), LEAKY_SLOPE)
        y = F.leaky_relu(self.conv1(y), LEAKY_SLOPE)
        return (y + self.skip(x)) / math.sqrt(2)


@DISCRIMINATORS.register("StridedDiscriminator")
class StridedDiscriminator(PyramidDiscriminator):
    """A logit per picture from plain convolutions."""

    largest_size = 256
    coordinates = False  # whether blocks use CoordConvs

    def build_block(self, in_channels: int, out_channels: int) -> StridedBlock:
        """A strided residual block."""
        return StridedBlock(in_channels, out_channels, coordinates=self.coordinates)


@DISCRIMINATORS.register("CCSDiscriminator")
class CCSDiscriminator(StridedDiscriminator):
    """A logit per picture from CoordConvs."""

    coordinates = True


@DISCRIMINATORS.register("CCSEncoderDiscriminator")
class CCSEncoderDiscriminator(CCSDiscriminator):
    """A logit, a latent and a pose per picture from CoordConvs."""

    predicts_latent = True
    predicts_pose = True

"""pi-GAN's mapping network: latent to frequencies and phase shifts (pi-GAN, section 3.1)."""

import torch
from torch import Tensor, nn

from ops.shapes import Float

LEAKY_SLOPE = 0.2


class MappingNetwork(nn.Module):
    """Three hidden leaky-ReLU layers, then raw frequencies and phase shifts on the last axis."""

    def __init__(self, latent_dim: int, hidden_dim: int, out_features: int) -> None:
        super().__init__()
        widths = [latent_dim, hidden_dim, hidden_dim, hidden_dim, out_features]
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
            linear = nn.Linear(fan_in, fan_out)
            nn.init.kaiming_normal_(linear.weight, a=LEAKY_SLOPE, nonlinearity="leaky_relu")
            layers += [linear, nn.LeakyReLU(LEAKY_SLOPE)]
        self.network = nn.Sequential(*layers[:-1])
        last = layers[-2]
        assert isinstance(last, nn.Linear)
        last.weight.data *= 0.25  # styles start close to their mean (pi-GAN, supplement)
        self.latent_dim = latent_dim

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch styles"]:
        """Raw styles: frequencies are scaled by the field, phase shifts used as they are.

        Never in 16 bits: a frequency multiplies every coordinate, so its rounding is a distortion.
        """
        with torch.autocast(z.device.type, enabled=False):
            return self.network(z)

"""What StyleGAN2 and StyleGAN3 share: a mapping network, one style per layer, running averages.

Both make pictures without cameras. Their averages (of w, and StyleGAN3's of magnitudes) are moving
averages over what training sees: they move inside `tracking()` only, which the trainer holds open
around the generator's pass of the discriminator phase.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from generators.base import Generator
from ops.mapping import MappingNetwork
from ops.shapes import Float
from rendering.cameras import Cameras, Patch
from rendering.settings import RenderSettings

W_AVG_BETA = 0.998  # what a batch leaves of w_avg


class StyleGenerator(Generator):
    """A generator with a style of `w_dim` numbers for each of `num_ws` slots."""

    def __init__(
        self,
        *,
        latent_dim: int,
        label_dim: int,
        w_dim: int,
        num_ws: int,
        mapping_layers: int,
        mapping_lr_multiplier: float,
        condition_dim: int | None = None,  # numbers in what `condition` returns; None: label_dim
    ) -> None:
        super().__init__(latent_dim=latent_dim, w_shape=(num_ws, w_dim), label_dim=label_dim)
        self.num_ws, self.w_dim = num_ws, w_dim
        self.mapping_network = MappingNetwork(
            latent_dim=latent_dim,
            label_dim=label_dim if condition_dim is None else condition_dim,
            w_dim=w_dim,
            num_layers=mapping_layers,
            lr_multiplier=mapping_lr_multiplier,
        )
        self.is_tracking = False

    def style(
        self,
        z: Float[Tensor, "batch latent"],
        label: Tensor | None = None,
        cameras: Cameras | None = None,
    ) -> Float[Tensor, "batch slots w_dim"]:
        """The same style in every slot; class numbers or label vectors condition it."""
        with torch.autocast(z.device.type, enabled=False):  # styles need all their bits
            w = self.mapping_network(z, self.condition(len(z), label, cameras))
        if self.is_tracking:
            self.track_w_avg(w)
        return w[:, None].expand(-1, self.num_ws, -1)

    def condition(self, batch: int, label: Tensor | None, cameras: Cameras | None) -> Tensor | None:
        """What a batch of styles depends on besides z: the label; a hook for cameras."""
        return label

    @torch.no_grad()
    def track_w_avg(self, w: Float[Tensor, "batch w_dim"]) -> None:
        """Move the average towards a batch's mean style: 0.998 old + 0.002 new."""
        self.w_avg.lerp_(w.detach().mean(0).to(self.w_avg.dtype), 1 - W_AVG_BETA)

    def update_w_avg(self) -> None:
        """Nothing: training keeps the moving average (`tracking`), which is part of the weights."""

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Within, every mapping and synthesis also moves the running averages."""
        self.is_tracking = True
        try:
            yield
        finally:
            self.is_tracking = False

    def mapping_parameters(self) -> list[torch.nn.Parameter]:
        """The mapping network's parameters."""
        return list(self.mapping_network.parameters())

    def check_request(self, w: Tensor, settings: RenderSettings, patch: Patch | None) -> None:
        """Refuse what a 2D network of one size cannot do."""
        name = type(self).__name__
        if settings.resolution != self.resolution:
            raise ValueError(
                f"{name} makes pictures of {self.resolution} pixels, got settings.resolution ="
                f" {settings.resolution}"
            )
        if patch is not None:
            raise ValueError(f"{name} makes whole pictures: patch must be None")
        if w.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(
                f"{name} needs styles of shape (batch, {self.num_ws}, {self.w_dim}),"
                f" got {tuple(w.shape)}"
            )

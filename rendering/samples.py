"""What a field says along a bundle of rays, kept by ascending depth."""

import torch
from torch import Tensor

from ops.shapes import Float
from rendering.field import Field
from rendering.settings import RenderSettings

LOCKED_DIRECTION = (0.0, 0.0, -1.0)  # what the frontal camera's central ray sees along


class Samples:
    """Depths `t`, raw densities `raw` (batch, rays, samples), and `radiance` with its channels.

    Empty at first; `add` looks at more depths of every ray and keeps all of them in order.
    """

    t: Tensor
    raw: Tensor
    radiance: Tensor

    def __init__(
        self,
        field: Field,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
        settings: RenderSettings,
    ) -> None:
        self.field = field
        self.origins, self.directions = origins, directions
        self.settings = settings
        self.t = origins.new_empty(*origins.shape[:2], 0)

    def add(self, t: Float[Tensor, "batch rays more"]) -> None:
        """Look at depths that are ascending or, if samples are there already, in any order."""
        batch, rays, samples = t.shape
        points = self.origins[:, :, None] + self.directions[:, :, None] * t[..., None]
        views = self.directions[:, :, None].expand_as(points)
        flat = (batch, rays * samples, 3)
        radiance, raw = self._see(points.reshape(flat), views.reshape(flat))
        self._insert(t, radiance.reshape(batch, rays, samples, -1), raw.reshape(t.shape))

    def _see(self, points: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """Ask the field, with the view direction locked if the settings say so."""
        if self.settings.lock_view_dependence:
            views = points.new_tensor(LOCKED_DIRECTION).expand_as(points)
        return self.field(points, views)

    def _insert(self, t: Tensor, radiance: Tensor, raw: Tensor) -> Tensor | None:
        """Keep samples among those that are there; returns the order of new ones before old."""
        if not self.t.shape[-1]:
            self.t, self.radiance, self.raw = t, radiance, raw
            return None
        self.t, order = torch.sort(torch.cat([t, self.t], dim=-1), dim=-1, stable=True)
        self.raw = torch.cat([raw, self.raw], dim=-1).gather(-1, order)
        radiance = torch.cat([radiance, self.radiance], dim=-2)
        rays = torch.arange(order[..., 0].numel(), device=order.device).view(*order.shape[:2], 1)
        rows = (rays * order.shape[-1] + order).view(-1)  # of a table: much faster than a gather
        self.radiance = radiance.flatten(0, 2).index_select(0, rows).view_as(radiance)
        return order

"""Samples along rays of one fixed scene, of which only those are looked at that a picture shows.

Three kinds are left out:

- empty ones, outside the occupied cells (rendering/skip.py);
- hidden ones, where no more than FAINT of the light gets, by the densities in front of them;
- crowded ones. Importance sampling puts dozens of fine samples between two coarse ones. There the
  field is looked at once more, halfway, and the fine samples lie on the parabola through the three,
  provided that the halfway point tells nothing surprising (DOUBT).

Raw densities are interpolated, not activated ones, so that a surface stays as sharp as it is.
"""

import torch
from torch import Tensor

from rendering.compositing import activate_density, transmittance
from rendering.field import Field
from rendering.samples import Samples
from rendering.settings import RenderSettings
from rendering.skip import Occupancy, background_shows

FAINT = 1e-4  # share of a ray's light that no picture shows: a fortieth of an 8-bit grey level
DOUBT = 0.1  # by how much the halfway point may miss the straight line, in the pixel's units
UNSEEN = -1e4  # raw density of a sample that was not looked at: activated, it is 0
SECTION = 8  # samples per ray that are looked at before asking again how much light is left
LOG=[]

class SparseSamples(Samples):
    """Samples of the rays of one scene; `pending` are those that something may be seen of."""

    pending: Tensor

    def __init__(
        self,
        field: Field,
        origins: Tensor,
        directions: Tensor,
        settings: RenderSettings,
        occupancy: Occupancy,
    ) -> None:
        super().__init__(field, origins, directions, settings)
        self.occupancy = occupancy
        radiance, _ = self._see(origins[:, :1], directions[:, :1])
        self.channels = radiance.shape[-1]

    def add(self, t: Tensor) -> None:
        """Keep depths and look at those of them that matter."""
        first = not self.t.shape[-1]
        pending = self.occupancy.at(self.origins, self.directions, t)
        raw = torch.full_like(t, UNSEEN)
        radiance = raw.new_zeros(*t.shape, self.channels)
        if first:
            pending[..., -1] |= background_shows(self.settings)
            self.pending = pending
        elif not self.settings.jitter:  # coarse samples are a regular grid
            self._interpolate(t, radiance, raw, pending)
        order = self._insert(t, radiance, raw)
        if order is not None:
            self.pending = torch.cat([pending, self.pending], dim=-1).gather(-1, order)
        self._settle()

    def _settle(self) -> None:
        """Look at what is pending, front to back, until no light is left that could show more."""
        section = SECTION
        while True:
            density = activate_density(self.raw, self.settings.clamp_mode)
            lit = self.pending & (transmittance(density, self.t) > FAINT)
            nearest = lit & (lit.cumsum(-1, dtype=torch.int16) <= section)
            LOG.append(nearest.sum().item()/65536)
            if not self._look_at(nearest):
                return
            section *= 2

    def _look_at(self, wanted: Tensor) -> int:
        """Look at the samples that a mask picks; returns their number."""
        picked = wanted.view(-1).nonzero()[:, 0]
        if len(picked):
            radiance, raw = self._see_at(picked, self.t.view(-1)[picked])
            self.radiance.view(-1, self.channels)[picked] = radiance
            self.raw.view(-1)[picked] = raw
            self.pending.view(-1)[picked] = False
        return len(picked)

    def _see_at(self, picked: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Radiance (n, channels) and raw density (n,) at depths on the rays of picked samples."""
        ray = picked // self.t.shape[-1]
        directions = self.directions[0, ray]
        points = torch.addcmul(self.origins[0, ray], directions, t[:, None])
        radiance, raw = self._see(points[None], directions[None])
        return radiance[0], raw[0, :, 0]

    def _interpolate(self, t: Tensor, radiance: Tensor, raw: Tensor, pending: Tensor) -> None:
        """Fill in the crowded ones among fine samples at depths `t`."""
        last = self.t.shape[-1] - 1
        step = (self.settings.ray_end - self.settings.ray_start) / last
        light = transmittance(activate_density(self.raw, self.settings.clamp_mode), self.t)
        place = (t - self.settings.ray_start) / step
        gap = place.to(torch.int64).clamp_(0, last - 1)  # gap k lies between samples k and k + 1
        count = torch.zeros_like(t).scatter_add_(-1, gap, pending.to(t.dtype))
        crowded = (count >= 2) & (light > FAINT)
        ends = crowded.clone()
        ends[..., 1:] |= crowded[..., :-1]
        self._look_at(ends & (self.raw <= UNSEEN))
        middle = crowded.view(-1).nonzero()[:, 0]
        LOG.append(len(middle)/65536)
        if not len(middle):
            return
        middle_radiance, middle_raw = self._see_at(middle, self.t.view(-1)[middle] + step / 2)
        flat_raw, flat_radiance = self.raw.view(-1), self.radiance.view(-1, self.channels)
        light = light.view(-1)
        bend = (middle_raw - (flat_raw[middle] + flat_raw[middle + 1]) / 2).abs() * step * light[middle]
        color = (middle_radiance - (flat_radiance[middle] + flat_radiance[middle + 1]) / 2).abs().amax(-1)
        doubt = bend + color * (light[middle] - light[middle + 1])
        crowded.view(-1)[middle] = doubt <= DOUBT
        number = torch.zeros_like(gap)
        number.view(-1)[middle] = torch.arange(len(middle), device=t.device)
        picked = (pending & crowded.gather(-1, gap)).view(-1).nonzero()[:, 0]
        start = picked // t.shape[-1] * self.t.shape[-1] + gap.view(-1)[picked]
        half = number.view(-1)[start]
        f = place.view(-1)[picked] - gap.view(-1)[picked]
        a, b, c = (2 * f - 1) * (f - 1), 4 * f * (1 - f), f * (2 * f - 1)
        raw.view(-1)[picked] = a * flat_raw[start] + b * middle_raw[half] + c * flat_raw[start + 1]
        a, b, c = a[:, None], b[:, None], c[:, None]
        radiance.view(-1, self.channels)[picked] = a * flat_radiance[start] + b * middle_radiance[half] + c * flat_radiance[start + 1]
        pending.view(-1)[picked] = False

"""Samples along the rays of one fixed scene, of which only those are looked at that matter.

Three kinds of samples are left out:

- empty ones, which lie outside the occupied cells (rendering/skip.py);
- hidden ones, where no more than FAINT of the light gets by the densities in front of them;
- crowded ones. Importance sampling puts dozens of fine samples between two coarse ones. They lie
  on the cubic through the four coarse samples around, unless its third difference could be seen in
  the pixel (DOUBT); then the field is looked at twice more, at the gap's thirds, and they lie on
  the cubic through these and its ends, unless that is in doubt, too. Raw densities are
  interpolated, not activated ones: a surface stays as sharp as it is.

So a picture differs from the full one by about FAINT and, where samples are crowded, by a small
part of DOUBT; the tests hold it to 45 dB, on networks of random weights, too.
"""

import torch
from torch import Tensor

from ops.shapes import Bool, Float, Int
from rendering.compositing import activate_density, transmittance
from rendering.field import Field
from rendering.samples import Samples
from rendering.settings import RenderSettings
from rendering.skip import Occupancy

FAINT = 2e-3  # share of a ray's light that no picture shows: half of an 8-bit grey level
DOUBT = 0.2  # third difference of the interpolated, by what it may change a pixel in 0..1
CROWD = 3  # fine samples in a gap for which the thirds are looked at: more than these are
SECTION = 16  # samples per ray looked at before asking how much light is left; doubled each time
UNSEEN = -1e4  # raw density of what was not looked at; activated, it is 0
BUNDLE = 8192  # rays at once: their samples stay in the CPU's cache


class SparseSamples(Samples):
    """Samples of which `pending` are neither known to be empty nor looked at."""

    pending: Tensor

    def __init__(
        self,
        field: Field,
        origins: Float[Tensor, "1 rays 3"],
        directions: Float[Tensor, "1 rays 3"],
        settings: RenderSettings,
        occupancy: Occupancy,
    ) -> None:
        super().__init__(field, origins, directions, settings)
        self.occupancy = occupancy
        radiance, _ = self._see(origins[:, :1], directions[:, :1])
        self.channels = radiance.shape[-1]

    def add(self, t: Float[Tensor, "1 rays more"]) -> None:
        """Keep depths, and look at those of them that matter."""
        first = not self.t.shape[-1]
        pending = self.occupancy.at(self.origins, self.directions, t)
        raw = torch.full_like(t, UNSEEN)
        radiance = raw.new_zeros(*t.shape, self.channels)
        if first:
            pending[..., -1] = self._last_shows(t[..., -1:])[..., 0]
            self.pending = pending
        elif not self.settings.jitter:  # then coarse samples are evenly spaced
            self._interpolate(t, radiance, raw, pending)
        order = self._insert(t, radiance, raw)
        if order is not None:
            self.pending = torch.cat([pending, self.pending], dim=-1).gather(-1, order)
        self._settle()

    def _last_shows(self, t: Tensor) -> Bool[Tensor, "1 rays 1"]:
        """Whether to look at the last sample, whose interval is endless.

        It is the background, or opaque however low its density: be generous.
        """
        if background_shows(self.settings):
            return torch.ones_like(t, dtype=torch.bool)
        return self.occupancy.at(self.origins, self.directions, t, near=True)

    def _settle(self) -> None:
        """Look at what is pending, front to back, until no light is left that could show more."""
        section = SECTION
        while True:
            lit = self.pending & (self._light() > FAINT)
            nearest = lit & (lit.cumsum(-1, dtype=torch.int16) <= section)
            if self._look_at(nearest) == int(lit.sum()):
                return
            section *= 2

    def _light(self) -> Float[Tensor, "1 rays samples"]:
        """Share of the light that gets to each sample, or more: what is pending absorbs none."""
        return transmittance(activate_density(self.raw, self.settings.clamp_mode), self.t)

    def _look_at(self, wanted: Bool[Tensor, "1 rays samples"]) -> int:
        """Look at the samples that a mask picks; returns how many these are."""
        picked = _indices(wanted)
        if len(picked):
            radiance, raw = self._look(picked, self.t.view(-1)[picked])
            self.radiance.view(-1, self.channels).index_copy_(0, picked, radiance)
            self.raw.view(-1).index_copy_(0, picked, raw)
            self.pending.view(-1).index_fill_(0, picked, False)
        return len(picked)

    def _look(
        self, picked: Int[Tensor, " n"], t: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n channels"], Float[Tensor, " n"]]:
        """Radiance and raw density at depths `t` of the rays that picked samples are on."""
        ray = picked // self.t.shape[-1]
        directions = self.directions[0].index_select(0, ray)
        origins = self.origins[0].index_select(0, ray)
        points = torch.addcmul(origins, directions, t[:, None])
        radiance, raw = self._see(points[None], directions[None])
        return radiance[0], raw[0, :, 0]

    def _interpolate(self, t: Tensor, radiance: Tensor, raw: Tensor, pending: Tensor) -> None:
        """Fill in the crowded ones among fine samples at `t`; they are no longer pending."""
        gaps = self.t.shape[-1] - 1  # gap k lies between the coarse samples k and k + 1
        step = (self.settings.ray_end - self.settings.ray_start) / gaps
        place = (t - self.settings.ray_start) / step
        gap = place.to(torch.int64).clamp_(0, gaps - 1)
        light = self._light()
        crowd = torch.zeros_like(light).scatter_add_(-1, gap, pending.to(t.dtype))
        start = _indices((crowd > 0) & (light > FAINT))
        if not len(start) or gaps < 3:
            return
        first, spread, nodes, sure = self._cubics(start, crowd.view(-1)[start] >= CROWD, light)
        start, first, spread, nodes = start[sure], first[sure], spread[sure], nodes[sure]
        number = torch.full_like(light, -1, dtype=torch.int64)  # of each gap's cubic, if it has one
        number.view(-1)[start] = torch.arange(len(start), device=t.device)
        number = number.gather(-1, gap)
        picked = _indices(pending & (number >= 0))
        own = number.view(-1).index_select(0, picked)
        x = (place.view(-1)[picked] - first[own]) * spread[own]
        values = torch.einsum("nk,nkc->nc", _lagrange(x), nodes[own])
        radiance.view(-1, self.channels).index_copy_(0, picked, values[:, :-1])
        raw.view(-1).index_copy_(0, picked, values[:, -1])
        pending.view(-1).index_fill_(0, picked, False)

    def _cubics(
        self,
        start: Int[Tensor, " gaps"],
        crowded: Bool[Tensor, " gaps"],
        light: Float[Tensor, "1 rays samples"],
    ) -> tuple[
        Int[Tensor, " gaps"],
        Float[Tensor, " gaps"],
        Float[Tensor, "gaps 4 values"],
        Bool[Tensor, " gaps"],
    ]:
        """The cubic through radiance and raw density in the gaps that start at these samples.

        Where its nodes begin, how many of them there are per coarse sample, their values, and
        whether it is good enough. Thirds are looked at in crowded gaps only.
        """
        first, nodes = self._neighbours(start)
        spread = torch.ones_like(nodes[:, 0, 0])
        step = (self.settings.ray_end - self.settings.ray_start) / (light.shape[-1] - 1)
        before, after = light.view(-1)[start], light.view(-1)[start + 1]
        counts = ((before + after) / 2 * step, before - after)
        doubt = _doubt(nodes, *counts)
        # a rough field may look smooth in one gap, but not all along a ray
        along = torch.zeros_like(light).view(-1).index_put((start,), doubt).view_as(light)
        doubt = along.amax(-1).view(-1)[start // light.shape[-1]]
        again = ((doubt > DOUBT) & crowded).nonzero()[:, 0]
        nodes[again] = self._thirds(start[again], step)
        first[again], spread[again] = start[again] % light.shape[-1], 3
        doubt[again] = _doubt(nodes[again], *(count[again] for count in counts))
        return first, spread, nodes, doubt <= DOUBT

    def _neighbours(
        self, start: Int[Tensor, " gaps"]
    ) -> tuple[Int[Tensor, " gaps"], Float[Tensor, "gaps 4 values"]]:
        """Four coarse samples around each gap: the place of the first, radiance and raw density."""
        count = self.t.shape[-1]
        place = start % count
        first = (place - 1).clamp(0, count - 4)
        samples = (start - place + first)[:, None] + torch.arange(4, device=start.device)
        wanted = torch.zeros_like(self.pending)
        wanted.view(-1)[samples] = True
        self._look_at(wanted & (self.raw <= UNSEEN))
        return first, self._known(samples)

    def _thirds(self, start: Int[Tensor, " gaps"], step: float) -> Float[Tensor, "gaps 4 values"]:
        """Radiance and raw density at the ends of gaps and at their thirds."""
        t = self.t.view(-1)[start]
        radiance, raw = self._look(start.repeat(2), torch.cat([t + step / 3, t + 2 * step / 3]))
        first, second = torch.cat([radiance, raw[:, None]], dim=-1).chunk(2)
        return torch.stack([self._known(start), first, second, self._known(start + 1)], dim=1)

    def _known(self, samples: Int[Tensor, "*n"]) -> Float[Tensor, "*n values"]:
        """Radiance and raw density of samples that were looked at."""
        radiance = self.radiance.view(-1, self.channels)[samples]
        return torch.cat([radiance, self.raw.view(-1)[samples][..., None]], dim=-1)


def _doubt(
    nodes: Float[Tensor, "gaps 4 values"],
    density: Float[Tensor, " gaps"],
    colour: Float[Tensor, " gaps"],
) -> Float[Tensor, " gaps"]:
    """What third differences could change in a pixel, given how much density and colour count."""
    third = (nodes[:, 3] - nodes[:, 0] + 3 * (nodes[:, 1] - nodes[:, 2])).abs()
    return third[:, -1] * density + third[:, :-1].amax(-1) * colour


def background_shows(settings: RenderSettings) -> bool:
    """Whether the last sample is seen by all light that gets there: softplus makes it opaque."""
    return settings.last_back or settings.clamp_mode == "softplus"


def _indices(mask: Tensor) -> Int[Tensor, " n"]:
    return mask.view(-1).nonzero()[:, 0]


def _lagrange(x: Float[Tensor, " n"]) -> Float[Tensor, "n 4"]:
    """Lagrange's weights at x of values at 0, 1, 2 and 3."""
    a, b, c = x - 1, x - 2, x - 3
    return torch.stack([-a * b * c / 6, x * b * c / 2, -x * a * c / 2, x * a * b / 6], dim=-1)

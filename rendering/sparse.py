"""Samples along the rays of one fixed scene, of which only those are looked at that matter.

Three kinds of samples are left out:

- empty ones, which lie outside the occupied cells (rendering/skip.py);
- hidden ones, where no more than FAINT of the light gets by the densities in front of them;
- crowded ones. Importance sampling puts dozens of fine samples between two coarse ones. They lie
  on the cubic through the four coarse samples around, unless its third difference could be seen in
  the pixel (DOUBT). Then the field is looked at once more, in the gap's middle, and the curve is
  bent to go through that; where it missed it by what could be seen (MISS), the same is done at the
  gap's quarters; and where it missed these, too, or there are too few samples to save, all of them
  are looked at. Raw densities are interpolated, not activated ones: a surface stays as sharp as it
  is.

So a picture differs from the full one by about FAINT and, where samples are crowded, by a small
part of DOUBT and MISS; the tests hold it to 45 dB, on networks of random weights, too.
"""

import torch
from torch import Tensor

from ops.shapes import Bool, Float, Int
from rendering.compositing import activate_density, transmittance
from rendering.curves import bend_at_quarters, bend_in_middle, cubics, evaluate
from rendering.field import Field
from rendering.samples import Samples
from rendering.settings import RenderSettings
from rendering.skip import VOID, Occupancy

FAINT = 2e-3  # share of a ray's light that no picture shows: half of an 8-bit grey level
DOUBT = 0.13  # third difference of the interpolated, by what it may change a pixel in 0..1
MISS = 0.036  # the same of the interpolated, by how far off it was in the middle of a gap
CROWDS = (2, 4)  # fine samples in a gap for which its middle is looked at, and its quarters
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
            self._look_at(self._lit())
        else:
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
        lit, section = self.pending, SECTION
        while True:
            nearest = lit & (lit.cumsum(-1, dtype=torch.int16) <= section)
            if self._look_at(nearest) == int(lit.sum()):
                return
            lit, section = self._lit(), 2 * section

    def _lit(self) -> Bool[Tensor, "1 rays samples"]:
        """What is pending and gets light that could show it."""
        return self.pending & (self._light() > FAINT)

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
        curves, sure = self._curves(start, crowd.view(-1)[start], light)
        number = torch.full_like(light, -1, dtype=torch.int64)  # of each gap's curve, if it has one
        order = torch.arange(len(start), device=t.device)
        number.view(-1)[start] = torch.where(sure, order, -1)
        number = number.gather(-1, gap)
        picked = _indices(pending & (number >= 0))
        own = number.view(-1).index_select(0, picked)
        x = (place - gap).view(-1).index_select(0, picked)
        values = evaluate(curves, x, own)
        radiance.view(-1, self.channels).index_copy_(0, picked, values[:, :-1])
        raw.view(-1).index_copy_(0, picked, values[:, -1])
        pending.view(-1).index_fill_(0, picked, False)

    def _curves(
        self,
        start: Int[Tensor, " gaps"],
        crowd: Float[Tensor, " gaps"],
        light: Float[Tensor, "1 rays samples"],
    ) -> tuple[Float[Tensor, "5 gaps values"], Bool[Tensor, " gaps"]]:
        """Radiance and raw density along the gaps that start at these samples.

        Which of the curves are good enough, too. The more fine samples there are in a gap, its
        `crowd`, the more may be looked at to make them so.
        """
        edge, nodes = self._neighbours(start)
        curves = cubics(nodes, edge)
        step = (self.settings.ray_end - self.settings.ray_start) / (light.shape[-1] - 1)
        before, after = light.view(-1)[start], light.view(-1)[start + 1]
        density, colour = (before + after) / 2 * step, before - after  # what these count in a pixel

        def doubt(miss: Tensor, gaps: Tensor) -> Tensor:
            miss = miss.abs()
            return miss[:, -1] * density[gaps] + miss[:, :-1].amax(-1) * colour[gaps]

        every = torch.arange(len(start), device=start.device)
        wall = nodes[..., -1].amin(-1) <= VOID  # where a field ends: there, no curve goes along
        doubts = doubt(6 * curves[3], every)
        doubts = doubts.maximum(self._worst(start, doubts.masked_fill(wall, 0)))
        sure = doubts <= DOUBT
        again = every[~sure & ~wall & (crowd >= CROWDS[0])]
        (miss,) = self._misses(start[again], curves[:, again], 1 / 2)
        curves[:, again] = bend_in_middle(curves[:, again], edge[again], miss)
        sure[again] = self._worst(start[again], doubt(miss, again)) <= MISS
        again = again[~sure[again] & (crowd[again] >= CROWDS[1])]
        first, second = self._misses(start[again], curves[:, again], 1 / 4, 3 / 4)
        curves[:, again] = bend_at_quarters(curves[:, again], first, second)
        doubts = doubt(torch.maximum(first.abs(), second.abs()), again)
        sure[again] = self._worst(start[again], doubts) <= MISS
        return curves, sure

    def _misses(
        self,
        start: Int[Tensor, " gaps"],
        curves: Float[Tensor, "5 gaps values"],
        *places: float,
    ) -> tuple[Float[Tensor, "gaps values"], ...]:
        """Look at these places, shares of gaps: how far off are the curves?"""
        step = (self.settings.ray_end - self.settings.ray_start) / (self.t.shape[-1] - 1)
        t = self.t.view(-1)[start]
        t = torch.cat([t + place * step for place in places])
        radiance, raw = self._look(start.repeat(len(places)), t)
        gaps = torch.arange(len(start), device=t.device).repeat(len(places))
        x = torch.tensor(places, device=t.device, dtype=t.dtype).repeat_interleave(len(start))
        found = torch.cat([radiance, raw[:, None]], dim=-1)
        return (found - evaluate(curves, x, gaps)).chunk(len(places))

    def _worst(
        self, start: Int[Tensor, " gaps"], doubt: Float[Tensor, " gaps"]
    ) -> Float[Tensor, " gaps"]:
        """The greatest doubt on each gap's ray: a rough field may look smooth in one gap."""
        along = torch.zeros_like(self.t).view(-1).index_put((start,), doubt).view_as(self.t)
        return along.amax(-1).view(-1)[start // self.t.shape[-1]]

    def _neighbours(
        self, start: Int[Tensor, " gaps"]
    ) -> tuple[Int[Tensor, " gaps"], Float[Tensor, "gaps 4 values"]]:
        """Radiance and raw density of four coarse samples around gaps.

        Also which of the four each gap begins at: number 1, but at the ends of what is known.
        """
        count = self.t.shape[-1]
        place = start % count
        known = (self.raw > UNSEEN).view(-1)
        around = (start + torch.tensor([[-2], [-1], [2], [3]], device=start.device)).clamp_(min=0)
        farther, before, after, beyond = known[around.clamp_(max=len(known) - 1)]
        # where a surface begins or light ends, take samples from one side, if these are known
        shift = (~before & beyond).long() - (before & ~after & farther).long()
        first = (place - 1 + shift).clamp(0, count - 4)
        samples = (start - place + first)[:, None] + torch.arange(4, device=start.device)
        wanted = torch.zeros_like(self.pending)
        wanted.view(-1)[samples] = True
        self._look_at(wanted & (self.raw <= UNSEEN))
        return place - first, self._known(samples)

    def _known(self, samples: Int[Tensor, "*n"]) -> Float[Tensor, "*n values"]:
        """Radiance and raw density of samples that were looked at."""
        radiance = self.radiance.view(-1, self.channels)[samples]
        return torch.cat([radiance, self.raw.view(-1)[samples][..., None]], dim=-1)


def background_shows(settings: RenderSettings) -> bool:
    """Whether the last sample is seen by all light that gets there: softplus makes it opaque."""
    return settings.last_back or settings.clamp_mode == "softplus"


def _indices(mask: Tensor) -> Int[Tensor, " n"]:
    return mask.view(-1).nonzero()[:, 0]

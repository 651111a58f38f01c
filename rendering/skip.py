"""Empty space and hidden samples, left out of pictures of one fixed scene.

`find_occupancy` looks at the density on a lattice, once, and marks the cells in which something may
be. Pictures then pass by what is empty: rays that meet no marked cell are background, samples
outside marked cells are not looked at, nor are samples behind which no light is left.

What is left out is bounded. A cell counts as empty only if the density at its corners is below the
level that a picture can show, by a margin of how much it varies around; and a sample is hidden only
if no more than FAINT of the light gets there, by the densities of the final picture.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Bool, Float, Int
from rendering.cameras import Cameras
from rendering.compositing import activate_density, transmittance
from rendering.field import Field, raw_density
from rendering.samples import LOCKED_DIRECTION, Samples
from rendering.settings import RenderSettings

FAINT = 1e-4  # share of a ray's light that no picture shows: a fortieth of an 8-bit grey level
EMPTY = -1e4  # raw density of what is not looked at; activated it is 0
VOID = -1e3  # and below: what a field answers where, by construction, nothing can be
MARGIN = 1.0  # a cell may exceed its corners by so many times the variation around it
COARSE, REFINE = 64, 3  # cells along the box's sides; of each of them, where something may be
SECTION = 8


class Occupancy:
    """The cells of a box that something may be in; outside the box, something may be anywhere."""

    def __init__(
        self, cells: Bool[Tensor, "x y z"], low: Float[Tensor, "3"], high: Float[Tensor, "3"]
    ) -> None:
        """`cells` divide the box between its corners `low` and `high`."""
        n = torch.tensor(cells.shape, device=low.device)
        self.share = float(cells.float().mean())
        # a ring of occupied cells stands for everything outside
        self._cells = F.pad(cells, (1,) * 6, value=True)
        self._scale = (n / (high - low)).tolist()
        self._shift = [1 - a * s for a, s in zip(low.tolist(), self._scale, strict=True)]

    def at(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
        t: Float[Tensor, "batch rays samples"],
    ) -> Bool[Tensor, "batch rays samples"]:
        """Whether something may be at depths of rays."""
        index = torch.zeros_like(t, dtype=torch.int32)
        for axis, size in enumerate(self._cells.shape):
            scale, shift = self._scale[axis], self._shift[axis]
            start = origins[..., axis, None] * scale + shift
            place = torch.addcmul(start, directions[..., axis, None] * scale, t)
            index = index * size + place.clamp_(0, size - 1).to(torch.int32)
        return self._cells.view(-1)[index]


class SparseSamples(Samples):
    pending: Tensor

    def __init__(self, field, origins, directions, settings, occupancy) -> None:
        super().__init__(field, origins, directions, settings)
        self.occupancy = occupancy

    def add(self, t: Tensor) -> None:
        pending = self.occupancy.at(self.origins, self.directions, t)
        raw = torch.full_like(t, EMPTY)
        if not self.t.shape[-1]:
            if TOL and self.settings.hierarchical and not self.settings.jitter:
                pending = F.max_pool1d(pending.float(), 7, stride=1, padding=3) > 0
            if shows_last(self.settings):
                pending[..., -1] = True
            self.t, self.raw, self.pending = t, raw, pending
            pending[0, 0, 0] = True
            self.radiance = None
            self._settle()
        else:
            radiance = self.radiance.new_zeros(*t.shape, self.radiance.shape[-1])
            if TOL and not self.settings.jitter:
                self._interpolate(t, raw, radiance, pending)
            self.t, order = torch.sort(torch.cat([t, self.t], dim=-1), dim=-1, stable=True)
            self.raw = torch.cat([raw, self.raw], dim=-1).gather(-1, order)
            self.pending = torch.cat([pending, self.pending], dim=-1).gather(-1, order)
            radiance = torch.cat([radiance, self.radiance], dim=-2)
            self.radiance = radiance.gather(-2, order[..., None].expand_as(radiance))
            self._settle()

    def _interpolate(self, t, raw, radiance, pending):
        S = self.t.shape[-1]
        step = (self.settings.ray_end - self.settings.ray_start) / (S - 1)
        density = activate_density(self.raw, self.settings.clamp_mode)
        light = transmittance(density, self.t)
        known = self.raw > EMPTY

        def fourth(v):
            d = (
                v[:, :, 4:] + v[:, :, :-4] - 4 * (v[:, :, 1:-3] + v[:, :, 3:-1]) + 6 * v[:, :, 2:-2]
            ).abs() * (3 / 128)
            return torch.maximum(d[:, :, 1:], d[:, :, :-1])  # bins 2 .. S-4

        weight = light[..., 2:-3] - light[..., 3:-2]
        doubt = fourth(self.radiance).amax(-1) * weight + fourth(self.raw) * step * light[..., 2:-3]
        smooth = doubt < TOL
        for i in range(6):
            smooth &= known[..., i : known.shape[-1] - 5 + i]
        smooth = F.pad(smooth, (2, 3))  # bin k lies between samples k and k + 1
        place = (t - self.settings.ray_start) / step
        bins = place.to(torch.int64)
        picked = (pending & smooth.gather(-1, bins)).view(-1).nonzero()[:, 0]
        STAT[2] += len(picked)
        k = bins.view(-1)[picked]
        f = place.view(-1)[picked] - k
        node = picked // t.shape[-1] * S + k
        coefficients = (
            -f * (f - 1) * (f - 2) / 6,
            (f + 1) * (f - 1) * (f - 2) / 2,
            -(f + 1) * f * (f - 2) / 2,
            (f + 1) * f * (f - 1) / 6,
        )
        flat_raw, flat_radiance = self.raw.view(-1), self.radiance.view(-1, self.radiance.shape[-1])
        raw.view(-1)[picked] = sum(c * flat_raw[node + i - 1] for i, c in enumerate(coefficients))
        radiance.view(-1, radiance.shape[-1])[picked] = sum(
            c[:, None] * flat_radiance[node + i - 1] for i, c in enumerate(coefficients)
        )
        pending.view(-1)[picked] = False

    def _settle(self) -> None:
        section = SECTION
        while True:
            density = activate_density(self.raw, self.settings.clamp_mode)
            wanted = self.pending & (transmittance(density, self.t) > FAINT)
            if not wanted.any():
                return
            wanted &= wanted.cumsum(-1, dtype=torch.int16) <= section
            section *= 2
            self._look_at(wanted)

    def _look_at(self, wanted):
        picked = wanted.view(-1).nonzero()[:, 0]
        ray = picked // self.t.shape[-1]
        d = self.directions[0, ray]
        points = self.origins[0, ray] + d * self.t.view(-1)[picked, None]
        views = (
            d.new_tensor(LOCKED_DIRECTION).expand_as(d) if self.settings.lock_view_dependence else d
        )
        radiance, raw = self.field(points[None], views[None])
        if self.radiance is None:
            self.radiance = radiance.new_zeros(*self.t.shape, radiance.shape[-1])
        STAT[0] += len(picked)
        self.radiance.view(-1, radiance.shape[-1])[picked] = radiance[0]
        self.raw.view(-1)[picked] = raw[0, :, 0]
        self.pending.view(-1)[picked] = False


TOL = 1e-3
STAT = [0, 0, 0]


def shows_last(settings: RenderSettings) -> bool:
    """Whether the last sample is seen wherever light gets there: softplus makes it opaque."""
    return settings.last_back or settings.clamp_mode == "softplus"


@torch.no_grad()
def find_occupancy(
    field: Field, cameras: Cameras, settings: RenderSettings, coarse=None, refine=None, margin=None
) -> Occupancy:
    coarse = coarse or COARSE
    refine = refine or REFINE
    low, high = reach(cameras, settings)
    level = empty_level(settings)
    everywhere = torch.ones(1, 1, coarse, coarse, coarse, dtype=torch.bool, device=low.device)
    cells = _occupied(field, everywhere, low, high, level)
    if refine > 1:
        for axis in (2, 3, 4):
            cells = cells.repeat_interleave(refine, dim=axis)
        cells = _occupied(field, cells, low, high, level)
    return Occupancy(cells[0, 0], low, high)


def empty_level(settings: RenderSettings) -> float:
    if settings.clamp_mode == "relu":
        return 0.0
    return math.log(math.expm1(FAINT / (settings.ray_end - settings.ray_start)))


def reach(cameras: Cameras, settings: RenderSettings):
    origins, directions = cameras.rays(9, 9)
    ends = torch.cat([origins + directions * t for t in (settings.ray_start, settings.ray_end)])
    low, high = ends.flatten(0, 1).aminmax(dim=0)
    slack = 0.02 * (high - low)
    return low - slack, high + slack


def _occupied(field, cells, low, high, level):
    """Of the marked `cells` (1, 1, n, n, n), those in which something may be."""
    n = cells.shape[-1]
    corners = F.max_pool3d(F.pad(cells.float(), (1,) * 6), 2, stride=1)[0, 0] > 0
    index = corners.nonzero()
    points = low + index * ((high - low) / n)
    values = raw_density(field, points[None])[0, :, 0]
    STAT[1] += len(points)
    raw = torch.full(corners.shape, -math.inf, device=low.device)
    raw[corners] = values
    known = raw > VOID
    highest = F.max_pool3d(raw[None, None], 2, stride=1)
    lowest = -F.max_pool3d(torch.where(known, -raw, -math.inf)[None, None], 2, stride=1)
    spread = torch.where(lowest.isfinite(), highest - lowest, 0)
    spread = F.max_pool3d(spread, 3, stride=1, padding=1)
    return cells & (highest + MARGIN * spread > level)

"""A few samples on each ray, placed by a density grid where the light is absorbed.

In place of a coarse pass, every ray is followed through a density grid (rendering/density_grid.py)
in steps that cost no evaluation. The field is looked at only at quantiles of the light that is
absorbed on the way: the middles of `samples` equal shares. What it says there corrects the grid:
the difference of both raw densities is interpolated along the ray, and so are the colours. What is
composited are the steps, as if they all had been looked at.

Left out are rays in empty space, and the last sample (which is endless, and the background with
`last_back`) where less than FAINT of the light gets.
"""

import math

import torch
from torch import Tensor

from ops.shapes import Bool, Float, Int
from rendering.cameras import Cameras
from rendering.compositing import activate_density, render_weights, transmittance
from rendering.density_grid import DensityGrid
from rendering.field import Field
from rendering.samples import Samples
from rendering.sampling import invert_cdf, quantiles
from rendering.settings import RenderSettings
from rendering.skip import Occupancy, farthest, visible_level
from rendering.sparse import FAINT, UNSEEN, background_shows

SPARE = 1.1  # the grid's cube is somewhat larger than what a camera sees: the next may zoom out
FINE = 1.25  # steps per cell of the grid
SPREAD = 0.05  # standard deviation of the depths that a ray absorbs its light at, in rays, from
# which it gets all samples
FADE = 2.0  # cells from a sample to where it corrects the grid no more; fully, up to one less
DOUBT = 0.1  # how far below what pictures show the grid may be wrong, in units of the highest


class Proposal:
    """How one scene is sampled: `samples` on a ray at most, placed by the scene's density grid.

    The grid grows with what is seen: a picture may differ from the same one taken later, by less
    than it differs from the truth. Cameras that see much further, or less far, have it made anew.
    """

    grid: DensityGrid | None = None

    def __init__(self, samples: int) -> None:
        if not isinstance(samples, int) or samples < 1:
            raise ValueError(f"a proposal needs a sample per ray or more, got {samples!r}")
        self.samples = samples

    def extend(self, field: Field, cameras: Cameras, settings: RenderSettings) -> Occupancy:
        """Let the grid know what a camera sees; returns where it is not empty."""
        camera = cameras.cam2world
        with torch.autocast(camera.device.type, enabled=False):  # the field alone follows it
            reach = farthest(cameras, settings)
            if (
                self.grid is None
                or not reach <= self.grid.reach <= SPARE**2 * reach  # too coarse, if far larger
                or self.grid.level > visible_level(settings)
            ):
                self.grid = DensityGrid(SPARE * reach, settings, camera)
            width = 2 * math.tan(math.radians(float(cameras.fov)) / 2) * settings.ray_end
            rays = 2 + math.ceil(2 * width / self.grid.widest)
            origins, directions = cameras.rays(rays, rays)
        self.grid.extend(field, origins, directions, settings)
        assert self.grid.occupancy is not None
        return self.grid.occupancy


def check_proposal(settings: RenderSettings, occupancy: Occupancy | None) -> None:
    """Refuse what a proposal leaves no room for."""
    if settings.jitter:
        raise ValueError("a proposal places samples where light is absorbed: jitter must be False")
    if occupancy is not None:
        raise ValueError("a proposal finds empty space itself: give it alone, without occupancy")


class ProposedSamples(Samples):
    """Steps along rays, whose densities and colours are interpolated between few samples."""

    def __init__(
        self,
        field: Field,
        origins: Float[Tensor, "1 rays 3"],
        directions: Float[Tensor, "1 rays 3"],
        settings: RenderSettings,
        proposal: Proposal,
    ) -> None:
        super().__init__(field, origins, directions, settings)
        assert proposal.grid is not None
        self.grid, self.most = proposal.grid, proposal.samples
        start, end = settings.ray_start, settings.ray_end
        steps = 1 + math.ceil(FINE * (end - start) / self.grid.side)
        self.edges = torch.linspace(start, end, steps + 1).to(origins)
        middles = (self.edges[1:] + self.edges[:-1]) / 2
        t = torch.cat([middles, self.edges[-1:]])  # the last is the settings' last sample
        self.t = t.expand(1, origins.shape[1], -1)
        self.guess = self.grid.at(origins, directions, self.t)
        self.raw = self.guess.clone()
        channels = self._see(origins[:, :1], directions[:, :1])[0].shape[-1]
        self.radiance = self.raw.new_zeros(*self.t.shape, channels)
        density = activate_density(self.guess, settings.clamp_mode)
        weights = render_weights(density, self.t)[..., :-1]  # not of the last, which is endless
        number = self._shares(weights)
        for count in number.unique().tolist():
            rows = (number == count).nonzero()[:, 0]
            if count:
                self._look_at(rows, self._place(weights[:, rows], count))
            else:
                self._look_where_nearest(rows)
        self._look_at_last()

    def _shares(self, weights: Tensor) -> Int[Tensor, " rays"]:
        """How many samples each ray gets: 0 where nothing is seen, 1 for a thin surface."""
        t = self.t[..., :-1]
        light = weights.sum(-1)
        inverse = 1 / light.clamp(min=FAINT)
        mean = (weights * t).sum(-1) * inverse
        spread = ((weights * (t - mean[..., None]).square()).sum(-1) * inverse).sqrt()
        wide = SPREAD * (self.settings.ray_end - self.settings.ray_start)
        number = (spread * (self.most / wide)).round().clamp(1, self.most).long()
        return torch.where(light > FAINT, number, 0)[0]

    def _place(self, weights: Tensor, count: int) -> Tensor:
        """Depths (1, n, count): middles of equal shares of the light that rays send."""
        rays = weights.shape[1]
        u = quantiles(1, rays, count, device=weights.device, dtype=weights.dtype)
        return invert_cdf(self.edges.expand(1, rays, -1), weights, u)

    def _look_where_nearest(self, rows: Tensor) -> None:
        """Of rays that are empty by the grid, look at those which are so by little, once."""
        highest, nearest = self.guess[:, rows].max(dim=-1, keepdim=True)
        picked = self._may_show(highest[0, :, 0]).nonzero()[:, 0]
        if len(picked):
            t = self.t[:, : len(picked)].gather(-1, nearest[:, picked])
            self._look_at(rows[picked], t)

    def _may_show(self, raw: Tensor) -> Bool[Tensor, " rays"]:
        """Whether pictures may show something where the grid has these densities."""
        return raw > self.grid.level - DOUBT * self.grid.depth

    def _look(self, rows: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Radiance and raw density at depths (1, n, samples) of some rays."""
        origins, directions = self.origins[:, rows, None], self.directions[:, rows, None]
        points = torch.addcmul(origins, directions, t[..., None])
        views = directions.expand_as(points)
        radiance, raw = self._see(points.flatten(1, 2), views.flatten(1, 2))
        return radiance.view(*t.shape, -1), raw.view(t.shape)

    def _look_at(self, rows: Tensor, t: Tensor) -> None:
        """Look at ascending depths (1, n, samples) of rays, and let all their steps know."""
        radiance, raw = self._look(rows, t)
        off = raw.clamp(min=self.grid.level - self.grid.depth) - self._guess(rows, t)
        found = torch.cat([radiance, off[..., None]], dim=-1)
        along = interpolate(self.t[:, rows], t, found)
        self.radiance[:, rows] = along[..., :-1]
        apart = (self.t[:, rows, :, None] - t[..., None, :]).abs_().amin(-1)
        near = (FADE - apart / self.grid.side).clamp_(0, 1)
        self.raw[:, rows] += along[..., -1] * near

    def _guess(self, rows: Tensor, t: Tensor) -> Tensor:
        """The grid's raw density at depths (1, n, samples) of rays, as the steps have it."""
        raw, step = self.guess[:, rows, :-1], self.edges[1] - self.edges[0]
        place = ((t - self.t[0, 0, 0]) / step).clamp(0, raw.shape[-1] - 1.001)
        index = place.long()
        return torch.lerp(raw.gather(-1, index), raw.gather(-1, index + 1), place - index)

    def _look_at_last(self) -> None:
        """Look at the last sample where it is seen; elsewhere it absorbs nothing."""
        density = activate_density(self.raw, self.settings.clamp_mode)
        seen = transmittance(density, self.t)[0, :, -1] > FAINT
        if not background_shows(self.settings):
            seen &= self._may_show(self.raw[0, :, -1])
        self.raw[..., -1] = UNSEEN
        rows = seen.nonzero()[:, 0]
        if len(rows):
            radiance, raw = self._look(rows, self.t[:, rows, -1:])
            self.radiance[:, rows, -1], self.raw[:, rows, -1] = radiance[..., 0, :], raw[..., 0]


def interpolate(
    x: Float[Tensor, "1 rays steps"],
    nodes: Float[Tensor, "1 rays n"],
    values: Float[Tensor, "1 rays n channels"],
) -> Float[Tensor, "1 rays steps channels"]:
    """Piecewise linear curves through values at ascending nodes, constant beyond the ends."""
    gap = (nodes[..., 1:] - nodes[..., :-1]).clamp(min=1e-9)
    share = ((x[..., None] - nodes[..., None, :-1]) / gap[..., None, :]).clamp_(0, 1)
    return values[..., :1, :] + share @ (values[..., 1:, :] - values[..., :-1, :])

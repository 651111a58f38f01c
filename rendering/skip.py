"""Where a fixed scene is empty: found once, used by every picture of it.

`find_occupancy` looks at the density on a lattice about the origin and marks the cells in which
something may be. A cell counts as empty only if the density at its corners stays below what a
picture can show by a good part of what it varies by around there. What rays do with it is in
rendering/sparse.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Bool, Float, Int
from rendering.cameras import Cameras
from rendering.field import Field, raw_density
from rendering.settings import RenderSettings

COARSE, FEWEST = 64, 36  # cells along the sides of the cube at first, at most and at least
SPENT = 0.25  # of a picture's coarse pass: it must pay for the first picture already
FINER = (3, 2)  # what the sides of occupied cells are then divided by: the first that is affordable
AFFORDABLE = 1_000_000  # finer cells, at most
MARGIN = 0.3  # a cell may exceed its corners by this share of the variation around it
VOID = -1e3  # raw density below which a field says: here, by construction, nothing can be
THIN = 1e-3  # optical thickness of a whole ray that no picture shows
RAYS = 8192  # rays tested at once: their probes stay in the CPU's cache


class Occupancy:
    """The cells that something may be in, of a cube about the origin; outside, it may be anywhere.

    Known within `reach` of the origin, for raw densities above `level`.
    """

    def __init__(self, cells: Bool[Tensor, "n n n"], reach: float, level: float = 0.0) -> None:
        """`cells` divide the cube of half side `reach`."""
        count = len(cells)
        self.reach, self.level = reach, level
        self.share = float(cells.float().mean())  # of the cells that are occupied
        self.side = 2 * reach / count  # of a cell, in world units
        self._count = count + 2
        # a ring of occupied cells stands for everything outside
        self._cells = F.pad(cells, (1,) * 6, value=True).reshape(-1)
        self._near = F.pad(_dilate(cells), (1,) * 6, value=True).reshape(-1)

    def holds(self, cameras: Cameras, settings: RenderSettings) -> bool:
        """Whether it knows everything that these cameras see with these settings."""
        return self.level <= visible_level(settings) and farthest(cameras, settings) <= self.reach

    def at(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
        t: Float[Tensor, "batch rays samples"],
        *,
        near: bool = False,
    ) -> Bool[Tensor, "batch rays samples"]:
        """Whether something may be at depths of rays, or less than a cell away, with `near`."""
        index = None  # whole numbers, exact in single precision below 2^24
        for start, slope in zip(origins.unbind(-1), directions.unbind(-1), strict=True):
            start = (start / self.side + self._count / 2)[..., None]
            place = torch.addcmul(start, slope[..., None] / self.side, t)
            place = place.clamp_(0, self._count - 1).floor_()
            index = place if index is None else place.add_(index, alpha=self._count)
        assert index is not None
        cells = self._near if near else self._cells
        return cells.index_select(0, index.reshape(-1).to(torch.int32)).reshape(t.shape)

    def rays(
        self,
        origins: Float[Tensor, "1 rays 3"],
        directions: Float[Tensor, "1 rays 3"],
        settings: RenderSettings,
    ) -> Int[Tensor, " met"]:
        """Indices of the rays that may show something other than empty space; one at least."""
        slack = 0.5 * (settings.ray_end - settings.ray_start) / (settings.num_steps - 1)
        near, far = settings.ray_start - slack, settings.ray_end + slack
        probes = 2 + math.floor((far - near) / (2 * self.side))  # none is further than a cell
        t = torch.linspace(near, far, probes, device=origins.device, dtype=origins.dtype)
        met = []
        for o, d in zip(origins.split(RAYS, dim=1), directions.split(RAYS, dim=1), strict=True):
            met.append(self.at(o, d, t.expand(1, o.shape[1], probes), near=True).any(-1)[0])
        result = torch.cat(met).nonzero()[:, 0]
        return result if len(result) else result.new_zeros(1)


def visible_level(settings: RenderSettings) -> float:
    """Raw density from which pictures show something: softplus is never 0, but soon too thin."""
    if settings.clamp_mode == "relu":
        return 0.0
    return math.log(math.expm1(THIN / (settings.ray_end - settings.ray_start)))


def farthest(cameras: Cameras, settings: RenderSettings) -> float:
    """Distance from the origin within which the samples of the cameras' rays lie.

    The same for all cameras turned about the origin.
    """
    origins, directions = cameras.rays(9, 9)
    slack = 0.5 * (settings.ray_end - settings.ray_start) / (settings.num_steps - 1)  # of jitter
    ends = (max(settings.ray_start - slack, 0.0), settings.ray_end + slack)
    return max(float((origins + directions * t).norm(dim=-1).max()) for t in ends)


@torch.no_grad()
def find_occupancy(
    field: Field, reach: float, settings: RenderSettings, device: torch.device | None = None
) -> Occupancy:
    """Mark what is not empty of a field of one scene within `reach` of the origin.

    That takes about SPENT of a picture's coarse pass in points, as often again for finer cells; of
    a small picture more: up to FEWEST cells a side, or as many as the whole pass has points.
    """
    level = visible_level(settings)
    pass_points = settings.resolution**2 * settings.num_steps
    points = max(SPENT * pass_points, min(FEWEST**3, pass_points))
    count = min(COARSE, math.ceil(points ** (1 / 3)))
    middle = (torch.arange(count, device=device) + 0.5) * (2 / count) - 1
    squares = middle.square()
    distance = (squares[:, None, None] + squares[:, None] + squares).sqrt()
    inside = distance <= 1 + math.sqrt(3) / count  # of cells beyond, nothing need be known
    cells = _occupied(field, inside, reach, level)
    for factor in FINER:
        if cells.sum() * factor**3 <= min(AFFORDABLE, points):
            for axis in range(3):
                cells = cells.repeat_interleave(factor, dim=axis)
                inside = inside.repeat_interleave(factor, dim=axis)
            cells = _occupied(field, cells, reach, level)
            break
    return Occupancy(cells | ~inside, reach, level)


def _occupied(field: Field, cells: Tensor, reach: float, level: float) -> Tensor:
    """Of the marked cells (n, n, n), those in which the raw density may exceed `level`."""
    corners = highest_neighbour(F.pad(cells.float(), (1,) * 6), 2) > 0
    points = corners.nonzero() * (2 * reach / len(cells)) - reach
    raw = torch.full(corners.shape, -math.inf, device=cells.device)
    raw[corners] = raw_density(field, points[None])[0, :, 0].float()
    highest = highest_neighbour(raw, 2)
    # a wall, where a field ends, is no slope: it says nothing about the density beside it
    lowest = -highest_neighbour(torch.where(raw > VOID, -raw, -math.inf), 2)
    variation = torch.where(lowest < math.inf, highest - lowest, 0)
    variation = highest_neighbour(variation, 3)
    return cells & (highest + MARGIN * variation > level)


def _dilate(cells: Tensor) -> Tensor:
    """Mark the neighbours of marked cells as well."""
    return highest_neighbour(cells.float(), 3) > 0


def highest_neighbour(values: Tensor, size: int) -> Tensor:
    """Largest of 2 or 3 neighbours along every axis of (n, n, n); 3 keep the shape."""
    for axis in range(3):  # torch's pooling takes thirty times as long
        count = values.shape[axis]
        both = torch.maximum(values.narrow(axis, 0, count - 1), values.narrow(axis, 1, count - 1))
        if size == 3:
            first, last = values.narrow(axis, 0, 1), values.narrow(axis, count - 1, 1)
            left, right = torch.cat([first, both], axis), torch.cat([both, last], axis)
            both = torch.maximum(left, right)
        values = both
    return values

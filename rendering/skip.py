"""Where a fixed scene is empty: found once, used by every picture of it.

`find_occupancy` looks at the density on a lattice and marks the cells in which something may be. A
cell counts as empty only if the density at its corners stays below what a picture can show by as
much as it varies around there. What rays do with it is in rendering/sparse.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Bool, Float, Int
from rendering.cameras import Cameras
from rendering.field import Field, raw_density
from rendering.settings import RenderSettings

COARSE, FINE = 64, 128  # cells along the box's sides, at first and where something may be
MARGIN = 1.0  # a cell may exceed its corners by so many times the variation around it
VOID = -1e3  # raw density below which a field says: here, by construction, nothing can be
THIN = 1e-4  # optical thickness of a whole ray that no picture shows
CROWDED = 0.5  # share of occupied cells from which finer ones are not worth it
RAYS = 8192  # rays tested at once: their probes stay in the CPU's cache


class Occupancy:
    """The cells of a box that something may be in; outside the box, something may be anywhere."""

    def __init__(
        self, cells: Bool[Tensor, "x y z"], low: Float[Tensor, "3"], high: Float[Tensor, "3"]
    ) -> None:
        """`cells` divide the box between its corners `low` and `high`."""
        counts = torch.tensor(cells.shape, device=low.device)
        self.share = float(cells.float().mean())  # of the cells that are occupied
        self.side = float(((high - low) / counts).min())  # of a cell, in world units
        self._counts = [n + 2 for n in cells.shape]
        self._scale = (counts / (high - low)).tolist()
        self._shift = [1 - a * s for a, s in zip(low.tolist(), self._scale, strict=True)]
        # a ring of occupied cells stands for everything outside
        self._cells = F.pad(cells, (1,) * 6, value=True).reshape(-1)
        self._near = F.pad(_dilate(cells), (1,) * 6, value=True).reshape(-1)

    def at(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
        t: Float[Tensor, "batch rays samples"],
        *,
        near: bool = False,
    ) -> Bool[Tensor, "batch rays samples"]:
        """Whether something may be at depths of rays, or less than a cell away, with `near`."""
        index = torch.zeros_like(t)  # whole numbers, exact in single precision below 2^24
        for axis, count in enumerate(self._counts):
            start = origins[..., axis, None] * self._scale[axis] + self._shift[axis]
            place = torch.addcmul(start, directions[..., axis, None] * self._scale[axis], t)
            index = index.mul_(count).add_(place.clamp_(0, count - 1).floor_())
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


@torch.no_grad()
def find_occupancy(field: Field, cameras: Cameras, settings: RenderSettings) -> Occupancy:
    """Mark what is not empty of a field of one scene, wherever these cameras may see it."""
    low, high = _box(cameras, settings)
    if settings.clamp_mode == "relu":
        level = 0.0
    else:  # softplus is never 0: empty is what a whole ray does not show
        level = math.log(math.expm1(THIN / (settings.ray_end - settings.ray_start)))
    everywhere = torch.ones((COARSE,) * 3, dtype=torch.bool, device=low.device)
    cells = _occupied(field, everywhere, low, high, level)
    if cells.float().mean() < CROWDED:
        for axis in range(3):
            cells = cells.repeat_interleave(FINE // COARSE, dim=axis)
        cells = _occupied(field, cells, low, high, level)
    return Occupancy(cells, low, high)


def _box(cameras: Cameras, settings: RenderSettings) -> tuple[Tensor, Tensor]:
    """Lowest and highest corner (3,) of a box around the samples of the cameras' rays."""
    origins, directions = cameras.rays(9, 9)
    ends = torch.cat([origins + directions * t for t in (settings.ray_start, settings.ray_end)])
    low, high = ends.flatten(0, 1).float().aminmax(dim=0)
    slack = 0.05 * (high - low)  # for rays between those nine
    return low - slack, high + slack


def _occupied(field: Field, cells: Tensor, low: Tensor, high: Tensor, level: float) -> Tensor:
    """Of the marked cells (n, n, n), those in which the raw density may exceed `level`."""
    corners = F.max_pool3d(F.pad(cells.float(), (1,) * 6)[None], 2, stride=1)[0] > 0
    points = low + corners.nonzero() * ((high - low) / len(cells))
    raw = torch.full(corners.shape, -math.inf, device=low.device)
    raw[corners] = raw_density(field, points[None])[0, :, 0].float()
    highest = F.max_pool3d(raw[None], 2, stride=1)
    # a wall, where a field ends, is no slope: it says nothing about the density beside it
    lowest = -F.max_pool3d(torch.where(raw > VOID, -raw, -math.inf)[None], 2, stride=1)
    variation = torch.where(lowest < math.inf, highest - lowest, 0)
    variation = F.max_pool3d(variation, 3, stride=1, padding=1)
    return cells & (highest + MARGIN * variation > level)[0]


def _dilate(cells: Tensor) -> Tensor:
    """Mark the neighbours of marked cells as well."""
    return F.max_pool3d(cells[None].float(), 3, stride=1, padding=1)[0] > 0

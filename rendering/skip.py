"""Where a fixed scene is empty, found once and used by every picture of it.

`find_occupancy` looks at the density on a lattice and marks the cells in which something may be: a
cell counts as empty only if the density at its corners stays below what a picture can show by more
than it varies around there.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Bool, Float
from rendering.cameras import Cameras
from rendering.field import Field, raw_density
from rendering.settings import RenderSettings

THIN = 1e-4  # optical thickness of a whole ray that no picture shows
VOID = -1e3  # raw density below which a field says: here, by construction, nothing can be
MARGIN = 1.0  # a cell may exceed its corners by so many times the variation around it
COARSE, REFINE = 64, 2  # cells along the box's sides; of each of them, where something may be
WIDE = 4  # cells along a side of those that rays are tested with
STAT=[0]

class Occupancy:
    """The cells of a box that something may be in; outside the box, something may be anywhere."""

    def __init__(
        self, cells: Bool[Tensor, "x y z"], low: Float[Tensor, "3"], high: Float[Tensor, "3"]
    ) -> None:
        """`cells` divide the box between its corners `low` and `high`."""
        self.cells, self.low, self.high = cells, low, high
        counts = torch.tensor(cells.shape, device=low.device)
        self.side = float(((high - low) / counts).min())
        # a ring of occupied cells stands for everything outside
        self._ringed = F.pad(cells, (1,) * 6, value=True)
        self._scale = (counts / (high - low)).tolist()
        self._shift = [1 - a * s for a, s in zip(low.tolist(), self._scale, strict=True)]

    def at(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
        t: Float[Tensor, "batch rays samples"],
    ) -> Bool[Tensor, "batch rays samples"]:
        """Whether something may be at depths of rays."""
        index = torch.zeros_like(t, dtype=torch.int32)
        for axis, size in enumerate(self._ringed.shape):
            scale, shift = self._scale[axis], self._shift[axis]
            start = origins[..., axis, None] * scale + shift
            place = torch.addcmul(start, directions[..., axis, None] * scale, t)
            index = index * size + place.clamp_(0, size - 1).to(torch.int32)
        return self._ringed.view(-1)[index]

    def widened(self, factor: int) -> "Occupancy":
        """Cells `factor` times as wide, occupied if anything is within one of them.

        So whatever lies less than a wide cell from something is in an occupied one.
        """
        wide = F.max_pool3d(self.cells[None, None].float(), factor)
        return Occupancy(F.max_pool3d(wide, 3, stride=1, padding=1)[0, 0] > 0, self.low, self.high)


def background_shows(settings: RenderSettings) -> bool:
    """Whether the last sample is seen by all light that gets there: softplus makes it opaque."""
    return settings.last_back or settings.clamp_mode == "softplus"


def rays_that_meet(
    occupancy: Occupancy, origins: Tensor, directions: Tensor, settings: RenderSettings
) -> Tensor:
    """Indices of the rays (1, rays, 3) that may differ from the background; never none at all."""
    rays = origins.shape[1]
    if background_shows(settings):
        return torch.arange(rays, device=origins.device)
    wide = occupancy.widened(WIDE)
    slack = 0.5 * (settings.ray_end - settings.ray_start) / (settings.num_steps - 1)
    near, far = settings.ray_start - slack, settings.ray_end + slack
    probes = 1 + math.ceil((far - near) / (2 * wide.side))
    t = torch.linspace(near, far, probes, device=origins.device, dtype=origins.dtype)
    met = wide.at(origins, directions, t.expand(1, rays, probes)).any(-1)[0]
    met[0] = True
    return met.nonzero()[:, 0]


@torch.no_grad()
def find_occupancy(field: Field, cameras: Cameras, settings: RenderSettings) -> Occupancy:
    """Mark what is not empty in everything that the cameras may see of a field of one scene."""
    low, high = reach(cameras, settings)
    level = empty_level(settings)
    cells = torch.ones(1, 1, COARSE, COARSE, COARSE, dtype=torch.bool, device=low.device)
    cells = _occupied(field, cells, low, high, level)
    for axis in (2, 3, 4):
        cells = cells.repeat_interleave(REFINE, dim=axis)
    cells = _occupied(field, cells, low, high, level)
    return Occupancy(cells[0, 0], low, high)


def empty_level(settings: RenderSettings) -> float:
    """The raw density that a whole ray through it does not show."""
    if settings.clamp_mode == "relu":
        return 0.0
    return math.log(math.expm1(THIN / (settings.ray_end - settings.ray_start)))


def reach(cameras: Cameras, settings: RenderSettings) -> tuple[Tensor, Tensor]:
    """Lowest and highest corner (3,) of a box around all samples of the cameras' rays."""
    origins, directions = cameras.rays(9, 9)
    ends = torch.cat([origins + directions * t for t in (settings.ray_start, settings.ray_end)])
    low, high = ends.flatten(0, 1).aminmax(dim=0)
    slack = 0.05 * (high - low)
    return low - slack, high + slack


def _occupied(field, cells, low, high, level):
    """Of the marked `cells` (1, 1, n, n, n), those in which something may be."""
    n = cells.shape[-1]
    corners = F.max_pool3d(F.pad(cells.float(), (1,) * 6), 2, stride=1)[0, 0] > 0
    index = corners.nonzero()
    points = low + index * ((high - low) / n)
    values = raw_density(field, points[None])[0, :, 0]
    STAT[0] += len(points)
    raw = torch.full(corners.shape, -math.inf, device=low.device)
    raw[corners] = values
    known = raw > VOID
    highest = F.max_pool3d(raw[None, None], 2, stride=1)
    lowest = -F.max_pool3d(torch.where(known, -raw, -math.inf)[None, None], 2, stride=1)
    spread = torch.where(lowest.isfinite(), highest - lowest, 0)
    spread = F.max_pool3d(spread, 3, stride=1, padding=1)
    return cells & (highest + MARGIN * spread > level)

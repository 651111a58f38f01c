"""The density of a fixed scene on lattices that grow with what cameras see of it.

The coarsest lattice is known wherever rays of the cameras so far went; each finer one, of half the
spacing, only near the surfaces that they saw: in cells where something may be and that light
reaches. In between values are interpolated, from the finest lattice that is known there. A picture
costs a fraction of a sample per ray in this way, the next ones of a film next to nothing.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Bool, Float
from rendering.compositing import activate_density, transmittance
from rendering.field import Field, raw_density
from rendering.settings import RenderSettings
from rendering.skip import MARGIN, Occupancy, highest_neighbour, visible_level

COARSE = 32  # cells along the sides of the cube, on the coarsest lattice
LEVELS = 2  # lattices
LATE = 1  # a cell is seen if light reaches the place so many half cells before it
SEEN = 0.05  # share of a ray's light by which a cell is seen


class DensityGrid:
    """Raw densities (z, y, x) within `reach` of the origin, on `LEVELS` lattices.

    A field's density where it says that nothing can be is no slope to go along: values are kept no
    farther below what pictures show than the highest one lies above it.
    """

    def __init__(self, reach: float, settings: RenderSettings, like: Tensor) -> None:
        """Nothing is known yet; tensors are of the kind of `like`."""
        self.reach = reach
        self.level = visible_level(settings)  # raw density from which pictures show something
        self.points = 0  # looked at so far
        self.depth = 0.0  # by how much the highest density lies above the level
        sizes = [COARSE * 2**i + 1 for i in range(LEVELS)]
        self._found = [like.new_full((n,) * 3, -math.inf) for n in sizes]
        self._values = [torch.zeros_like(f) for f in self._found]
        self.occupancy: Occupancy | None = None

    @property
    def widest(self) -> float:
        """Spacing of the coarsest lattice, in world units."""
        return 2 * self.reach / COARSE

    @property
    def side(self) -> float:
        """Spacing of the finest lattice, in world units."""
        return 2 * self.reach / (len(self._values[-1]) - 1)

    def at(
        self,
        origins: Float[Tensor, "1 rays 3"],
        directions: Float[Tensor, "1 rays 3"],
        t: Float[Tensor, "1 rays samples"],
        level: int = -1,
    ) -> Float[Tensor, "1 rays samples"]:
        """Raw density at depths of rays, between the points of a lattice."""
        place = torch.addcmul(
            origins[:, :, None] / self.reach, directions[:, :, None] / self.reach, t[..., None]
        )
        values = self._values[level][None, None]
        found = F.grid_sample(values, place[None], align_corners=True, padding_mode="border")
        return found[:, 0, 0]

    @torch.no_grad()
    def extend(
        self,
        field: Field,
        origins: Float[Tensor, "1 rays 3"],
        directions: Float[Tensor, "1 rays 3"],
        settings: RenderSettings,
    ) -> None:
        """Look wherever rays, no further apart than half a cell, see what is not known yet."""
        before, start, end = self.points, settings.ray_start, settings.ray_end
        for level in range(LEVELS):
            cell = 2 * self.reach / (len(self._values[max(level - 1, 0)]) - 1)
            t = torch.linspace(start, end, 2 + math.ceil(2 * (end - start) / cell)).to(origins)
            t = t.expand(1, origins.shape[1], -1)
            place = origins[:, :, None] + directions[:, :, None] * t[..., None]
            if level == 0:
                cells = self._passed(place, 0)
            else:
                raw = self.at(origins, directions, t, level - 1)
                light = transmittance(activate_density(raw, settings.clamp_mode), t)
                seen = F.pad(light, (LATE, -LATE), value=1.0) > SEEN
                cells = self._passed(place[seen], level - 1) & self._maybe(level - 1)
                for axis in range(3):
                    cells = cells.repeat_interleave(2, axis)
            self._look(field, cells, level)
            if self.points > before:
                self._interpolate(level)
        if self.points > before:
            known = -highest_neighbour(-self._found[0], 2) > -math.inf
            cells = (self._maybe(0) | ~known).permute(2, 1, 0)
            self.occupancy = Occupancy(cells, self.reach, self.level)

    def _passed(self, place: Float[Tensor, "*n 3"], level: int) -> Bool[Tensor, "z y x"]:
        """Which cells of a lattice have points in them."""
        count = len(self._values[level]) - 1
        index = (place + self.reach).mul_(count / (2 * self.reach)).clamp_(0, count - 0.5).long()
        flat = (index[..., 2] * count + index[..., 1]) * count + index[..., 0]
        cells = torch.zeros(count**3, dtype=torch.bool, device=place.device)
        cells[flat.view(-1)] = True
        return cells.view(count, count, count)

    def _maybe(self, level: int) -> Bool[Tensor, "z y x"]:
        """Cells of a lattice in which something may be, as `skip.find_occupancy` has it."""
        values = self._values[level]
        highest, lowest = highest_neighbour(values, 2), -highest_neighbour(-values, 2)
        return highest + MARGIN * highest_neighbour(highest - lowest, 3) > self.level

    def _look(self, field: Field, cells: Bool[Tensor, "z y x"], level: int) -> None:
        """Find the density at the corners of cells of a lattice."""
        found = self._found[level]
        corners = highest_neighbour(F.pad(cells.float(), (1,) * 6), 2) > 0
        if level:
            found[::2, ::2, ::2] = self._found[level - 1]
        corners &= found == -math.inf
        points = corners.nonzero().flip(-1) * (2 * self.reach / (len(found) - 1)) - self.reach
        if len(points):
            raw = raw_density(field, points[None])[0, :, 0].to(found)
            self.depth = max(self.depth, float(raw.max()) - self.level)
            found[corners] = raw
            self.points += len(points)

    def _interpolate(self, level: int) -> None:
        """Values of a lattice: those found, and between the points of the coarser one."""
        found, floor = self._found[level], self.level - self.depth
        if level:
            coarser = self._values[level - 1][None, None]
            values = F.interpolate(coarser, size=found.shape, mode="trilinear", align_corners=True)[
                0, 0
            ]
            values = torch.where(found > -math.inf, found, values)
        else:  # rays between those looked at may graze a cell more
            values = torch.where(found > -math.inf, found, highest_neighbour(found, 3))
        self._values[level] = values.clamp(min=floor)

"""A volume that is exact wherever a level's surface runs, at a fraction of the evaluations.

The field is looked at on a lattice of stride 8 first, then on ever finer ones, but only in blocks
that the surface may run through. Which ones those are, a local Lipschitz estimate says: a block is
left alone if its values keep farther from the level than half of what they and their neighbours
differ by. Sines have no useful global constant: a trained field jumps from empty to solid within
three voxels, and its largest slope would declare every block suspicious. Until points lie on both
sides of the level, every block is looked at.

An estimate may be wrong, so each lattice is closed before the next finer one: a block left alone
whose border turns out to be crossed is looked at after all, until none is. A connected piece of
surface is thus found whole or not at all, and missed only if it lies between the points of the
coarse lattice and nothing around it hints at it.

The search may be left to a cheaper, less precise density: the cells that the surface runs through
are then settled with the precise one, and with them whatever it moves the surface into.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Bool, Float
from rendering.grid import Density, place_points, unravel

LARGEST_STRIDE = 8
FEWEST_BLOCKS = 16  # per side of the coarsest lattice
MARGIN = 0.5  # of the differences around a block: how far values may yet go
CHUNK = 2**20  # points at once, to bound memory


@dataclass(frozen=True)
class NearSurface:
    """Densities (N, N, N), exact in every cell that the level's surface runs through.

    Elsewhere they are only on the right side of the level. `lowest` and `highest` are the extremes
    of what was evaluated.
    """

    volume: Float[Tensor, "x y z"]
    lowest: float
    highest: float


@torch.no_grad()
def near_surface(
    density: Density,
    resolution: int,
    cube_size: float,
    level: float,
    *,
    rough: Density | None = None,  # searches in the density's place
    device: torch.device | str | None = None,
) -> NearSurface:
    """Evaluate the density around the surface of `level`, on the lattice of `voxel_lattice`."""
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2, got {resolution}")
    stride = _first_stride(resolution)
    side = -(-(resolution - 1) // stride) + 1  # the last plane may lie beyond the cube
    lattice = _Lattice(density if rough is None else rough, resolution, cube_size)
    values = torch.empty((side,) * 3, device=device)
    lattice.evaluate(values, torch.ones_like(values, dtype=torch.bool), stride)
    active = torch.ones((side - 1,) * 3, dtype=torch.bool, device=values.device)
    while stride > 1:
        last = stride == 2
        active &= _suspicious(values, level, ring=not last)
        values = _refine(values, active, level, lattice, stride // 2)
        if not last:
            active = _children(active)
        stride //= 2
    volume = values[:resolution, :resolution, :resolution]
    if rough is not None:
        volume, lattice.density = volume.contiguous(), density
        _settle(volume, level, lattice)
    return NearSurface(volume, lattice.lowest, lattice.highest)


class _Lattice:
    """Evaluates chosen points of a strided lattice, and remembers the extremes."""

    def __init__(self, density: Density, resolution: int, cube_size: float) -> None:
        self.density, self.resolution, self.cube_size = density, resolution, cube_size
        self.lowest, self.highest = float("inf"), float("-inf")

    def evaluate(self, values: Tensor, where: Bool[Tensor, "x y z"], stride: int) -> None:
        """Fill in `values` at the points that `where` picks."""
        flat = values.view(-1)
        for index in where.view(-1).nonzero()[:, 0].split(CHUNK):
            place = unravel(index, len(values)) * stride
            found = self.density(place_points(place, self.resolution, self.cube_size))
            flat[index] = found.to(flat.dtype)
            self.lowest = min(self.lowest, float(found.min()))
            self.highest = max(self.highest, float(found.max()))


def _first_stride(resolution: int) -> int:
    stride = LARGEST_STRIDE
    while stride > 1 and (resolution - 1) // stride < FEWEST_BLOCKS:
        stride //= 2
    return stride


def _suspicious(
    values: Float[Tensor, "x y z"], level: float, *, ring: bool
) -> Bool[Tensor, "blocks_x blocks_y blocks_z"]:
    """Blocks whose values, gone on by MARGIN times their range, would reach the level.

    With `ring` the points next to a block's corners count as well. Values are clipped to be no
    farther below the level than any is above: how empty emptiness is tells nothing about slopes.
    """
    above = values - level
    highest = float(above.max())
    if highest <= 0 or float(above.min()) > 0:
        return torch.ones([n - 1 for n in above.shape], dtype=torch.bool, device=above.device)
    above.clamp_(min=-highest)
    if ring:
        padded = F.pad(above[None, None], [1] * 6, mode="replicate")
        high, low = F.max_pool3d(padded, 4, 1)[0, 0], -F.max_pool3d(-padded, 4, 1)[0, 0]
    else:
        high, low = _corners(above, torch.maximum), _corners(above, torch.minimum)
    reach = MARGIN * (high - low)
    return (low - reach <= 0) & (high + reach > 0)


def _corners(values: Tensor, reduce: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Reduce over the eight corners of every block, an axis at a time."""
    for axis in range(3):
        n = values.shape[axis]
        values = reduce(values.narrow(axis, 0, n - 1), values.narrow(axis, 1, n - 1))
    return values


def _refine(
    values: Float[Tensor, "x y z"],
    active: Bool[Tensor, "blocks_x blocks_y blocks_z"],
    level: float,
    lattice: _Lattice,
    stride: int,
) -> Float[Tensor, "fine_x fine_y fine_z"]:
    """Go to half the stride: exact in active blocks, a coarse neighbour's value elsewhere.

    Blocks that prove to be crossed by the surface are added to `active`.
    """
    side = 2 * len(values) - 1
    fine = values.new_empty((side,) * 3)
    for part in itertools.product((slice(0, None, 2), slice(1, None, 2)), repeat=3):
        target = fine[part]
        target.copy_(values[: target.shape[0], : target.shape[1], : target.shape[2]])
    known = torch.zeros_like(fine, dtype=torch.bool)
    known[::2, ::2, ::2] = True
    fresh = active
    while fresh.any():
        wanted = _points_of(fresh) & ~known
        lattice.evaluate(fine, wanted, stride)
        known |= wanted
        inside = fine > level
        solid = _over_points(inside, torch.logical_or)
        fresh = solid & ~_over_points(inside, torch.logical_and) & ~active
        active |= fresh
    return fine


def _settle(volume: Float[Tensor, "x y z"], level: float, lattice: _Lattice) -> None:
    """Evaluate the corners of all cells that the surface runs through, until no other is met."""
    known = torch.zeros_like(volume, dtype=torch.bool)
    while True:
        inside = volume > level
        wanted = _corners(inside, torch.logical_or) & ~_corners(inside, torch.logical_and)
        wanted = _corners(F.pad(wanted, (1,) * 6), torch.logical_or) & ~known
        if not wanted.any():
            return
        lattice.evaluate(volume, wanted, 1)
        known |= wanted


def _points_of(blocks: Bool[Tensor, "x y z"]) -> Bool[Tensor, "fine_x fine_y fine_z"]:
    """The 27 points of each of the blocks, which are two cells wide."""
    for axis in range(3):
        shape = [2 * n + 1 if a == axis else n for a, n in enumerate(blocks.shape)]
        points = blocks.new_zeros(shape)
        for part in _ends_and_middle(points, axis):
            part |= blocks
        blocks = points
    return blocks


def _over_points(
    inside: Bool[Tensor, "fine_x fine_y fine_z"], reduce: Callable[[Tensor, Tensor], Tensor]
) -> Bool[Tensor, "x y z"]:
    """Reduce over the 27 points of every block, an axis at a time."""
    for axis in range(3):
        first, middle, last = _ends_and_middle(inside, axis)
        inside = reduce(reduce(first, last), middle)
    return inside


def _ends_and_middle(points: Tensor, axis: int) -> list[Tensor]:
    """The first, middle and last points of the blocks along an axis, as views."""
    before, after = (slice(None),) * axis, (slice(None),) * (2 - axis)
    parts = (slice(0, -1, 2), slice(1, None, 2), slice(2, None, 2))
    return [points[(*before, part, *after)] for part in parts]


def _children(active: Tensor) -> Tensor:
    """The eight blocks of half the side that each block is made of."""
    for axis in range(3):
        active = active.repeat_interleave(2, axis)
    return active

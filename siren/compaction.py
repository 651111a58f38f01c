"""Some points of each image, moved together, without waiting for the device.

Images have different numbers of such points, and only the device knows them: tensors keep their
sizes, `counts` says how much of each image's row is in use.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Picked(NamedTuple):
    """Which points of each image are computed, and where each of them stands among those."""

    mask: Tensor  # (batch, n)
    rows: Tensor  # (batch, n): the picked points' places, then anything
    spots: Tensor  # (batch, n): inverse of rows, where the mask holds
    counts: Tensor  # (batch,) int32

    def gather(self, values: Tensor) -> Tensor:
        """Values (batch, n, c) of the picked points, first."""
        return values.gather(1, self.rows[..., None].expand(-1, -1, values.shape[-1]))

    def spread(self, values: Tensor, rest: Tensor) -> Tensor:
        """Values (batch, n, c) back in their places, `rest` in those that were not picked."""
        spread = values.gather(1, self.spots[..., None].expand(-1, -1, values.shape[-1]))
        return torch.where(self.mask[..., None], spread, rest)


def pick(mask: Tensor) -> Picked:
    """The points that a mask (batch, n) picks, in order."""
    batch, n = mask.shape
    spots = mask.long().cumsum(1) - 1
    rows = spots.new_zeros(batch, n + 1)  # what is not picked is written to the last place
    places = torch.arange(n, device=mask.device).expand(batch, n)
    rows.scatter_(1, torch.where(mask, spots, n), places)
    return Picked(mask, rows[:, :n], spots.clamp(min=0), mask.sum(1, dtype=torch.int32))

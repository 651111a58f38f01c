"""Exponential moving average of a generator's weights."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generators import Generator
from inference.checkpoint import CheckpointError, load_weights


class ExponentialMovingAverage:
    """A second generator whose weights trail the first one's.

    Update n = 1, 2, ... keeps d = min(decay, (1 + n) / (10 + n)) of the old average, so that early
    averages do not remember the random start.
    """

    def __init__(self, generator: Generator, decay: float) -> None:
        self.module = copy.deepcopy(generator).eval().requires_grad_(False)
        self.decay = decay
        self.num_updates = 0

    @torch.no_grad()
    def update(self, generator: Generator) -> None:
        """Move towards the generator's present weights; buffers are taken over as they are."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages: list[Tensor] = list(self.module.parameters())
        weights: list[Tensor] = list(generator.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, buffer in zip(self.module.buffers(), generator.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """What ema.pth holds."""
        return {
            "decay": self.decay,
            "num_updates": self.num_updates,
            "state_dict": self.module.state_dict(),
        }

    def load_state_dict(self, data: Mapping[str, Any], file: Path) -> None:
        """Restore from ema.pth's content."""
        if "num_updates" not in data:
            raise CheckpointError(f"{file} is not a moving average")
        load_weights(self.module, data["state_dict"], file)
        self.num_updates = data["num_updates"]

"""Exponential moving average of a generator's weights."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generators import Generator
from inference.checkpoint import CheckpointError, load_weights
from stages import Stage
from training.regularizers import half_life_decay


class ExponentialMovingAverage:
    """A second generator whose weights trail the first one's.

    Update n = 1, 2, ... keeps d = min(decay, (1 + n) / (10 + n)) of the old average, so that early
    averages do not remember the random start. With `half_life_kimg` it is that of
    `half_life_decay`, which depends on the images seen, not on how they were divided into batches.
    """

    def __init__(
        self,
        generator: Generator,
        decay: float,
        *,
        half_life_kimg: float | None = None,
        rampup: float | None = None,
    ) -> None:
        self.module = copy.deepcopy(generator).eval().requires_grad_(False)
        self.decay, self.half_life_kimg, self.rampup = decay, half_life_kimg, rampup
        self.num_updates = 0

    @torch.no_grad()
    def update(self, generator: Generator, batch_size: int = 1, images_seen: int = 0) -> None:
        """Move towards the generator's present weights; buffers are taken over as they are.

        `images_seen` counts those before the present batch; both matter to a half-life alone.
        """
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        if self.half_life_kimg is not None:
            decay = half_life_decay(batch_size, self.half_life_kimg, images_seen, self.rampup)
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


def make_average(
    generator: Generator, stage: Stage, *, second: bool = False
) -> ExponentialMovingAverage:
    """The average that a stage's keys describe: ema.pth's, or the `second`, ema2.pth's."""
    return ExponentialMovingAverage(
        generator,
        stage.ema2_decay if second else stage.ema_decay,
        half_life_kimg=stage.ema2_kimg if second else stage.ema_kimg,
        rampup=stage.ema_rampup,
    )

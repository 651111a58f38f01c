"""Control of the augmentation's probability (Karras et al. 2020, section 3.1).

The mean sign of the discriminator's logits on reals tells how much it overfits: 0 at the start, 1
when it knows every real by heart. p is raised while it is above the target and lowered below.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ops.registry import nearest
from training.augment import AugmentPipe

MODES = ("noaug", "ada", "fixed")


class AdaptiveControl:
    """Moves `p` at a constant speed towards where the mean sign is on target.

    Logits are collected on their device without waiting for it; only an adjustment does.
    """

    def __init__(
        self,
        *,
        target: float = 0.6,  # mean sign of the logits on reals
        interval: int = 4,  # steps between adjustments
        kimg: float = 500.0,  # thousands of pictures in which p can rise from 0 to 1
        p: float = 0.0,  # to start from
    ) -> None:
        if interval < 1 or kimg <= 0 or p < 0:
            raise ValueError(
                "need interval >= 1, kimg > 0 and p >= 0, got"
                f" interval = {interval}, kimg = {kimg}, p = {p}"
            )
        self.target, self.interval, self.kimg, self.p = target, interval, kimg, p
        self.steps = 0
        self._moments: Tensor | None = None  # number of logits, sum of their signs

    @torch.no_grad()
    def report(self, logits: Tensor) -> None:
        """Collect what the discriminator says of reals, in every phase."""
        signs = logits.detach().sign().double()
        moments = torch.stack([torch.ones_like(signs).sum(), signs.sum()])
        self._moments = moments if self._moments is None else self._moments + moments

    def step(self, batch_size: int, all_reduce: Callable[[Tensor], Tensor] | None = None) -> float:
        """End a training step of `batch_size` pictures (of all processes); returns p.

        `all_reduce` sums a tensor over processes.
        """
        self.steps += 1
        if self.steps % self.interval or self._moments is None:
            return self.p
        moments = self._moments if all_reduce is None else all_reduce(self._moments)
        count, total = moments.tolist()
        off = total / count - self.target
        speed = batch_size * self.interval / (self.kimg * 1000)
        self.p = max(self.p + speed * ((off > 0) - (off < 0)), 0.0)
        self._moments = None
        return self.p

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs."""
        moments = None if self._moments is None else self._moments.cpu()
        return {"p": self.p, "steps": self.steps, "moments": moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved state stopped."""
        self.p, self.steps = float(state["p"]), int(state["steps"])
        self._moments = state["moments"]


def make_augmentation(
    mode: str = "noaug",
    *,
    preset: str = "bgc",
    p: float = 0.2,
    target: float = 0.6,
    interval: int = 4,
    kimg: float = 500.0,
) -> tuple[AugmentPipe | None, AdaptiveControl | None]:
    """The pipeline and its control in one of MODES; `p` is for "fixed", the rest for "ada"."""
    if mode not in MODES:
        raise ValueError(f"unknown augmentation mode {mode!r}{nearest(mode, MODES)}")
    if mode == "noaug":
        return None, None
    pipe = AugmentPipe.preset(preset)
    if mode == "fixed":
        if not 0 <= p <= 1:
            raise ValueError(f"the probability p must lie in 0..1, got {p}")
        pipe.p = p
        return pipe, None
    pipe.p = 0.0
    return pipe, AdaptiveControl(target=target, interval=interval, kimg=kimg)

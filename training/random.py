"""One named random stream per purpose, so that none disturbs another.

The streams of rank r are seeded from (seed, purpose, r): latents do not change when the pictures'
size does, nor when somebody adds a sample grid.
"""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import torch

PURPOSES = ("latents", "poses", "rendering", "chance")
logger = logging.getLogger("perigan")


def derive_seed(*parts: object) -> int:
    """A well-mixed 63-bit seed from whatever names a stream."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Streams:
    """The random generators of one process, on its device.

    `chance` alone is on the CPU: what the host has to know at once is drawn from it.
    """

    latents: torch.Generator
    poses: torch.Generator
    rendering: torch.Generator
    chance: torch.Generator

    def __init__(self, seed: int, rank: int, device: torch.device) -> None:
        for purpose in PURPOSES:
            own = torch.Generator("cpu" if purpose == "chance" else device)
            setattr(self, purpose, own.manual_seed(derive_seed(seed, purpose, rank)))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state of every stream."""
        return {p: getattr(self, p).get_state() for p in PURPOSES}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved state stopped."""
        for purpose, own in self.state_dict().items():
            if len(state.get(purpose, ())) != len(own):  # a GPU's state means nothing to a CPU
                logger.warning("the run was on another kind of device: %s start anew", purpose)
                continue
            getattr(self, purpose).set_state(state[purpose])

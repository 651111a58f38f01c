"""Numbers made into features: waves of doubling frequency and learned tables.

Networks see low frequencies best; a few sines tell them where exactly a coordinate, an angle or a
patch lies (EpiGRAF, section 3.2).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ops.shapes import Float


class ScalarEncoder(nn.Module):
    """Per number x: x itself, sin and cos of 2^k pi / T x multiplier, and a row of a table.

    T is the power of two that is not below `multiplier`; k counts from 0 to log2(T) - 1. The row is
    the one at x times the multiplier, rounded, so that tables need x in [0, 1]. Features of the
    first number come first.
    """

    frequencies: Tensor

    def __init__(
        self,
        num_scalars: int,  # numbers that are encoded
        *,
        multiplier: float,  # periods that fit into [0, 1], about; 0: no waves
        table_dim: int = 0,  # numbers in a row of the learned table; 0: no table
        use_raw: bool = False,  # whether the number itself is a feature
        use_cos: bool = True,
    ) -> None:
        super().__init__()
        if multiplier <= 0 and (table_dim or not use_raw):
            raise ValueError(f"an encoder without raw numbers needs a multiplier, got {multiplier}")
        self.multiplier, self.use_raw, self.use_cos = multiplier, use_raw, use_cos
        octaves = math.ceil(math.log2(multiplier)) if multiplier > 0 else 0
        frequencies = math.pi * torch.exp2(torch.arange(octaves) - float(octaves))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.table = nn.Embedding(math.ceil(multiplier) + 1, table_dim) if table_dim else None
        per_scalar = use_raw + (1 + use_cos) * octaves + table_dim
        self.out_dim = num_scalars * per_scalar

    def forward(self, x: Float[Tensor, "*batch scalars"]) -> Float[Tensor, "*batch features"]:
        """Features of every number."""
        scaled = x * self.multiplier
        phase = scaled[..., None] * self.frequencies.to(x.dtype)
        parts = [x[..., None]] if self.use_raw else []
        parts += [phase.sin()] + ([phase.cos()] if self.use_cos else [])
        if self.table is not None:
            parts.append(self.table(scaled.round().long()))
        return torch.cat(parts, dim=-1).flatten(-2)


class PoseEncoder(nn.Module):
    """Yaw and pitch as a condition, in training with noise and gaps so that none relies on it.

    Angles are counted in turns, with their sign. `noise_std` is in units of the batch's own spread
    of each angle; `drop_p` is the share of features set to 0, the others grow to make up for it.
    """

    def __init__(
        self, *, multiplier: float, use_raw: bool, drop_p: float = 0.0, noise_std: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= drop_p < 1 or noise_std < 0:
            raise ValueError(
                "a pose's drop_p must lie in [0, 1) and its noise_std not below 0,"
                f" got {drop_p} and {noise_std}"
            )
        self.scalars = ScalarEncoder(2, multiplier=multiplier, use_raw=use_raw)
        self.drop_p, self.noise_std = drop_p, noise_std
        self.rng: torch.Generator | None = None  # feeds noise and gaps; None: torch's own

    @property
    def out_dim(self) -> int:
        """Numbers in the condition."""
        return self.scalars.out_dim

    def forward(self, yaw_pitch: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch features"]:
        """The condition of each pose."""
        angles = yaw_pitch
        if self.training and self.noise_std > 0 and len(angles) > 1:  # one alone has no spread
            noise = self._draw(torch.randn, angles)
            angles = angles + self.noise_std * noise * angles.std(0, keepdim=True)
        turns = angles.sign() * torch.remainder(angles.abs(), math.tau) / math.tau
        features = self.scalars(turns)
        if self.training and self.drop_p > 0:
            kept = self._draw(torch.rand, features) >= self.drop_p
            features = features * kept / (1 - self.drop_p)
        return features

    def _draw(self, law: Callable[..., Tensor], like: Tensor) -> Tensor:
        device = like.device if self.rng is None else self.rng.device
        return law(like.shape, generator=self.rng, device=device).to(like)


def draw_poses_from(network: nn.Module, rng: torch.Generator) -> None:
    """Let noise and gaps of every pose encoder of a network come from `rng`."""
    for module in network.modules():
        if isinstance(module, PoseEncoder):
            module.rng = rng

"""The random numbers behind augmentation, and a quantile that can stand in for them."""

import torch
from torch import Tensor


class Draws:
    """The random numbers of one call, and the coin that decides on each transformation."""

    deterministic = False

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self.device = torch.device("cpu") if generator is None else generator.device

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def half_normal(self, *shape: int) -> Tensor:
        """Magnitudes of standard normal numbers."""
        return self.normal(*shape).abs()

    def picture(self, *shape: int) -> Tensor:
        """Standard normal numbers for every pixel."""
        return self.normal(*shape)

    def gated(self, value: Tensor, identity: float, probability: float) -> Tensor:
        """`value` with this probability for each picture, else `identity`."""
        u = self.uniform(len(value), *[1] * (value.ndim - 1))
        return torch.where(u < probability, value, torch.full_like(value, identity))


class QuantileDraws(Draws):
    """In place of chance, one quantile for everything, and every transformation applied."""

    deterministic = True

    def __init__(self, quantile: float, generator: torch.Generator | None = None) -> None:
        super().__init__(generator)
        self.quantile = quantile

    def uniform(self, *shape: int) -> Tensor:
        """The quantile itself."""
        return torch.full(shape, self.quantile)

    def normal(self, *shape: int) -> Tensor:
        """Its normal quantile over the square root of 2, as the original has it."""
        return torch.erfinv(2 * self.uniform(*shape) - 1)

    def half_normal(self, *shape: int) -> Tensor:
        """The quantile of a magnitude, in the same unit."""
        return torch.erfinv(self.uniform(*shape))

    def picture(self, *shape: int) -> Tensor:
        """Still chance."""
        return super().normal(*shape)

    def gated(self, value: Tensor, identity: float, probability: float) -> Tensor:
        """`value`, unless the transformation is off."""
        return value if probability > 0 else torch.full_like(value, identity)

"""What the renderer asks of a scene: a function from points in space to radiance and density."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from ops.shapes import Float


@runtime_checkable
class Field(Protocol):
    """One latent's scene per batch entry: radiance and raw density at points in space."""

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n channels"], Float[Tensor, "batch n 1"]]:
        """Radiance in the field's own range, and density before activation."""
        ...

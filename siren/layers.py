"""One folded sine layer on a block of points, in full precision or with 16-bit products.

With 16-bit products the inputs of a matrix product are rounded, never its sums: activations are
kept in 16 bits from layer to layer, the phase and its sine are in single precision. The first
layer takes coordinates and rounds nothing. Who computes the layer is `siren/native.cpp` if a
compiled `Library` is given, else torch, which has no 16-bit product with unrounded sums on a CPU:
there it multiplies the rounded numbers in single precision, and only gradients, whose sums may be
rounded, gain speed.
"""

import torch
from torch import Tensor

from ops.shapes import Float
from siren.native import Library


class SineLayer:
    """sin(x W' + start) for one image's folded weight, and what its backward pass needs."""

    def __init__(
        self,
        weight: Float[Tensor, "out in"],  # folded; autograd knows nothing of what is done here
        *,
        first: bool,  # takes coordinates, which are never rounded
        dtype: torch.dtype,  # of activations between layers and of products' inputs
        library: Library | None = None,  # computes what it can
    ) -> None:
        weight = weight.detach()
        self.dtype = dtype
        self.weight = weight if first else weight.to(dtype)
        self._library = library if library is not None and library.takes(self.weight) else None
        self._packed = None if self._library is None else self._library.pack(self.weight)
        self._wide = self.weight.to(weight.dtype)

    def sine(self, x: Float[Tensor, "n in"], start: Tensor) -> Float[Tensor, "n out"]:
        """Activations; `start`, (out,) or (n, out), is what the phase has besides the product."""
        if self._library is not None and self._packed is not None:
            return self._library.sine(x, self._packed, start, self.dtype)
        return self._phase(x, start).sin_().to(self.dtype)

    def sine_and_cosine(self, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Activations and, in full precision, their derivatives by the phase."""
        if self._library is not None and self._packed is not None:
            return self._library.sine_and_cosine(x, self._packed, start, self.dtype)
        phase = self._phase(x, start)
        return phase.sin().to(self.dtype), phase.cos_()

    def _phase(self, x: Tensor, start: Tensor) -> Tensor:
        return torch.addmm(start, x.to(start.dtype), self._wide.t())

    def back(self, grad: Float[Tensor, "n out"]) -> Float[Tensor, "n in"]:
        """The gradient of x from the phase's."""
        return torch.mm(grad.to(self.weight.dtype), self.weight).to(grad.dtype)


def add_outer(total: Tensor, grad: Float[Tensor, "n out"], x: Float[Tensor, "n in"]) -> None:
    """Add a block's gradient of a weight, in the precision of x, to a sum in full precision."""
    if x.dtype == total.dtype:
        total.addmm_(grad.t(), x)
    else:
        total.add_(torch.mm(grad.to(x.dtype).t(), x))

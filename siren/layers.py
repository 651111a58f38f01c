"""One image's folded field in torch, a block of points at a time, and its gradients.

With 16-bit products the inputs of a matrix product are rounded, never its sums: activations are
kept in 16 bits from layer to layer, the phase and its sine are in single precision. Coordinates,
heads and view directions are in full precision (the compiled backward pass rounds gradients of
phases before they meet them), and so is the second layer in the forward pass:
what is rounded there all later layers multiply, and it alone would make half of the density's
error.

Torch has no 16-bit product with unrounded sums on a CPU: in the forward pass it multiplies the
rounded numbers in single precision, and only gradients, whose sums may be rounded, gain speed.
`siren/native.py` computes the same in compiled code.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ops.shapes import Float

BLOCK = 1024 * 256  # activations at once, per thread: a megabyte, a core's own cache

Affine = tuple[Tensor, Tensor]  # a weight (out, in) and a bias (out,)


class Weights(NamedTuple):
    """One image's folded weights, or the sums of their gradients."""

    layers: list[Affine]  # the colour layer last; its first columns see the view direction
    density: Affine
    radiance: Affine


class SineLayer:
    """sin(x W' + start) for one image's folded weight, and what its backward pass needs."""

    def __init__(
        self,
        weight: Float[Tensor, "out in"],  # folded; autograd knows nothing of what is done here
        *,
        dtype: torch.dtype,  # of products' inputs
        exact: bool,  # not in the forward pass, where nothing is rounded
        hands_on: torch.dtype,  # the type of the activations
    ) -> None:
        weight = weight.detach()
        self.dtype, self._hands_on = dtype, hands_on
        self._narrow = weight.to(dtype)
        self._wide = weight if exact else self._narrow.to(weight.dtype)

    def sine(self, x: Float[Tensor, "n in"], start: Tensor) -> Float[Tensor, "n out"]:
        """Activations; `start`, (out,) or (n, out), is what the phase has besides the product."""
        return self._phase(x, start).sin_().to(self._hands_on)

    def sine_and_cosine(self, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Activations and, in full precision, their derivatives by the phase."""
        phase = self._phase(x, start)
        return phase.sin().to(self._hands_on), phase.cos_()

    def _phase(self, x: Tensor, start: Tensor) -> Tensor:
        return torch.addmm(start, x.to(start.dtype), self._wide.t())

    def back(self, grad: Float[Tensor, "n out"]) -> Float[Tensor, "n in"]:
        """The gradient of x from the phase's."""
        return torch.mm(grad.to(self.dtype), self._narrow).to(grad.dtype)


class TorchScene:
    """One image's field on blocks of points."""

    def __init__(self, weights: Weights, *, view_direction: bool, dtype: torch.dtype) -> None:
        matrices = [weight for weight, _ in weights.layers]
        self._to_views = matrices[-1][:, :3] if view_direction else None
        matrices[-1] = matrices[-1][:, 3 if view_direction else 0 :]
        full, exact = matrices[0].dtype, exact_layers(len(matrices))
        self._layers = [
            SineLayer(
                matrix,
                dtype=dtype if k else full,
                exact=k < exact,
                hands_on=full if k + 1 < exact else dtype,
            )
            for k, matrix in enumerate(matrices)
        ]
        self._biases = [bias for _, bias in weights.layers]
        self._density, self._radiance = weights.density, weights.radiance

    @property
    def block_size(self) -> int:
        """Points at once, so that their activations stay in the cache."""
        return max(1, BLOCK * torch.get_num_threads() // len(self._biases[0]))

    def evaluate(
        self, x: Float[Tensor, "n in"], views: Float[Tensor, "n 3"] | None
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 1"]]:
        """Radiance in 0..1 and linear density."""
        hidden = self._hidden(x)
        color = self._layers[-1].sine(hidden, self._color_start(views))
        return _head(color, self._radiance).sigmoid_(), _head(hidden, self._density)

    def density(self, x: Float[Tensor, "n in"]) -> Float[Tensor, "n 1"]:
        """The density alone, without the colour layer."""
        return _head(self._hidden(x), self._density)

    def backward(
        self,
        x: Float[Tensor, "n in"],
        views: Float[Tensor, "n 3"] | None,
        grad_radiance: Float[Tensor, "n 3"],
        grad_density: Float[Tensor, "n 1"],
        sums: Weights,
        *,
        points_too: bool,
        views_too: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Recompute a block, add its share to the gradient sums, and return those of its inputs."""
        inputs, slopes = [x], []
        starts = [*self._biases[:-1], self._color_start(views)]
        for layer, start in zip(self._layers, starts, strict=True):
            activations, slope = layer.sine_and_cosine(inputs[-1], start)
            inputs.append(activations)
            slopes.append(slope)
        color, hidden = inputs[-1].to(x.dtype), inputs[-2].to(x.dtype)
        radiance = _head(color, self._radiance).sigmoid_()

        grad = grad_radiance * (radiance - radiance * radiance)  # through the sigmoid
        _add_affine(sums.radiance, grad, color)
        _add_affine(sums.density, grad_density, hidden)
        grad = torch.mm(grad, self._radiance[0]).mul_(slopes[-1])
        weight_sum, bias_sum = sums.layers[-1]
        to_views = None
        if views is not None and self._to_views is not None:
            weight_sum[:, :3].addmm_(grad.t(), views)
            weight_sum = weight_sum[:, 3:]
            to_views = grad @ self._to_views if views_too else None
        _add_affine((weight_sum, bias_sum), grad, inputs[-2])
        grad = self._layers[-1].back(grad).addmm_(grad_density, self._density[0])
        for k in reversed(range(len(slopes) - 1)):
            grad.mul_(slopes[k])
            _add_affine(sums.layers[k], grad, inputs[k].to(self._layers[k].dtype))
            if k > 0 or points_too:
                grad = self._layers[k].back(grad)
        return (grad if points_too else None), to_views

    def _hidden(self, x: Tensor) -> Tensor:
        """Activations ahead of the density head and the colour layer."""
        for layer, bias in zip(self._layers[:-1], self._biases[:-1], strict=True):
            x = layer.sine(x, bias)
        return x

    def _color_start(self, views: Tensor | None) -> Tensor:
        """What the colour layer's phase has besides the activations' product."""
        if views is None or self._to_views is None:
            return self._biases[-1]
        return torch.addmm(self._biases[-1], views, self._to_views.t())


def exact_layers(count: int) -> int:
    """How many of so many layers, the colour layer last, round nothing in the forward pass."""
    return min(2, count - 1)


def _head(x: Tensor, head: Affine) -> Tensor:
    """A linear head, in its own precision."""
    weight, bias = head
    return torch.addmm(bias, x.to(weight.dtype), weight.t())


def _add_affine(sums: Affine, grad: Tensor, inputs: Tensor) -> None:
    """Add a block's gradient of a weight, in the precision of the inputs, and of a bias."""
    weight_sum, bias_sum = sums
    if inputs.dtype == weight_sum.dtype:
        weight_sum.addmm_(grad.t(), inputs)
    else:
        weight_sum.add_(torch.mm(grad.to(inputs.dtype).t(), inputs))
    bias_sum.add_(grad.sum(0))

"""A SIREN field in blocks that stay in the processor's cache, recomputed in the backward pass.

Taken layer by layer, a picture's points stream tens of megabytes through memory for every sine;
taken through all layers a block at a time, they never leave the cache. The backward pass stores
nothing but the points: it recomputes a block's activations when it gets there.

It also skips, exactly, what teaches nothing: with the ReLU density clamp, a sample of negative
density has no weight in the picture, and the gradients of all four of its outputs are zero. Such
points are left out before anything is recomputed.

First derivatives only; where second ones are needed, `SirenField` takes the plain path.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

EMPTY = -1e4  # raw density where nothing can be, whatever noise is added
BLOCK = 2048  # points at once: a layer of 64 to 256 channels is 0.5 to 2 MB


class Scene(NamedTuple):
    """One image's folded weights. Layers are (out, in) and (out,); the colour layer is the last.

    Its first three columns see the view direction, if there is one.
    """

    layers: list[tuple[Tensor, Tensor]]
    density: tuple[Tensor, Tensor]
    radiance: tuple[Tensor, Tensor]


def evaluate_blocks(
    x: Tensor,
    directions: Tensor | None,
    layers: Sequence[tuple[Tensor, Tensor]],
    density_head: tuple[Tensor, Tensor],
    radiance_head: tuple[Tensor, Tensor],
    inside: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Radiance (batch, n, 3) in 0..1 and linear density (batch, n, 1) of encoded points x.

    `layers` hold a folded weight (batch, out, in) and bias (batch, 1, out) per FiLM layer, the
    colour layer last; heads are shared by the batch. Points that are not `inside` (batch, n) are
    not evaluated: their radiance is 0 and their density EMPTY.
    """
    flat = [tensor for pair in (*layers, density_head, radiance_head) for tensor in pair]
    result = _BlockedSiren.apply(x, directions, inside, *flat)
    return result  # pyright: ignore[reportReturnType]


class _BlockedSiren(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        directions: Tensor | None,
        inside: Tensor | None,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, directions, inside, *flat)
        batch, n, _ = x.shape
        radiance, density = x.new_zeros(batch, n, 3), x.new_full((batch, n, 1), EMPTY)
        for i in range(batch):
            scene = _scene(flat, i)
            for rows in _blocks(n) if inside is None else _picked_blocks(inside[i]):
                views = None if directions is None else directions[i, rows]
                hidden, color = _forward_block(x[i, rows], views, scene)
                to_density, to_radiance = scene.density, scene.radiance
                density[i, rows] = torch.addmm(to_density[1], hidden, to_density[0].t())
                radiance[i, rows] = torch.addmm(
                    to_radiance[1], color, to_radiance[0].t()
                ).sigmoid_()
        return radiance, density

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():  # create_graph=True: the result is to be differentiated
            raise RuntimeError(
                "a field in blocks has first derivatives only: set its network's `blocked` to False"
            )
        x, directions, inside, *flat = ctx.saved_tensors
        grad_radiance, grad_density = grads
        sums = [torch.zeros_like(tensor) for tensor in flat]
        want_x, want_views = ctx.needs_input_grad[:2]
        grad_x = torch.zeros_like(x) if want_x else None
        grad_views = torch.zeros_like(directions) if want_views else None
        teaches = (grad_radiance != 0).any(-1) | (grad_density[..., 0] != 0)
        if inside is not None:
            teaches &= inside
        for i in range(len(x)):
            scene, sums_i = _scene(flat, i), _scene(sums, i)
            for rows in _picked_blocks(teaches[i]):
                to_points, to_views = _backward_block(
                    x[i, rows],
                    None if directions is None else directions[i, rows],
                    grad_radiance[i, rows],
                    grad_density[i, rows],
                    scene,
                    sums_i,
                    points_too=want_x,
                )
                if grad_x is not None and to_points is not None:
                    grad_x[i, rows] = to_points
                if grad_views is not None and to_views is not None:
                    grad_views[i, rows] = to_views
        return grad_x, grad_views, None, *sums


def _scene(flat: Sequence[Tensor], i: int) -> Scene:
    """The i-th image's part of the flat list of tensors; views, so that sums can be added to."""
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    layers = [(weight[i], bias[i, 0]) for weight, bias in pairs[:-2]]
    return Scene(layers, pairs[-2], pairs[-1])


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, n, BLOCK))


def _picked_blocks(mask: Tensor) -> Iterator[Tensor]:
    """Indices of the points that a mask (n,) picks, a block at a time."""
    picked = mask.nonzero()[:, 0]
    return (picked[rows] for rows in _blocks(len(picked)))


def _forward_block(x: Tensor, views: Tensor | None, scene: Scene) -> tuple[Tensor, Tensor]:
    """Activations ahead of the density head and of the radiance head."""
    for weight, bias in scene.layers[:-1]:
        x = torch.addmm(bias, x, weight.t()).sin_()
    return x, _color_phase(x, views, scene).sin_()


def _color_phase(hidden: Tensor, views: Tensor | None, scene: Scene) -> Tensor:
    weight, bias = scene.layers[-1]
    if views is None:
        return torch.addmm(bias, hidden, weight.t())
    phase = torch.addmm(bias, views, weight[:, :3].t())
    return phase.addmm_(hidden, weight[:, 3:].t())


def _backward_block(
    x: Tensor,
    views: Tensor | None,
    grad_radiance: Tensor,
    grad_density: Tensor,
    scene: Scene,
    sums: Scene,
    *,
    points_too: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Recompute a block, add its share to the gradient sums, and return those of its inputs."""
    inputs, slopes = [x], []
    for weight, bias in scene.layers[:-1]:
        phase = torch.addmm(bias, inputs[-1], weight.t())
        inputs.append(phase.sin())
        slopes.append(phase.cos_())
    phase = _color_phase(inputs[-1], views, scene)
    color = phase.sin()
    radiance = torch.addmm(scene.radiance[1], color, scene.radiance[0].t()).sigmoid_()

    grad = grad_radiance * (radiance - radiance * radiance)  # through the sigmoid
    _add_outer(sums.radiance, grad, color)
    grad = torch.mm(grad, scene.radiance[0]).mul_(phase.cos_())
    offset = 0 if views is None else 3
    weight, (weight_sum, bias_sum) = scene.layers[-1][0], sums.layers[-1]
    _add_outer((weight_sum[:, offset:], bias_sum), grad, inputs[-1])
    to_views = None
    if views is not None:
        weight_sum[:, :3].addmm_(grad.t(), views)
        to_views = grad @ weight[:, :3]
    _add_outer(sums.density, grad_density, inputs[-1])
    grad = torch.mm(grad, weight[:, offset:]).addmm_(grad_density, scene.density[0])
    for k in reversed(range(len(slopes))):
        grad.mul_(slopes[k])
        _add_outer(sums.layers[k], grad, inputs[k])
        if k > 0 or points_too:
            grad = grad @ scene.layers[k][0]
    return (grad if points_too else None), to_views


def _add_outer(sums: tuple[Tensor, Tensor], grad: Tensor, inputs: Tensor) -> None:
    """Add a block's gradient of an affine map's weight and bias."""
    sums[0].addmm_(grad.t(), inputs)
    sums[1].add_(grad.sum(0))

"""A SIREN field in blocks that stay in the processor's cache, recomputed in the backward pass.

Taken layer by layer, a picture's points stream tens of megabytes through memory for every sine;
taken through all layers a block at a time, they never leave the cache. The backward pass stores
nothing but the points: it recomputes a block's activations when it gets there.

It also skips, exactly, what teaches nothing: with the ReLU density clamp, a sample of negative
density has no weight in the picture, and the gradients of all four of its outputs are zero. Such
points are left out before anything is recomputed.

First derivatives only; where second ones are needed, `SirenField` takes the plain path. How
products are rounded and who computes them is the business of `siren/layers.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from siren.layers import SineLayer, add_outer
from siren.native import Library

EMPTY = -1e4  # raw density where nothing can be, whatever noise is added
BLOCK = 1024 * 256  # activations at once, per thread: a megabyte, a core's own cache


Affine = tuple[Tensor, Tensor]  # a weight and a bias


class Scene(NamedTuple):
    """One image's folded weights, ready for blocks of its points."""

    layers: list[SineLayer]  # the colour layer last; of it, what sees the activations
    biases: list[Tensor]  # (out,) per layer
    to_views: Tensor | None  # the colour layer's weight (out, 3) of the view direction
    density: Affine
    radiance: Affine


class Sums(NamedTuple):
    """Gradients of one image's weights, to be added to. Layers are (out, in) and (out,)."""

    layers: list[Affine]
    density: Affine
    radiance: Affine


def prepare_scenes(
    layers: Sequence[Affine],
    density_head: Affine,
    radiance_head: Affine,
    *,
    view_direction: bool,
    dtype: torch.dtype,
    library: Library | None = None,
) -> list[Scene]:
    """Every image's weights from folded ones, with products of `dtype`.

    `layers` hold a folded weight (batch, out, in) and bias (batch, 1, out) per FiLM layer, the
    colour layer last; its first three columns see the view direction, if there is one. Heads are
    shared by the batch.
    """
    offset = 3 if view_direction else 0
    density, radiance = (
        (head[0].detach(), head[1].detach()) for head in (density_head, radiance_head)
    )
    scenes = []
    for i in range(len(layers[0][0])):
        weights = [weight[i].detach() for weight, _ in layers]
        to_views = weights[-1][:, :3] if view_direction else None
        weights[-1] = weights[-1][:, offset:]
        ready = [
            SineLayer(weight, first=k == 0, dtype=dtype, library=library)
            for k, weight in enumerate(weights)
        ]
        biases = [bias[i, 0].detach() for _, bias in layers]
        scenes.append(Scene(ready, biases, to_views, density, radiance))
    return scenes


def evaluate_blocks(
    x: Tensor,
    directions: Tensor | None,
    layers: Sequence[Affine],
    density_head: Affine,
    radiance_head: Affine,
    inside: Tensor | None = None,
    scenes: Sequence[Scene] | None = None,
) -> tuple[Tensor, Tensor]:
    """Radiance (batch, n, 3) in 0..1 and linear density (batch, n, 1) of encoded points x.

    `layers` and heads are those that `prepare_scenes` made `scenes` of, which it does here where
    they are not given: they get the gradients. Points that are not `inside` (batch, n) are not
    evaluated: their radiance is 0 and their density EMPTY.
    """
    if scenes is None:
        scenes = prepare_scenes(
            layers,
            density_head,
            radiance_head,
            view_direction=directions is not None,
            dtype=x.dtype,
        )
    flat = [tensor for pair in (*layers, density_head, radiance_head) for tensor in pair]
    result = _BlockedSiren.apply(x, directions, inside, scenes, *flat)
    return result  # pyright: ignore[reportReturnType]


@torch.no_grad()
def density_blocks(x: Tensor, inside: Tensor | None, scenes: Sequence[Scene]) -> Tensor:
    """The density of `evaluate_blocks` alone, without gradients and without the colour layer."""
    density = x.new_full((*x.shape[:2], 1), EMPTY)
    with torch.autocast(x.device.type, enabled=False):
        for i, scene in enumerate(scenes):
            for rows in _rows(x, inside, i, scene):
                density[i, rows] = _head(_hidden_block(x[i, rows], scene), scene.density)
    return density


class _BlockedSiren(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        directions: Tensor | None,
        inside: Tensor | None,
        scenes: Sequence[Scene],
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, directions, inside, *flat)
        ctx.scenes = scenes
        batch, n, _ = x.shape
        radiance, density = x.new_zeros(batch, n, 3), x.new_full((batch, n, 1), EMPTY)
        with torch.autocast(x.device.type, enabled=False):
            for i, scene in enumerate(scenes):
                for rows in _rows(x, inside, i, scene):
                    views = None if directions is None else directions[i, rows]
                    hidden = _hidden_block(x[i, rows], scene)
                    color = scene.layers[-1].sine(hidden, _color_start(views, scene))
                    density[i, rows] = _head(hidden, scene.density)
                    radiance[i, rows] = _head(color, scene.radiance).sigmoid_()
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
            sums_i = _sums(sums, i)
            for rows in _picked_blocks(teaches[i], _block_size(ctx.scenes[i])):
                to_points, to_views = _backward_block(
                    x[i, rows],
                    None if directions is None else directions[i, rows],
                    grad_radiance[i, rows],
                    grad_density[i, rows],
                    ctx.scenes[i],
                    sums_i,
                    points_too=want_x,
                )
                if grad_x is not None and to_points is not None:
                    grad_x[i, rows] = to_points
                if grad_views is not None and to_views is not None:
                    grad_views[i, rows] = to_views
        return grad_x, grad_views, None, None, *sums


def _sums(flat: Sequence[Tensor], i: int) -> Sums:
    """The i-th image's part of the flat list of tensors, as views."""
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    layers = [(weight[i], bias[i, 0]) for weight, bias in pairs[:-2]]
    return Sums(layers, pairs[-2], pairs[-1])


def _rows(
    x: Tensor, inside: Tensor | None, i: int, scene: Scene
) -> Iterator[slice] | Iterator[Tensor]:
    """The i-th image's points that are to be evaluated, a block at a time."""
    size = _block_size(scene)
    return _blocks(x.shape[1], size) if inside is None else _picked_blocks(inside[i], size)


def _block_size(scene: Scene) -> int:
    """Points at once."""
    return max(1, BLOCK * torch.get_num_threads() // len(scene.biases[0]))


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, n, size))


def _picked_blocks(mask: Tensor, size: int) -> Iterator[Tensor]:
    """Indices of the points that a mask (n,) picks, a block at a time."""
    picked = mask.nonzero()[:, 0]
    return (picked[rows] for rows in _blocks(len(picked), size))


def _hidden_block(x: Tensor, scene: Scene) -> Tensor:
    """Activations ahead of the density head and the colour layer."""
    for layer, bias in zip(scene.layers[:-1], scene.biases[:-1], strict=True):
        x = layer.sine(x, bias)
    return x


def _color_start(views: Tensor | None, scene: Scene) -> Tensor:
    """What the colour layer's phase has besides the activations' product."""
    if views is None or scene.to_views is None:
        return scene.biases[-1]
    return torch.addmm(scene.biases[-1], views, scene.to_views.t())


def _head(x: Tensor, head: Affine) -> Tensor:
    """A linear head, in its own precision."""
    weight, bias = head
    return torch.addmm(bias, x.to(weight.dtype), weight.t())


def _backward_block(
    x: Tensor,
    views: Tensor | None,
    grad_radiance: Tensor,
    grad_density: Tensor,
    scene: Scene,
    sums: Sums,
    *,
    points_too: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Recompute a block, add its share to the gradient sums, and return those of its inputs."""
    inputs, slopes = [x], []
    starts = [*scene.biases[:-1], _color_start(views, scene)]
    for layer, start in zip(scene.layers, starts, strict=True):
        activations, slope = layer.sine_and_cosine(inputs[-1], start)
        inputs.append(activations)
        slopes.append(slope)
    color, hidden = inputs[-1].to(x.dtype), inputs[-2].to(x.dtype)
    radiance = _head(color, scene.radiance).sigmoid_()

    grad = grad_radiance * (radiance - radiance * radiance)  # through the sigmoid
    _add_affine(sums.radiance, grad, color)
    _add_affine(sums.density, grad_density, hidden)
    grad = torch.mm(grad, scene.radiance[0]).mul_(slopes[-1])
    weight_sum, bias_sum = sums.layers[-1]
    to_views = None
    if views is not None and scene.to_views is not None:
        weight_sum[:, :3].addmm_(grad.t(), views)
        weight_sum = weight_sum[:, 3:]
        to_views = grad @ scene.to_views
    _add_affine((weight_sum, bias_sum), grad, inputs[-2])
    grad = scene.layers[-1].back(grad).addmm_(grad_density, scene.density[0])
    for k in reversed(range(len(slopes) - 1)):
        grad.mul_(slopes[k])
        _add_affine(sums.layers[k], grad, inputs[k])
        if k > 0 or points_too:
            grad = scene.layers[k].back(grad)
    return (grad if points_too else None), to_views


def _add_affine(sums: Affine, grad: Tensor, inputs: Tensor) -> None:
    """Add a block's gradient of an affine map's weight and bias."""
    add_outer(sums[0], grad, inputs)
    sums[1].add_(grad.sum(0))

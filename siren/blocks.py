"""A SIREN field in blocks that stay in the processor's cache, recomputed in the backward pass.

Taken layer by layer, a picture's points stream tens of megabytes through memory for every sine;
taken through all layers a block at a time, they never leave the cache. The backward pass stores
nothing but the points: it recomputes a block's activations when it gets there.

It also skips, exactly, what teaches nothing: with the ReLU density clamp, a sample of negative
density has no weight in the picture, and the gradients of all four of its outputs are zero. Such
points are left out before anything is recomputed.

First derivatives only; where second ones are needed, `SirenField` takes the plain path. A block is
computed in torch (`siren/layers.py`, where it is said what is rounded) or, compiled for the
processor at hand, in `siren/native.cpp`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from siren.layers import Affine, TorchScene, Weights
from siren.native import Library, NativeScene

EMPTY = -1e4  # raw density where nothing can be, whatever noise is added

Scene: TypeAlias = TorchScene | NativeScene  # one image's folded weights, ready for its points


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
    shared by the batch. A `library` computes what it can.
    """
    flat = [t.detach() for pair in (*layers, density_head, radiance_head) for t in pair]
    scenes: list[Scene] = []
    for i in range(len(flat[0])):
        weights = _weights(flat, i)
        if library is not None and library.takes(weights, dtype):
            scene = NativeScene(
                weights, view_direction=view_direction, dtype=dtype, library=library
            )
        else:
            scene = TorchScene(weights, view_direction=view_direction, dtype=dtype)
        scenes.append(scene)
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
                density[i, rows] = scene.density(x[i, rows])
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
                    radiance[i, rows], density[i, rows] = scene.evaluate(x[i, rows], views)
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
            sums_i = _weights(sums, i)
            for rows in _picked_blocks(teaches[i], ctx.scenes[i].block_size):
                to_points, to_views = ctx.scenes[i].backward(
                    x[i, rows],
                    None if directions is None else directions[i, rows],
                    grad_radiance[i, rows],
                    grad_density[i, rows],
                    sums_i,
                    points_too=want_x,
                    views_too=want_views,
                )
                if grad_x is not None and to_points is not None:
                    grad_x[i, rows] = to_points
                if grad_views is not None and to_views is not None:
                    grad_views[i, rows] = to_views
        return grad_x, grad_views, None, None, *sums


def _weights(flat: Sequence[Tensor], i: int) -> Weights:
    """The i-th image's part of the flat list of tensors, as views."""
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    layers = [(weight[i], bias[i, 0]) for weight, bias in pairs[:-2]]
    return Weights(layers, pairs[-2], pairs[-1])


def _rows(
    x: Tensor, inside: Tensor | None, i: int, scene: Scene
) -> Iterator[slice] | Iterator[Tensor]:
    """The i-th image's points that are to be evaluated, a block at a time."""
    size = scene.block_size
    return _blocks(x.shape[1], size) if inside is None else _picked_blocks(inside[i], size)


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, n, size))


def _picked_blocks(mask: Tensor, size: int) -> Iterator[Tensor]:
    """Indices of the points that a mask (n,) picks, a block at a time."""
    picked = mask.nonzero()[:, 0]
    return (picked[rows] for rows in _blocks(len(picked), size))

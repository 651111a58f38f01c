"""When a field takes the Triton kernels: on CUDA, where they prove to compute what PyTorch does.

Kernels are compiled on the user's machine, by whatever Triton it has, for whatever GPU. So each
kind of field is tried once, on a few hundred random points, before the kernels are trusted with it;
if they fail or are off, a warning says so and the plain path goes on. PERIGAN_KERNELS=0 in the
environment turns them off.
"""

import importlib.util
import os
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from siren.blocks import EMPTY
from siren.film import sine_affine
from siren.fused import Tiling, evaluate_fused, product_dtype

TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 8e-2}


def usable(points: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether the kernels can take these points through folded layers and the colour's."""
    if not points.is_cuda or points.dtype != torch.float32 or len(layers) < 2:
        return False
    if os.environ.get("PERIGAN_KERNELS") == "0" or importlib.util.find_spec("triton") is None:
        return False
    hidden, features = layers[0][0].shape[1:]
    return _agrees(points.device, product_dtype(points), features, hidden, len(layers))


@lru_cache(maxsize=64)
def _agrees(
    device: torch.device, dtype: torch.dtype, features: int, hidden: int, depth: int
) -> bool:
    """Whether the kernels compile and compute what PyTorch does, tried on a small field.

    They are compiled for the machine at hand by whatever Triton is installed: trust, but verify.
    """
    try:
        error = largest_error(device, dtype, features, hidden, depth)
        why = f"their results are off by {error:.1e}" if not error <= TOLERANCE[dtype] else None
    except Exception as problem:  # what a compiler may raise is not written anywhere
        why = f"{type(problem).__name__}: {problem}"
    if why is not None:
        warnings.warn(f"the field's Triton kernels are not used: {why}", stacklevel=2)
    return why is None


@torch.inference_mode(False)
@torch.enable_grad()
def largest_error(
    device: torch.device,
    dtype: torch.dtype,
    features: int,
    hidden: int,
    depth: int,
    *,
    views: bool = True,
    points: int = 300,
    tiling: Tiling | None = None,
) -> float:
    """The kernels against PyTorch in fp32 on a random field: outputs and gradients of all inputs.

    The error is the norm of a difference over that of the true value; the worst one counts.
    """
    rng = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        numbers = torch.rand(shape, generator=rng) * 2 - 1
        return (scale * numbers).to(device).requires_grad_()

    scale, width = 3 / hidden**0.5, hidden + 3 * views
    x, directions = random(2, points, features), random(2, points, 3) if views else None
    layers = [(random(2, hidden, features, scale=8), random(2, 1, hidden))]
    for _ in range(depth - 1):
        layers.append((random(2, hidden, hidden, scale=scale), random(2, 1, hidden)))
    layers.append((random(2, hidden, width, scale=scale), random(2, 1, hidden)))
    density, radiance = (random(1, hidden), random(1)), (random(3, hidden), random(3))
    inside = (torch.rand(2, points, generator=rng) < 0.9).to(device)
    leaves = [x, *([] if directions is None else [directions])]
    leaves += [tensor for pair in (*layers, density, radiance) for tensor in pair]
    weights = [random(2, points, 3).detach(), random(2, points, 1).relu().detach()]
    weights[0] *= weights[1] > 0  # no density, no colour: half of the points teach nothing

    def values(evaluate: Any, **options: Any) -> list[Tensor]:
        outputs = evaluate(x, directions, layers, density, radiance, inside, **options)
        outputs = [torch.where(inside[..., None], out, 0) for out in outputs]
        loss = sum((out * w).sum() for out, w in zip(outputs, weights, strict=True))
        return [*outputs, *torch.autograd.grad(loss, leaves)]  # pyright: ignore

    with torch.autocast(device.type, enabled=False):
        true = values(evaluate_plain)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        found = values(evaluate_fused, tiling=tiling)
    pairs = zip(found, true, strict=True)
    return max(float((a - b).detach().norm() / b.detach().norm()) for a, b in pairs)


def evaluate_plain(
    x: Tensor,
    directions: Tensor | None,
    layers: Sequence[tuple[Tensor, Tensor]],
    density_head: tuple[Tensor, Tensor],
    radiance_head: tuple[Tensor, Tensor],
    inside: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `evaluate_fused` computes, layer by layer in PyTorch."""
    for weight, bias in layers[:-1]:
        x = sine_affine(x, weight, bias)
    density = F.linear(x, *density_head)
    x = x if directions is None else torch.cat([directions, x], dim=-1)
    radiance = F.linear(sine_affine(x, *layers[-1]), *radiance_head).sigmoid()
    if inside is not None:
        radiance = torch.where(inside[..., None], radiance, 0)
        density = torch.where(inside[..., None], density, EMPTY)
    return radiance, density

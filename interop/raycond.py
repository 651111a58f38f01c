"""Weights of Ray Conditioning (Chen et al. 2023), and ray-conditioned networks of stock ones.

The originals are StyleGAN2 and StyleGAN3 with six more input channels per convolution; a generator
of either is told by its weights. They were trained on the published ray maps: `ray_mode` is
"reference". The discriminator is StyleGAN2's, conditional on 25 camera numbers as a label.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from discriminators.stylegan2 import StyleGAN2Discriminator
from generators.ray_conditioned import (
    RAY_CHANNELS,
    RayConditionedStyleGAN2,
    RayConditionedStyleGAN3,
)
from interop.stylegan import (
    DISCRIMINATOR,
    GENERATOR,
    SYNTHESIS2,
    SYNTHESIS3,
    Architecture,
    load_original,
    original_tensors,
    translated,
)
from interop.weights import SYSTEMS, Role, Weights

# what only lists names for the reader, and the label that only the discriminator sees
IGNORED = {"layer_names": None, "c_dim": None}
TABLES = {
    RayConditionedStyleGAN2: GENERATOR | SYNTHESIS2 | IGNORED,
    RayConditionedStyleGAN3: GENERATOR | SYNTHESIS3 | IGNORED,
}
STYLEGAN3_KEY = "synthesis.input.freqs"


def convert_generator(weights: Weights, config: Mapping[str, Any]) -> nn.Module:
    """Make our ray-conditioned generator of the original's weights and constructor arguments."""
    kind = RayConditionedStyleGAN3 if STYLEGAN3_KEY in weights else RayConditionedStyleGAN2
    arguments = translated(config.get("init_kwargs", config), TABLES[kind])
    return load_original(kind(ray_mode="reference", **arguments), weights)


def from_stock(stock: Weights, fresh: Weights, *, reference: bool = False) -> dict[str, Tensor]:
    """Begin a ray-conditioned network, whose weights are `fresh`, with a stock network's.

    Both under the original's names. What the stock network lacks keeps its fresh value, but for the
    weights of the rays: these begin at zero, so that the network begins as the stock one;
    `reference` leaves them at random, as the original does.
    """
    return {
        name: _widened(name, stock.get(name), value, reference) for name, value in fresh.items()
    }


def _widened(name: str, stock: Tensor | None, fresh: Tensor, reference: bool) -> Tensor:
    if stock is None:
        return fresh
    if stock.shape == fresh.shape:
        return stock.clone()
    result = fresh.clone()
    if "affine" in name and stock.shape[1:] == fresh.shape[1:]:
        result[: len(stock)] = stock
    elif "affine" not in name and any(part in name for part in ("conv", "torgb", "L")):
        if stock.ndim != 4 or stock.shape[1] + RAY_CHANNELS != fresh.shape[1]:
            return result
        result[:, : stock.shape[1]] = stock
        if not reference:
            result[:, stock.shape[1] :] = 0
            if fresh.shape[-1] == 1 and "L" in name and len(fresh) <= 4:  # toRGB's fan-in gain
                result *= math.sqrt(fresh.shape[1] / stock.shape[1])
    return result


def add_rays(stock: nn.Module, target: nn.Module, *, reference: bool = False) -> nn.Module:
    """Fill a ray-conditioned module with the weights of a stock one of the same sizes."""
    own = original_tensors(target)
    state = from_stock(original_tensors(stock), own, reference=reference)
    with torch.no_grad():
        return load_original(target, state)


_GENERATOR = Role(convert_generator, original_tensors)
SYSTEMS.register("raycond")(
    {
        "generator": _GENERATOR,
        "generator_raycond2": _GENERATOR,  # the roles that the parity cases name
        "generator_raycond3": _GENERATOR,
        "discriminator": Role(
            Architecture(StyleGAN2Discriminator, DISCRIMINATOR).convert, original_tensors
        ),
    }
)

"""Weights of Ray Conditioning (Chen et al. 2023), and ray-conditioned networks of stock ones.

The originals are StyleGAN2 and StyleGAN3 with six more input channels per convolution; a generator
of either is told by its weights. They were trained on the published ray maps: `ray_mode` is
"reference". The discriminator is StyleGAN2's, conditional on 25 camera numbers as a label.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from discriminators.stylegan2 import StyleGAN2Discriminator
from generators.ray_conditioned import (
    RayConditionedStyleGAN2,
    RayConditionedStyleGAN3,
    widened,
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

    Both under the original's names; what the stock network lacks keeps its fresh value. See
    `generators.ray_conditioned.widened`.
    """
    return {
        name: widened(stock[name], value, reference=reference) if name in stock else value
        for name, value in fresh.items()
    }


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

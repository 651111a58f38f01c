"""Weights of the official StyleGAN2 and StyleGAN3 networks made into our modules, and back.

`config` holds the original's constructor arguments under their own names, as its pickles and
training_options.json do, possibly inside `init_kwargs`. Our modules are laid out like theirs, so
that a tensor only changes its name; filters, which theirs store and ours design, are compared.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from discriminators.stylegan2 import StyleGAN2Discriminator
from generators.style import StyleGenerator
from generators.stylegan2 import StyleGAN2, SynthesisNetwork
from generators.stylegan3 import AliasFreeLayer, AliasFreeNetwork, StyleGAN3
from interop.weights import SYSTEMS, Role, Weights, require_same_shapes
from ops.registry import nearest

FILTERS = ("resample_filter", "up_filter", "down_filter")
FILTER_TOLERANCE = 1e-5  # of a filter's largest tap
W_AVG = "mapping.w_avg"

# the original's argument -> ours; a dict for arguments that are dicts; None: changes no number
MAPPING = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"}
GENERATOR = {
    "class_name": None,
    "z_dim": "latent_dim",
    "c_dim": "label_dim",
    "w_dim": "w_dim",
    "img_resolution": "resolution",
    "img_channels": "img_channels",
    "mapping_kwargs": MAPPING,
}
SHARED = {name: name for name in ("channel_base", "channel_max", "num_fp16_res", "conv_clamp")}
SYNTHESIS2 = SHARED | {
    "w_dim": "w_dim",
    "img_resolution": "resolution",
    "img_channels": "img_channels",
    "architecture": "architecture",
    "use_noise": "use_noise",
    "resample_filter": "resample_filter",
    "fp16_channels_last": "fp16_channels_last",
    "fused_modconv_default": None,
}
SYNTHESIS3 = SHARED | {
    name: name
    for name in (
        *("num_layers", "num_critical", "first_cutoff", "first_stopband", "last_stopband_rel"),
        *("margin_size", "output_scale", "conv_kernel", "filter_size", "lrelu_upsampling"),
        *("use_radial_filters", "magnitude_ema_beta"),
    )
}
DISCRIMINATOR = SHARED | {
    "class_name": None,
    "c_dim": "label_dim",
    "img_resolution": "resolution",
    "img_channels": "img_channels",
    "architecture": "architecture",
    "cmap_dim": "cmap_dim",
    "mapping_kwargs": {"num_layers": "mapping_layers"},
    "block_kwargs": {
        "freeze_layers": "freeze_layers",
        "fp16_channels_last": "fp16_channels_last",
        "resample_filter": "resample_filter",
    },
    "epilogue_kwargs": {
        "mbstd_group_size": "mbstd_group_size",
        "mbstd_num_channels": "mbstd_num_channels",
    },
}


class Architecture(NamedTuple):
    """One of our classes, and how the original names its arguments."""

    build: Callable[..., nn.Module]
    arguments: Mapping[str, Any]

    def convert(self, weights: Weights, config: Mapping[str, Any]) -> nn.Module:
        """Make our module of the original's weights and constructor arguments."""
        arguments = translated(config.get("init_kwargs", config), self.arguments)
        return load_original(self.build(**arguments), weights)


def translated(given: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """The original's constructor arguments under our names; ValueError for an unknown one."""
    ours: dict[str, Any] = {}
    for name, value in given.items():
        if name not in table:
            raise ValueError(f"unknown argument {name!r} of the original{nearest(name, table)}")
        target = table[name]
        if isinstance(target, Mapping):
            ours |= translated(value, target)
        elif target is not None:
            ours[target] = value
    return ours


def load_original(module: nn.Module, weights: Weights) -> nn.Module:
    """Fill one of our modules with the original's tensors, and return it."""
    own = original_tensors(module)
    require_same_shapes(weights, own, f"a {type(module).__name__} of these arguments")
    names = original_names(module)
    for theirs in own:
        if theirs.rpartition(".")[2] in FILTERS:
            error = (weights[theirs].to(own[theirs]) - own[theirs]).abs().max()
            if error > FILTER_TOLERANCE * own[theirs].abs().max():
                raise ValueError(f"{theirs} differs from the filter that the arguments ask for")
    state = {
        ours: weights[theirs]
        for ours, theirs in names.items()
        if theirs.rpartition(".")[2] not in FILTERS
    }
    if isinstance(module, StyleGenerator):  # theirs has one average for all slots
        state["w_avg"] = weights[W_AVG].expand_as(module.w_avg)
    module.load_state_dict(state)
    return module


def original_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of one of our modules, under the original's names."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    return {
        theirs: tensors[ours][0] if theirs == W_AVG else tensors[ours].detach()
        for ours, theirs in original_names(module).items()
    }


def original_names(module: nn.Module) -> dict[str, str]:
    """Our name of every parameter and buffer -> the original's."""
    rules: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"^w_avg$", W_AVG),
        (r"^mapping_network\.layers\.(\d+)\.", r"mapping.fc\1."),
        (r"^mapping_network\.", "mapping."),
    ]
    prefix = "^synthesis_network\\." if isinstance(module, StyleGenerator) else "^"
    front = "synthesis." if isinstance(module, StyleGenerator) else ""
    network = module.synthesis_network if isinstance(module, StyleGenerator) else module
    if isinstance(network, AliasFreeNetwork):
        plans = [layer.plan for layer in network.layers if isinstance(layer, AliasFreeLayer)]

        def layer_name(match: re.Match[str]) -> str:
            return f"{front}L{match[1]}_{plans[int(match[1])].after.name}."

        rules += [(prefix + r"layers\.(\d+)\.", layer_name)]
        rules += [(prefix + r"input\.", front + "input.")]
    elif isinstance(network, SynthesisNetwork):
        rules += [(prefix + r"blocks\.(\d+)\.", lambda match: f"{front}b{4 << int(match[1])}.")]
    elif isinstance(network, StyleGAN2Discriminator):
        size = network.resolution
        rules += [(r"^blocks\.(\d+)\.", lambda match: f"b{size >> int(match[1])}.")]
        rules += [(r"^epilogue\.", "b4.")]
    names = {}
    for ours in [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]:
        for pattern, replacement in rules:
            theirs, found = re.subn(pattern, replacement, ours)
            if found:
                names[ours] = theirs
                break
        else:
            raise ValueError(f"{ours} of {type(module).__name__} has no name in the original")
    return names


ARCHITECTURES = {
    "stylegan2": {
        "generator": Architecture(StyleGAN2, GENERATOR | SYNTHESIS2),
        "synthesis": Architecture(SynthesisNetwork, SYNTHESIS2),
        "discriminator": Architecture(StyleGAN2Discriminator, DISCRIMINATOR),
    },
    "stylegan3": {
        "generator": Architecture(StyleGAN3, GENERATOR | SYNTHESIS3),
        "discriminator": Architecture(StyleGAN2Discriminator, DISCRIMINATOR),
    },
}
for _system, _roles in ARCHITECTURES.items():
    SYSTEMS.register(_system)(
        {role: Role(a.convert, original_tensors) for role, a in _roles.items()}
    )

"""Weights of the official Projected GAN networks made into our modules, and back.

`config` holds the original's arguments under their own names, as training_options.json does; sizes
that weights tell are read from them. Official FastGANs below 256 pixels carry a block and an
excitation for 256 that they never use: these are left out.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from generators.fastgan import WIDTHS, FastGAN, FastGANLite
from interop.weights import SYSTEMS, Role, Weights, require_same_shapes, size_of

# our name -> the original's, tried in this order
Rules = list[tuple[str, str]]
START: Rules = [
    (r"^network\.start\.", "synthesis.init.init.0."),
    (r"^network\.start_norm\.", "synthesis.init.init.1."),
    (r"^network\.excitations\.(\d+)\.squeeze\.", r"synthesis.se_\1.main.1."),
    (r"^network\.excitations\.(\d+)\.excite\.", r"synthesis.se_\1.main.3."),
    (r"^network\.to_image\.", "synthesis.to_big."),
    (r"^embedding\.", "synthesis.embed."),
]
UP = r"^network\.ups\.(\d+)\.convs\."
LITE: Rules = [
    (UP + r"0\.conv\.", r"synthesis.feat_\1.1."),
    (UP + r"0\.norm\.norm\.", r"synthesis.feat_\1.2."),
]
FULL: Rules = [
    (UP + r"0\.conv\.", r"synthesis.feat_\1.1."),
    (UP + r"0\.noise_strength$", r"synthesis.feat_\1.2.weight"),
    (UP + r"0\.norm\.norm\.", r"synthesis.feat_\1.3."),
    (UP + r"1\.conv\.", r"synthesis.feat_\1.5."),
    (UP + r"1\.noise_strength$", r"synthesis.feat_\1.6.weight"),
    (UP + r"1\.norm\.norm\.", r"synthesis.feat_\1.7."),
]
STORED = r"\.norm\.running_(mean|var)$"
LITE_CLASSES: Rules = [
    (UP + r"0\.conv\.", r"synthesis.feat_\1.conv."),
    (UP + r"0\.norm" + STORED, r"synthesis.feat_\1.bn.stored_\2"),
    (UP + r"0\.norm\.(gain|bias)\.", r"synthesis.feat_\1.bn.\2."),
]
FULL_CLASSES: Rules = [
    (UP + r"0\.noise_strength$", r"synthesis.feat_\1.noise.weight"),
    *[
        rule
        for ours, theirs in (("0", "1"), ("1", "2"))
        for rule in (
            (UP + ours + r"\.conv\.", rf"synthesis.feat_\1.conv{theirs}."),
            (UP + ours + r"\.norm" + STORED, rf"synthesis.feat_\1.bn{theirs}.stored_\2"),
            (UP + ours + r"\.norm\.(gain|bias)\.", rf"synthesis.feat_\1.bn{theirs}.\2."),
        )
    ],
]
UNUSED = re.compile(r"^synthesis\.(feat|se)_(\d+)\.")
SPECTRAL = re.compile(r"\.weight$")


def fastgan(weights: Weights, config: Mapping[str, Any]) -> FastGAN:
    """Make our FastGAN of an original's weights.

    Of `config` it reads img_resolution, lite and cond.
    """
    what = "a FastGAN"
    lite = bool(config.get("lite", False))
    resolution = int(config["img_resolution"])
    conditional = "synthesis.embed.weight" in weights
    if bool(config.get("cond", conditional)) != conditional:
        raise ValueError(f"cond is {config['cond']}, but the weights say otherwise")
    first = size_of(weights, "synthesis.init.init.0.weight_orig", 1, what)
    generator = (FastGANLite if lite else FastGAN)(
        resolution=resolution,
        latent_dim=size_of(weights, "synthesis.init.init.0.weight_orig", 0, what),
        label_dim=size_of(weights, "synthesis.embed.weight", 0, what) if conditional else 0,
        width=int(first // (2 * WIDTHS[4])),
    )
    used = {key: value for key, value in weights.items() if not is_unused(key, resolution)}
    load(generator, used, fastgan_names(generator))
    generator.update_w_avg()
    return generator


def is_unused(key: str, resolution: int) -> bool:
    """Whether a tensor of the original belongs to a block above its resolution."""
    found = UNUSED.match(key)
    return found is not None and int(found[2]) > resolution


def fastgan_names(generator: FastGAN) -> dict[str, str]:
    """Our name of every tensor of a FastGAN -> the original's."""
    if generator.label_dim:
        rules = LITE_CLASSES if generator.lite else FULL_CLASSES
    else:
        rules = LITE if generator.lite else FULL
    return original_names(generator, START + rules)


def original_names(module: nn.Module, rules: Rules) -> dict[str, str]:
    """Our name of every tensor -> the original's; tensors that it lacks are left out."""
    layers = dict(module.named_modules())
    names = {}
    for ours in own_tensors(module):
        for pattern, replacement in rules:
            theirs, found = re.subn(pattern, replacement, ours)
            if found:
                layer = layers[ours.rpartition(".")[0]]
                if hasattr(layer, "weight_u"):
                    theirs = SPECTRAL.sub(".weight_orig", theirs)
                names[ours] = theirs
                break
    return names


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, each once, and buffers."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def original_tensors(module: nn.Module, names: Mapping[str, str]) -> dict[str, Tensor]:
    """A module's tensors under the original's names."""
    tensors = own_tensors(module)
    return {theirs: tensors[ours].detach() for ours, theirs in names.items()}


def load(module: nn.Module, weights: Weights, names: Mapping[str, str]) -> None:
    """Fill a module with an original's tensors; ValueError where they do not fit."""
    expected = original_tensors(module, names)
    require_same_shapes(weights, expected, f"a {type(module).__name__} of these arguments")
    with torch.no_grad():
        for theirs, tensor in expected.items():
            tensor.copy_(weights[theirs])


def export_fastgan(generator: FastGAN) -> dict[str, Tensor]:
    """A FastGAN's tensors under the original's names."""
    return original_tensors(generator, fastgan_names(generator))


FASTGAN = Role(fastgan, export_fastgan)
SYSTEMS.register("fastgan")({"generator": FASTGAN})

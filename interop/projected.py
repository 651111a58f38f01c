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

from discriminators.projected import DownBlock, FeatureNetwork, Head, ProjectedDiscriminator
from generators.fastgan import WIDTHS, FastGAN, FastGANLite
from interop.stylegan import ARCHITECTURES
from interop.stylegan import original_tensors as stylegan_tensors
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
FEATURES: Rules = [
    (r"^backbone\.conv_stem\.", "pretrained.layer0.0."),
    (r"^backbone\.bn1\.", "pretrained.layer0.1."),
    *[
        (rf"^backbone\.blocks\.{i}\.", f"pretrained.{theirs}.")
        for i, theirs in enumerate(
            ("layer0.3", "layer0.4", "layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer3.1")
        )
    ],
    (r"^mix_channels\.(\d+)\.", r"scratch.layer\1_ccm."),
    (r"^mix_scales\.(\d+)\.", r"scratch.layer\1_csm.out_conv."),
]
MIXINGS = {0: "none", 1: "channels", 2: "scales"}  # the original's proj_type
INTERP_SIZE = 224
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


def projector(weights: Weights, config: Mapping[str, Any]) -> FeatureNetwork:
    """Make the feature network of an original's weights; `config`: cout, expand, proj_type."""
    network = FeatureNetwork(weights="random", **feature_options(config))
    load(network, weights, original_names(network, FEATURES))
    return network


def feature_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """How features are mixed, under our names."""
    return {
        "channels": config.get("cout", 64),
        "expand": config.get("expand", True),
        "mixing": MIXINGS[config.get("proj_type", 2)],
    }


def single_discriminator(weights: Weights, config: Mapping[str, Any]) -> Head:
    """Make one head of an original's weights and constructor arguments."""
    what = "a single discriminator"
    conditional = "embed.weight" in weights
    options = {}
    if conditional:
        options = {
            "label_dim": size_of(weights, "embed.weight", 0, what),
            "embedding_dim": size_of(weights, "embed.weight", 1, what),
            "code_dim": size_of(weights, "embed_proj.0.weight", 0, what),
        }
    head = Head(
        in_channels=config["nc"],
        start_size=config["start_sz"],
        end_size=config.get("end_sz", 8),
        width=config.get("ndf"),
        stem=bool(config.get("head")),
        separable=config.get("separable", False),
        mixes=config.get("patch", False),
        **options,
    )
    load(head, weights, original_names(head, head_rules(head)))
    return head


def head_rules(head: Head, ours: str = "^", theirs: str = "") -> Rules:
    """Names of a head's tensors, which lies under prefixes."""
    rules: Rules = [
        (ours + r"embedding\.", theirs + "embed."),
        (ours + r"project\.", theirs + "embed_proj.0."),
        (ours + r"stem\.", theirs + "main.0."),
    ]
    shift = 0 if head.stem is None else 2
    for i, block in enumerate(head.blocks):
        assert isinstance(block, DownBlock)
        here, there = rf"{ours}blocks\.{i}\.", f"{theirs}main.{i + shift}.main."
        inner = there if block.mix is None else there + "0.main."
        rules += [
            (here + r"conv\.", inner + "0."),
            (here + r"norm\.", inner + "1."),
            (here + r"mix\.", there + "1."),
            (here + r"mix_norm\.", there + "2."),
        ]
    last = "cls." if head.label_dim else f"main.{len(head.blocks) + shift}."
    return [*rules, (ours + r"out\.", theirs + last)]


def discriminator(weights: Weights, config: Mapping[str, Any]) -> ProjectedDiscriminator:
    """Make the whole discriminator; `config`: input_resolution, interp224 and backbone_kwargs.

    Without a resolution in `config` it is one for 256 pixels.
    """
    options = config.get("backbone_kwargs", {})
    embedding = "discriminator.mini_discs.0.embed.weight"
    size = config.get("input_resolution", config.get("img_resolution", 256))
    enlarged = config.get("interp224", size < INTERP_SIZE)
    network = ProjectedDiscriminator(
        resolution=size,
        label_dim=size_of(weights, embedding, 0, "its heads") if embedding in weights else 0,
        backbone_weights="random",
        input_size=INTERP_SIZE if enlarged else size,
        num_discs=options.get("num_discs", 4),
        separable=options.get("separable", False),
        **feature_options(options),
    )
    load(network, weights, discriminator_names(network))
    return network


def discriminator_names(network: ProjectedDiscriminator) -> dict[str, str]:
    """Our name of every tensor of a discriminator, the frozen ones included -> the original's."""
    rules: Rules = [
        (ours.replace("^", r"^feature_network\."), "feature_network." + theirs)
        for ours, theirs in FEATURES
    ]
    for i, head in enumerate(network.heads):
        assert isinstance(head, Head)
        rules += head_rules(head, rf"^heads\.{i}\.", f"discriminator.mini_discs.{i}.")
    return original_names(network, rules)


def export_discriminator(network: ProjectedDiscriminator) -> dict[str, Tensor]:
    """A discriminator's tensors, the frozen ones included, under the original's names."""
    return original_tensors(network, discriminator_names(network))


def export_single(head: Head) -> dict[str, Tensor]:
    """A head's tensors under the original's names."""
    return original_tensors(head, original_names(head, head_rules(head)))


FASTGAN = Role(fastgan, export_fastgan)
SYSTEMS.register("fastgan")({"generator": FASTGAN})
SYSTEMS.register("projected", "projected_gan")(
    {
        "generator": FASTGAN,
        "generator_stylegan2": Role(
            ARCHITECTURES["stylegan2"]["generator"].convert, stylegan_tensors
        ),
        "discriminator": Role(discriminator, export_discriminator),
        "projector": Role(projector),
        "single_discriminator": Role(single_discriminator, export_single),
    }
)

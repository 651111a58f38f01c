"""Weights of the original pi-GAN code made into our modules, and back.

Its generators keep every key behind `siren.`, the mapping network inside the field; role "field" is
a generator whose keys lack that prefix. Sizes are read from the tensors; `config` tells the class,
under whichever of CLASS_KEYS it stands.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from discriminators import DISCRIMINATORS
from discriminators.pyramid import PyramidDiscriminator
from generators.pigan import PiGAN
from interop.weights import SYSTEMS, Role, Weights, require_same_shapes, size_of
from ops.conv import CoordConv2d
from ops.registry import Registry, nearest
from siren.fields import FIELDS, EmbeddingSiren

CLASS_KEYS = ("field", "model", "discriminator", "class", "generator", "config")
PREFIX = "siren."
POSE_LAYER = "pose_layer."  # parameters of two discriminators that nothing ever reads
POSE_LAYER_CLASSES = ("StridedDiscriminator", "CCSDiscriminator")
# ours -> theirs; {conv} is the name of a CoordConv's inner convolution
DISCRIMINATOR_NAMES = (
    (r"blocks\.(\d+)\.conv0\.", r"layers.\1.network.0.{conv}"),
    (r"blocks\.(\d+)\.conv1\.", r"layers.\1.network.2.{conv}"),
    (r"blocks\.(\d+)\.skip\.", r"layers.\1.proj."),
    (r"from_rgb\.(\d+)\.", r"fromRGB.\1.model.0."),
    (r"head\.", r"final_layer."),
)


def convert_generator(weights: Weights, config: Mapping[str, Any]) -> PiGAN:
    """Make a PiGAN of a generator's or a field's weights; its average style is estimated anew."""
    model = _class_name(config, FIELDS)
    what = f"a generator with field {model}"
    weights = {PREFIX + key.removeprefix(PREFIX): value for key, value in weights.items()}

    def size(key: str, axis: int) -> int:
        return size_of(weights, PREFIX + key, axis, what)

    generator = PiGAN(
        latent_dim=size("mapping_network.network.0.weight", 1),
        model=model,
        hidden_dim=size("final_layer.weight", 1),
        grid_size=size("spatial_embeddings", -1) if FIELDS[model].default_grid_size else None,
    )
    names = generator_names(generator)
    own = generator.state_dict()
    require_same_shapes(weights, {theirs: own[ours] for ours, theirs in names.items()}, what)
    own.update({ours: weights[theirs] for ours, theirs in names.items()})
    generator.load_state_dict(own)
    generator.update_w_avg()
    return generator


def export_generator(generator: PiGAN) -> dict[str, Tensor]:
    """A generator's weights under the original's names; its average style has none there."""
    siren = generator.siren
    with torch.device("meta"):  # what the original would build at these sizes, without memory
        plain = PiGAN(**generator_arguments(generator))
    for option in (
        "num_layers",
        "coordinate_scale",
        "view_direction",
        "density_gain",
        "bound_radius",
    ):
        given, fixed = getattr(siren, option), getattr(plain.siren, option)
        if given != fixed:
            raise ValueError(f"the original has {option} fixed at {fixed}, got {given}")
    own = generator.state_dict()
    require_same_shapes(own, plain.state_dict(), "the original")
    return {theirs: own[ours] for ours, theirs in generator_names(generator).items()}


def generator_arguments(generator: PiGAN) -> dict[str, Any]:
    """Constructor's arguments of a generator that came from the original."""
    siren = generator.siren
    arguments = {
        "latent_dim": generator.latent_dim,
        "model": FIELDS.name_of(type(siren)),
        "hidden_dim": siren.hidden_dim,
    }
    if isinstance(siren, EmbeddingSiren):
        arguments["grid_size"] = siren.spatial_embeddings.shape[-1]
    return arguments


def export_field(generator: PiGAN) -> dict[str, Tensor]:
    """As `export_generator`, without the generator's prefix."""
    weights = export_generator(generator)
    return {key.removeprefix(PREFIX): value for key, value in weights.items()}


def generator_names(generator: PiGAN) -> dict[str, str]:
    """Our name of every parameter -> the original's, in the original's order."""
    return {name: PREFIX + name.removeprefix(PREFIX) for name, _ in generator.named_parameters()}


def convert_discriminator(weights: Weights, config: Mapping[str, Any]) -> PyramidDiscriminator:
    """Make a discriminator of the original's weights."""
    name = _class_name(config, DISCRIMINATORS)
    cls = DISCRIMINATORS[name]
    if not issubclass(cls, PyramidDiscriminator):
        raise ValueError(f"{name} is not a discriminator of pi-GAN")
    if name in POSE_LAYER_CLASSES:
        weights = {k: v for k, v in weights.items() if not k.startswith(POSE_LAYER)}
    discriminator = cls(**discriminator_arguments(weights, name))
    expected = export_tensors(discriminator, discriminator.state_dict())
    require_same_shapes(weights, expected, name)
    discriminator.load_state_dict(import_tensors(discriminator, weights))
    return discriminator


def discriminator_arguments(weights: Weights, name: str) -> dict[str, Any]:
    """Constructor's arguments of the discriminator that the original's weights are of."""
    ways_in = max(sum(key.startswith("fromRGB.") for key in weights) // 2, 1)
    widths = [size_of(weights, f"fromRGB.{i}.model.0.bias", 0, name) for i in range(ways_in)]
    max_size = 2**ways_in
    return {
        "latent_dim": max(size_of(weights, "final_layer.bias", 0, name) - 3, 0),
        "max_size": max_size,
        "base": max(width * (max_size >> i) for i, width in enumerate(widths)),
        "max_channels": max(widths),
    }


def export_discriminator(discriminator: PyramidDiscriminator) -> dict[str, Tensor]:
    """A discriminator's weights under the original's names, those that nothing reads as zeros."""
    if discriminator.uses_cameras:
        raise ValueError("the original's discriminators have no pose_conditioning")
    weights = export_tensors(discriminator, discriminator.state_dict())
    if DISCRIMINATORS.name_of(type(discriminator)) in POSE_LAYER_CLASSES:
        head, width = discriminator.head.weight, discriminator.head.in_channels
        weights[POSE_LAYER + "weight"] = head.new_zeros(width, 2)
        weights[POSE_LAYER + "bias"] = head.new_zeros(width)
    return weights


def export_tensors(discriminator: PyramidDiscriminator, tensors: Weights) -> dict[str, Tensor]:
    """Tensors under our parameters' names (weights, gradients, ...), under the original's.

    A CoordConv of the original has one weight for image and coordinate channels; ours has two.
    """
    theirs = {}
    for ours, name in discriminator_names(discriminator).items():
        if ours in tensors:
            split = ours.removesuffix("weight") + "coordinate_weight"
            parts = [tensors[ours]] + ([tensors[split]] if split in tensors else [])
            theirs[name] = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
    return theirs


def import_tensors(discriminator: PyramidDiscriminator, tensors: Weights) -> dict[str, Tensor]:
    """The inverse of `export_tensors`."""
    own = {}
    shapes = {name: p.shape for name, p in discriminator.named_parameters()}
    for ours, name in discriminator_names(discriminator).items():
        if name in tensors:
            own[ours] = tensors[name]
            split = ours.removesuffix("weight") + "coordinate_weight"
            if split in shapes:
                own[ours], own[split] = tensors[name].split([shapes[ours][1], 2], dim=1)
    return own


def discriminator_names(discriminator: PyramidDiscriminator) -> dict[str, str]:
    """Our name of every parameter the original has -> its name there, in its order."""
    modules = dict(discriminator.named_modules())
    names = {}
    for ours, _ in discriminator.named_parameters():
        module, _, leaf = ours.rpartition(".")
        if leaf == "coordinate_weight":
            continue  # part of `weight` there
        inner = "conv." if isinstance(modules[module], CoordConv2d) else ""
        for pattern, replacement in DISCRIMINATOR_NAMES:
            theirs, found = re.subn(pattern, replacement, ours)
            if found:
                names[ours] = theirs.format(conv=inner)
    return names


def _class_name(config: Mapping[str, Any], registry: Registry[Any]) -> str:
    """The canonical name of the registry's class that a configuration mentions."""
    mentioned = _mentioned_names(config)
    for name in mentioned:
        if name in registry:
            return registry.canonical(name)
    if mentioned:
        name = mentioned[0]
        raise ValueError(f"unknown {registry.kind} {name!r}{nearest(name, registry)}")
    raise ValueError(
        f"the configuration names no {registry.kind}: one of {', '.join(CLASS_KEYS)} must be a "
        f"class name, got only {', '.join(config) or 'nothing'}"
    )


def _mentioned_names(config: Mapping[str, Any]) -> list[str]:
    names = []
    for key in CLASS_KEYS:
        value = config.get(key)
        if isinstance(value, Mapping):
            names += _mentioned_names(value)
        elif isinstance(value, str):
            names.append(value)
    return names


SYSTEMS.register("pigan")(
    {
        "generator": Role(convert_generator, export_generator),
        "field": Role(convert_generator, export_field),
        "discriminator": Role(convert_discriminator, export_discriminator),
    }
)

"""The original pi-GAN's weights into our modules and back, and what is said if they do not fit."""

from typing import Any

import pytest
import torch
from torch import Tensor

import interop
from discriminators import DISCRIMINATORS
from discriminators.pyramid import PyramidDiscriminator
from generators.pigan import PiGAN
from interop.pigan import export_tensors, import_tensors
from ops.conv import CoordConv2d
from siren.fields import FIELDS


def generator(model: str = "SpatialSiren", **options: Any) -> PiGAN:
    grid = {"grid_size": 4} if model.startswith("Embedding") else {}
    return PiGAN(**{"latent_dim": 6, "hidden_dim": 8, "model": model, **grid, **options})


def discriminator(name: str = "CCSEncoderDiscriminator") -> PyramidDiscriminator:
    made = DISCRIMINATORS[name](latent_dim=5, max_size=16, base=64, max_channels=12)
    assert isinstance(made, PyramidDiscriminator)
    return made


def exported(module: torch.nn.Module, role: str = "generator") -> dict[str, Tensor]:
    return interop.export("pigan", role, module)


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


@pytest.mark.parametrize("model", list(FIELDS))
@pytest.mark.parametrize("role", ["generator", "field"])
def test_generators_survive_the_way_there_and_back_bit_for_bit(model: str, role: str) -> None:
    original = generator(model)
    weights = exported(original, role)
    (alias,) = FIELDS.aliases(model)
    returned = interop.convert("pigan", role, weights, {"class": alias})
    assert isinstance(returned, PiGAN) and returned.latent_dim == 6
    assert_same_bits(exported(returned, role), weights)
    own, theirs = returned.state_dict(), original.state_dict()
    assert all(torch.equal(own[key], theirs[key]) for key in theirs if key != "w_avg")


def test_generator_keys_are_the_originals_in_the_originals_order() -> None:
    keys = list(exported(generator("EmbeddingSiren256")))
    layers = [f"siren.network.{i}.layer" for i in range(8)]
    layers += ["siren.final_layer", "siren.color_layer_sine.layer", "siren.color_layer_linear.0"]
    layers += [f"siren.mapping_network.network.{i}" for i in (0, 2, 4, 6)]
    leaves = [f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]
    assert keys == ["siren.spatial_embeddings", *leaves]
    assert list(exported(generator(), "field"))[0] == "network.0.layer.weight"


def test_a_converted_generator_knows_its_average_style() -> None:
    original = generator()
    original.update_w_avg()
    returned = interop.convert("pigan", "generator", exported(original), {"field": "SpatialSiren"})
    assert isinstance(returned, PiGAN)
    assert torch.equal(returned.w_avg, original.w_avg) and original.w_avg.abs().max() > 0


@pytest.mark.parametrize(
    "name", list(interop.pigan.POSE_LAYER_CLASSES) + ["CCSEncoderDiscriminator"]
)
def test_unread_weights_are_dropped_on_import_and_zero_on_export(name: str) -> None:
    weights = exported(discriminator(name), "discriminator")
    unread = {key: value for key, value in weights.items() if key.startswith("pose_layer.")}
    if name == "CCSEncoderDiscriminator":
        assert not unread
        return
    assert {key: tuple(value.shape) for key, value in unread.items()} == {
        "pose_layer.weight": (12, 2),
        "pose_layer.bias": (12,),
    }
    trained = weights | {key: value + 1 for key, value in unread.items()}
    returned = interop.convert("pigan", "discriminator", trained, {"class": name})
    assert_same_bits(exported(returned, "discriminator"), weights)


@pytest.mark.parametrize(
    "name", [name for name in DISCRIMINATORS if "Progressive" in name or "CCS" in name]
)
def test_discriminators_survive_the_way_there_and_back(name: str) -> None:
    original = discriminator(name)
    weights = exported(original, "discriminator")
    returned = interop.convert("pigan", "discriminator", weights, {"discriminator": name})
    assert_same_bits(exported(returned, "discriminator"), weights)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(returned(images, 0.4).logits, original(images, 0.4).logits)


def test_a_coordinate_convolution_of_the_original_has_its_coordinates_last() -> None:
    ours = discriminator()
    weights = exported(ours, "discriminator")
    conv = ours.blocks[0].get_submodule("conv0")
    assert isinstance(conv, CoordConv2d)
    theirs = weights["layers.0.network.0.conv.weight"]
    assert torch.equal(theirs[:, :-2], conv.weight)
    assert torch.equal(theirs[:, -2:], conv.coordinate_weight)


def test_gradients_are_renamed_like_weights_and_a_part_of_them_too() -> None:
    ours = discriminator()
    ours(torch.rand(2, 3, 8, 8)).logits.sum().backward()
    gradients = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    theirs = export_tensors(ours, gradients)
    assert "layers.0.proj.weight" not in theirs and "fromRGB.1.model.0.bias" in theirs
    assert theirs["layers.1.network.2.conv.weight"].shape == (12, 14, 3, 3)
    returned = import_tensors(ours, theirs)
    assert returned.keys() == gradients.keys()
    assert all(torch.equal(returned[key], gradients[key]) for key in gradients)


@pytest.mark.parametrize(
    "config",
    [
        {"class": "TALLSIREN", "kwargs": {"hidden_dim": 8}},
        {"field": "TALLSIREN"},
        {"model": "TallSiren", "generator": "ImplicitGenerator3d"},
        {"class": "ImplicitGenerator3d", "field": "TALLSIREN"},
        {"generator": {"field": "TALLSIREN"}, "discriminator": {"class": "CCSDiscriminator"}},
    ],
)
def test_configurations_may_name_the_class_in_many_ways(config: dict[str, Any]) -> None:
    returned = interop.convert("pigan", "generator", exported(generator("TallSiren")), config)
    assert isinstance(returned, PiGAN) and returned.siren.coordinate_scale == 1


@pytest.mark.parametrize(
    "system, role, config, message",
    [
        ("pigam", "generator", {}, "unknown system 'pigam', did you mean 'pigan'"),
        ("pigan", "generater", {}, "unknown role 'generater'.*did you mean 'generator'"),
        ("pigan", "generator", {}, "names no model"),
        ("pigan", "generator", {"field": "TALSIREN"}, "did you mean 'TallSiren'"),
        ("pigan", "discriminator", {"class": "CCDiscriminator"}, "did you mean 'CCSDiscriminator'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(
    system: str, role: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        interop.convert(system, role, exported(generator()), config)


@pytest.mark.parametrize(
    "key, change, message",
    [
        ("siren.network.3.layer.bias", "drop", "missing: siren.network.3.layer.bias"),
        ("siren.final_layer.weight", "drop", "missing: siren.final_layer.weight"),
        ("siren.network.8.layer.bias", "add", "unexpected: siren.network.8.layer.bias"),
        (
            "siren.network.2.layer.weight",
            "cut",
            r"network.2.layer.weight \(8, 7\) in place of \(8, 8\)",
        ),
        ("siren.final_layer.weight", "flatten", r"another shape: siren.final_layer.weight \(8,\)"),
    ],
)
def test_generator_weights_that_do_not_fit_are_named(key: str, change: str, message: str) -> None:
    weights = exported(generator())
    altered = {
        "drop": lambda: weights.pop(key),
        "add": lambda: weights.update({key: torch.zeros(8)}),
        "cut": lambda: weights.update({key: weights[key][:, :-1]}),
        "flatten": lambda: weights.update({key: weights[key].flatten()}),
    }
    altered[change]()
    with pytest.raises(ValueError, match=message):
        interop.convert("pigan", "generator", weights, {"field": "SpatialSiren"})


def test_discriminator_weights_that_do_not_fit_are_named() -> None:
    weights = exported(discriminator(), "discriminator")
    for key in ("layers.1.network.0.conv.weight", "fromRGB.2.model.0.bias", "final_layer.bias"):
        less = {k: v for k, v in weights.items() if k != key}
        with pytest.raises(ValueError, match=f"missing: {key}"):
            interop.convert("pigan", "discriminator", less, {"class": "CCSEncoderDiscriminator"})
    with pytest.raises(ValueError, match="unexpected: layers.0.network.0.conv.weight"):
        interop.convert("pigan", "discriminator", weights, {"class": "StridedDiscriminator"})
    with pytest.raises(ValueError, match="do not fit"):
        interop.convert("pigan", "discriminator", {}, {"class": "CCSDiscriminator"})


@pytest.mark.parametrize(
    "options, name",
    [
        ({"num_layers": 3}, "num_layers"),
        ({"box_side": 1.0}, "coordinate_scale"),
        ({"view_direction": False}, "view_direction"),
        ({"density_gain": 10.0}, "density_gain"),
        ({"mapping_dim": 32}, "mapping_network"),
    ],
)
def test_generators_that_the_original_cannot_express_are_not_exported(
    options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        exported(generator(**options))

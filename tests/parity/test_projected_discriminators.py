"""Projected GAN's discriminator against the original: features, heads, logits, gradients."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity.projected_support import assert_fill, assert_outputs, filled, float64_outputs
from parity.support import Case, cases_of
from torch import Tensor, nn

import interop
from discriminators.projected import FeatureNetwork, Head, ProjectedDiscriminator
from generators.stylegan2 import StyleGAN2
from interop.projected import (
    FEATURES,
    discriminator_names,
    export_discriminator,
    export_single,
    original_names,
    original_tensors,
)
from rendering.settings import RenderSettings

ENLARGED = "1/4 of the resolution"


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def enlarge(case: Case, x: Tensor) -> Tensor:
    """The input as the original saw it."""
    small = ENLARGED in case.config.get("input", "")
    return F.interpolate(x, scale_factor=4, mode="nearest") if small else x


def fill_tables(case: Case) -> dict[str, Any]:
    path = case.path.parent / "projected_fill.json"
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.mark.parametrize("case", cases_of("projected_gan", "projector"))
def test_features_are_the_originals(case: Case) -> None:
    options = case.config
    plain = FeatureNetwork(weights="random", channels=options["cout"], expand=options["expand"])
    weights = filled(shapes(original_tensors(plain, original_names(plain, FEATURES))))
    if case.config["expand"] and (tables := fill_tables(case)):
        assert_fill(weights, tables["feature_network_expand"])
    network = interop.convert("projected", "projector", weights, case.config)
    assert isinstance(network, FeatureNetwork)
    with torch.no_grad():
        stages = network.backbone(enlarge(case, case.tensor("in/x")))
        channel_mixed = network.channel_mixed(stages)
        scale_mixed = network.scale_mixed(channel_mixed)
    strides = case.config["channel_stride_saved"]
    actual = {f"stage_{i}": x for i, x in enumerate(stages)}
    actual |= {f"ccm_{i}": x for i, x in enumerate(channel_mixed)}
    actual |= {f"csm_{i}": x for i, x in enumerate(scale_mixed)}
    actual = {name: x[:, :: strides.get(name, 1)] for name, x in actual.items()}
    assert_outputs(case, actual)


@pytest.mark.parametrize("case", cases_of("projected_gan", "single_discriminator"))
def test_a_head_is_the_originals(case: Case) -> None:
    weights = case.tensors("weights/")
    head = interop.convert("projected", "single_discriminator", weights, case.config)
    assert isinstance(head, Head)
    x = case.tensor("in/x").requires_grad_()
    label = case.tensor("in/c") if head.label_dim else None
    actual: dict[str, Tensor] = {}
    for mode in ("eval", "train"):
        logits = head.train(mode == "train")(x, label)
        actual[f"logits_{mode}"] = logits
        (actual[f"grad_{mode}"],) = torch.autograd.grad(logits.mean(), x)
    actual |= {f"after_train/{name}": value for name, value in export_single(head).items()}
    assert_outputs(case, actual)


def judged(case: Case, network: ProjectedDiscriminator, dtype: torch.dtype) -> dict[str, Tensor]:
    """Logits and the gradient of their negative mean, in both modes."""
    network.to(dtype)
    x = case.tensor("in/x").to(dtype).requires_grad_()
    label = case.tensor("in/c") if network.label_dim else None
    actual: dict[str, Tensor] = {}
    for mode in ("eval", "train"):
        logits = network.train(mode == "train")(enlarge(case, x), label=label).logits
        actual[f"logits_{mode}"] = logits
        (actual[f"grad_{mode}"],) = torch.autograd.grad(-logits.mean(), x)
    return actual


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", cases_of("projected_gan", "discriminator"))
def test_the_discriminator_is_the_originals(case: Case, dtype: torch.dtype) -> None:
    """Gradients are held to the float64 companion: in float32 they jump at ReLU6's kinks."""
    network = converted(case)
    actual = judged(case, network, dtype)
    assert list(actual["logits_eval"].shape) == case.config["logits_shape"]
    if dtype == torch.float64:
        assert_outputs(case, actual, expected=float64_outputs(case), exact=True)
    else:
        assert_outputs(case, actual)


def converted(case: Case) -> ProjectedDiscriminator:
    options = case.config["backbone_kwargs"]
    label_dim = case.tensor("in/c").shape[1] if options["cond"] else 0
    plain = ProjectedDiscriminator(
        backbone_weights="random",
        separable=options["separable"],
        label_dim=label_dim,
        channels=options["cout"],
        expand=options["expand"],
        num_discs=options["num_discs"],
    )
    weights = filled(shapes(export_discriminator(plain)))
    if tables := fill_tables(case):
        kind = "cond" if options["cond"] else "separable" if options["separable"] else "plain"
        assert_fill(weights, tables[f"disc_{kind}"])
    network = interop.convert("projected", "discriminator", weights, case.config)
    assert isinstance(network, ProjectedDiscriminator)
    assert set(discriminator_names(network)) == set(discriminator_names(plain))
    return network


@pytest.mark.parametrize("case", cases_of("projected_gan", "generator_stylegan2"))
def test_the_stylegan2_generator_is_ours(case: Case) -> None:
    generator = interop.convert(
        "projected", "generator_stylegan2", case.tensors("weights/"), case.config
    )
    assert isinstance(generator, StyleGAN2)
    settings = RenderSettings(case.config["img_resolution"], 2, 0.9, 1.1, hierarchical=False)
    z = case.tensor("in/z")

    def image(w: Tensor, noise_mode: str) -> Tensor:
        with torch.no_grad():
            return generator.synthesis(w, None, settings, noise_mode=noise_mode).image

    generator.eval()
    w, truncated = generator.mapping(z), generator.mapping(z, psi=0.7)
    actual = {"ws": w, "ws_psi07": truncated}
    actual |= {"image_const": image(w, "const"), "image_none_psi07": image(truncated, "none")}
    generator.train()
    actual["image_const_train"] = image(w, "const")
    assert_outputs(case, actual)


def test_frozen_tensors_are_converted_but_never_trained() -> None:
    network = FeatureNetwork(weights="random")
    names = original_names(network, FEATURES)
    assert set(names) == {name for name, _ in network.named_buffers()}
    assert not list(nn.Module.parameters(network))

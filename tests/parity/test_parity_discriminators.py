"""Discriminators' judgements and image gradients against the original's numbers."""

from functools import lru_cache

import pytest
import torch
from parity.support import (
    Case,
    assert_checksums,
    assert_within,
    cases_of,
    filled_weights,
    variants_of,
)

import interop
from discriminators import Discriminator


@lru_cache(maxsize=1)
def discriminator_of(case: Case) -> Discriminator:
    fill = case.config.get("weight_fill")
    weights = case.tensors("weights/") if fill is None else filled_weights(fill)
    discriminator = interop.convert("pigan", "discriminator", weights, case.config)
    assert isinstance(discriminator, Discriminator)
    return discriminator


@pytest.mark.parametrize("case, variant", variants_of("pigan", "discriminator"))
def test_judgements_and_image_gradients_are_the_originals(case: Case, variant: str) -> None:
    options = case.config["variants"][variant]
    expected = case.outputs(variant)
    images = case.tensor(f"in/{options['image']}").requires_grad_(
        "grad_logit_sum_image" in expected
    )
    with torch.set_grad_enabled(images.requires_grad):
        judgement = discriminator_of(case).requires_grad_(False)(images, options["alpha"])
    actual = {
        "logit": judgement.logits,
        "latent": judgement.latent,
        "position": judgement.pose,
    }
    if images.requires_grad:
        (actual["grad_logit_sum_image"],) = torch.autograd.grad(judgement.logits.sum(), images)
    assert {name for name, value in actual.items() if value is not None} == set(expected)
    for name, value in expected.items():
        assert_within(actual[name], value, case.tolerance(name), name)


@pytest.mark.parametrize("case", cases_of("pigan", "discriminator"))
def test_a_converted_discriminator_exports_the_same_bits(case: Case) -> None:
    if "weight_fill" not in case.config:
        pytest.skip("this case stores its weights")
    exported = interop.export("pigan", "discriminator", discriminator_of(case))
    checksums = case.config["weight_fill"]["checksums"]
    unread = {key for key in exported if key.startswith("pose_layer.")}
    assert not any(exported[key].any() for key in unread)
    read = {key: value for key, value in exported.items() if key not in unread}
    assert_checksums(read, {key: value for key, value in checksums.items() if key not in unread})
    assert set(exported) == set(checksums)

"""The augmentation pipeline against the official numbers, and R1 through it."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from parity.stylegan_support import (
    DTYPES,
    Recorded,
    asked,
    assert_outputs,
    cosine_loss,
    gradients,
    inputs_of,
    is_forward,
    original_parameters,
)
from parity.support import Case, cases_of
from torch import Tensor

import interop
from discriminators.stylegan2 import StyleGAN2Discriminator
from interop.stylegan import original_names
from training.augment import TRANSFORMATIONS, AugmentPipe, Extents
from training.draws import Draws, QuantileDraws
from training.regularizers import gradient_penalty

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp64"])


def pipeline(given: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> AugmentPipe:
    """The pipeline that the original's arguments describe."""
    strengths = {name: value for name, value in given.items() if name in TRANSFORMATIONS}
    extents = {name: value for name, value in given.items() if name not in TRANSFORMATIONS}
    return AugmentPipe(strengths, Extents(**extents)).to(dtype)


class QuantileWithNoise(QuantileDraws):
    """One quantile for everything, and a noise picture that was recorded."""

    def __init__(self, quantile: float, noise: Tensor | None) -> None:
        super().__init__(quantile)
        self.noise = noise

    def picture(self, *shape: int) -> Tensor:
        assert self.noise is not None and self.noise.shape == shape
        return self.noise


class Replay(Draws):
    """What the original drew, in the same order."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__()
        self.recorded = recorded

    def uniform(self, *shape: int) -> Tensor:
        return self.recorded.take().reshape(shape)

    normal = uniform


@every_dtype
@pytest.mark.parametrize("case", cases_of("stylegan-ada", "augment"))
def test_augmentation(case: Case, dtype: torch.dtype) -> None:
    images, actual = case.tensor("in/images").to(dtype).requires_grad_(), {}
    if "subcases" not in case.config:
        recorded = Recorded(case)
        pipe = pipeline(case.config["kwargs"], dtype)
        pipe.p = case.config["p"]
        actual["images"] = pipe(images, Replay(recorded))
        recorded.assert_used_up()
    noise = case.tensors("in/noise/")
    for subcase in case.config.get("subcases", []):
        name = subcase["name"]
        draws = QuantileWithNoise(subcase["debug_percentile"], noise.get(name))
        actual[name] = y = pipeline(subcase["kwargs"], dtype)(images, draws)
        if subcase.get("grad"):
            actual |= gradients(cosine_loss(y), {"images": images}, f"{name}/grad_")
    assert_outputs(case, actual)


@pytest.mark.parametrize("case", cases_of("stylegan-ada", "augment_buffers"))
def test_filters_of_the_augmentation(case: Case) -> None:
    pipe = AugmentPipe.preset("bgc")
    actual = {
        "Hz_geom": pipe.geometry_filter,
        "Hz_fbank": pipe.filter_bank,
        "p": torch.tensor(pipe.p),
    }
    assert_outputs(case, actual)


@every_dtype
@pytest.mark.parametrize("case", cases_of("stylegan-ada", "r1_through_augment"))
def test_r1_through_the_augmentation(case: Case, dtype: torch.dtype) -> None:
    weights, config = case.tensors("weights/"), case.config
    discriminator = interop.convert("stylegan2", "discriminator", weights, config)
    assert isinstance(discriminator, StyleGAN2Discriminator)
    discriminator.to(dtype)
    images = inputs_of(case, dtype)["images"].requires_grad_()
    pipe = pipeline(config["augment_kwargs"], dtype)
    changed = pipe(images, QuantileDraws(config["debug_percentile"]))
    logits = discriminator(changed).logits
    penalty = gradient_penalty(logits, images)
    actual = {"logits": logits, "r1_penalty": penalty}
    actual |= gradients(logits.sum(), {"img": images}, "r1_grad_")
    named = original_parameters(discriminator, original_names(discriminator))
    actual |= gradients(penalty.mean(), asked(case, "r1_grad/", named), "r1_grad/")
    assert_outputs(case, actual, only=None if dtype == torch.float64 else is_forward)

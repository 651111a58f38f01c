"""Resampling, activations and modulated convolutions against the official numbers."""

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from parity.stylegan_support import (
    DTYPES,
    arguments,
    assert_outputs,
    collect,
    cosine_loss,
    gradients,
    inputs_of,
)
from parity.support import Case, cases_of
from torch import Tensor

from generators.stylegan3_schedule import layer_schedule
from ops.activation import bias_act
from ops.filters import design_lowpass
from ops.modulated import alias_free_modulated_conv2d, conv2d_resample, modulated_conv2d
from ops.norm import minibatch_std
from ops.resample import (
    downsample2d,
    filter2d,
    filtered_lrelu,
    setup_filter,
    upfirdn2d,
    upsample2d,
)

WRAPPERS = {"upsample2d": upsample2d, "downsample2d": downsample2d, "filter2d": filter2d}
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "fp64"])


def leaves(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.requires_grad_() for name, value in inputs.items()}


def result(name: str, y: Tensor, named: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """An output and its gradients under the fixtures' names."""
    return {f"{name}/y": y} | gradients(cosine_loss(y), named, f"{name}/grad_")


@pytest.mark.parametrize("case", cases_of("stylegan-ops", "setup_filter"))
def test_filters_are_prepared_as_the_original_does(case: Case) -> None:
    inputs = inputs_of(case)
    actual = {}
    for subcase in case.config["subcases"]:
        options = arguments(subcase, inputs, "f")
        f = subcase["f"]
        f = None if f is None else inputs.get(f, torch.tensor(1.0))
        actual[subcase["name"]] = setup_filter(f, **options)
    assert_outputs(case, actual)


@every_dtype
@pytest.mark.parametrize("case", cases_of("stylegan-ops", "bias_act"))
def test_bias_act(case: Case, dtype: torch.dtype) -> None:
    inputs, actual = inputs_of(case, dtype), []
    for subcase in case.config["subcases"]:
        given = leaves(inputs)
        x, b = given["x"], given.get(subcase["b"])
        y = bias_act(x, b, **arguments(subcase, given, "b"))
        actual.append(result(subcase["name"], y, {"x": x, "b": b}))
    assert_outputs(case, collect(actual))


@every_dtype
@pytest.mark.parametrize("case", cases_of("stylegan-ops", "upfirdn2d"))
def test_upfirdn2d(case: Case, dtype: torch.dtype) -> None:
    inputs, actual = inputs_of(case, dtype), []
    x = inputs["x"].requires_grad_()
    for subcase in case.config["subcases"]:
        y = upfirdn2d(x, **arguments(subcase, inputs))
        actual.append(result(subcase["name"], y, {"x": x}))
    assert_outputs(case, collect(actual))


@every_dtype
@pytest.mark.parametrize("case", cases_of("stylegan-ops", "upsample2d/downsample2d/filter2d"))
def test_resampling_wrappers(case: Case, dtype: torch.dtype) -> None:
    inputs, actual = inputs_of(case, dtype), []
    x = inputs["x"].requires_grad_()
    for subcase in case.config["subcases"]:
        y = WRAPPERS[subcase["fn"]](x, **arguments(subcase, inputs, "fn"))
        actual.append(result(subcase["name"], y, {"x": x}))
    assert_outputs(case, collect(actual))


@every_dtype
@pytest.mark.parametrize("case", cases_of("stylegan-ops", "filtered_lrelu"))
def test_filtered_lrelu(case: Case, dtype: torch.dtype) -> None:
    inputs, actual = inputs_of(case, dtype), []
    inputs["b"].requires_grad_()
    x = inputs["x"].requires_grad_()
    for subcase in case.config["subcases"]:
        options = arguments(subcase, inputs)
        y = filtered_lrelu(x, **options)
        actual.append(result(subcase["name"], y, {"x": x, "b": options.get("b")}))
    assert_outputs(case, collect(actual))


@every_dtype
@pytest.mark.parametrize("case", cases_of("stylegan-ops", "conv2d_resample"))
def test_conv2d_resample(case: Case, dtype: torch.dtype) -> None:
    inputs, actual = inputs_of(case, dtype), []
    x = inputs["x"].requires_grad_()
    for subcase in case.config["subcases"]:
        options = arguments(subcase, inputs)
        w = options["w"].requires_grad_()
        y = conv2d_resample(x, **options)
        actual.append(result(subcase["name"], y, {"x": x, "w": w}))
    assert_outputs(case, collect(actual))


@every_dtype
@pytest.mark.parametrize("case", cases_of("stylegan2", "modulated_conv2d"))
def test_modulated_conv2d(case: Case, dtype: torch.dtype) -> None:
    inputs, actual = inputs_of(case, dtype), []
    x, styles = inputs["x"].requires_grad_(), inputs["styles"].requires_grad_()
    for subcase in case.config["subcases"]:
        options = arguments(subcase, inputs)
        w = options.pop("w").requires_grad_()
        named = {"x": x, "w": w, "styles": styles}
        for fused in (True, False):
            y = modulated_conv2d(x, w, styles, fused=fused, **options)
            name = f"{subcase['name']}/{'fused' if fused else 'unfused'}"
            actual.append(result(name, y, named))
    assert_outputs(case, collect(actual))


@every_dtype
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("case", cases_of("stylegan3", "modulated_conv2d"))
def test_alias_free_modulated_conv2d(case: Case, fused: bool, dtype: torch.dtype) -> None:
    inputs, actual = inputs_of(case, dtype), []
    x, styles = inputs["x"].requires_grad_(), inputs["styles"].requires_grad_()
    for subcase in case.config["subcases"]:
        options = arguments(subcase, inputs)
        w = options.pop("w").requires_grad_()
        y = alias_free_modulated_conv2d(x, w, styles, fused=fused, **options)
        actual.append(result(subcase["name"], y, {"x": x, "w": w, "styles": styles}))
    assert_outputs(case, collect(actual))


@pytest.mark.parametrize("case", cases_of("stylegan2", "minibatch_std"))
def test_minibatch_std(case: Case) -> None:
    x = case.tensor("in/x")
    actual = {
        subcase["name"]: minibatch_std(x, subcase["group_size"], subcase["num_channels"])
        for subcase in case.config["subcases"]
    }
    assert_outputs(case, actual)


@pytest.mark.parametrize("case", cases_of("stylegan3", "filter_design"))
def test_low_pass_filters(case: Case) -> None:
    assert_outputs(case, designed(case.config))


def designed(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Single filters, or all those of whole configurations."""
    filters: dict[str, Tensor | None] = {}
    for subcase in config.get("subcases", []):
        filters[subcase["name"]] = design_lowpass(
            subcase["numtaps"],
            subcase["cutoff"],
            subcase["width"],
            subcase["fs"],
            radial=subcase.get("radial", False),
        )
    known = inspect.signature(layer_schedule).parameters  # others say nothing about filters
    options = {name: value for name, value in config.get("kwargs", {}).items() if name in known}
    for resolution in config.get("resolutions", []):
        for i, plan in enumerate(layer_schedule(resolution, **options)):
            filters[f"{resolution}/L{i}/up_filter"] = plan.up_filter()
            filters[f"{resolution}/L{i}/down_filter"] = plan.down_filter()
    return {name: f for name, f in filters.items() if f is not None}

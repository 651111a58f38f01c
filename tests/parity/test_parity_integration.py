"""Compositing along rays against the original's numbers, in every combination of its options."""

import re

import pytest
import torch
from parity.support import Case, assert_within, cases_of, variants_of

from rendering.compositing import activate_density, composite
from rendering.sampling import invert_cdf, quantiles


@pytest.mark.parametrize("case, variant", variants_of("pigan", "integration"))
def test_pixels_weights_and_gradients_are_the_originals(case: Case, variant: str) -> None:
    options = case.config["variants"][variant]
    samples = case.tensor("in/rgb_sigma").requires_grad_()
    result = composite(
        samples[..., :3],
        activate_density(samples[..., 3], options["clamp_mode"]),
        case.tensor("in/z_vals")[..., 0],
        white_back=options["white_back"],
        last_back=options["last_back"],
        fill_mode=options["fill_mode"],
    )
    actual = {
        "rgb": result.radiance,
        "depth": result.depth[..., None],
        "weights": result.weights[..., None],
    }
    expected = case.outputs(variant)
    if "grad_rgb_sigma" in expected:
        score = (actual["rgb"] * case.tensor("in/cotangent_rgb")).sum()
        score = score + (actual["depth"] * case.tensor("in/cotangent_depth")).sum()
        (actual["grad_rgb_sigma"],) = torch.autograd.grad(score, samples)
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert_within(actual[name], value, case.tolerance(name), name)


@pytest.mark.parametrize("case, output", variants_of("pigan", "resampling", "outputs"))
def test_importance_samples_fall_where_the_originals_do(case: Case, output: str) -> None:
    expected = case.tensor(f"out/{output}")
    bins = case.tensor("in/bins")
    named = re.search(r"weights = (in/\w+)", case.config["outputs"][output])
    weights = case.tensor(named[1] if named else "in/weights")
    rays, samples = expected.shape
    if output.startswith("det"):  # evenly spaced, both ends included
        u = torch.linspace(0, 1, samples).expand(rays, samples)
    elif output.startswith("midpoint"):
        u = quantiles(1, rays, samples, device=bins.device, dtype=bins.dtype)[0]
    else:
        u = case.tensor("in/u")
    actual = invert_cdf(bins, weights, u)
    assert_within(actual, expected, case.tolerance(output), output)


@pytest.mark.parametrize("case", cases_of("pigan", "resampling"))
def test_bins_are_the_midpoints_of_coarse_depths(case: Case) -> None:
    coarse = case.tensor("in/coarse_z")
    midpoints = (coarse[:, 1:] + coarse[:, :-1]) / 2
    assert_within(midpoints, case.tensor("in/bins"), case.tolerance("bins"), "bins")

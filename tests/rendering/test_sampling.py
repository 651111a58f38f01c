"""Stratified depths stay in their strata; importance depths follow the weights."""

import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from rendering.sampling import (
    WEIGHT_FLOOR,
    importance_depths,
    invert_cdf,
    quantiles,
    stratified_depths,
)


def ascending(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64).sort(dim=-1).values


def test_half_way_draws_give_the_regular_grid_with_both_ends() -> None:
    t = stratified_depths(0.5, 1.5, torch.full((1, 2, 5), 0.5))
    assert_close(t, torch.tensor([0.5, 0.75, 1.0, 1.25, 1.5]).expand(1, 2, 5))


def test_each_depth_stays_within_half_a_step_of_its_place() -> None:
    u = torch.rand(2, 50, 9)
    t = stratified_depths(0.5, 1.5, u)
    offset = (t - torch.linspace(0.5, 1.5, 9)) * 8
    assert_close(offset, u - 0.5, atol=1e-5, rtol=0)
    assert (t.diff(dim=-1) >= 0).all()


def test_jittered_depths_are_uniform_between_half_a_step_before_and_behind() -> None:
    t = stratified_depths(0.0, 1.0, torch.rand(1, 20_000, 5))
    shares = torch.histc(t, 10, -0.125, 1.125) / t.numel()
    assert_close(shares, torch.full((10,), 0.1), atol=0.006, rtol=0)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=6),
    st.floats(0, 1),
    st.integers(0, 1000),
)
@settings(max_examples=60)
def test_quantiles_are_those_of_a_walk_along_the_bins(
    mass: list[float], u: float, seed: int
) -> None:
    torch.manual_seed(seed)
    edges = ascending(len(mass) + 1)
    ours = invert_cdf(edges, *(torch.tensor(v, dtype=torch.float64) for v in (mass, [u])))
    floored = [m + WEIGHT_FLOOR for m in mass]
    reference = oracles.invert_cdf(edges.tolist(), floored, u)
    # in a bin of less than 1e-5 of the mass the quantile may be anywhere
    share = [m / sum(floored) for m in floored]
    k = max(i for i in range(len(mass)) if edges[i] <= reference + 1e-12)
    slack = float(edges[k + 1] - edges[k]) if share[k] < 2e-5 else 1e-9
    assert abs(float(ours) - reference) <= slack


def test_equal_weights_give_evenly_spread_depths() -> None:
    edges = torch.linspace(2, 4, 5, dtype=torch.float64)[None]
    u = quantiles(1, 1, 8, device=edges.device, dtype=edges.dtype)[0]
    assert_close(invert_cdf(edges, torch.ones(1, 4).double(), u), 2 + 2 * u)


def test_no_weight_at_all_spreads_evenly_too() -> None:
    edges = torch.linspace(2, 4, 5, dtype=torch.float64)[None]
    u = torch.tensor([[0.0, 0.3, 1.0]], dtype=torch.float64)
    assert_close(invert_cdf(edges, torch.zeros(1, 4).double(), u), 2 + 2 * u)


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_depths_ascend_with_u_and_stay_between_the_edges(seed: int) -> None:
    torch.manual_seed(seed)
    edges, u = ascending(3, 6), ascending(3, 20)
    weights = torch.rand(3, 5, dtype=torch.float64) ** 8
    t = invert_cdf(edges, weights, u)
    assert (t.diff(dim=-1) >= -1e-12).all()
    assert (t >= edges[:, :1]).all() and (t <= edges[:, -1:]).all()


@pytest.mark.parametrize("u", [0.0, 1.0])
def test_the_first_and_last_quantile_are_the_outermost_edges(u: float) -> None:
    edges, w = ascending(4, 6), torch.rand(4, 5).double() + 0.1
    t = invert_cdf(edges, w, torch.full((4, 1), u).double())
    assert_close(t[:, 0], edges[:, int(u) * 5], atol=1e-9, rtol=0)


def test_shares_of_random_depths_are_those_of_the_weights() -> None:
    w = torch.tensor([[0.1, 0.0, 0.6, 0.3]])
    edges = torch.tensor([[0.0, 1.0, 2.0, 2.5, 4.0]])
    t = invert_cdf(edges, w, torch.rand(1, 40_000))
    shares = torch.stack([((t >= a) & (t < b)).float().mean() for a, b in edges[0].unfold(0, 2, 1)])
    assert_close(shares, w[0], atol=5 * 0.5 / math.sqrt(40_000), rtol=0)


def test_importance_bins_lie_between_midpoints_of_inner_samples() -> None:
    t = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).double().expand(1, 1, 5)
    w = torch.tensor([9.0, 0.2, 0.5, 0.3, 9.0]).double().expand(1, 1, 5)
    u = torch.rand(1, 1, 50, dtype=torch.float64)
    edges = [1.5, 3.0, 6.0, 12.0]
    mass = [m + 2 * WEIGHT_FLOOR for m in (0.2, 0.5, 0.3)]  # floored by the caller and by the CDF
    expected = [oracles.invert_cdf(edges, mass, x) for x in u[0, 0].tolist()]
    assert_close(importance_depths(t, w, u)[0, 0].tolist(), expected)


def test_importance_depths_crowd_where_the_weight_is() -> None:
    t = torch.linspace(0, 1, 11).expand(1, 1, 11)
    w = torch.zeros(1, 1, 11)
    w[..., 6] = 1.0
    u = quantiles(1, 1, 100, device=t.device, dtype=t.dtype)
    assert ((importance_depths(t, w, u) - 0.6).abs() <= 0.05 + 1e-6).float().mean() > 0.98


def test_importance_depths_do_not_mind_how_weights_are_scaled() -> None:
    t, u = ascending(2, 3, 7), torch.rand(2, 3, 9).double()
    w = torch.rand(2, 3, 7).double()
    near = importance_depths(t, 1e6 * w, u)
    assert_close(near, importance_depths(t, 2e6 * w, u), atol=1e-8, rtol=0)


def test_importance_depths_carry_no_gradient() -> None:
    t, w = ascending(1, 2, 6), torch.rand(1, 2, 6).double().requires_grad_()
    assert not importance_depths(t, w, torch.rand(1, 2, 4).double()).requires_grad


def test_rays_are_resampled_independently() -> None:
    t, w, u = ascending(1, 5, 8), torch.rand(1, 5, 8).double(), torch.rand(1, 5, 6).double()
    together = importance_depths(t, w, u)
    order = torch.randperm(5)
    alone = importance_depths(t[:, order], w[:, order], u[:, order])
    assert_close(alone, together[:, order], atol=0, rtol=0)


def test_deterministic_quantiles_are_the_midpoints_of_equal_shares() -> None:
    u = quantiles(2, 3, 4, device=torch.device("cpu"), dtype=torch.float64)
    assert u.shape == (2, 3, 4)
    assert u[1, 2].tolist() == [0.125, 0.375, 0.625, 0.875]

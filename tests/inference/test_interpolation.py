"""Closed curves through styles."""

import math

import pytest
import torch
from torch.testing import assert_close

from inference.interpolation import KINDS, interpolate_loop

each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_curve_passes_its_keys_and_closes(kind: str, count: int) -> None:
    keys = torch.randn(count, 2, 3)
    made = interpolate_loop(keys, torch.arange(count + 1), kind)
    assert_close(made, torch.cat([keys, keys[:1]]))


@each_kind
def test_a_phase_means_the_same_alone_and_among_others(kind: str) -> None:
    keys, phases = torch.randn(4, 5), torch.tensor([0.3, 3.9, 2.5])
    whole = interpolate_loop(keys, phases, kind)
    parts = torch.cat([interpolate_loop(keys, phases[i : i + 1], kind) for i in range(3)])
    assert torch.equal(whole, parts)
    assert_close(interpolate_loop(keys, phases + 4, kind), whole, atol=1e-5, rtol=0)


def test_linear_is_straight_between_neighbours() -> None:
    keys = torch.tensor([[0.0], [2.0], [6.0]])
    made = interpolate_loop(keys, torch.tensor([0.25, 1.5, 2.5, 3.0]))
    assert made.flatten().tolist() == [0.5, 4.0, 3.0, 0.0]


def test_cubic_is_smooth_to_the_second_derivative_where_it_passes_keys() -> None:
    keys = torch.randn(5, 3, dtype=torch.float64)
    h = 1e-3
    for key in range(6):  # the last is the first again
        steps = torch.tensor([-2, -1, 0, 1, 2], dtype=torch.float64) * h + key
        a, b, c, d, e = interpolate_loop(keys, steps, "cubic")
        left, right = (3 * c - 4 * b + a) / (2 * h), (4 * d - 3 * c - e) / (2 * h)
        assert_close(left, right, atol=1e-3, rtol=0)
        assert_close(a - 2 * b + c, c - 2 * d + e, atol=3e-8 * 20, rtol=0)


def test_tiled_is_the_periodic_spline_but_for_the_ends_of_its_open_one() -> None:
    """Their influence falls by 2 - sqrt(3) with every key in between."""
    far = []
    for count in (2, 4, 6):
        keys = torch.randn(count, 3, dtype=torch.float64, generator=torch.manual_seed(0))
        phases = torch.linspace(0, count, 50, dtype=torch.float64)
        smooth = interpolate_loop(keys, phases, "cubic")
        far.append(float((interpolate_loop(keys, phases, "tiled") - smooth).norm()))
    assert 0.3 > far[0] > 10 * far[1] > 100 * far[2] > 0


def test_cubic_through_a_circle_is_nearly_the_circle() -> None:
    """The error of cubic splines falls with the fourth power of the spacing."""
    errors = []
    for count in (8, 16):
        angles = math.tau * torch.arange(count, dtype=torch.float64) / count
        keys = torch.stack([angles.cos(), angles.sin()], dim=1)
        made = interpolate_loop(keys, torch.linspace(0, count, 101, dtype=torch.float64), "cubic")
        errors.append((made.norm(dim=1) - 1).abs().max().item())
    assert errors[0] < 2e-3 and 12 < errors[0] / errors[1] < 20


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="one of linear, cubic, tiled, got 'quintic'"):
        interpolate_loop(torch.randn(3, 2), torch.zeros(1), "quintic")

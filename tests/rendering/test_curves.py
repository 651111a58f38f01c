"""Polynomials along gaps against the polynomials that they must be."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rendering.curves import bend_at_quarters, bend_in_middle, cubics, evaluate

PLACES = torch.linspace(-0.5, 1.5, 9, dtype=torch.float64)


def polynomial(degree: int, values: int, rng: torch.Generator) -> Tensor:
    """Factors of 1, x, ... of one polynomial per value."""
    return torch.randn(degree + 1, values, generator=rng, dtype=torch.float64)


def at(factors: Tensor, x: Tensor) -> Tensor:
    """(n, values) by powers."""
    powers = x[:, None] ** torch.arange(len(factors), dtype=x.dtype)
    return powers @ factors


def through_samples(factors: Tensor, edge: int) -> Tensor:
    """The curve of one gap from (0, 1), of four samples at whole x."""
    nodes = at(factors, torch.arange(4, dtype=torch.float64) - edge)
    return cubics(nodes[None], torch.tensor([edge]))


def along(curves: Tensor, x: Tensor = PLACES) -> Tensor:
    return evaluate(curves, x, torch.zeros(len(x), dtype=torch.int64))


@pytest.mark.parametrize("edge", [0, 1, 2])
def test_a_cubic_is_found_from_four_samples_wherever_the_gap_begins(
    edge: int, rng: torch.Generator
) -> None:
    factors = polynomial(3, 2, rng)
    assert_close(along(through_samples(factors, edge)), at(factors, PLACES))


@pytest.mark.parametrize("edge", [0, 1, 2])
def test_a_quartic_is_found_from_what_a_cubic_misses_in_the_middle(
    edge: int, rng: torch.Generator
) -> None:
    factors = polynomial(4, 3, rng)
    curves = through_samples(factors, edge)
    half = torch.tensor([0.5], dtype=torch.float64)
    miss = at(factors, half) - along(curves, half)
    assert miss.abs().min() > 1e-3
    assert_close(along(bend_in_middle(curves, torch.tensor([edge]), miss)), at(factors, PLACES))


def test_a_curve_is_bent_at_the_quarters_and_stays_at_ends_and_middle(rng: torch.Generator) -> None:
    factors = polynomial(3, 2, rng)
    curves = through_samples(factors, 1)
    bends = torch.randn(2, 1, 2, generator=rng, dtype=torch.float64)
    x = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    moved = along(bend_at_quarters(curves, *bends), x) - along(curves, x)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    assert_close(moved, torch.cat([zero, bends[0], zero, bends[1], zero]))


def test_every_point_has_the_curve_of_its_own_gap(rng: torch.Generator) -> None:
    curves = torch.randn(5, 4, 2, generator=rng)
    gap = torch.tensor([3, 0, 0, 2, 1, 3])
    x = torch.rand(6, generator=rng)
    wanted = [at(curves[:, g], x[i, None])[0] for i, g in enumerate(gap)]
    assert_close(evaluate(curves, x, gap), torch.stack(wanted))

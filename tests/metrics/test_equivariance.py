"""EQ-T and EQ-R of pictures that are known to move along with their input, or not to."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics.equivariance import (
    SquaredError,
    compare_fractional,
    compare_integer,
    compare_rotated,
    pseudo_rotate,
    rotate,
    translate_fractional,
    translate_integer,
)

SIZE = 36
WAVES = torch.tensor([[3.0, 1.0], [-2.0, 4.0], [0.0, 5.0]])  # cycles per picture, along x and y


def waves(transform: Tensor) -> Tensor:
    """Sines in the plane, band-limited, seen through the inverse of a motion."""
    x = (torch.arange(SIZE, dtype=torch.float64) + 0.5) / SIZE - 0.5
    y, x = torch.meshgrid(x, x, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1) @ transform.double().T
    phase = points[..., :2] @ WAVES.double().T
    return torch.sin(2 * math.pi * phase).permute(2, 0, 1)[None] * 0.5


def still(transform: Tensor) -> Tensor:
    """The same, deaf to what its input does."""
    return waves(torch.eye(3))


def constant(transform: Tensor) -> Tensor:
    return torch.full((1, 3, SIZE, SIZE), 0.25, dtype=torch.float64)


def psnr(compare: Callable[..., None], picture: Callable[[Tensor], Tensor], move: object) -> float:
    error = SquaredError()
    dtype = torch.float32 if compare is compare_rotated else torch.float64  # wide filters are slow
    compare(lambda t: picture(t).to(dtype), picture(torch.eye(3)).to(dtype), move, error)
    return error.psnr()


MOVE = torch.tensor([0.1, -0.06])


def test_waves_that_move_are_equivariant_to_translation() -> None:
    assert psnr(compare_integer, waves, MOVE) > 120  # but for rounding
    assert psnr(compare_fractional, waves, MOVE) > 50  # the reference is a Lanczos approximation


def test_waves_that_turn_are_equivariant_to_rotation() -> None:
    for angle in (0.5, 3.0):
        assert psnr(compare_rotated, waves, angle) > 40


def test_a_constant_picture_is_equivariant_to_everything() -> None:
    assert psnr(compare_integer, constant, MOVE) == math.inf
    assert psnr(compare_fractional, constant, MOVE) > 200
    assert psnr(compare_rotated, constant, 0.8) > 40


def test_waves_that_stay_have_the_psnr_of_their_difference() -> None:
    shift = (MOVE * SIZE).round() / SIZE
    transform = torch.eye(3)
    transform[:2, 2] = -shift
    dx, dy = (int(round(float(s) * SIZE)) for s in shift)
    difference = (waves(transform) - waves(torch.eye(3)))[:, :, : SIZE + dy, dx:]
    expected = 10 * math.log10(4 / float(difference.square().mean()))
    assert psnr(compare_integer, still, MOVE) == pytest.approx(expected, abs=1e-3)
    assert psnr(compare_fractional, still, MOVE) < 15
    assert psnr(compare_rotated, still, 0.5) < 15


def test_parts_add_up_to_the_whole(rng: torch.Generator) -> None:
    a, b = torch.rand(2, 4, 3, 6, 6, generator=rng)
    mask = torch.rand(4, 3, 6, 6, generator=rng)
    whole, parts = SquaredError(), SquaredError()
    whole.add(a, b, mask)
    for i in range(4):
        parts.add(a[i : i + 1], b[i : i + 1], mask[i : i + 1])
    assert parts.psnr() == pytest.approx(whole.psnr(), rel=1e-12)


def test_nothing_compared_has_no_psnr() -> None:
    with pytest.raises(ValueError, match="no pixel"):
        SquaredError().psnr()


@pytest.mark.parametrize("move", [(0.0, 0.0), (0.25, 0.0), (0.0, -0.5), (-1.5, 0.0)])
def test_whole_pixels_are_shifted_exactly_by_both_operators(
    move: tuple[float, float], rng: torch.Generator
) -> None:
    x = torch.rand(1, 3, 8, 8, generator=rng)
    shifted, mask = translate_integer(x, torch.tensor(move))
    fractional, known = translate_fractional(x, torch.tensor(move))
    assert torch.equal(shifted * mask, shifted)
    assert (known <= mask).all()  # its borders are less well known
    assert np.allclose(fractional * known, shifted * known, atol=1e-6)
    filled = (8 - abs(round(8 * move[0]))) * (8 - abs(round(8 * move[1])))
    assert int(mask[0, 0].sum()) == max(filled, 0) * (abs(move[0]) <= 1)


def test_no_turn_leaves_a_smooth_picture_where_it_is() -> None:
    x = waves(torch.eye(3)).float()
    for operator in (rotate, pseudo_rotate):
        image, mask = operator(x, 0.0)
        assert mask.sum() > 0.2 * mask.numel()
        assert float(((image - x) * mask).abs().max()) < 0.02

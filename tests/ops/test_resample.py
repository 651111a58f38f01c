"""FIR resampling against its literal definition, and what its gradients cost and are."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from ops import resample
from ops.resample import (
    downsample2d,
    filter2d,
    filtered_lrelu,
    setup_filter,
    upfirdn2d,
    upsample2d,
)


def literally(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """upfirdn2d as it is defined: insert zeros, pad and crop, sum over taps, drop pixels."""
    batch, channels, height, width = x.shape
    grown = x.new_zeros(batch, channels, height * up[1], width * up[0])
    grown[:, :, :: up[1], :: up[0]] = x
    x0, x1, y0, y1 = padding
    grown = F.pad(grown, [max(p, 0) for p in padding])
    rows = slice(max(-y0, 0), grown.shape[2] - max(-y1, 0))
    columns = slice(max(-x0, 0), grown.shape[3] - max(-x1, 0))
    grown = grown[:, :, rows, columns]
    kernel = torch.outer(f, f) if f.ndim == 1 else f
    kernel = kernel if flip_filter else kernel.flip(0, 1)
    height = grown.shape[2] - kernel.shape[0] + 1
    width = grown.shape[3] - kernel.shape[1] + 1
    out = grown.new_zeros(batch, channels, height, width)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out += kernel[i, j] * grown[:, :, i : i + height, j : j + width]
    return out[:, :, :: down[1], :: down[0]] * gain


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.tuples(*[st.integers(-2, 7)] * 4)
shapes = st.one_of(st.tuples(st.integers(1, 7)), st.tuples(st.integers(1, 5), st.integers(1, 5)))


@given(shapes, pairs, pairs, paddings, st.booleans(), st.sampled_from([1.0, 2.5]))
def test_resampling_does_what_its_definition_says(
    shape: tuple[int, ...],
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip: bool,
    gain: float,
) -> None:
    rng = torch.Generator().manual_seed(len(shape) + sum(up) + sum(padding))
    x = torch.randn(2, 3, 6, 5, generator=rng, dtype=torch.float64).requires_grad_()
    f = torch.randn(shape, generator=rng, dtype=torch.float64)
    options: dict[str, Any] = {
        "up": up,
        "down": down,
        "padding": padding,
        "flip_filter": flip,
        "gain": gain,
    }
    assume(5 * up[0] + padding[0] + padding[1] >= shape[-1])
    assume(6 * up[1] + padding[2] + padding[3] >= shape[0])
    expected = literally(x, f, **options)
    actual = upfirdn2d(x, f, **options)
    assert_close(actual, expected)
    weights = torch.randn(expected.shape, generator=rng, dtype=torch.float64)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (actual, expected)]
    assert_close(*gradients)


@pytest.mark.parametrize("taps", [[1.0, 3, 3, 1], list(range(1, 13)), [1.0]])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_resampling_has_derivatives_of_every_order(taps: list[float], up: int, down: int) -> None:
    f = setup_filter(taps)
    x = torch.randn(1, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    pad = len(taps) // 2 + 1

    def function(x: Tensor) -> Tensor:
        return upfirdn2d(x, f, up=up, down=down, padding=(pad, pad + 1, pad, pad - 1), gain=1.5)

    assert gradcheck(function, x)
    assert gradgradcheck(function, x)


@pytest.mark.parametrize("function", [filter2d, upsample2d, downsample2d])
def test_the_wrappers_have_derivatives_of_every_order(function: Any) -> None:
    f = setup_filter([1, 2, 4, 1])
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: function(x, f), x)
    assert gradgradcheck(lambda x: function(x, f), x)


def test_filtered_lrelu_has_derivatives_of_every_order() -> None:
    fu, fd = setup_filter([1.0, 2, 3, 2] * 2), torch.rand(4, 4) / 16
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, b: Tensor) -> Tensor:
        return filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=(5, 4, 5, 4), clamp=0.8)

    assert gradcheck(function, (x, b))
    assert gradgradcheck(function, (x, b))


def test_filtered_lrelu_is_bias_upsampling_leaky_relu_clamp_and_downsampling() -> None:
    x, b = torch.randn(2, 3, 7, 6), torch.randn(3)
    fu, fd = setup_filter(range(1, 13)), torch.rand(6, 6) / 36
    padding = (8, 5, 7, -2)
    actual = filtered_lrelu(
        x, fu, fd, b, up=2, down=3, padding=padding, gain=1.3, slope=0.1, clamp=0.7
    )
    y = literally(x + b[:, None, None], fu, (2, 2), (1, 1), padding, False, 4)
    y = (F.leaky_relu(y, 0.1) * 1.3).clamp(-0.7, 0.7)
    assert (y.abs() == 0.7).any()
    expected = literally(y, fd, (1, 1), (3, 3), (0, 0, 0, 0), False, 1)
    assert_close(actual, expected)


@pytest.mark.parametrize("up", [2, 3])
def test_resizing_keeps_a_constant_picture_but_at_its_border(up: int) -> None:
    f = setup_filter([1, 3, 3, 1]) if up == 2 else setup_filter([1, 2, 3, 2, 1])
    x = torch.full((1, 1, 9, 9), 3.0)
    large = upsample2d(x, f, up=up)
    assert large.shape == (1, 1, 9 * up, 9 * up)
    inside = slice(3 * up, -3 * up)
    assert_close(large[:, :, inside, inside], torch.full_like(large, 3.0)[:, :, inside, inside])
    small = downsample2d(large, f, down=up)
    assert small.shape == x.shape
    assert_close(small[:, :, 4, 4], x[:, :, 4, 4])


def test_a_shift_of_the_picture_is_a_shift_of_the_filtered_one() -> None:
    f = torch.rand(5, 3)
    x = F.pad(torch.randn(1, 1, 4, 4), [6] * 4)
    moved = x.roll((2, 1), dims=(2, 3))
    assert_close(filter2d(moved, f), filter2d(x, f).roll((2, 1), dims=(2, 3)))


@pytest.mark.parametrize("options", [{"up": 2}, {"down": 2}, {"up": 2, "down": 3}])
def test_large_pictures_are_filtered_in_chunks_with_the_same_result(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, f = torch.randn(3, 13, 8, 8), setup_filter(range(1, 13))
    whole = upfirdn2d(x, f, padding=6, **options)
    monkeypatch.setattr(resample, "CPU_CHUNK_BYTES", 1)
    assert_close(upfirdn2d(x, f, padding=6, **options), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("stride", "padding"), [((2, 2), (1, 1)), ((1, 3), (0, 2))])
def test_both_transposed_convolutions_are_the_same(
    stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    x, weight = torch.randn(2, 5, 6, 4), torch.randn(5, 1, 4, 6)
    assert_close(
        resample._conv_transpose_by_gradient(x, weight, stride, padding),
        resample._conv_transpose(x, weight, stride, padding),
    )


def test_the_backward_pass_keeps_nothing_of_the_picture() -> None:
    x = torch.randn(1, 4, 32, 32, requires_grad=True)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        upsample2d(x, setup_filter([1, 3, 3, 1]))
    assert 0 < sum(kept) <= 16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_pictures_stay_so_and_in_their_layout(dtype: torch.dtype) -> None:
    f = setup_filter([1, 3, 3, 1])
    x = torch.randn(2, 16, 8, 8)
    half = x.to(dtype, memory_format=torch.channels_last)
    for function in (filter2d, downsample2d, upsample2d):
        y = function(half, f)
        assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
        assert_close(y.float(), function(x, f), atol=0.03, rtol=0.03)


def test_autocast_does_not_coarsen_resampling() -> None:
    x, f = torch.randn(1, 3, 8, 8), setup_filter([1, 3, 3, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = upsample2d(x, f)
    assert torch.equal(y, upsample2d(x, f))


def test_without_a_filter_only_size_and_gain_change() -> None:
    x = torch.randn(1, 2, 3, 3)
    assert upfirdn2d(x, None) is x
    assert_close(upfirdn2d(x, None, gain=3), 3 * x)
    assert_close(upfirdn2d(x, None, padding=(-1, 2, 0, 1)), F.pad(x, (-1, 2, 0, 1)))


def test_short_filters_become_matrices_and_long_ones_stay_vectors() -> None:
    assert setup_filter([1, 3, 3, 1]).shape == (4, 4)
    assert setup_filter([1.0] * 8).shape == (8,)
    assert_close(setup_filter([1, 3, 3, 1]).sum(), torch.tensor(1.0))
    assert_close(
        setup_filter([1.0, 2], flip_filter=True, separable=True) * 3, torch.tensor([2, 1.0])
    )
    assert_close(setup_filter([1.0] * 8, gain=4).sum(), torch.tensor(2.0))  # applied twice


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": (0, -6, 0, 0)}, "smaller than a filter of 4 taps"),
        ({"padding": (1, 2, 3)}, "one, two or four"),
        ({"up": 0}, "up must be at least 1"),
        ({"down": (1, 0)}, "down must be at least 1"),
    ],
)
def test_impossible_resampling_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upfirdn2d(torch.randn(1, 1, 8, 8), setup_filter([1, 3, 3, 1]), **options)


def test_what_is_no_filter_is_refused() -> None:
    with pytest.raises(ValueError, match="number, a vector or a matrix"):
        setup_filter(torch.ones(2, 2, 2))
    with pytest.raises(ValueError, match="positive gain"):
        upfirdn2d(torch.ones(1, 1, 9, 9), setup_filter([1.0] * 8), gain=-1)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"up": 2}, {"down": 2}, {"up": 2, "down": 3}])
@pytest.mark.parametrize("taps", [[1.0, 3, 3, 1], list(range(1, 13))])
def test_cuda_computes_the_same_with_its_gradients(taps: list[float], options: Any) -> None:
    f, x = setup_filter(taps), torch.randn(2, 16, 12, 12)
    results = []
    for device in ("cpu", "cuda"):
        given = x.to(device).requires_grad_()
        y = upfirdn2d(given, f.to(device), padding=7, **options)
        (gradient,) = torch.autograd.grad(y.square().sum(), given)
        results.append((y.cpu(), gradient.cpu()))
    assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)

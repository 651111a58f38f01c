"""Convolutions with resampling and with modulated kernels against literal formulations."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from ops.modulated import (
    EqualizedConv2d,
    alias_free_modulated_conv2d,
    conv2d_resample,
    modulated_conv2d,
)
from ops.resample import resample_padding, setup_filter, upfirdn2d


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def literally(
    x: Tensor,
    w: Tensor,
    f: Tensor | None,
    up: int,
    down: int,
    padding: Any,
    groups: int,
    flip: bool,
) -> Tensor:
    """Upsample, convolve at the full rate, downsample; all padding ahead."""
    if up > 1:
        padding = resample_padding(f, up=up, padding=padding)
    if down > 1:
        padding = resample_padding(f, down=down, padding=padding)
    x = upfirdn2d(x, f if up > 1 else None, up=up, padding=padding, gain=up**2)
    x = F.conv2d(x, w if flip else w.flip(2, 3), groups=groups)
    return upfirdn2d(x, f, down=down) if down > 1 else x


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)])
def test_every_shortcut_of_a_resampling_convolution_is_exact(
    kernel: int, up: int, down: int
) -> None:
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    filters = (None, setup_filter([1, 3, 3, 1]), torch.rand(3, 5))
    paddings = (0, kernel // 2, (2, 0, 1, 3), (-1, 2, 0, -2))
    for f, padding, groups, flip in itertools.product(filters, paddings, (1, 2), (True, False)):
        w = torch.randn(6, 4 // groups, kernel, kernel, dtype=torch.float64)
        options = {"up": up, "down": down, "padding": padding, "groups": groups}
        actual = conv2d_resample(x, w, f, flip_weight=flip, **options)
        assert_close(actual, literally(x, w, f, up, down, padding, groups, flip))


@pytest.mark.parametrize(("kernel", "up", "down"), [(1, 2, 1), (1, 1, 2), (3, 2, 1), (3, 1, 2)])
def test_resampling_convolutions_have_derivatives_of_every_order(
    kernel: int, up: int, down: int
) -> None:
    x, w = double(1, 2, 4, 2), double(1, 2, kernel, kernel)
    f = setup_filter([1, 3, 3, 1])

    def function(x: Tensor, w: Tensor) -> Tensor:
        return conv2d_resample(x, w, f, up=up, down=down, padding=kernel // 2)

    assert gradcheck(function, (x, w))
    assert gradgradcheck(function, (x, w))


def by_hand(x: Tensor, w: Tensor, styles: Tensor, demodulate: bool) -> Tensor:
    """One picture after the other with its own kernel (StyleGAN2, eq. 1 and 3)."""
    pictures = []
    for picture, style in zip(x, styles, strict=True):
        kernel = w * style[None, :, None, None]
        if demodulate:
            norm = (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
            kernel = kernel / norm
        pictures.append(F.conv2d(picture[None], kernel, padding=1))
    return torch.cat(pictures)


@pytest.mark.parametrize("fused", [True, False, None])
@pytest.mark.parametrize("demodulate", [True, False])
def test_every_picture_is_convolved_with_its_own_kernel(
    fused: bool | None, demodulate: bool
) -> None:
    x, w, styles = torch.randn(3, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(3, 4)
    expected = by_hand(x, w, styles, demodulate)
    actual = modulated_conv2d(x, w, styles, padding=1, demodulate=demodulate, fused=fused)
    assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    noise = torch.randn(3, 1, 6, 6)
    noisy = modulated_conv2d(
        x, w, styles, noise=noise, padding=1, demodulate=demodulate, fused=fused
    )
    assert_close(noisy, expected + noise, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_modulated_convolutions_have_derivatives_of_every_order(fused: bool) -> None:
    x, w, styles, noise = double(2, 2, 2, 2), double(1, 2, 3, 3), double(2, 2), double(2, 1, 4, 4)
    f = setup_filter([1, 3, 3, 1])

    def function(x: Tensor, w: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
        return modulated_conv2d(x, w, styles, noise=noise, f=f, up=2, padding=1, fused=fused)

    assert gradcheck(function, (x, w, styles, noise))
    assert gradgradcheck(function, (x, w, styles, noise))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("demodulate", [True, False])
def test_alias_free_convolutions_have_derivatives_of_every_order(
    fused: bool, demodulate: bool
) -> None:
    x, w, styles, gain = double(2, 2, 2, 2), double(2, 2, 2, 2), double(2, 2), double(2)

    def function(x: Tensor, w: Tensor, styles: Tensor, gain: Tensor) -> Tensor:
        return alias_free_modulated_conv2d(
            x, w, styles, padding=1, demodulate=demodulate, input_gain=gain, fused=fused
        )

    assert gradcheck(function, (x, w, styles, gain))
    assert gradgradcheck(function, (x, w, styles, gain))


def test_demodulation_forgets_the_size_of_styles_and_kernels() -> None:
    x, w, styles = torch.randn(2, 8, 5, 5), torch.randn(4, 8, 3, 3), torch.randn(2, 8)
    for function in (modulated_conv2d, alias_free_modulated_conv2d):
        once = function(x, w, styles, padding=1)
        assert_close(function(x, 30 * w, 7 * styles, padding=1), once, atol=1e-4, rtol=1e-4)


def test_demodulated_features_of_white_noise_have_unit_variance() -> None:
    x, w = torch.randn(4, 16, 40, 40), torch.randn(8, 16, 3, 3)
    styles = torch.rand(4, 16) * 5 + 0.1
    for function in (modulated_conv2d, alias_free_modulated_conv2d):
        y = function(x, w, styles)
        assert float(y.square().mean()) == pytest.approx(1, abs=0.05)


def test_the_input_gain_scales_whole_input_channel_by_channel() -> None:
    x, w, styles = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 1, 1), torch.randn(2, 3)
    gain = torch.rand(2, 3) + 0.5
    scaled = alias_free_modulated_conv2d(x * gain[:, :, None, None], w, styles)
    assert_close(alias_free_modulated_conv2d(x, w, styles, input_gain=gain), scaled)


@pytest.mark.parametrize("fused", [True, False])
def test_16_bit_modulation_survives_styles_beyond_the_range_of_float16(fused: bool) -> None:
    x, w, styles = torch.randn(2, 8, 6, 6), torch.randn(4, 8, 3, 3) * 300, torch.randn(2, 8) * 3e4
    exact = modulated_conv2d(x, w, styles, padding=1)
    half = modulated_conv2d(x.half(), w, styles, padding=1, fused=fused)
    assert half.dtype == torch.float16
    assert_close(half.float(), exact, atol=0.02, rtol=0.02)


def test_an_equalised_convolution_starts_at_unit_variance_whatever_its_fan_in() -> None:
    for channels, size in ((4, 3), (64, 1)):
        layer = EqualizedConv2d(channels, 32, size)
        assert float(layer.weight.detach().std()) == pytest.approx(1, abs=0.1)
        y = layer(torch.randn(2, channels, 24, 24)).detach()
        assert float(y[:, :, 2:-2, 2:-2].square().mean()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("up", "down", "size"), [(1, 1, 8), (2, 1, 16), (1, 2, 4)])
def test_an_equalised_convolution_resamples_scales_and_clamps(
    up: int, down: int, size: int
) -> None:
    layer = EqualizedConv2d(3, 5, 3, activation="lrelu", up=up, down=down, conv_clamp=0.5)
    x = torch.randn(2, 3, 8, 8)
    y = layer(x)
    assert y.shape == (2, 5, size, size)
    assert y.abs().max() == 0.5
    assert_close(layer(x, gain=0.25), y / 4)


def test_a_frozen_convolution_keeps_its_names_but_has_no_parameters() -> None:
    frozen, free = EqualizedConv2d(3, 5, 3, trainable=False), EqualizedConv2d(3, 5, 3)
    assert not list(frozen.parameters())
    assert set(frozen.state_dict()) == set(free.state_dict()) == {"weight", "bias"}
    free.load_state_dict(frozen.state_dict())
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(free(x), frozen(x))

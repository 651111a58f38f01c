"""The augmentation pipeline: what each transformation does, and that gradients flow through."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from training.augment import PRESETS, TRANSFORMATIONS, AugmentPipe, Extents, wavelet_bank
from training.draws import Draws, QuantileDraws


def smooth(batch: int = 2, channels: int = 3, size: int = 32) -> Tensor:
    """Pictures without high frequencies, which a resampler would touch."""
    coarse = torch.randn(batch, channels, 4, 4)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)


def assert_similar(a: Tensor, b: Tensor) -> None:
    """Equal up to what the resampler, whose filter is not symmetric, does to mirrored pictures."""
    assert (a - b).abs().mean() < 0.02 * b.std()


def augmented(name: str, images: Tensor, quantile: float, **extents: Any) -> Tensor:
    return AugmentPipe({name: 1.0}, Extents(**extents))(images, QuantileDraws(quantile))


def test_at_probability_zero_pictures_only_pass_the_resampler() -> None:
    pipe, images = AugmentPipe.preset("bgcfnc"), smooth()
    pipe.p = 0.0
    assert_close(pipe(images), images, atol=0.02, rtol=0)
    pipe = AugmentPipe.preset("color")
    pipe.p = 0.0
    assert_close(pipe(images), images, atol=1e-6, rtol=0)


def test_mirroring_and_quarter_turns_are_those_of_the_picture() -> None:
    images = smooth()
    assert_similar(augmented("xflip", images, 0.9), images.flip(3))
    for quantile, turns in ((0.1, 0), (0.3, 1), (0.6, 2), (0.9, 3)):
        turned = augmented("rotate90", images, quantile)
        assert_similar(turned, images.rot90(turns, (2, 3)))


def test_whole_shifts_move_by_whole_pixels_and_mirror_at_the_border() -> None:
    images = smooth()
    shifted = augmented("xint", images, 0.75)  # half of an eighth of 32 pixels: 2
    expected = F.pad(images, [2, 0, 2, 0], mode="reflect")[:, :, :32, :32]
    assert_close(shifted, expected, atol=0.03, rtol=0)


def test_enlarging_by_two_shows_the_middle_half() -> None:
    images = smooth(size=32)
    quantile = 0.5 * (1 + math.erf(1 / 0.2))  # 2 ** (0.2 n) = 2
    quantile = min(quantile, 1 - 1e-7)
    large = augmented("scale", images, quantile, scale_std=1 / float(erfinv(quantile)))
    expected = F.interpolate(images[:, :, 8:24, 8:24], scale_factor=2, mode="bilinear")
    inside = slice(4, -4)
    assert_close(large[:, :, inside, inside], expected[:, :, inside, inside], atol=0.1, rtol=0)


def erfinv(quantile: float) -> Tensor:
    return torch.erfinv(torch.tensor(2 * quantile - 1))


def test_colour_changes_follow_their_formulas() -> None:
    images = smooth()
    n = float(erfinv(0.8))
    assert_close(augmented("brightness", images, 0.8), images + 0.2 * n)
    assert_close(augmented("contrast", images, 0.8), images * 2 ** (0.5 * n))
    grey = images.mean(1, keepdim=True)
    assert_close(augmented("lumaflip", images, 0.8), images - 2 * grey, atol=1e-5, rtol=0)
    saturated = grey + (images - grey) * 2**n
    assert_close(augmented("saturation", images, 0.8), saturated, atol=1e-5, rtol=1e-5)
    third = augmented("hue", images, 5 / 6)  # two thirds of a half turn
    assert_close(third, images.roll(1, 1), atol=1e-5, rtol=0)


def test_grey_pictures_stay_grey_and_other_channel_counts_are_refused() -> None:
    grey = smooth(channels=1)
    pipe = AugmentPipe.preset("color")
    as_rgb = pipe(grey.expand(-1, 3, -1, -1), QuantileDraws(0.5))
    assert_close(pipe(grey, QuantileDraws(0.5)), as_rgb[:, :1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="1 or 3 channels, got 6"):
        pipe(smooth(channels=6))


def test_the_frequency_bands_add_up_to_the_picture() -> None:
    bank = wavelet_bank()
    impulse = torch.zeros(43)
    impulse[21] = 1
    assert_close(bank.sum(0), impulse, atol=1e-6, rtol=0)
    assert bank[0].sum() == pytest.approx(1, abs=1e-6)  # the lowest band has the mean
    assert bank[1:].sum(1).abs().max() < 1e-6


def test_filtering_needs_pictures_larger_than_half_its_filter() -> None:
    with pytest.raises(ValueError, match="more than 21 pixels"):
        augmented("imgfilter", smooth(size=16), 0.9)


def test_a_cutout_covers_a_quarter_of_the_picture() -> None:
    images = torch.ones(1, 3, 32, 32)
    cut = augmented("cutout", images, 0.5)
    assert cut.mean() == pytest.approx(0.75)
    assert not cut[:, :, 8:24, 8:24].any()


def test_noise_has_the_deviation_that_was_drawn() -> None:
    images = torch.zeros(1, 3, 64, 64)
    noisy = augmented("noise", images, 0.7)
    expected = 0.1 * torch.erfinv(torch.tensor(0.7))
    assert noisy.std() == pytest.approx(float(expected), rel=0.05)


def test_the_share_of_changed_pictures_is_the_probability() -> None:
    pipe = AugmentPipe({"brightness": 0.5})
    pipe.p = 0.6
    images = torch.zeros(4000, 3, 1, 1)
    changed = pipe(images, torch.Generator().manual_seed(0)).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.3, abs=0.03)


def test_rotation_happens_once_or_twice_with_the_probability_given() -> None:
    pipe = AugmentPipe({"rotate": 1})
    pipe.p = 0.5
    draws = Draws(torch.Generator().manual_seed(0))
    matrix = pipe._geometry(torch.zeros(4000, 3, 8, 8), draws)
    assert matrix is not None
    turned = (matrix - torch.eye(3)).abs().amax((1, 2)) > 1e-6
    assert turned.float().mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_seed_is_the_same_augmentation(preset: str) -> None:
    pipe, images = AugmentPipe.preset(preset), smooth(4)
    runs = [pipe(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert runs[0].shape == images.shape and torch.isfinite(runs[0]).all()


def test_presets_hold_what_their_letters_say() -> None:
    assert set(PRESETS["bgc"]) == {*PRESETS["blit"], *PRESETS["geom"], *PRESETS["color"]}
    assert set(PRESETS["bgcfnc"]) == set(TRANSFORMATIONS) and len(TRANSFORMATIONS) == 15


def test_augmentation_has_derivatives_of_every_order() -> None:
    pipe = AugmentPipe.preset("bgc").double()
    images = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)

    def function(images: Tensor) -> Tensor:
        return pipe(images, QuantileDraws(0.3))[:, :, ::2]

    assert gradcheck(function, images, fast_mode=True)
    assert gradgradcheck(function, images, fast_mode=True)


def test_filter_noise_and_cutout_have_derivatives_of_every_order() -> None:
    pipe = AugmentPipe(dict.fromkeys(("imgfilter", "noise", "cutout"), 1.0)).double()
    images = torch.randn(1, 1, 22, 22, dtype=torch.float64, requires_grad=True)

    def function(images: Tensor) -> Tensor:
        return pipe(images, torch.Generator().manual_seed(3))[:, :, ::7, ::7]

    assert gradcheck(function, images, fast_mode=True)
    assert gradgradcheck(function, images, fast_mode=True)


def test_unknown_transformations_and_presets_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'rotate'"):
        AugmentPipe({"rotat": 1})
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        AugmentPipe({"hue": -1})
    with pytest.raises(ValueError, match="unknown augmentation preset 'bcg'"):
        AugmentPipe.preset("bcg")
    with pytest.raises(ValueError, match="must have 4 entries"):
        AugmentPipe({"imgfilter": 1}, Extents(imgfilter_bands=(1, 1)))

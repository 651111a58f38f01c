"""Power spectra of pictures whose spectrum is a formula."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from metrics.spectra import AverageSpectrum, PixelStatistics, heatmap, kaiser_window, slices


def average(images: Tensor, **options: float) -> Tensor:
    result = AverageSpectrum(**{"mean": 0.0, "std": 1.0, **options})  # type: ignore[arg-type]
    result.add(images)
    return result.result()


def test_statistics_pool_channels_and_batches(rng: torch.Generator) -> None:
    images = 255 * torch.rand(5, 3, 4, 4, generator=rng)
    statistics = PixelStatistics()
    for part in images.split(2):
        statistics.add(part)
    mean, std = statistics.result()
    assert mean == pytest.approx(float(images.double().mean()))
    assert std == pytest.approx(float(images.double().std(correction=0)))
    with pytest.raises(ValueError, match="statistics of no pictures"):
        PixelStatistics().result()


def test_the_window_is_kaisers_with_unit_energy() -> None:
    window = kaiser_window(16, 8.0)
    expected = np.kaiser(16, 8.0)
    assert_close(window, torch.from_numpy(expected / np.sqrt((expected**2).sum())))


def test_white_noise_has_one_everywhere(rng: torch.Generator) -> None:
    noise = 60 + 20 * torch.randn(400, 3, 16, 16, generator=rng)
    spectrum = average(noise, mean=60, std=20)
    assert spectrum.shape == (64, 64) and spectrum.dtype == torch.float64
    assert float(spectrum.mean()) == pytest.approx(1, abs=0.02)
    assert float((10 * spectrum.log10()).abs().max()) < 1


def test_a_wave_stands_at_its_frequency() -> None:
    x = torch.arange(32.0)
    wave = torch.cos(2 * math.pi * x * 4 / 32).expand(1, 1, 32, 32)  # along x: 1/8 per pixel
    spectrum = average(wave)
    row, column = divmod(int(spectrum.argmax()), 128)
    assert (row, min(column, 128 - column)) == (0, 16)  # 4 periods, 4 samples each


def test_the_sum_of_a_spectrum_is_the_energy_of_the_windowed_picture(rng: torch.Generator) -> None:
    image = torch.randn(1, 1, 8, 8, generator=rng).double()
    window = kaiser_window(8, 3.0)
    energy = float((image[0, 0] * window[:, None] * window).square().sum())
    spectrum = average(image, beta=3.0, interp=2)
    assert float(spectrum.mean()) == pytest.approx(energy)  # Parseval


def test_pictures_count_alike_whatever_the_batches(rng: torch.Generator) -> None:
    images = torch.rand(5, 3, 8, 8, generator=rng)
    parts = AverageSpectrum(mean=0.5, std=0.3)
    for part in images.split(2):
        parts.add(part)
    assert_close(parts.result(), average(images, mean=0.5, std=0.3))


def test_the_heatmap_has_the_middle_in_the_middle_and_equal_edges(rng: torch.Generator) -> None:
    spectrum = torch.rand(12, 12, generator=rng).double() + 0.1
    picture = heatmap(spectrum, 3, smooth=0)
    assert picture.shape == (13, 13)
    assert picture[6, 6] == 10 * spectrum[0, 0].log10()
    assert_close(picture[0], picture[-1])
    assert_close(picture[:, 0], picture[:, -1])


def test_smoothing_is_scipys(rng: torch.Generator) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    spectrum = torch.rand(32, 32, generator=rng).double() + 0.1
    sharp = heatmap(spectrum, 8, 0).numpy()
    expected = ndimage.gaussian_filter(sharp, sigma=4 * 0.7, mode="nearest")
    assert_close(heatmap(spectrum, 8, 0.7), torch.from_numpy(expected))


def test_slices_start_in_the_middle() -> None:
    y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    fx, fy = (torch.minimum(v, 8 - v) for v in (x, y))
    spectrum = 10.0 ** (fx + 10 * fy).double()
    right, diagonal = slices(spectrum, 4)
    assert_close(right, 10 * torch.arange(5).double())
    assert_close(diagonal, 110 * torch.arange(5).double())


def test_impossible_pictures_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match="square pictures, got 8x4"):
        average(torch.zeros(1, 3, 4, 8))
    held = AverageSpectrum(mean=0, std=1)
    held.add(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="must all have 4 pixels, got 8"):
        held.add(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="spectrum of no pictures"):
        AverageSpectrum(mean=0, std=1).result()
    with pytest.raises(ValueError, match="std must be above 0"):
        AverageSpectrum(mean=0, std=0)
    with pytest.raises(ValueError, match="beta >= 0 and interp >= 1"):
        AverageSpectrum(mean=0, std=1, interp=0)

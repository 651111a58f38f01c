"""Average power spectra against the original's numbers."""

import pytest
import torch
from parity.support import Case, cases_of

from metrics.spectra import AverageSpectrum, PixelStatistics, heatmap


def assert_close(actual: torch.Tensor, case: Case, name: str) -> None:
    """Within the case's share of the largest number."""
    expected = case.tensor(f"out/{name}").double()
    error = (actual.double().reshape(expected.shape) - expected).abs().max()
    limit = case.spec["tolerance"]["suggested_rel_to_max"] * expected.abs().max()
    assert float(error) <= float(limit), (name, float(error), float(limit))


@pytest.mark.parametrize("case", cases_of("stylegan-tools", "avg_spectra"))
def test_spectra_are_those_of_the_original(case: Case) -> None:
    images, config = case.tensor("in/images"), case.config
    statistics = PixelStatistics()
    options = {key: config[key] for key in ("mean", "std", "beta", "interp")}
    average = AverageSpectrum(**options)
    for image in images:
        statistics.add(image[None])
        average.add(image[None])
    mean, std = statistics.result()
    assert_close(torch.tensor(mean), case, "mean")
    assert_close(torch.tensor(std), case, "std")
    spectrum = average.result()
    assert_close(spectrum, case, "spectrum")
    for smooth in config["smooth"]:
        picture = heatmap(spectrum, images.shape[-1], smooth)
        assert_close(picture, case, f"heatmap_smooth{smooth}")

"""Low-pass design: against scipy's windowed sinc, and by frequency response."""

import math

import pytest
import torch
from scipy.signal import firwin
from torch.testing import assert_close

from ops.filters import design_lowpass


@pytest.mark.parametrize(
    ("taps", "cutoff", "width", "rate"),
    [(12, 2.0, 12.0, 32.0), (24, 5.0, 6.2, 64.0), (7, 3, 2, 16)],
)
def test_separable_filters_are_scipys_windowed_sinc(
    taps: int, cutoff: float, width: float, rate: float
) -> None:
    f = design_lowpass(taps, cutoff, width, rate)
    expected = torch.from_numpy(firwin(taps, cutoff, width=width, fs=rate)).float()
    assert f is not None
    assert_close(f, expected, atol=1e-7, rtol=0)


def test_radial_filters_pass_every_direction_alike() -> None:
    f = design_lowpass(24, 5.0, 6.0, 64.0, radial=True)
    assert f is not None and f.shape == (24, 24)
    assert_close(f.sum(), torch.tensor(1.0))
    assert_close(f, f.t())
    assert_close(f, f.flip(0))
    t = (torch.arange(24) - 11.5) / 64
    for frequency, low, high in ((1.0, 0.9, 1.1), (16.0, -0.05, 0.05)):
        responses = []
        for angle in (0, math.pi / 8, math.pi / 4):
            phase = math.cos(angle) * t[None, :] + math.sin(angle) * t[:, None]
            responses.append(float((f * torch.cos(2 * math.pi * frequency * phase)).sum()))
        assert all(low < r < high for r in responses)
        assert max(responses) - min(responses) < 0.01


def test_one_tap_is_no_filter_and_none_is_refused() -> None:
    assert design_lowpass(1, 2.0, 1.0, 8.0) is None
    with pytest.raises(ValueError, match="positive, and even"):
        design_lowpass(0, 2.0, 1.0, 8.0)
    with pytest.raises(ValueError, match="even for a radial"):
        design_lowpass(7, 2.0, 1.0, 8.0, radial=True)

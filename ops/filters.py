"""Design of the low-pass filters behind StyleGAN3's layers (Karras et al. 2021, appendix C)."""

import math

import torch
from torch import Tensor


def design_lowpass(
    num_taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False
) -> Tensor | None:
    """A Kaiser-windowed low-pass of unit DC gain, float32; None where one tap is asked for.

    `cutoff`, the `width` of the transition band and the sampling `rate` share a unit. `radial`
    gives a matrix whose response depends on the frequency's length only, else a vector to be
    applied along both axes. Even numbers of taps only, if radial: the origin has no closed form.
    """
    if num_taps < 1 or (radial and num_taps > 1 and num_taps % 2):
        parity = "positive, and even for a radial filter"
        raise ValueError(f"num_taps must be {parity}, got {num_taps}")
    if num_taps == 1:
        return None
    t = (torch.arange(num_taps, dtype=torch.float64) - (num_taps - 1) / 2) / rate
    window = _kaiser_window(num_taps, width / (rate / 2))
    if radial:
        r = torch.hypot(t[:, None], t[None, :])
        jinc = torch.special.bessel_j1(2 * math.pi * cutoff * r) / (math.pi * r)
        f = jinc * torch.outer(window, window)
    else:
        f = torch.sinc(2 * cutoff * t) * window
    return (f / f.sum()).float()


def _kaiser_window(num_taps: int, width: float) -> Tensor:
    """The window whose transition band is `width` Nyquist frequencies wide (Kaiser 1974)."""
    attenuation = 2.285 * (num_taps - 1) * math.pi * width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    n = torch.linspace(-1, 1, num_taps, dtype=torch.float64)
    top = torch.special.i0(torch.tensor(beta, dtype=torch.float64))
    return torch.special.i0(beta * (1 - n.square()).clamp(min=0).sqrt()) / top

"""Average power spectra of sets of pictures (StyleGAN3, Karras et al. 2021, section 4 and fig. 4).

Pictures are whitened with the mean and standard deviation of the whole real set, shown through a
Kaiser window of unit energy, and padded with zeros, which interpolates between frequencies. A
spectrum is the mean of |FFT|^2 over channels and pictures, in the FFT's own order, in double
precision: white noise of unit variance has 1 everywhere, 0 dB.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Float

TRUNCATE = 4.0  # standard deviations after which the smoothing filter ends


class PixelStatistics:
    """Mean and standard deviation of all values of a stream of pictures, channels pooled."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, images: Float[Tensor, "batch channels height width"]) -> None:
        """Count pictures in; values in 0..255."""
        values = images.double()
        self._count += values.numel()
        self._sum += float(values.sum())
        self._squares += float(values.square().sum())

    def result(self) -> tuple[float, float]:
        """Mean and standard deviation."""
        if not self._count:
            raise ValueError("statistics of no pictures")
        mean = self._sum / self._count
        return mean, math.sqrt(max(self._squares / self._count - mean**2, 0.0))


class AverageSpectrum:
    """Mean power spectrum of a stream of square pictures."""

    def __init__(
        self,
        *,
        mean: float,  # of the real pictures' values, 0..255
        std: float,  # likewise
        beta: float = 8.0,  # of the Kaiser window: sharpness against leakage
        interp: int = 4,  # frequencies per one that the picture has of its own
    ) -> None:
        if not std > 0:
            raise ValueError(f"std must be above 0, got {std}")
        if beta < 0 or interp < 1:
            raise ValueError(f"need beta >= 0 and interp >= 1, got {beta} and {interp}")
        self.mean, self.std, self.beta, self.interp = mean, std, beta, interp
        self.image_size: int | None = None
        self._sum = torch.zeros(())
        self._count = 0

    def add(self, images: Float[Tensor, "batch channels height width"]) -> None:
        """Count pictures in; values in 0..255."""
        size = images.shape[-1]
        if images.shape[-2] != size:
            raise ValueError(f"spectra are of square pictures, got {size}x{images.shape[-2]}")
        if self.image_size not in (None, size):
            raise ValueError(f"pictures must all have {self.image_size} pixels, got {size}")
        self.image_size = size
        window = kaiser_window(size, self.beta).to(images.device)
        seen = (images.double() - self.mean) / self.std * window[:, None] * window
        padded = size * self.interp
        power = torch.fft.fft2(seen, s=(padded, padded)).abs().square()
        self._sum = self._sum.to(power) + power.mean(dim=1).sum(dim=0)
        self._count += len(images)

    def result(self) -> Float[Tensor, "padded padded"]:
        """The spectrum; frequency 0 comes first."""
        if not self._count:
            raise ValueError("spectrum of no pictures")
        return self._sum / self._count


def kaiser_window(size: int, beta: float) -> Float[Tensor, " size"]:
    """Symmetric Kaiser window whose squares sum to 1."""
    window = torch.kaiser_window(size, periodic=False, beta=beta, dtype=torch.float64)
    return window / window.square().sum().sqrt()


def heatmap(
    spectrum: Float[Tensor, "padded padded"], image_size: int, smooth: float = 1.25
) -> Float[Tensor, "padded+1 padded+1"]:
    """The spectrum in dB with frequency 0 in the middle and both ends of the axes shown.

    `smooth` is the standard deviation of a Gaussian, in units of the picture's own frequencies.
    """
    decibel = 10 * spectrum.log10()
    decibel = torch.fft.fftshift(decibel)
    decibel = torch.cat([decibel, decibel[:1]])
    decibel = torch.cat([decibel, decibel[:, :1]], dim=1)
    sigma = len(spectrum) / image_size * smooth
    return _blur(_blur(decibel, sigma).T, sigma).T


def slices(
    spectrum: Float[Tensor, "padded padded"], image_size: int, smooth: float = 0.0
) -> tuple[Float[Tensor, " frequencies"], Float[Tensor, " frequencies"]]:
    """The heatmap from its middle along the axis to the right (0 degrees) and diagonally (45).

    Sample i is at the frequency i / (2 (n - 1)) cycles per pixel, of n samples; on the diagonal,
    in each direction.
    """
    picture = heatmap(spectrum, image_size, smooth)
    middle = len(spectrum) // 2
    return picture[middle, middle:], picture[middle:, middle:].diagonal()


def _blur(rows: Tensor, sigma: float) -> Tensor:
    """Gaussian along the first axis; beyond the edges the nearest value goes on."""
    if sigma == 0:
        return rows
    reach = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=rows.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(rows.device)
    padded = F.pad(rows.T[:, None], (reach, reach), mode="replicate")
    return F.conv1d(padded, kernel[None, None])[:, 0].T

"""EQ-T and EQ-R: whether a generator's picture moves as a whole when its input does.

Karras et al. 2021, appendix E.3: the picture of a moved input is compared, in dB of PSNR, with the
moved picture of the resting input, where the move is by whole pixels, by fractions of one (Lanczos
resampling), or a rotation (band-limited resampling, which the other side undergoes without turning,
so that both lose the same frequencies). Operators also give a mask of the pixels that they know.
Moves are (x, y) in widths of the picture, rotations in radians.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Float

TRANSLATE_MAX = 1 / 8  # of the picture's width
ROTATE_MAX = math.pi
LANCZOS = 3  # lobes
BAND_LOBES, BAND_REACH, BAND_UP = 6, 64, 4  # of the rotation's filter: kept, computed, oversampled

Picture = Callable[[Tensor], Tensor]  # the pictures of an input transform (3, 3)


@dataclass
class SquaredError:
    """Sums from which a PSNR follows; sums of parts may be added."""

    error: float = 0.0
    count: float = 0.0

    def add(self, a: Tensor, b: Tensor, mask: Tensor) -> None:
        """Compare pictures whose values span 2, where the mask is 1."""
        mask = mask.double().expand_as(a)
        self.error += float(((a.double() - b.double()).square() * mask).sum())
        self.count += float(mask.sum())

    def psnr(self) -> float:
        """In dB; infinite if there is no error at all."""
        if not self.count:
            raise ValueError("no pixel was compared")
        mean = self.error / self.count
        return 20 * math.log10(2) - 10 * math.log10(mean) if mean else math.inf


def compare_integer(
    picture: Picture, original: Tensor, move: Float[Tensor, "2"], into: SquaredError
) -> None:
    """EQ-T: `move`, rounded to pixels."""
    size = original.shape[-1]
    move = (move * size).round() / size
    reference, mask = translate_integer(original, move)
    into.add(picture(_inverse_translation(move)), reference, mask)


def compare_fractional(
    picture: Picture, original: Tensor, move: Float[Tensor, "2"], into: SquaredError
) -> None:
    """EQ-T_frac: `move` as it is."""
    reference, mask = translate_fractional(original, move)
    into.add(picture(_inverse_translation(move)), reference, mask)


def compare_rotated(picture: Picture, original: Tensor, angle: float, into: SquaredError) -> None:
    """EQ-R: a turn by `angle`."""
    reference, mask = rotate(original, angle)
    candidate, seen = pseudo_rotate(picture(rotation_matrix(-angle)), angle)
    into.add(candidate, reference, mask * seen)


def rotation_matrix(angle: float) -> Float[Tensor, "3 3"]:
    """Of a turn in the plane of the picture, x to the right and y down."""
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _inverse_translation(move: Tensor) -> Tensor:
    transform = torch.eye(3)
    transform[:2, 2] = -move.cpu()
    return transform


# ---- the moved picture and its mask


def translate_integer(
    x: Float[Tensor, "batch channels height width"], move: Float[Tensor, "2"]
) -> tuple[Tensor, Tensor]:
    """Shift by whole pixels; what comes into view is 0 and masked."""
    height, width = x.shape[2:]
    dx, dy = (round(float(m) * n) for m, n in zip(move, (width, height), strict=True))
    image, mask = torch.zeros_like(x), torch.zeros_like(x)
    to_y, from_y = _overlap(dy, height)
    to_x, from_x = _overlap(dx, width)
    image[:, :, to_y, to_x] = x[:, :, from_y, from_x]
    mask[:, :, to_y, to_x] = 1
    return image, mask


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where pixels land, and where they come from."""
    shift = max(-size, min(size, shift))
    return slice(max(shift, 0), size + min(shift, 0)), slice(max(-shift, 0), size - max(shift, 0))


def translate_fractional(
    x: Float[Tensor, "batch channels height width"], move: Float[Tensor, "2"]
) -> tuple[Tensor, Tensor]:
    """Shift by Lanczos resampling along x, then y; border pixels that miss a tap are masked."""
    image, mask = x, torch.ones_like(x)
    for axis, part in zip((3, 2), move, strict=True):
        image, known = _shift_axis(image, float(part) * x.shape[axis], axis)
        mask = mask * known
    return image, mask


def _shift_axis(x: Tensor, shift: float, axis: int) -> tuple[Tensor, Tensor]:
    before, after, size = LANCZOS - 1, LANCZOS, x.shape[axis]
    whole = math.floor(shift)
    t = torch.arange(-before, after + 1, dtype=x.dtype, device=x.device) - (shift - whole)
    taps = torch.sinc(t) * torch.sinc(t / LANCZOS)
    taps = (taps / taps.sum()).flip(0)  # conv2d correlates
    shape, padding = [1, 1], [0, 0]
    shape[axis - 2], padding[axis - 2] = len(taps), 2 * LANCZOS - 1
    kernel = taps.reshape(1, 1, *shape).expand(x.shape[1], 1, *shape)
    full = F.conv2d(x, kernel, padding=padding, groups=x.shape[1])  # pixel i lands on i + before
    image, mask = torch.zeros_like(x), torch.zeros_like(x)
    first = max(whole - before, 0)
    last = max(first, min(whole + after, 0) + size)
    source = max(before - whole, 0)
    count = min(last, size) - min(first, size)
    if count > 0:
        image.narrow(axis, first, count).copy_(full.narrow(axis, source, count))
    inner = max(whole + after, 0)
    known = min(whole - before, 0) + size - inner
    if known > 0:
        mask.narrow(axis, inner, known).fill_(1)
    return image, mask


def rotate(x: Float[Tensor, "batch channels height width"], angle: float) -> tuple[Tensor, Tensor]:
    """Turn, keeping only frequencies that the turned pixel grid can hold."""
    matrix = rotation_matrix(angle).to(x)
    f = band_limit_filter(angle, up=BAND_UP).to(x)
    p = f.shape[0] // 2
    y = _upsample(x, f, BAND_UP, p)
    grid = _sampling_grid(torch.linalg.inv(matrix), x, y, BAND_UP, p)
    image = F.grid_sample(y, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    inner = torch.zeros_like(y)
    c = 2 * p + 1
    inner[:, :, c:-c, c:-c] = 1
    mask = F.grid_sample(inner, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return image, mask


def pseudo_rotate(
    x: Float[Tensor, "batch channels height width"], angle: float
) -> tuple[Tensor, Tensor]:
    """Lose the frequencies that a turn by `angle` loses, without turning."""
    f = band_limit_filter(-angle, up=1).to(x)
    p = f.shape[0] // 2
    kernel = f.flip(0, 1).expand(x.shape[1], 1, *f.shape)
    mask = torch.zeros_like(x)
    mask[:, :, p:-p, p:-p] = 1
    return F.conv2d(x, kernel, padding=p, groups=x.shape[1]), mask


def band_limit_filter(angle: float, *, up: int) -> Float[Tensor, "taps taps"]:
    """Low-pass of what a square pixel grid and the same one turned by `angle` can both hold.

    The convolution of their two ideal low-passes under that of their Lanczos windows, at `up` taps
    per pixel; every polyphase sums to 1 / up^2.
    """
    steps = 2 * BAND_REACH * up - 1
    t = (torch.arange(steps, dtype=torch.float64) + 1) / up - BAND_REACH
    t = t.roll(-(BAND_REACH * up - 1))  # 0 first
    y, x = torch.meshgrid(t, t, indexing="ij")
    (a, b), (c, d) = rotation_matrix(angle).double()[:2, :2].tolist()
    turned_x, turned_y = a * x + b * y, c * x + d * y
    band = _convolve(torch.sinc(x) * torch.sinc(y), torch.sinc(turned_x) * torch.sinc(turned_y))
    window = _convolve(_window(x) * _window(y), _window(turned_x) * _window(turned_y))
    f = (band * window).roll((BAND_REACH * up - 1,) * 2, dims=(0, 1))
    crop = (BAND_REACH - BAND_LOBES) * up
    f = F.pad(f[crop:-crop, crop:-crop], (0, 1, 0, 1))
    side = f.shape[0] // up
    phases = f.reshape(side, up, side, up)
    phases = phases / phases.sum(dim=(0, 2), keepdim=True) / up**2
    return phases.reshape(f.shape)[:-1, :-1].float()


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    """Circular convolution."""
    return torch.fft.ifft2(torch.fft.fft2(a) * torch.fft.fft2(b)).real


def _window(t: Tensor) -> Tensor:
    return torch.where(t.abs() < LANCZOS, torch.sinc(t / LANCZOS), 0)


def _upsample(x: Tensor, f: Tensor, up: int, padding: int) -> Tensor:
    """`up` times as many pixels, filtered by `f`, with a border of `padding` of them all around."""
    channels, (height, width) = x.shape[1], x.shape[2:]
    spread = x.new_zeros(*x.shape[:2], height, up, width, up)
    spread[:, :, :, 0, :, 0] = x * up**2
    spread = spread.reshape(*x.shape[:2], height * up, width * up)
    taps = f.shape[0]
    before, after = (taps + up - 1) // 2 + padding, (taps - up) // 2 + padding
    spread = F.pad(spread, (before, after, before, after))
    return F.conv2d(spread, f.flip(0, 1).expand(channels, 1, taps, taps), groups=channels)


def _sampling_grid(inverse: Tensor, x: Tensor, y: Tensor, up: int, padding: int) -> Tensor:
    """Where in the upsampled, padded picture `y` each pixel of `x` is found."""
    height, width = x.shape[2:]
    theta = inverse[:2].clone()
    theta[:, 2] *= 2  # affine_grid counts half widths
    theta[:, 2] += torch.tensor([1 / up / width, 1 / up / height]).to(theta)
    scale = torch.tensor([width / (width + 2 * padding / up), height / (height + 2 * padding / up)])
    theta = theta * scale.to(theta)[:, None]
    return F.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)

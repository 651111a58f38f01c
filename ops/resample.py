"""FIR resampling: pad, insert zeros, filter, keep every n-th pixel (StyleGAN2 and StyleGAN3).

`upfirdn2d` is the one primitive; `filter2d`, `upsample2d` and `downsample2d` compute its padding,
`filtered_lrelu` is StyleGAN3's nonlinearity at a higher sampling rate (Karras et al. 2021, section
3.2). Filters are made by `setup_filter`: a vector is applied along both axes, a matrix once.
Sizes are (x, y), paddings (x before, x after, y before, y after); negative padding crops.

No zeros are ever inserted: upsampling is a transposed depthwise convolution, which computes each
output phase from the taps that meet a pixel, and downsampling a strided one. The operation is
linear, so its gradient is itself with up and down exchanged and the filter flipped: nothing but the
filter is kept for the backward pass, of any order.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.activation import bias_act
from ops.shapes import Float

Pair = int | Sequence[int]  # one number, or (x, y)
Padding = int | Sequence[int]  # one number, (x, y), or (x before, x after, y before, y after)

SEPARABLE_TAPS = 8  # a vector of at least so many taps stays one
CPU_CHUNK_BYTES = 8 << 20  # intermediate results of this size still come from recycled memory
CPU_CHUNK_CHANNELS = 16  # depthwise CPU kernels work on so many channels at once


def setup_filter(
    taps: Tensor | Sequence[float] | float | None,
    *,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Tensor:
    """A filter for the functions below, float32: a vector to be applied along x and y, or a matrix.

    `None` is the identity. A vector of fewer than 8 taps becomes the matrix of its outer product
    unless `separable` says otherwise. `normalize` makes the sum 1, `gain` scales the whole filter.
    """
    f = torch.as_tensor(1.0 if taps is None else taps, dtype=torch.float32)
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"a filter is a number, a vector or a matrix, got shape {tuple(f.shape)}")
    f = f.reshape(1) if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= SEPARABLE_TAPS
    if f.ndim == 1 and not separable:
        f = torch.outer(f, f)
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return f * gain ** (f.ndim / 2)


class _Spec(NamedTuple):
    """What upfirdn2d does apart from its filter."""

    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]
    flip: bool
    gain: float

    def transposed(self, size: tuple[int, int], out: tuple[int, int], taps: tuple[int, int]):
        """The adjoint operation; `size` is the input's (x, y), `out` the output's."""
        padding = []
        for axis in (0, 1):
            before, up, down = self.padding[2 * axis], self.up[axis], self.down[axis]
            padding.append(taps[axis] - 1 - before)
            padding.append(size[axis] * up - out[axis] * down + before - up + 1)
        x0, x1, y0, y1 = padding
        return _Spec(self.down, self.up, (x0, x1, y0, y1), not self.flip, self.gain)


_IDENTITY = _Spec((1, 1), (1, 1), (0, 0, 0, 0), False, 1)


class _Upfirdn2d(torch.autograd.Function):
    """upfirdn2d with a gradient that is upfirdn2d again."""

    @staticmethod
    def forward(ctx, x: Tensor, f: Tensor, spec: _Spec) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(f)
        ctx.spec, ctx.size = spec, (x.shape[3], x.shape[2])
        with torch.autocast(x.device.type, enabled=False):  # as precise as its input
            return _resample(x, f, spec)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (f,) = ctx.saved_tensors
        taps = (f.shape[-1], f.shape[0])
        spec = ctx.spec.transposed(ctx.size, (grad.shape[3], grad.shape[2]), taps)
        return _Upfirdn2d.apply(grad, f, spec), None, None


def upfirdn2d(
    x: Float[Tensor, "batch channels height width"],
    f: Tensor | None,
    *,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Resample every channel: upsample, pad, filter, scale by `gain`, downsample, in this order.

    Upsampling puts `up` - 1 zeros after every pixel; padding is counted in upsampled pixels; the
    filter is convolved, or with `flip_filter` correlated; pixels 0, `down`, 2 `down`.. are kept.
    The output is floor((size up + padding - taps) / down) + 1 wide. Constant in `f`: no gradient.
    """
    spec = _Spec(as_pair(up, "up"), as_pair(down, "down"), as_sides(padding), flip_filter, gain)
    if f is None:
        if spec == _IDENTITY:
            return x
        f = x.new_ones(1, 1)
    for axis, name in enumerate(("width", "height")):
        taps = f.shape[-1] if axis == 0 or f.ndim == 1 else f.shape[0]
        padded = x.shape[3 - axis] * spec.up[axis] + sum(spec.padding[2 * axis : 2 * axis + 2])
        if padded < taps:
            raise ValueError(f"padded {name} of {padded} is smaller than a filter of {taps} taps")
    if f.ndim == 1 and gain < 0:
        raise ValueError(f"a filter that is applied twice needs a positive gain, got {gain}")
    return _Upfirdn2d.apply(x, f.detach(), spec)


def filter2d(
    x: Float[Tensor, "batch channels height width"],
    f: Tensor | None,
    *,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Filter at the same size; `padding` adds to what that takes."""
    padding = resample_padding(f, padding=padding)
    return upfirdn2d(x, f, padding=padding, flip_filter=flip_filter, gain=gain)


def upsample2d(
    x: Float[Tensor, "batch channels height width"],
    f: Tensor | None,
    *,
    up: Pair = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Enlarge `up` times, keeping the mean: `padding` adds to what the exact size takes."""
    up_x, up_y = as_pair(up, "up")
    padding, gain = resample_padding(f, up=up, padding=padding), gain * up_x * up_y
    return upfirdn2d(x, f, up=up, padding=padding, flip_filter=flip_filter, gain=gain)


def downsample2d(
    x: Float[Tensor, "batch channels height width"],
    f: Tensor | None,
    *,
    down: Pair = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Shrink `down` times; `padding` adds to what the exact size takes."""
    padding = resample_padding(f, down=down, padding=padding)
    return upfirdn2d(x, f, down=down, padding=padding, flip_filter=flip_filter, gain=gain)


def filtered_lrelu(
    x: Float[Tensor, "batch channels height width"],
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Float[Tensor, " channels"] | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Bias, upsample by `fu`, leaky ReLU times `gain`, clamp, downsample by `fd` (StyleGAN3, 3.2).

    All `padding` is spent before the nonlinearity, which is the point: its new high frequencies
    are made at `up` times the sampling rate and removed before they alias.
    """
    x = bias_act(x, b)
    x = upfirdn2d(x, fu, up=up, padding=padding, gain=up**2, flip_filter=flip_filter)
    x = bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp)
    return upfirdn2d(x, fd, down=down, flip_filter=flip_filter)


def resample_padding(
    f: Tensor | None, *, up: Pair = 1, down: Pair = 1, padding: Padding = 0
) -> tuple[int, int, int, int]:
    """The padding with which size times `up` / `down` comes out, plus the caller's own."""
    x0, x1, y0, y1 = as_sides(padding)
    width, height = (1, 1) if f is None else (f.shape[-1], f.shape[0])
    (left, right), (top, bottom) = (
        _axis_padding(taps, u, d)
        for taps, u, d in zip(
            (width, height), as_pair(up, "up"), as_pair(down, "down"), strict=True
        )
    )
    return x0 + left, x1 + right, y0 + top, y1 + bottom


def as_pair(value: Pair, name: str) -> tuple[int, int]:
    """(x, y) of a factor that may be one number for both."""
    x, y = (value, value) if isinstance(value, int) else value
    if x < 1 or y < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return x, y


def as_sides(padding: Padding) -> tuple[int, int, int, int]:
    """(x before, x after, y before, y after) of a padding in any of its forms."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    if len(padding) != 4:
        raise ValueError(f"padding must be one, two or four numbers, got {tuple(padding)}")
    x0, x1, y0, y1 = padding
    return x0, x1, y0, y1


def _axis_padding(taps: int, up: int, down: int) -> tuple[int, int]:
    before = after = 0
    if up > 1:
        before, after = (taps + up - 1) // 2, (taps - up) // 2
    if down > 1:
        before, after = before + (taps - down + 1) // 2, after + (taps - down) // 2
    if up == down == 1:
        before, after = taps // 2, (taps - 1) // 2
    return before, after


def _resample(x: Tensor, f: Tensor, spec: _Spec) -> Tensor:
    """upfirdn2d without a gradient: one pass per axis for a vector, one for a matrix."""
    f = f.to(x.dtype)
    if f.numel() == 1 and spec.up == spec.down == (1, 1):
        return F.pad(x, list(spec.padding)) * (f.reshape(()) ** (3 - f.ndim) * spec.gain)
    if f.ndim == 2:
        return _in_chunks(lambda part: _pass(part, f * spec.gain, spec), x, spec)
    f = f * math.sqrt(spec.gain)
    x0, x1, y0, y1 = spec.padding
    along_x = spec._replace(up=(spec.up[0], 1), down=(spec.down[0], 1), padding=(x0, x1, 0, 0))
    along_y = spec._replace(up=(1, spec.up[1]), down=(1, spec.down[1]), padding=(0, 0, y0, y1))

    def both(part: Tensor) -> Tensor:
        return _pass(_pass(part, f[:, None], along_y), f[None, :], along_x)

    return _in_chunks(both, x, spec)


def _pass(x: Tensor, kernel: Tensor, spec: _Spec) -> Tensor:
    """One depthwise convolution, transposed where it upsamples."""
    channels = x.shape[1]
    (up_x, up_y), (down_x, down_y), (x0, x1, y0, y1) = spec.up, spec.down, spec.padding
    height, width = kernel.shape
    if spec.up == (1, 1):
        kernel = kernel if spec.flip else kernel.flip(0, 1)
        if x0 != x1 or y0 != y1 or x0 < 0 or y0 < 0:
            x, x0, y0 = F.pad(x, [x0, x1, y0, y1]), 0, 0
        weight = kernel.expand(channels, 1, height, width)
        return F.conv2d(x, weight, stride=(down_y, down_x), padding=(y0, x0), groups=channels)
    kernel = kernel.flip(0, 1) if spec.flip else kernel
    # the transposed convolution's border is what padding by taps - 1 would leave: crop or extend it
    left, right = width - 1 - x0, width - up_x - x1
    top, bottom = height - 1 - y0, height - up_y - y1
    crop_x, crop_y = max(min(left, right), 0), max(min(top, bottom), 0)
    weight = kernel.expand(channels, 1, height, width)
    y = _conv_transpose(x, weight, (up_y, up_x), (crop_y, crop_x))
    y = F.pad(y, [crop_x - left, crop_x - right, crop_y - top, crop_y - bottom])
    return y[:, :, ::down_y, ::down_x] if spec.down != (1, 1) else y


def _conv_transpose(
    x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Transposed depthwise convolution."""
    if x.is_cuda:  # where conv_transpose2d has no depthwise kernel
        return _conv_transpose_by_gradient(x, weight, stride, padding)
    return F.conv_transpose2d(x, weight, stride=stride, padding=padding, groups=x.shape[1])


def _conv_transpose_by_gradient(
    x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The same by the kernel that computes a depthwise convolution's gradient."""
    size = [
        (n - 1) * s + k - 2 * p
        for n, s, k, p in zip(x.shape[2:], stride, weight.shape[2:], padding, strict=True)
    ]
    like = x.new_empty(1).expand(*x.shape[:2], *size)  # only its shape matters
    return torch.ops.aten.convolution_backward(
        x,
        like,
        weight,
        None,
        stride,
        padding,
        (1, 1),
        False,
        (0, 0),
        x.shape[1],
        [True, False, False],
    )[0]


def _in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, spec: _Spec) -> Tensor:
    """Apply a depthwise function to a few channels at a time where that saves memory traffic.

    On the CPU a large temporary is fresh memory whose page faults cost more than the filter itself.
    """
    batch, channels, height, width = x.shape
    if x.device.type != "cpu" or not x.is_contiguous():
        return function(x)
    grown = height * width * spec.up[0] * spec.up[1] * x.element_size()
    step = max(CPU_CHUNK_BYTES // max(grown, 1) // CPU_CHUNK_CHANNELS, 1) * CPU_CHUNK_CHANNELS
    planes = batch * channels
    if planes <= step:
        return function(x)
    flat = x.view(1, planes, height, width)
    first = function(flat[:, :step])
    out = x.new_empty(1, planes, *first.shape[2:])
    out[:, :step] = first
    for start in range(step, planes, step):
        out[:, start : start + step] = function(flat[:, start : start + step])
    return out.view(batch, channels, *first.shape[2:])

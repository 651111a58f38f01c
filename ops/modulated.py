"""Convolutions of the StyleGANs: with resampling, with an equalised rate, with modulated weights.

Modulation (StyleGAN2, section 2.2) scales a shared kernel per sample and input channel by a style,
demodulation per output channel back to unit norm. Both are per-sample scales on either side of a
plain convolution, and can be applied to the activations ("unfused", better for training) or to the
kernel ("fused", a grouped convolution: better where the pictures are larger). Same numbers.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.activation import ACTIVATIONS, bias_act
from ops.norm import EPSILON
from ops.resample import Padding, as_sides, resample_padding, setup_filter, upfirdn2d
from ops.shapes import Float


def conv2d_resample(
    x: Float[Tensor, "batch in height width"],
    w: Float[Tensor, "out in_per_group kernel_height kernel_width"],
    f: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Float[Tensor, "batch out out_height out_width"]:
    """Upsample by the filter `f`, convolve with `w`, downsample by `f`; `padding` comes first.

    `flip_weight` correlates with `w` as `conv2d` does, without it the kernel is convolved. Steps
    are exchanged and merged where that is cheaper; the numbers are the same up to rounding.
    """
    kh, kw = w.shape[2:]
    x0, x1, y0, y1 = as_sides(padding)
    if up > 1:
        x0, x1, y0, y1 = resample_padding(f, up=up, padding=(x0, x1, y0, y1))
    if down > 1:
        x0, x1, y0, y1 = resample_padding(f, down=down, padding=(x0, x1, y0, y1))
    pads = (x0, x1, y0, y1)
    if kh == kw == 1 and down > 1 and up == 1:  # fewer pixels to mix
        x = upfirdn2d(x, f, down=down, padding=pads, flip_filter=flip_filter)
        return F.conv2d(x, w, groups=groups)
    if kh == kw == 1 and up > 1 and down == 1:
        x = F.conv2d(x, w, groups=groups)
        return upfirdn2d(x, f, up=up, padding=pads, gain=up**2, flip_filter=flip_filter)
    if up == 1:
        if f is not None and down > 1:
            x, pads = upfirdn2d(x, f, padding=pads, flip_filter=flip_filter), (0, 0, 0, 0)
        return _convolve(x, w, pads, down, groups, flip_weight)
    # convolution and zero insertion merge into a transposed convolution of stride `up`; what its
    # border has too little or too much of is made up for by the filter's padding
    x0, x1, y0, y1 = x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up)
    crop_x, crop_y = max(-max(x0, x1), 0), max(-max(y0, y1), 0)
    x = F.conv_transpose2d(
        x,
        _transposed_weight(w.flip(2, 3) if flip_weight else w, groups),
        stride=up,
        padding=(crop_y, crop_x),
        groups=groups,
    )
    pads = (x0 + crop_x, x1 + crop_x, y0 + crop_y, y1 + crop_y)
    x = upfirdn2d(x, f, padding=pads, gain=up**2, flip_filter=flip_filter)
    return upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x


def _convolve(
    x: Tensor, w: Tensor, pads: tuple[int, ...], stride: int, groups: int, flip_weight: bool
) -> Tensor:
    """A convolution whose padding may differ from side to side, or crop."""
    x0, x1, y0, y1 = pads
    w = w if flip_weight else w.flip(2, 3)
    if x0 != x1 or y0 != y1 or min(pads) < 0:
        x, x0, y0 = F.pad(x, [x0, x1, y0, y1]), 0, 0
    return F.conv2d(x, w, stride=stride, padding=(y0, x0), groups=groups)


def _transposed_weight(w: Tensor, groups: int) -> Tensor:
    """Exchange the input and output channels of every group."""
    out, channels, kh, kw = w.shape
    if groups == 1:
        return w.transpose(0, 1)
    w = w.reshape(groups, out // groups, channels, kh, kw).transpose(1, 2)
    return w.reshape(groups * channels, out // groups, kh, kw)


def modulated_conv2d(
    x: Float[Tensor, "batch in height width"],
    w: Float[Tensor, "out in kernel_height kernel_width"],
    styles: Float[Tensor, "batch in"],
    *,
    noise: Tensor | None = None,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused: bool | None = False,
) -> Float[Tensor, "batch out out_height out_width"]:
    """Convolve with a kernel scaled by `styles`, and demodulated (StyleGAN2, eq. 1 and 3).

    `noise` is added behind the demodulation; `fused` None takes what touches fewer numbers. Weight
    and styles come in full precision: in 16 bits they are brought to a maximum of 1 first, which
    demodulation cancels.
    """
    d = None
    if demodulate:
        if x.dtype in (torch.float16, torch.bfloat16):
            peak = w.abs().amax((1, 2, 3), keepdim=True)
            w = w / (peak * math.sqrt(w[0].numel()))
            styles = styles / styles.abs().amax(1, keepdim=True)
        d = _demodulation(w, styles)

    def convolve(x: Tensor, w: Tensor, groups: int) -> Tensor:
        return conv2d_resample(
            x, w, f, up=up, down=down, padding=padding, groups=groups, flip_weight=flip_weight
        )

    y = _scaled_conv(x, w, styles, d, fused, convolve)
    return y if noise is None else y + noise.to(y.dtype)


def alias_free_modulated_conv2d(
    x: Float[Tensor, "batch in height width"],
    w: Float[Tensor, "out in kernel_height kernel_width"],
    styles: Float[Tensor, "batch in"],
    *,
    padding: int | Sequence[int] = 0,
    demodulate: bool = True,
    input_gain: Tensor | None = None,
    fused: bool | None = False,
) -> Float[Tensor, "batch out out_height out_width"]:
    """StyleGAN3's modulated convolution: weights and styles at unit second moment, an input gain.

    `padding` is (y, x) as in `conv2d`; `input_gain`, a number, one per channel or per sample and
    channel, scales the input behind the demodulation (StyleGAN3, appendix F).
    """
    d = None
    if demodulate:
        w = w * w.square().mean((1, 2, 3), keepdim=True).rsqrt()
        styles = styles * styles.square().mean().rsqrt()
        d = _demodulation(w, styles)
    if input_gain is not None:
        styles = styles * input_gain

    def convolve(x: Tensor, w: Tensor, groups: int) -> Tensor:
        sides = padding if isinstance(padding, int) else tuple(padding)
        return F.conv2d(x, w, padding=sides, groups=groups)

    return _scaled_conv(x, w, styles, d, fused, convolve)


def _demodulation(w: Tensor, styles: Tensor) -> Float[Tensor, "batch out"]:
    """1 / norm of each sample's modulated kernels, without forming them."""
    return (styles.square() @ w.square().sum((2, 3)).t() + EPSILON).rsqrt()


def _scaled_conv(
    x: Tensor,
    w: Tensor,
    scale_in: Tensor,
    scale_out: Tensor | None,
    fused: bool | None,
    convolve: Callable[[Tensor, Tensor, int], Tensor],
) -> Tensor:
    """scale_out * convolve(scale_in * x, w): the scales, per sample, are in full precision."""
    dtype, batch = x.dtype, len(x)
    if fused is None:
        fused = 2 * w.numel() < (w.shape[0] + w.shape[1]) * x.shape[2] * x.shape[3]
    if not fused:
        y = convolve(x * scale_in.to(dtype)[:, :, None, None], w.to(dtype), 1)
        return y if scale_out is None else y * scale_out.to(dtype)[:, :, None, None]
    kernels = w * scale_in[:, None, :, None, None]
    if scale_out is not None:
        kernels = kernels * scale_out[:, :, None, None, None]
    kernels = kernels.to(dtype).flatten(0, 1)
    y = convolve(x.reshape(1, -1, *x.shape[2:]), kernels, batch)
    return y.reshape(batch, -1, *y.shape[2:])


class EqualizedConv2d(nn.Module):
    """Convolution with an equalised learning rate, optional resampling, bias and activation."""

    weight: Tensor
    bias: Tensor | None
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: str = "linear",  # a name of ops.activation.ACTIVATIONS
        up: int = 1,  # pixels out per pixel in
        down: int = 1,  # pixels in per pixel out
        resample_filter: Sequence[float] = (1, 3, 3, 1),  # low-pass for up and down
        conv_clamp: float | None = None,  # bound of the output; None: none
        trainable: bool = True,  # False freezes: weights become buffers of the same names
    ) -> None:
        super().__init__()
        self.activation, self.conv_clamp = activation, conv_clamp
        self.up, self.down, self.padding = up, down, kernel_size // 2
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        offset = torch.zeros(out_channels) if bias else None
        if trainable:
            self.weight = nn.Parameter(weight)
            self.bias = None if offset is None else nn.Parameter(offset)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", offset)
        self.register_buffer("resample_filter", setup_filter(resample_filter), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch in height width"], gain: float = 1.0
    ) -> Float[Tensor, "batch out out_height out_width"]:
        """Convolve; `gain` scales the result and its clamp."""
        y = conv2d_resample(
            x,
            (self.weight * self.weight_gain).to(x.dtype),
            self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            flip_weight=self.up == 1,
        )
        return bias_act(
            y,
            None if self.bias is None else self.bias.to(x.dtype),
            act=self.activation,
            gain=ACTIVATIONS[self.activation].gain * gain,
            clamp=None if self.conv_clamp is None else self.conv_clamp * gain,
        )

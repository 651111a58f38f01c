"""StyleGAN3's layers before there are weights: bandwidths, sampling rates, filters, paddings.

The picture is a band-limited signal throughout. Every layer has a cutoff frequency, a transition
band and a sampling rate of its own, which grow from the input to the picture; its nonlinearity acts
at a higher rate still (Karras et al. 2021, section 3.2 and appendix C). Frequencies are cycles per
picture width, rates samples per picture width; canvases have a margin around the picture.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from ops.blocks import block_resolutions
from ops.filters import design_lowpass


@dataclass(frozen=True)
class Bandwidth:
    """The signal at one point of the network: a canvas of `size` pixels at a sampling `rate`."""

    size: int
    channels: int
    rate: int  # samples per image width
    cutoff: float  # where the pass band ends
    half_width: float  # of the transition band

    @property
    def name(self) -> str:
        """Size and channels, as the original names its layers."""
        return f"{self.size}_{self.channels}"


@dataclass(frozen=True)
class LayerPlan:
    """One layer: the signal before and after it, and how its filters follow from both."""

    before: Bandwidth
    after: Bandwidth
    kernel_size: int
    is_torgb: bool = False
    is_critical: bool = False  # sampled at twice its cutoff: no room for a radial filter
    is_half: bool = False  # in 16 bits on CUDA
    lrelu_upsampling: int = 2
    filter_size: int = 6  # taps per pixel of the lower rate
    use_radial_filters: bool = False

    @property
    def inner_rate(self) -> int:
        """The rate at which the nonlinearity is applied."""
        rate = max(self.before.rate, self.after.rate)
        return rate if self.is_torgb else rate * self.lrelu_upsampling

    @property
    def up(self) -> int:
        """Upsampling ahead of the nonlinearity."""
        return self.inner_rate // self.before.rate

    @property
    def down(self) -> int:
        """Downsampling behind the nonlinearity."""
        return self.inner_rate // self.after.rate

    @property
    def up_taps(self) -> int:
        """Length of the upsampling filter; 1 for none."""
        return self.filter_size * self.up if self.up > 1 and not self.is_torgb else 1

    @property
    def down_taps(self) -> int:
        """Length of the downsampling filter; 1 for none."""
        return self.filter_size * self.down if self.down > 1 and not self.is_torgb else 1

    @property
    def down_radial(self) -> bool:
        """Whether the downsampling filter treats all directions alike."""
        return self.use_radial_filters and not self.is_critical

    @property
    def padding(self) -> tuple[int, int]:
        """Before and after on either axis, in pixels of the inner rate, for exactly `after.size`.

        May be negative. The convolution has grown the canvas by kernel_size - 1 already.
        """
        needed = (self.after.size - 1) * self.down + 1
        given = (self.before.size + self.kernel_size - 1) * self.up
        total = needed - given + self.up_taps + self.down_taps - 2
        low = (total + self.up) // 2
        return low, total - low

    def up_filter(self) -> Tensor | None:
        """Removes what upsampling adds."""
        before = self.before
        return design_lowpass(self.up_taps, before.cutoff, 2 * before.half_width, self.inner_rate)

    def down_filter(self) -> Tensor | None:
        """Removes what the next rate cannot hold."""
        after = self.after
        return design_lowpass(
            self.down_taps,
            after.cutoff,
            2 * after.half_width,
            self.inner_rate,
            radial=self.down_radial,
        )


def layer_schedule(
    resolution: int,
    *,
    img_channels: int = 3,
    channel_base: int = 32768,
    channel_max: int = 512,
    num_layers: int = 14,
    num_critical: int = 2,
    first_cutoff: float = 2.0,
    first_stopband: float = 2**2.1,
    last_stopband_rel: float = 2**0.3,
    margin_size: int = 10,
    num_fp16_res: int = 4,
    conv_kernel: int = 3,
    filter_size: int = 6,
    lrelu_upsampling: int = 2,
    use_radial_filters: bool = False,
) -> list[LayerPlan]:
    """All layers, the last being toRGB (StyleGAN3, section 3.2 and appendix C).

    Cutoffs and stop bands grow geometrically up to the last `num_critical` layers, sampling rates
    are the powers of two above them.
    """
    block_resolutions(resolution)  # refuses what is no power of two
    if not 0 <= num_critical < num_layers:
        raise ValueError(
            f"need 0 <= num_critical < num_layers, got {num_critical} and {num_layers}"
        )
    last_cutoff = resolution / 2
    signals = []
    for i in range(num_layers + 1):
        progress = min(i / (num_layers - num_critical), 1)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** progress
        last_stopband = last_cutoff * last_stopband_rel
        stopband = first_stopband * (last_stopband / first_stopband) ** progress
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, resolution)))
        is_last = i == num_layers
        signals.append(
            Bandwidth(
                size=resolution if i >= num_layers - 1 else rate + 2 * margin_size,
                channels=img_channels
                if is_last
                else round(min(channel_base / 2 / cutoff, channel_max)),
                rate=rate,
                cutoff=cutoff,
                half_width=max(stopband, rate / 2) - cutoff,
            )
        )
    return [
        LayerPlan(
            before=signals[max(i - 1, 0)],
            after=after,
            kernel_size=1 if i == num_layers else conv_kernel,
            is_torgb=i == num_layers,
            is_critical=i >= num_layers - num_critical,
            is_half=after.rate * 2**num_fp16_res > resolution,
            lrelu_upsampling=lrelu_upsampling,
            filter_size=filter_size,
            use_radial_filters=use_radial_filters,
        )
        for i, after in enumerate(signals)
    ]

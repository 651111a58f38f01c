"""The blocks of StyleGAN2 networks: which resolutions, how wide, in which precision.

The finest resolutions hold nearly all the work and can do with 16 bits; the rest, the parameters
and the RGB sums stay in float32 (StyleGAN2-ADA, appendix B). On CUDA only: CPUs gain nothing.
"""

import torch
from torch import Tensor


def block_resolutions(resolution: int) -> list[int]:
    """4, 8, .. up to `resolution`."""
    if resolution < 4 or resolution & (resolution - 1):
        raise ValueError(f"resolution must be a power of two, at least 4, got {resolution}")
    return [2**i for i in range(2, resolution.bit_length())]


def block_channels(resolution: int, channel_base: int, channel_max: int) -> int:
    """Feature channels at a resolution."""
    channels = min(channel_base // resolution, channel_max)
    if channels < 1:
        raise ValueError(
            f"channel_base must be at least the resolution, {resolution}, and channel_max at least"
            f" 1, got {channel_base} and {channel_max}"
        )
    return channels


def half_resolution(resolution: int, num_fp16_res: int) -> int:
    """The coarsest resolution of the `num_fp16_res` finest, which run in 16 bits; at least 8."""
    return max(2 * resolution >> num_fp16_res, 8)


def half_dtype(x: Tensor, *, force_fp32: bool = False) -> torch.dtype:
    """The type of 16-bit blocks where `x` is: an ambient autocast's choice, else float16.

    Off CUDA, or with `force_fp32`, that is the type of `x` itself.
    """
    if not x.is_cuda or force_fp32:
        return x.dtype
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else torch.float16


def as_block_input(x: Tensor, dtype: torch.dtype, channels_last: bool = False) -> Tensor:
    """Convert to a block's type; 16-bit blocks may ask for the channels-last layout."""
    last = channels_last and dtype in (torch.float16, torch.bfloat16)
    return x.to(dtype, memory_format=torch.channels_last if last else torch.preserve_format)

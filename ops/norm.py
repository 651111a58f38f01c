"""Normalisations and batch statistics."""

import torch
from torch import Tensor

from ops.shapes import Float

EPSILON = 1e-8


def normalize_2nd_moment(x: Tensor, dim: int = -1) -> Tensor:
    """Scale to a mean square of 1 along `dim` (Progressive GAN, section 4.2)."""
    return x * torch.rsqrt(x.square().mean(dim, keepdim=True) + EPSILON)


def check_groups(batch: int, group_size: int | None) -> int:
    """How many pictures are compared with each other; ValueError if a batch is no multiple."""
    size = batch if group_size is None else min(group_size, batch)
    if batch % size:
        low = batch // size * size
        raise ValueError(
            f"minibatch std needs a batch divisible by its group of {size}, got {batch};"
            f" nearest: {low} or {low + size}"
        )
    return size


def minibatch_std(
    x: Float[Tensor, "batch channels height width"],
    group_size: int | None = 4,
    num_channels: int = 1,
) -> Float[Tensor, "batch channels_plus height width"]:
    """Append `num_channels` maps of how much the pictures of a group differ.

    Progressive GAN, section 3: the standard deviation over groups of `group_size` pictures (None:
    the batch), averaged over everything else. Picture n belongs to group n mod (batch / size).
    """
    batch, channels, height, width = x.shape
    size = check_groups(batch, group_size)
    if channels % num_channels:
        raise ValueError(
            f"minibatch std cannot split {channels} channels into {num_channels} equal parts"
        )
    groups = batch // size
    y = x.reshape(size, groups, num_channels, channels // num_channels, height, width)
    y = y - y.mean(0)
    y = (y.square().mean(0) + EPSILON).sqrt().mean((2, 3, 4))
    y = y.repeat(size, 1)[:, :, None, None].expand(-1, -1, height, width)
    return torch.cat([x, y], dim=1)

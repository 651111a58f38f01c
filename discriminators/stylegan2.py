"""The StyleGAN2 discriminator (Karras et al. 2020), which StyleGAN3 and the tri-planes use too.

Blocks halve the resolution down to 4x4, where an epilogue also looks at how much the pictures of a
batch differ. Conditions (a class, a camera, or both) are mapped to a direction that the last
features are projected on (Miyato and Koyama 2018).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from discriminators.base import DISCRIMINATORS, Discriminator, Judgement
from ops.blocks import (
    as_block_input,
    block_channels,
    block_resolutions,
    half_dtype,
    half_resolution,
)
from ops.linear import EqualizedLinear
from ops.mapping import MappingNetwork, label_vectors
from ops.modulated import EqualizedConv2d
from ops.norm import check_groups, minibatch_std
from ops.registry import nearest
from ops.resample import downsample2d, setup_filter
from ops.shapes import Float
from rendering.cameras import Cameras, Patch

ARCHITECTURES = ("resnet", "skip", "orig")
CAMERA_NUMBERS = 25  # a 4x4 pose and a 3x3 matrix of intrinsics


class DiscriminatorBlock(nn.Module):
    """The layers of one resolution."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,  # 0: the first block, which sees only the picture
        channels: int,
        out_channels: int,
        *,
        img_channels: int,
        architecture: str,
        first_layer: int,  # how many layers come before this block, for freezing
        freeze_layers: int,  # layers of the network that are frozen
        resample_filter: Sequence[float],
        conv_clamp: float | None,
        down: int = 2,  # pixels in per pixel out
        code_dim: int = 0,  # numbers in a code that scales channels (EpiGRAF, 3.2); 0: none
    ) -> None:
        super().__init__()
        self.num_layers = 0

        def conv(in_channels: int, out_channels: int, size: int, **options: Any) -> EqualizedConv2d:
            trainable = first_layer + self.num_layers >= freeze_layers
            self.num_layers += 1
            return EqualizedConv2d(in_channels, out_channels, size, trainable=trainable, **options)

        act = {"activation": "lrelu", "conv_clamp": conv_clamp}
        shrinking = {"down": down, "resample_filter": resample_filter}
        sees_picture = in_channels == 0 or architecture == "skip"
        self.fromrgb = conv(img_channels, channels, 1, **act) if sees_picture else None
        self.conv0 = conv(channels, channels, 3, **act)
        self.conv1 = conv(channels, out_channels, 3, **act, **shrinking)
        self.skip = None
        if architecture == "resnet":
            self.skip = conv(channels, out_channels, 1, bias=False, **shrinking)
        self.affine = EqualizedLinear(code_dim, channels) if code_dim else None
        self.shrinks_picture = architecture == "skip"
        self.register_buffer("resample_filter", setup_filter(resample_filter), persistent=False)

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        *,
        dtype: torch.dtype,
        channels_last: bool = False,
        code: Float[Tensor, "batch code"] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Features in `dtype` at half the resolution, and the picture that the next block sees."""
        if x is not None:
            x = as_block_input(x, dtype, channels_last)
        if self.fromrgb is not None:
            assert image is not None
            seen = self.fromrgb(as_block_input(image, dtype, channels_last))
            x = seen if x is None else x + seen
            image = downsample2d(image, self.resample_filter) if self.shrinks_picture else None
        assert x is not None
        y = self.conv0(x)
        if self.affine is not None:
            assert code is not None
            y = y * (1 + self.affine(code).tanh())[:, :, None, None].to(y.dtype)
        if self.skip is None:
            return self.conv1(y), image
        gain = math.sqrt(0.5)
        return self.skip(x, gain=gain) + self.conv1(y, gain=gain), image


class DiscriminatorEpilogue(nn.Module):
    """4x4 features to one number, or to the features that a condition is projected on."""

    def __init__(
        self,
        channels: int,
        out_features: int,
        *,
        img_channels: int,
        architecture: str,
        mbstd_group_size: int | None,
        mbstd_num_channels: int,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.mbstd_group_size, self.mbstd_num_channels = mbstd_group_size, mbstd_num_channels
        self.fromrgb = None
        if architecture == "skip":
            self.fromrgb = EqualizedConv2d(img_channels, channels, 1, activation="lrelu")
        self.conv = EqualizedConv2d(
            channels + mbstd_num_channels,
            channels,
            3,
            activation="lrelu",
            conv_clamp=conv_clamp,
        )
        self.fc = EqualizedLinear(channels * 4**2, channels, activation="lrelu")
        self.out = EqualizedLinear(channels, out_features)

    def forward(
        self, x: Float[Tensor, "batch channels 4 4"], image: Tensor | None
    ) -> Float[Tensor, "batch out"]:
        """The last layers, in full precision."""
        if self.fromrgb is not None:
            assert image is not None
            x = x + self.fromrgb(image)
        if self.mbstd_num_channels > 0:
            x = minibatch_std(x, self.mbstd_group_size, self.mbstd_num_channels)
        return self.out(self.fc(self.conv(x).flatten(1)))


@DISCRIMINATORS.register("StyleGAN2Discriminator")
class StyleGAN2Discriminator(Discriminator):
    """Blocks, epilogue, and for conditions a mapping network and projection."""

    def __init__(
        self,
        *,
        resolution: int = 256,  # pixels per side, a power of two
        label_dim: int = 0,  # classes, or numbers in a label vector; 0: no labels
        condition_on_cameras: bool = False,  # also judge whether a picture fits its camera
        img_channels: int = 3,
        channel_base: int = 32768,  # channels at a resolution: channel_base / resolution..
        channel_max: int = 512,  # ..but at most so many
        architecture: str = "resnet",  # resnet, skip or orig
        mapping_layers: int = 8,  # of the condition
        cmap_dim: int | None = None,  # features projected on the condition; None: those at 4x4
        mbstd_group_size: int | None = 4,  # pictures compared with each other; None: the batch
        mbstd_num_channels: int = 1,  # maps of their differences; 0: none
        freeze_layers: int = 0,  # first layers that do not train (Freeze-D)
        num_fp16_res: int = 4,  # how many of the finest resolutions run in 16 bits on CUDA
        fp16_channels_last: bool = False,  # memory layout of those
        resample_filter: Sequence[float] = (1, 3, 3, 1),  # low-pass of downsampling
        conv_clamp: float | None = 256.0,  # bound of every layer's output; None: none
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            near = nearest(architecture, ARCHITECTURES)
            raise ValueError(f"unknown architecture {architecture!r}{near}")
        self.resolution, self.image_sizes = resolution, (resolution,)
        self.label_dim, self.uses_cameras = label_dim, condition_on_cameras
        self.mbstd_group_size = mbstd_group_size if mbstd_num_channels > 0 else 1
        self.compares_pictures = self.mbstd_group_size != 1
        self.half_resolution = half_resolution(resolution, num_fp16_res)
        self.fp16_channels_last = fp16_channels_last
        sizes = block_resolutions(resolution)[::-1]
        if len(sizes) < 2:
            raise ValueError(f"resolution must be at least 8, got {resolution}")
        channels = [block_channels(r, channel_base, channel_max) for r in sizes]
        self.blocks = nn.ModuleList()
        first_layer = 0
        for i in range(len(sizes) - 1):
            block = DiscriminatorBlock(
                channels[i] if i else 0,
                channels[i],
                channels[i + 1],
                img_channels=img_channels,
                architecture=architecture,
                first_layer=first_layer,
                freeze_layers=freeze_layers,
                resample_filter=resample_filter,
                conv_clamp=conv_clamp,
            )
            self.blocks.append(block)
            first_layer += block.num_layers
        condition_dim = label_dim + (CAMERA_NUMBERS if condition_on_cameras else 0)
        cmap_dim = channels[-1] if cmap_dim is None else cmap_dim
        self.mapping_network = None
        if condition_dim:
            self.mapping_network = MappingNetwork(
                latent_dim=0, label_dim=condition_dim, w_dim=cmap_dim, num_layers=mapping_layers
            )
        self.epilogue = DiscriminatorEpilogue(
            channels[-1],
            cmap_dim if condition_dim else 1,
            img_channels=img_channels,
            architecture=architecture,
            mbstd_group_size=mbstd_group_size,
            mbstd_num_channels=mbstd_num_channels,
            conv_clamp=conv_clamp,
        )

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        alpha: float = 1.0,
        cameras: Cameras | None = None,
        label: Tensor | None = None,
        patch: Patch | None = None,
    ) -> Judgement:
        """Judge pictures, given their labels and cameras where it is conditional on these.

        There is no progressive growing: `alpha` makes no difference.
        """
        if images.shape[2:] != (self.resolution, self.resolution):
            raise ValueError(
                f"{type(self).__name__} takes pictures of {self.resolution} pixels,"
                f" got {tuple(images.shape[2:])}"
            )
        if patch is not None:
            raise ValueError(f"{type(self).__name__} judges whole pictures: patch must be None")
        half = half_dtype(images)  # before autocast ends: it may choose
        with torch.autocast(images.device.type, enabled=False):
            full = self.epilogue.out.weight.dtype
            x, image, size = None, images.to(full), self.resolution
            for block in self.blocks:
                dtype = half if size >= self.half_resolution else full
                x, image = block(x, image, dtype=dtype, channels_last=self.fp16_channels_last)
                size //= 2
            assert x is not None
            logits = self.epilogue(x.to(full), image)
            condition = self.condition(label, cameras)
            if self.mapping_network is not None:
                direction = self.mapping_network(None, condition)
                logits = (logits * direction).sum(1, keepdim=True) / math.sqrt(logits.shape[1])
        return Judgement(logits)

    def group_size(self, batch: int) -> int:
        """The groups of its minibatch standard deviation."""
        return check_groups(batch, self.mbstd_group_size)

    def condition(
        self, label: Tensor | None, cameras: Cameras | None
    ) -> Float[Tensor, "batch numbers"] | None:
        """What pictures are judged against: label, then camera; a hook for other encodings."""
        parts = [label_vectors(label, self.label_dim)]
        if self.uses_cameras:
            if cameras is None:
                raise ValueError(f"{type(self).__name__} judges pictures with their cameras")
            parts.append(camera_vectors(cameras))
        given = [part for part in parts if part is not None]
        return torch.cat(given, dim=1) if given else None


def camera_vectors(cameras: Cameras) -> Float[Tensor, "batch 25"]:
    """cam2world and intrinsics, row-major, in units of the picture's width (EG3D, section 4.4)."""
    focal = 0.5 / torch.tan(torch.deg2rad(cameras.fov) / 2)
    intrinsics = focal.new_zeros(len(focal), 3, 3)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2] = 0.5
    intrinsics[:, 2, 2] = 1
    return torch.cat([cameras.cam2world.flatten(1), intrinsics.flatten(1)], dim=1)

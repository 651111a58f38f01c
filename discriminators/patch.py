"""EpiGRAF's discriminator of patches, which knows what part of an image it judges (section 3.2).

A StyleGAN2 discriminator as deep and wide as one for whole images: as many blocks come first that
keep the patch's size. The window's scale and offset are mapped to a code that scales the channels
before every block's second convolution, and joins label and camera in the final projection.
"""

import math

import torch
from torch import Tensor, nn

from discriminators.base import DISCRIMINATORS, Discriminator, Judgement
from discriminators.stylegan2 import DiscriminatorBlock, DiscriminatorEpilogue
from ops.blocks import block_channels, block_resolutions, half_dtype, half_resolution
from ops.encoding import PoseEncoder, ScalarEncoder
from ops.mapping import MappingNetwork, label_vectors
from ops.norm import check_groups
from ops.shapes import Float
from rendering.cameras import Cameras, Patch

CODE_DIM = 512  # numbers in the code of a window


@DISCRIMINATORS.register("PatchDiscriminator")
class PatchDiscriminator(Discriminator):
    """Location- and scale-aware, and conditional on labels and cameras where asked."""

    def __init__(
        self,
        *,
        resolution: int = 256,  # pixels per side of whole images: what makes it deep and wide
        patch_size: int = 64,  # pixels per side of what it judges; powers of two
        label_dim: int = 0,  # classes, or numbers in a label vector; 0: no labels
        condition_on_patches: bool = True,  # whether it knows the window
        window_periods: float = 1000.0,  # waves of the window's numbers, which lie in [0, 1]
        window_table_dim: int = 256,  # numbers learned for each of so many steps of them; 0: none
        condition_on_cameras: bool = False,  # also judge whether a picture fits its camera
        pose_periods: float = 64.0,  # waves of angles, which are counted in turns
        pose_raw: bool = False,  # whether it sees angles as they are beside their waves
        pose_drop_p: float = 0.0,  # share of the pose's features dropped in training
        pose_noise_std: float = 0.0,  # their noise in training, in the batch's own spread
        img_channels: int = 3,
        channel_base: int = 16384,  # channels at a resolution: channel_base / resolution..
        channel_max: int = 512,  # ..but at most so many
        mapping_layers: int = 2,  # of both conditions
        mbstd_group_size: int | None = 4,  # pictures compared with each other; None: the batch
        mbstd_num_channels: int = 1,  # maps of their differences; 0: none
        freeze_layers: int = 0,  # first layers that do not train (Freeze-D)
        num_fp16_res: int = 4,  # how many of the first blocks run in 16 bits on CUDA
        conv_clamp: float | None = 256.0,  # bound of every layer's output; None: none
    ) -> None:
        super().__init__()
        sizes = block_resolutions(resolution)[::-1]
        if patch_size not in sizes[:-1]:
            raise ValueError(
                "patch_size must be a power of two from 8 to the images' resolution"
                f" {resolution}, got {patch_size}"
            )
        self.resolution, self.patch_size, self.image_sizes = resolution, patch_size, (patch_size,)
        self.label_dim, self.img_channels = label_dim, img_channels
        self.uses_cameras = condition_on_cameras
        self.mbstd_group_size = mbstd_group_size if mbstd_num_channels > 0 else 1
        self.compares_pictures = self.mbstd_group_size != 1
        self.half_resolution = half_resolution(resolution, num_fp16_res)
        channels = [block_channels(size, channel_base, channel_max) for size in sizes]
        self.patches = self.hyper_network = self.pose = self.mapping_network = None
        if condition_on_patches:
            self.patches = ScalarEncoder(3, multiplier=window_periods, table_dim=window_table_dim)
            self.hyper_network = MappingNetwork(
                latent_dim=0,
                label_dim=self.patches.out_dim,
                w_dim=CODE_DIM,
                num_layers=mapping_layers,
            )
        if condition_on_cameras:
            self.pose = PoseEncoder(
                multiplier=pose_periods,
                use_raw=pose_raw,
                drop_p=pose_drop_p,
                noise_std=pose_noise_std,
            )
        self.blocks = nn.ModuleList()
        first_layer = 0
        for i, size in enumerate(sizes[:-1]):
            block = DiscriminatorBlock(
                channels[i] if i else 0,
                channels[i],
                channels[i + 1],
                img_channels=img_channels,
                architecture="resnet",
                down=1 if size > patch_size else 2,
                code_dim=CODE_DIM if condition_on_patches else 0,
                first_layer=first_layer,
                freeze_layers=freeze_layers,
                resample_filter=(1, 3, 3, 1),
                conv_clamp=conv_clamp,
            )
            self.blocks.append(block)
            first_layer += block.num_layers
        condition_dim = label_dim + sum(e.out_dim for e in (self.patches, self.pose) if e)
        if condition_dim:
            self.mapping_network = MappingNetwork(
                latent_dim=0,
                label_dim=condition_dim,
                w_dim=channels[-1],
                num_layers=mapping_layers,
            )
        self.epilogue = DiscriminatorEpilogue(
            channels[-1],
            channels[-1] if condition_dim else 1,
            img_channels=img_channels,
            architecture="resnet",
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
        """Judge windows of pictures; without `patch` they are the whole pictures.

        There is no progressive growing: `alpha` makes no difference.
        """
        if images.shape[2:] != (self.patch_size, self.patch_size):
            raise ValueError(
                f"{type(self).__name__} takes patches of {self.patch_size} pixels,"
                f" got {tuple(images.shape[2:])}"
            )
        half = half_dtype(images)  # before autocast ends: it may choose
        with torch.autocast(images.device.type, enabled=False):
            full = self.epilogue.out.weight.dtype
            window = self.window_features(len(images), patch)
            code = None if self.hyper_network is None else self.hyper_network(None, window)
            x, image = None, images.to(full)
            for i, block in enumerate(self.blocks):
                dtype = half if self.resolution >> i >= self.half_resolution else full
                x, image = block(x, image, dtype=dtype, code=code)
            assert x is not None
            logits = self.epilogue(x.to(full), None)
            if self.mapping_network is not None:
                direction = self.mapping_network(None, self.condition(label, cameras, window))
                logits = (logits * direction).sum(1, keepdim=True) / math.sqrt(logits.shape[1])
        return Judgement(logits)

    def group_size(self, batch: int) -> int:
        """The groups of its minibatch standard deviation."""
        return check_groups(batch, self.mbstd_group_size)

    def window_features(
        self, batch: int, patch: Patch | None
    ) -> Float[Tensor, "batch features"] | None:
        """Scale and offset of the windows as the networks see them."""
        if self.patches is None:
            return None
        weight = self.epilogue.out.weight
        patch = Patch.whole(batch, weight.device) if patch is None else patch
        return self.patches(torch.cat([patch.scale[:, None], patch.offset], dim=1).to(weight))

    def condition(
        self, label: Tensor | None, cameras: Cameras | None, window: Tensor | None
    ) -> Float[Tensor, "batch numbers"]:
        """What pictures are judged against: label, window, pose."""
        weight = self.epilogue.out.weight
        parts = [label_vectors(label, self.label_dim), window]
        if self.pose is not None:
            if cameras is None:
                raise ValueError(f"{type(self).__name__} judges pictures with their cameras")
            parts.append(self.pose(cameras.yaw_pitch.to(weight)))
        return torch.cat([part.to(weight) for part in parts if part is not None], dim=1)

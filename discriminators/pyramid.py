"""What pi-GAN's discriminators share: a pyramid of blocks with a way in at every image size.

Each block halves the picture; 1x1 convolutions ("from RGB") enter ahead of the block of the
picture's size, so that one network judges every power of two up to `max_size`. When training moves
to a larger size, the new block is faded in: `alpha` blends its output with what the smaller size
would have seen (Karras et al. 2018, section 3 and figure 2; pi-GAN, section 3.4).
"""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discriminators.base import Discriminator, Judgement
from ops.conv import LEAKY_SLOPE
from ops.shapes import Float
from rendering.cameras import Cameras, Patch

POSE_FEATURES = 32  # numbers in which pictures and cameras are compared


class PyramidDiscriminator(Discriminator):
    """From RGB, blocks down to 2x2, and a head; subclasses say what a block is."""

    channels_last = True
    largest_size = 512  # default of `max_size`

    def __init__(
        self,
        *,
        latent_dim: int = 256,  # numbers in z; an encoder's head guesses them
        max_size: int | None = None,  # side of the largest picture; None: the class's
        base: int = 8192,  # channels x side of the picture, until `max_channels` caps it
        max_channels: int = 400,  # most channels of any layer
        pose_conditioning: bool = False,  # judge pictures together with their cameras
    ) -> None:
        super().__init__()
        max_size = self.largest_size if max_size is None else max_size
        if max_size < 2 or max_size & (max_size - 1):
            raise ValueError(f"max_size must be a power of two of at least 2, got {max_size}")
        if base < max_size or max_channels < 1:
            raise ValueError(
                f"base must be at least max_size ({max_size}) and max_channels at least 1, "
                f"got {base} and {max_channels}"
            )
        self.image_sizes = tuple(2**i for i in range(1, int(math.log2(max_size)) + 1))
        widths = [min(max_channels, base // size) for size in reversed(self.image_sizes)]
        self.blocks = nn.ModuleList(
            self.build_block(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.from_rgb = nn.ModuleList(nn.Conv2d(3, width, 1) for width in widths)
        self.head_sizes = [1, latent_dim * self.predicts_latent, 2 * self.predicts_pose]
        self.head = nn.Conv2d(widths[-1], sum(self.head_sizes), 2)
        self.uses_cameras = pose_conditioning
        if pose_conditioning:
            self.pose_head = nn.Conv2d(widths[-1], POSE_FEATURES, 2)
            self.pose_embedding = nn.Linear(5, POSE_FEATURES)

    @abstractmethod
    def build_block(self, in_channels: int, out_channels: int) -> nn.Module:
        """A module that halves the side of its input."""

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        alpha: float = 1.0,
        cameras: Cameras | None = None,
        label: Tensor | None = None,
        patch: Patch | None = None,
    ) -> Judgement:
        """Judge pictures in [-1, 1]; labels and patches are refused.

        Cameras are looked at with `pose_conditioning` alone, and are needed then.
        """
        if label is not None or patch is not None:
            raise ValueError(f"{type(self).__name__} knows neither class labels nor patches")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
        first = self._first_block(images)
        x = self._enter(images, first)
        for i, block in enumerate(self.blocks[first:], start=first):
            if i == first + 1 and alpha < 1:
                # nearest downsampling keeps the top left pixel of each 2x2 cell
                x = torch.lerp(self._enter(images[:, :, ::2, ::2], i), x, alpha)
            x = block(x)
        logits, latent, pose = self.head(x).flatten(1).split(self.head_sizes, dim=1)
        if self.uses_cameras:
            logits = logits + self._fit(x, cameras)
        return Judgement(
            logits, latent if self.predicts_latent else None, pose if self.predicts_pose else None
        )

    def _fit(self, x: Tensor, cameras: Cameras | None) -> Float[Tensor, "batch 1"]:
        """How well pictures fit their cameras: a projection (Miyato and Koyama 2018, eq. 3)."""
        if cameras is None:
            raise ValueError("a discriminator with pose_conditioning needs the pictures' cameras")
        yaw, pitch = cameras.yaw_pitch.unbind(-1)
        angles = [yaw.cos(), yaw.sin(), (2 * yaw).cos(), (2 * yaw).sin(), pitch.cos()]
        wanted = self.pose_embedding(torch.stack(angles, dim=-1))
        seen = self.pose_head(x).flatten(1)
        return (wanted * seen).sum(dim=1, keepdim=True) / math.sqrt(POSE_FEATURES)

    def _first_block(self, images: Tensor) -> int:
        """Index of the way in for pictures of this size."""
        height, width = images.shape[-2:]
        if height != width or height not in self.image_sizes:
            raise ValueError(
                f"{type(self).__name__} takes square pictures of side "
                f"{', '.join(map(str, self.image_sizes))}; got {height}x{width}"
            )
        return len(self.image_sizes) - 1 - self.image_sizes.index(height)

    def _enter(self, images: Tensor, i: int) -> Tensor:
        return F.leaky_relu(self.from_rgb[i](images), LEAKY_SLOPE)

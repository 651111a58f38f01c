"""The contract of every discriminator: pictures in, a judgement out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from ops.registry import Registry
from ops.shapes import Float
from rendering.cameras import Cameras, Patch

DISCRIMINATORS: Registry[type["Discriminator"]] = Registry("discriminator")


@dataclass(frozen=True)
class Judgement:
    """What a discriminator thinks of a batch.

    `logits` are large for real; most discriminators have one per picture. `latent` and `pose` are
    the encoder heads' guesses of z and of (pitch, yaw) in radians, None where a discriminator has
    no such head.
    """

    logits: Float[Tensor, "batch logits"]
    latent: Float[Tensor, "batch latent"] | None = None
    pose: Float[Tensor, "batch 2"] | None = None


class Discriminator(nn.Module, ABC):
    """Picture to judgement.

    `predicts_latent` and `predicts_pose` say which heads exist, so that a curriculum that asks for
    an identity loss without one is refused before training. One that `uses_cameras` needs those of
    real pictures, too; one that `compares_pictures` judges each by the others of its batch, so that
    chunks of a batch are judged differently. One that is faster so on a GPU has its weights stored
    `channels_last` for 16-bit training there. `image_sizes` are the sizes it takes, `label_dim` its
    classes.
    """

    predicts_latent: bool = False
    predicts_pose: bool = False
    uses_cameras: bool = False
    compares_pictures: bool = False
    channels_last: bool = False
    image_sizes: tuple[int, ...] = ()
    label_dim: int = 0

    @abstractmethod
    def forward(
        self,
        images: Float[Tensor, "batch 3 size size"],
        alpha: float = 1.0,
        cameras: Cameras | None = None,
        label: Tensor | None = None,
        patch: Patch | None = None,
    ) -> Judgement:
        """Judge pictures in [-1, 1]; `alpha` fades the finest layer in from 0 to 1."""

    def group_size(self, batch: int) -> int:
        """How many pictures of a batch are compared; ValueError if it cannot judge so many."""
        return 1

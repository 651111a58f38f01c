"""Adversarial losses, and pi-GAN's own beside them: R1, identity, top-k.

The adversarial ones are the non-saturating logistic loss (Goodfellow et al. 2014) and the hinge
loss (Lim and Ye 2017).

Every function returns a mean over its batch, so that chunks of equal size can be averaged.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from discriminators.base import Judgement
from ops.shapes import Float
from rendering.cameras import Cameras
from stages import Stage


def real_loss(logits: Float[Tensor, "batch logits"], kind: str = "logistic") -> Float[Tensor, ""]:
    """The discriminator's loss on pictures that it should call real; `kind` may be "hinge"."""
    return (F.relu(1 - logits) if kind == "hinge" else F.softplus(-logits)).mean()


def fake_loss(logits: Float[Tensor, "batch logits"], kind: str = "logistic") -> Float[Tensor, ""]:
    """The discriminator's loss on pictures that it should call fake."""
    return (F.relu(1 + logits) if kind == "hinge" else F.softplus(logits)).mean()


def r1_penalty(
    logits: Float[Tensor, "batch logits"],
    images: Float[Tensor, "batch channels height width"],
    scale: float | Tensor = 1.0,
) -> Float[Tensor, ""]:
    """Mean squared norm of the logits' gradient in each real picture (Mescheder et al. 2018).

    Of several logits it is their sum's.

    `scale` is the loss scale of fp16 training: the gradient is taken of the scaled sum, where it
    does not underflow, and divided by it afterwards.
    """
    with torch.autocast(images.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(
            outputs=logits.float().sum() * scale, inputs=images, create_graph=True
        )
        return (gradient / scale).square().sum(dim=(1, 2, 3)).mean()


def identity_loss(
    judgement: Judgement, z: Float[Tensor, "batch latent"], cameras: Cameras, stage: Stage
) -> Tensor | float:
    """How badly the discriminator recognises the latent and pose of fakes (pi-GAN, supplement)."""
    loss: Tensor | float = 0.0
    if stage.z_lambda > 0:
        assert judgement.latent is not None
        loss = loss + stage.z_lambda * F.mse_loss(judgement.latent.float(), z)
    if stage.pos_lambda > 0:
        assert judgement.pose is not None
        pitch_yaw = cameras.yaw_pitch.flip(-1)
        loss = loss + stage.pos_lambda * F.mse_loss(judgement.pose.float(), pitch_yaw)
    return loss


def generator_loss(
    logits: Float[Tensor, "batch logits"], kept_share: float, kind: str = "logistic"
) -> Float[Tensor, ""]:
    """The generator's loss on the share of its fakes that the discriminator likes best.

    (Sinha et al. 2020, top-k training of GANs.) Of several logits the mean ranks a picture.
    """
    best = logits.mean(1).topk(math.ceil(kept_share * len(logits))).indices
    kept = logits[best]
    return -kept.mean() if kind == "hinge" else F.softplus(-kept).mean()

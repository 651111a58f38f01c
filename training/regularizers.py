"""What StyleGAN's recipe adds to the adversarial loss: pure functions for a trainer to call.

Penalties are per sample, so that a caller chooses mean and weight. A lazy regulariser runs every
k-th step, its loss multiplied by k, and slows its player's Adam accordingly (StyleGAN2, app. B).
"""

import math

import torch
from torch import Tensor

from ops.resample import filter2d
from ops.shapes import Float


def gradient_penalty(
    logits: Float[Tensor, "batch 1"], images: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, " batch"]:
    """R1: squared norm of the logits' gradient in each picture (Mescheder et al. 2018).

    `images` are the reals before blur and augmentation; the loss is gamma / 2 times the mean.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3))


def path_lengths(
    images: Float[Tensor, "batch channels height width"],
    w: Tensor,
    noise: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """How far pictures move per step in w: |J^T y|, averaged over slots (StyleGAN2, section 3.2).

    `noise` is standard normal; `images` must have been made of `w`, (batch, ..., numbers), with
    gradients.
    """
    y = noise / math.sqrt(noise.shape[2] * noise.shape[3])
    (gradient,) = torch.autograd.grad((images * y).sum(), w, create_graph=True)
    squares = gradient.square().sum(-1).reshape(len(w), -1).mean(1)
    return squares.clamp(min=1e-16).sqrt()  # a picture that nothing moves, as of an empty scene


def path_length_penalty(
    lengths: Float[Tensor, " batch"], mean: Float[Tensor, ""], decay: float = 0.01
) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
    """Squared distance of path lengths from their moving average, and that average, moved.

    The moved average is what lengths are compared with; gradients flow into its newest share. The
    average to remember, the second result, is without gradient.
    """
    mean = mean.lerp(lengths.mean(), decay)
    return (lengths - mean).square(), mean.detach()


def mixing_cutoff(num_ws: int, probability: float, generator: torch.Generator | None = None) -> int:
    """The first slot that a second style takes, `num_ws` for none (StyleGAN, section 3.1).

    One for a whole batch: uniform in 1..num_ws - 1 with `probability`.
    """
    device = None if generator is None else generator.device
    cutoff = torch.randint(1, num_ws, [], generator=generator, device=device)
    mixes = torch.rand([], generator=generator, device=device) < probability
    return int(cutoff) if mixes else num_ws


def mix_styles(
    w: Float[Tensor, "batch slots w_dim"], other: Float[Tensor, "batch slots w_dim"], cutoff: int
) -> Float[Tensor, "batch slots w_dim"]:
    """The coarse slots of one style and, from `cutoff` on, the fine ones of another."""
    return torch.cat([w[:, :cutoff], other[:, cutoff:]], dim=1)


def blur(
    images: Float[Tensor, "batch channels height width"], sigma: float
) -> Float[Tensor, "batch channels height width"]:
    """Low-pass pictures by 2^-(x / sigma)^2, cut off at 3 sigma (StyleGAN3, section 3.3).

    Keeps the discriminator of a young network from its high frequencies; reals and fakes alike.
    """
    reach = math.floor(3 * sigma)
    if reach <= 0:
        return images
    x = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    taps = torch.exp2(-(x / sigma).square())
    return filter2d(images, taps / taps.sum())


def blur_sigma(images_seen: float, initial: float, fade_kimg: float) -> float:
    """`initial` at first, falling linearly to 0 over the first `fade_kimg` thousand pictures."""
    if fade_kimg <= 0:
        return 0.0
    return max(1 - images_seen / (fade_kimg * 1000), 0) * initial


def lazy_adam(
    lr: float, betas: tuple[float, float], interval: int
) -> tuple[float, tuple[float, float]]:
    """Adam's constants for a player that is also updated by a regulariser every `interval` steps.

    Over `interval` + 1 updates they add up to `interval` of the given ones.
    """
    ratio = interval / (interval + 1)
    return lr * ratio, (float(betas[0]) ** ratio, float(betas[1]) ** ratio)


def half_life_decay(
    batch_size: int, half_life_kimg: float, images_seen: int, rampup: float | None = None
) -> float:
    """What a step of `batch_size` pictures leaves of an average with this half-life.

    With `rampup` the half-life is at most that share of the pictures seen before this step.
    """
    half_life = half_life_kimg * 1000
    if rampup is not None:
        half_life = min(half_life, images_seen * rampup)
    return 0.5 ** (batch_size / max(half_life, 1e-8))

"""Perceptual path length: how fast pictures change along a path through latents.

Karras et al. 2019, section 4.1, in StyleGAN3's form: the squared perceptual distance of two
pictures that lie `epsilon` apart on the path, divided by its square; the mean over many paths
without the outermost percent at either end. Smoother is lower.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Float

EPSILON = 1e-4
LARGEST = 256  # pixels per side that the perceptual distance sees
SPACES = ("w", "z")


def path_distances(
    style: Callable[[Tensor], Tensor],
    picture: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    z: tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]],
    t: Float[Tensor, " batch"],
    *,
    space: str = "w",
    epsilon: float = EPSILON,
    crop: bool = False,
) -> Float[Tensor, " batch"]:
    """Squared distance per squared step, from t to t + epsilon between two latents each.

    `style` makes styles of latents, `picture` pictures in [-1, 1] of styles; `distance` compares
    RGB pictures whose values run from 0 to 255. Paths are straight in w, great circles in z.
    `crop` keeps the centre, where faces are.
    """
    if space not in SPACES:
        raise ValueError(f"space must be one of {SPACES}, got {space!r}")
    if space == "w":
        start, end = style(torch.cat(z)).chunk(2)
        times = t.to(start).reshape(-1, *[1] * (start.ndim - 1))
        points = [torch.lerp(start, end, times), torch.lerp(start, end, times + epsilon)]
    else:
        zs = [slerp(*z, t[:, None]), slerp(*z, t[:, None] + epsilon)]
        points = list(style(torch.cat(zs)).chunk(2))
    a, b = (_as_seen(picture(w), crop) for w in points)
    return distance(a, b) / epsilon**2


def trimmed_mean(distances: Float[Tensor, " n"]) -> float:
    """Mean of what lies between the 1st and the 99th percentile, both included."""
    values = distances.double().cpu().numpy()
    low = np.percentile(values, 1, method="lower")
    high = np.percentile(values, 99, method="higher")
    return float(values[(values >= low) & (values <= high)].mean())


def slerp(
    a: Float[Tensor, "batch n"], b: Float[Tensor, "batch n"], t: Float[Tensor, "batch 1"]
) -> Float[Tensor, "batch n"]:
    """The unit vector at share t of the way from the direction of a to that of b."""
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    cosine = (a * b).sum(-1, keepdim=True)
    angle = t * torch.acos(cosine)
    across = b - cosine * a
    across = across / across.norm(dim=-1, keepdim=True)
    point = a * angle.cos() + across * angle.sin()
    return point / point.norm(dim=-1, keepdim=True)


def _as_seen(images: Tensor, crop: bool) -> Tensor:
    """RGB, 0 to 255, the face alone if asked for, at most 256 pixels."""
    size = images.shape[-1]
    if crop:
        eighth = size // 8
        images = images[:, :, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
    if size > LARGEST:
        images = F.avg_pool2d(images, size // LARGEST)
    images = (images + 1) * (255 / 2)
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images

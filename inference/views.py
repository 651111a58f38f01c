"""Latents by seed, and pictures of them from chosen cameras."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from generators import Generator
from ops.shapes import Float, Int
from rendering.cameras import Cameras
from rendering.renderer import Rendering
from rendering.settings import RenderSettings
from stages import Stage


def seeded_latents(
    seeds: Sequence[int], latent_dim: int, z_dist: str = "gaussian"
) -> Float[Tensor, "seeds latent"]:
    """One latent per seed, each drawn from a generator of its own.

    So seed 7 is the same face whatever the batch, the number of GPUs or the other seeds.
    """
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([draw_latent(rng, latent_dim, z_dist) for rng in rngs])


def draw_latent(rng: torch.Generator, latent_dim: int, z_dist: str) -> Float[Tensor, " latent"]:
    """One latent, normal or with `z_dist` "uniform" from (-1, 1)."""
    if z_dist == "uniform":
        return 2 * torch.rand(latent_dim, generator=rng) - 1
    return torch.randn(latent_dim, generator=rng)


def seeded_labels(generator: Generator, seeds: Sequence[int]) -> Int[Tensor, " seeds"] | None:
    """A class per seed, all of them in turn; None for a generator without classes."""
    if not generator.label_dim:
        return None
    return torch.tensor(seeds, device=generator.w_avg.device) % generator.label_dim


def front_pitch(stage: Stage) -> float:
    """The pitch that pictures are shown from: the middle of the pose law, in radians.

    For "spherical_uniform", v_mean is not an angle but a share of the sphere; the middle of what it
    draws is arccos(1 - 2 v_mean / pi), where the original's tools looked from, too.
    """
    if stage.sample_dist == "spherical_uniform":
        return math.acos(1 - 2 * min(max(stage.v_mean / math.pi, 0.0), 1.0))
    return stage.v_mean


@torch.no_grad()
def render_views(
    generator: Generator,
    w: Tensor,
    cameras: Cameras,
    settings: RenderSettings,
    *,
    batch_size: int = 1,
) -> Iterator[Rendering]:
    """Render style i from camera i, `batch_size` at a time; a rendering per batch."""
    if len(w) != len(cameras):
        raise ValueError(f"need a camera per style, got {len(w)} styles, {len(cameras)} cameras")
    for start in range(0, len(w), batch_size):
        part = slice(start, start + batch_size)
        yield generator.synthesis(w[part], cameras[part], settings)

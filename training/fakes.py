"""What fakes are made of: fresh latents, cameras, labels and mixed styles for every step."""

import torch
from torch import Tensor

from generators import Generator
from generators.style import StyleGenerator
from rendering.cameras import Cameras
from stages import Stage
from training.players import Draw
from training.random import Streams
from training.regularizers import mixing_cutoff


def draw_fakes(
    stage: Stage, generator: Generator, streams: Streams, labels: Tensor | None = None
) -> list[Draw]:
    """A draw per chunk of the batch, each from the stream of its purpose.

    `labels` are those of the data, of which the fakes' are drawn.
    """
    size = stage.batch_size // stage.batch_split
    draws = []
    for _ in range(stage.batch_split):
        z = _latents(stage, size, streams)
        cameras = Cameras.sample(stage.pose_law(), size, streams.poses)
        label, other, cutoff = None, None, 0
        if stage.label_dim:
            assert labels is not None
            picked = torch.randint(len(labels), (size,), generator=streams.chance)
            label = labels[picked].to(z.device)
        if stage.style_mixing > 0:
            assert isinstance(generator, StyleGenerator)
            cutoff = mixing_cutoff(generator.num_ws, stage.style_mixing, streams.chance)
            other = _latents(stage, size, streams) if cutoff < generator.num_ws else None
        draws.append(Draw(z, cameras, label, other, cutoff))
    return draws


def _latents(stage: Stage, size: int, streams: Streams) -> Tensor:
    options = {"generator": streams.latents, "device": streams.latents.device}
    if stage.z_dist == "uniform":
        return 2 * torch.rand(size, stage.latent_dim, **options) - 1
    return torch.randn(size, stage.latent_dim, **options)

"""Sample grids along the way: the same faces from the same side, so that progress shows."""

import dataclasses
from pathlib import Path

import torch

from generators import Generator
from inference.media import save_png, tile, to_uint8
from inference.views import front_pitch, render_views, seeded_labels, seeded_latents
from rendering.cameras import Cameras
from stages import Stage
from training.log import RunLog

COLUMNS = 5
TILT = 0.5  # radians by which the tilted grids are turned
RANDOM_PSI = 0.7
BATCH = 5


def save_previews(
    directory: Path, step: int, stage: Stage, generator: Generator, ema: Generator, log: RunLog
) -> None:
    """Write samples/<step>_{fixed,tilted,fixed_ema,tilted_ema,random}.png.

    `random` shows latents of this step alone, truncated, so that collapse cannot hide.
    """
    fixed = list(range(stage.sample_images))
    fresh = [step * 1000 + seed for seed in fixed]
    training = generator.training
    generator.eval()
    ema.update_w_avg()
    for name, network, seeds, tilt, psi in (
        ("fixed", generator, fixed, 0.0, 1.0),
        ("tilted", generator, fixed, TILT, 1.0),
        ("fixed_ema", ema, fixed, 0.0, 1.0),
        ("tilted_ema", ema, fixed, TILT, 1.0),
        ("random", ema, fresh, 0.0, RANDOM_PSI),
    ):
        grid = preview_grid(network, stage, seeds, tilt=tilt, psi=psi)
        save_png(directory / f"{step:06d}_{name}.png", grid)
        log.picture(step, name, grid)
    generator.train(training)


@torch.no_grad()
def preview_grid(
    generator: Generator, stage: Stage, seeds: list[int], *, tilt: float, psi: float
) -> torch.Tensor:
    """Pictures of seeds as one grid of bytes (height, width, 3), `tilt` radians off the front."""
    device = generator.w_avg.device
    z = seeded_latents(seeds, generator.latent_dim, stage.z_dist).to(device)
    yaw = torch.full((len(seeds),), stage.h_mean + tilt, device=device)
    cameras = Cameras.from_angles(yaw, front_pitch(stage), stage.fov, stage.radius)
    w = generator.mapping(z, seeded_labels(generator, seeds), cameras, psi=psi)
    settings = dataclasses.replace(
        stage.eval_settings(), resolution=stage.sample_size or stage.img_size
    )
    views = render_views(generator, w, cameras, settings, batch_size=BATCH)
    return tile(torch.cat([to_uint8(v.image) for v in views]), COLUMNS)

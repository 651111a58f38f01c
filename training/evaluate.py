"""Measuring a run while it trains: the averaged generator against the data it learns from."""

from typing import Any

import torch

from inference.media import to_uint8
from inference.views import seeded_latents
from metrics.sliced_wasserstein import PATCH, PatchSet, swd
from rendering.cameras import Cameras
from training.random import derive_seed
from training.trainer import Trainer

BATCH = 16
SEED = 20_000_000  # far from the latents that people look at


@torch.no_grad()
def measure(trainer: Trainer) -> dict[str, Any]:
    """Sliced Wasserstein distance of `eval_images` fakes to as many training pictures.

    Fakes are those of ema.pth, untruncated, from the evaluation pose law; each depends on its own
    number alone, so that the number of processes does not matter. They are rounded to bytes as
    they would be on disk. Pictures smaller than a patch are not measured.
    """
    stage, world = trainer.stage, trainer.world
    if stage.img_size < PATCH:
        return {}
    generator = trainer.state.emas["ema.pth"].module
    count = min(stage.eval_images, len(trainer.dataset))
    numbers = range(world.rank, count, world.size)
    law, settings = stage.pose_law(evaluation=True), stage.eval_settings()
    real, fake = PatchSet(seed=world.rank), PatchSet(seed=world.rank)
    for start in range(0, len(numbers), BATCH):
        part = numbers[start : start + BATCH]
        z = seeded_latents([SEED + n for n in part], generator.latent_dim, stage.z_dist)
        poses = [torch.Generator().manual_seed(derive_seed("measured pose", n)) for n in part]
        views = Cameras.cat([Cameras.sample(law, 1, rng) for rng in poses]).to(world.device)
        indices = torch.tensor(part)
        batch = trainer.dataset.batch(indices, torch.zeros(len(part), dtype=torch.bool))
        label = None
        if generator.label_dim:  # the data's classes in the data's proportions
            assert batch.labels is not None
            label = batch.labels.to(world.device)
        w = generator.mapping(z.to(world.device), label, views)
        image = generator.synthesis(w, views, settings).image
        fake.add(to_uint8(image).permute(0, 3, 1, 2))
        real.add(to_uint8(batch.images).permute(0, 3, 1, 2))
    sets = world.gather((real, fake))
    if not world.is_main:
        return {}
    all_real, all_fake = PatchSet(), PatchSet()
    all_real.extend(pair[0] for pair in sets)
    all_fake.extend(pair[1] for pair in sets)
    return {"protocol": f"swd, {count} images, {stage.img_size} px", **swd(all_real, all_fake)}

"""From a stage to players: networks, optimisers, precision; and what cannot work together."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from curriculums import Curriculum, stage_at, stage_starts
from discriminators import DISCRIMINATORS
from discriminators.base import Discriminator
from inference.checkpoint import build_generator, construct
from ops.registry import nearest
from stages import Stage
from training.distributed import World
from training.random import derive_seed
from training.steps import Players, generator_groups, make_optimizer, set_hyperparameters


def build_players(
    stage: Stage, seed: int, world: World, rng: torch.Generator
) -> tuple[Players, dict[str, dict[str, Any]]]:
    """Make both players, the same in every process, and the records that rebuild them.

    `rng` feeds jitter and noise. The records are keyed by the networks' file names.
    """
    device = world.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        generator, record_g = build_generator(stage)
        discriminator, record_d = build_discriminator(stage)
    generator, discriminator = generator.to(device), discriminator.to(device)
    players = Players(
        generator=generator,
        discriminator=discriminator,
        optimizer_g=make_optimizer(generator_groups(generator), stage, device),
        optimizer_d=make_optimizer([{"params": discriminator.parameters()}], stage, device),
        scaler=torch.amp.GradScaler(device.type, enabled=uses_scaler(stage, device)),
        world=world,
        rng=rng,
        dtype=compute_dtype(stage.precision, device),
    )
    set_hyperparameters(players, stage)
    return players, {"generator.pth": record_g, "discriminator.pth": record_d}


def build_discriminator(stage: Stage) -> tuple[Discriminator, dict[str, Any]]:
    """Make the discriminator that a stage names, and the record that rebuilds it."""
    arguments = DISCRIMINATORS.arguments(
        stage.discriminator, vars(stage), stage.discriminator_options
    )
    discriminator = construct(DISCRIMINATORS[stage.discriminator], arguments)
    name = DISCRIMINATORS.canonical(stage.discriminator)
    return discriminator, {"class": name, "arguments": arguments}


def check_options(key: str, options: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Refuse a name among a curriculum's options that is no keyword argument of `function`."""
    parameters = inspect.signature(function).parameters.values()
    allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in allowed:
            raise ValueError(f"{key} has no {name!r}{nearest(name, allowed)}")


def check_heads(curriculum: Curriculum, discriminator: Discriminator) -> None:
    """Refuse identity losses without a head, and image sizes that the discriminator lacks."""
    for start in stage_starts(curriculum):
        stage = stage_at(curriculum, start)
        for key, has_head in (
            ("z_lambda", discriminator.predicts_latent),
            ("pos_lambda", discriminator.predicts_pose),
        ):
            if getattr(stage, key) > 0 and not has_head:
                raise ValueError(
                    f"{key} needs an encoder discriminator, {stage.discriminator} is none"
                )
        sizes = discriminator.image_sizes
        if sizes and stage.img_size not in sizes:
            raise ValueError(
                f"{stage.discriminator} takes images of {', '.join(map(str, sorted(sizes)))} "
                f"pixels, got {stage.img_size} (stage {start})"
            )


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products' inputs: "auto" is fp16 on a GPU, fp32 elsewhere."""
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def uses_scaler(stage: Stage, device: torch.device) -> bool:
    """Whether gradients need a loss scale: in fp16, unless the curriculum disables it."""
    return compute_dtype(stage.precision, device) == torch.float16 and not stage.disable_scaler

"""From a stage to players: networks, optimisers, precision; and what cannot work together."""

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from curriculums import Curriculum, stage_at, stage_starts
from discriminators import DISCRIMINATORS
from discriminators.base import Discriminator
from generators.base import RadianceGenerator
from generators.style import StyleGenerator
from inference.checkpoint import build_generator, construct
from ops.encoding import draw_poses_from
from ops.registry import nearest
from stages import Stage
from training.adaptive import make_augmentation
from training.distributed import World
from training.fakes import make_patch_law
from training.players import Players
from training.random import derive_seed
from training.steps import generator_groups, make_optimizer, set_hyperparameters

logger = logging.getLogger(__name__)


def build_players(
    stage: Stage,
    seed: int,
    world: World,
    rng: torch.Generator,
    chance: torch.Generator | None = None,
) -> tuple[Players, dict[str, dict[str, Any]]]:
    """Make both players, the same in every process, and the records that rebuild them.

    `rng` feeds jitter, noise and the gaps in poses, `chance`, on the CPU, the augmentation. The
    records are keyed by the networks' file names.
    """
    device = world.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        generator, record_g = build_generator(stage)
        discriminator, record_d = build_discriminator(stage)
    generator, discriminator = generator.to(device), discriminator.to(device)
    dtype = compute_dtype(stage.precision, device)
    if device.type == "cuda" and dtype != torch.float32 and discriminator.channels_last:
        # activations follow the weights; pyright's stubs of `to` lack a format alone
        discriminator.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    draw_poses_from(generator, rng)
    draw_poses_from(discriminator, rng)
    augment, control = make_augmentation(
        stage.augment,
        preset=stage.augment_preset,
        p=stage.augment_p,
        target=stage.ada_target,
        interval=stage.ada_interval,
        kimg=stage.ada_kimg,
    )
    players = Players(
        generator=generator,
        discriminator=discriminator,
        optimizer_g=make_optimizer(generator_groups(generator), stage, device),
        optimizer_d=make_optimizer([{"params": discriminator.parameters()}], stage, device),
        scaler=torch.amp.GradScaler(device.type, enabled=uses_scaler(stage, device)),
        world=world,
        rng=rng,
        dtype=dtype,
        augment=None if augment is None else augment.to(device),
        control=control,
        chance=chance,
        path_length_mean=torch.zeros((), device=device),
    )
    set_hyperparameters(players, stage)
    return players, {"generator.pth": record_g, "discriminator.pth": record_d}


def build_discriminator(stage: Stage) -> tuple[Discriminator, dict[str, Any]]:
    """Make the discriminator that a stage names, and the record that rebuilds it."""
    arguments = DISCRIMINATORS.arguments(
        stage.discriminator, stage.network_values(), stage.discriminator_options
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


def check_players(curriculum: Curriculum, players: Players) -> None:
    """Refuse what the networks cannot do, in any stage, before work starts."""
    generator, discriminator = players.generator, players.discriminator
    for start in stage_starts(curriculum):
        stage = stage_at(curriculum, start)
        where = f"(stage {start})"
        for key, able in (
            ("z_lambda", discriminator.predicts_latent),
            ("pos_lambda", discriminator.predicts_pose),
        ):
            if getattr(stage, key) > 0 and not able:
                raise ValueError(
                    f"{key} needs an encoder discriminator, {stage.discriminator} is none"
                )
        if stage.style_mixing > 0 and not isinstance(generator, StyleGenerator):
            raise ValueError(
                f"style_mixing needs a style per layer, {stage.generator} has one for all {where}"
            )
        for name, network in ((stage.generator, generator), (stage.discriminator, discriminator)):
            if network.label_dim != stage.label_dim:
                raise ValueError(
                    f"label_dim is {stage.label_dim}, but {name} takes "
                    f"{network.label_dim or 'no'} classes {where}"
                )
        if stage.patch_size is not None:
            if not isinstance(generator, RadianceGenerator):
                raise ValueError(f"patch_size: {stage.generator} makes whole pictures {where}")
            make_patch_law(stage)
        if isinstance(generator, RadianceGenerator) and generator.half_side is not None:
            _check_view(stage, generator.half_side, where)
        _check_size(stage.generator, (generator.resolution,), stage.img_size, where)
        seen = stage.patch_size or stage.img_size
        _check_size(stage.discriminator, discriminator.image_sizes, seen, where)
        try:
            discriminator.group_size(stage.batch_size // stage.batch_split)
        except ValueError as error:
            raise ValueError(
                f"batch_size {stage.batch_size} in {stage.batch_split} parts: {error} {where}"
            ) from error


def _check_view(stage: Stage, half_side: float, where: str) -> None:
    """Refuse rays that miss the cube of a scene, and warn of a view that is larger than it."""
    near, far, radius = stage.ray_start, stage.ray_end, stage.radius
    numbers = (
        f"samples lie {near:g} to {far:g} from cameras whose distance is {radius:g}, and the cube "
        f"of {stage.generator} reaches {half_side:g} from the origin"
    )
    if max(near - radius, radius - far) > math.sqrt(3) * half_side:
        raise ValueError(f"no sample is in the scene: {numbers}; change ray_start, ray_end {where}")
    seen = max(radius - near, far - radius, radius * math.tan(math.radians(stage.fov) / 2))
    if seen > half_side * (1 + 1e-6):
        logger.warning(
            "%s, but %.4g of it is in view: beyond the cube all is of one colour and density; "
            "enlarge cube_scale or narrow fov, ray_start, ray_end %s",
            *(numbers, seen, where),
        )


def _check_size(name: str, sizes: Sequence[int | None], size: int, where: str) -> None:
    if sizes and size not in sizes and None not in sizes:
        allowed = ", ".join(map(str, sorted(s for s in sizes if s)))
        raise ValueError(f"{name} has pictures of {allowed} pixels, got {size} {where}")


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of matrix products' inputs: "auto" is fp16 on a GPU, fp32 elsewhere."""
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def uses_scaler(stage: Stage, device: torch.device) -> bool:
    """Whether gradients need a loss scale: in fp16, unless the curriculum disables it."""
    return compute_dtype(stage.precision, device) == torch.float16 and not stage.disable_scaler

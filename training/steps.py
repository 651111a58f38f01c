"""One step of each player, computed in chunks: losses, gradients, clipping, update.

What is random comes in from outside (latents and cameras as `Draw`s, the renderer's generator), so
that a step is a function of its arguments.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam

from discriminators.base import Discriminator
from generators import Generator
from ops.shapes import Float
from rendering.cameras import Cameras
from rendering.settings import RenderSettings
from stages import Stage
from training import losses
from training.distributed import World


@dataclass(frozen=True)
class Draw:
    """What one chunk of fakes is made of."""

    z: Float[Tensor, "batch latent"]
    cameras: Cameras
    label: Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """What a step needs to know of the curriculum: the stage, the step, fade-in, settings."""

    stage: Stage
    step: int
    alpha: float
    settings: RenderSettings


@dataclass
class Players:
    """Both networks with their optimisers, and the precision that they compute in."""

    generator: Generator
    discriminator: Discriminator
    optimizer_g: Adam
    optimizer_d: Adam
    scaler: torch.amp.GradScaler
    world: World
    rng: torch.Generator
    dtype: torch.dtype = torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for a forward pass, or nothing in fp32."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.world.device.type, dtype=self.dtype, enabled=enabled)

    def fakes(self, draw: Draw, moment: Moment) -> Tensor:
        """Pictures of a draw, in training's settings."""
        with self.autocast():
            w = self.generator.mapping(draw.z, draw.label, draw.cameras)
            made = self.generator.synthesis(w, draw.cameras, moment.settings, generator=self.rng)
        return made.image


def discriminator_step(
    players: Players,
    moment: Moment,
    images: Float[Tensor, "batch 3 size size"],
    draws: Sequence[Draw],
    cameras: Cameras | None = None,
) -> dict[str, Tensor]:
    """Teach the discriminator a batch of reals against fakes, a draw per chunk.

    `cameras` are those of the reals, where they are known.
    """
    stage, chunks = moment.stage, images.chunk(len(draws))
    stats: dict[str, Tensor] = {}
    players.discriminator.requires_grad_(True)
    for i, (real, draw) in enumerate(zip(chunks, draws, strict=True)):
        with torch.no_grad(), players.generator.tracking():
            fake = players.fakes(draw, moment)
        poses = None if cameras is None else cameras[i * len(real) : (i + 1) * len(real)]
        real = real.detach().requires_grad_(stage.r1_lambda > 0)
        with players.autocast():
            on_real = players.discriminator(real, moment.alpha, poses, draw.label)
            on_fake = players.discriminator(fake, moment.alpha, draw.cameras, draw.label)
        real_logits, fake_logits = on_real.logits.float(), on_fake.logits.float()
        loss = losses.fake_loss(fake_logits) + losses.real_loss(real_logits)
        _add(stats, "loss_d", loss, chunks)
        if stage.r1_lambda > 0:
            penalty = losses.r1_penalty(real_logits, real, _scale(players.scaler))
            loss = loss + 0.5 * stage.r1_lambda * penalty
            _add(stats, "r1", penalty, chunks)
        identity = losses.identity_loss(on_fake, draw.z, draw.cameras, stage)
        if isinstance(identity, Tensor):
            loss = loss + identity
            _add(stats, "identity_d", identity, chunks)
        _add(stats, "real_logits", real_logits.mean(), chunks)
        _add(stats, "fake_logits", fake_logits.mean(), chunks)
        players.scaler.scale(loss / len(chunks)).backward()
    parameters = list(players.discriminator.parameters())
    stats["norm_d"] = _update(players, players.optimizer_d, parameters, stage.grad_clip)
    return stats


def generator_step(players: Players, moment: Moment, draws: Sequence[Draw]) -> dict[str, Tensor]:
    """Teach the generator to please the discriminator, whose weights rest meanwhile."""
    stage = moment.stage
    divisor = 1 if "summed_chunks" in stage.compat else len(draws)
    stats: dict[str, Tensor] = {}
    players.discriminator.requires_grad_(False)
    for draw in draws:
        fake = players.fakes(draw, moment)
        with players.autocast():
            judged = players.discriminator(fake, moment.alpha, draw.cameras, draw.label)
        loss = losses.generator_loss(judged.logits.float(), stage.kept_share(moment.step))
        _add(stats, "loss_g", loss, draws)
        identity = losses.identity_loss(judged, draw.z, draw.cameras, stage)
        if isinstance(identity, Tensor):
            loss = loss + identity
            _add(stats, "identity_g", identity, draws)
        players.scaler.scale(loss / divisor).backward()
    parameters = list(players.generator.parameters())
    stats["norm_g"] = _update(players, players.optimizer_g, parameters, stage.grad_clip)
    players.scaler.update()
    return stats


def make_optimizer(groups: list[dict], stage: Stage, device: torch.device) -> Adam:
    """Adam, fused where the device has it; learning rates come from `set_hyperparameters`."""
    fused = device.type in ("cpu", "cuda")
    return Adam(groups, lr=0.0, betas=stage.betas, weight_decay=stage.weight_decay, fused=fused)


def generator_groups(generator: Generator) -> list[dict]:
    """The generator's parameters, and its mapping network's apart."""
    mapping = generator.mapping_parameters()
    apart = {id(p) for p in mapping}
    rest = [p for p in generator.parameters() if id(p) not in apart]
    return [{"params": rest}] + ([{"params": mapping}] if mapping else [])


def set_hyperparameters(players: Players, stage: Stage) -> None:
    """Bring both optimisers to a stage's learning rates, betas and weight decay."""
    common = {"betas": stage.betas, "weight_decay": stage.weight_decay}
    for group in players.optimizer_d.param_groups:
        group.update(lr=stage.disc_lr, **common)
    for index, group in enumerate(players.optimizer_g.param_groups):
        slow = index == 1 and stage.unique_lr
        group.update(lr=stage.gen_lr * (stage.mapping_lr_mul if slow else 1), **common)


def restore_scale(scaler: torch.amp.GradScaler) -> None:
    """Bring a loss scale that overflows have driven below 1 back to 1, as the original does."""
    if scaler.is_enabled() and scaler.get_scale() < 1:
        scaler.update(1.0)


def _update(
    players: Players, optimizer: Adam, parameters: list[nn.Parameter], grad_clip: float
) -> Tensor:
    """Average over processes, unscale, clip and step; returns the norm before clipping.

    A gradient that is not finite changes nothing: the optimiser's kernel skips on `found_inf`
    without the host having to look, as it does under a gradient scaler.
    """
    players.world.average_gradients(parameters)
    players.scaler.unscale_(optimizer)
    norm = clip_grad_norm_(parameters, grad_clip)
    if players.scaler.is_enabled():
        players.scaler.step(optimizer)
    elif optimizer.defaults["fused"]:
        optimizer.found_inf = (~norm.isfinite()).float()  # pyright: ignore
        optimizer.step()
        del optimizer.found_inf  # pyright: ignore
    elif norm.isfinite():
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def _scale(scaler: torch.amp.GradScaler) -> float | Tensor:
    return scaler.scale(torch.ones((), device=scaler._device)) if scaler.is_enabled() else 1.0


def _add(stats: dict[str, Tensor], name: str, value: Tensor, chunks: Sequence) -> None:
    """Collect a chunk's share of a batch mean; nothing here waits for the device."""
    share = value.detach() / len(chunks)
    stats[name] = stats[name] + share if name in stats else share

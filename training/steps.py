"""One step of each player, computed in chunks: losses, gradients, clipping, update.

Lazy regularisers are updates of their own, as in StyleGAN2 (appendix B).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam

from generators import Generator
from stages import Stage
from training import losses
from training.players import Draw, Moment, Players, Reals
from training.regularizers import lazy_adam, path_length_penalty, path_lengths


def both_steps(
    players: Players, moment: Moment, reals: Reals, draws: Callable[[], list[Draw]]
) -> dict[str, Tensor]:
    """A step of each player, with draws of its own; in between, where it is due, lazy R1."""
    stage = moment.stage
    stats = discriminator_step(players, moment, reals, draws())
    if r1_is_due(moment):
        stats |= r1_step(players, moment, reals, stage.batch_split)
    return stats | generator_step(players, moment, draws())


def r1_is_due(moment: Moment) -> bool:
    """Whether this is a step with an R1 penalty of its own."""
    stage = moment.stage
    return stage.r1_lambda > 0 and stage.r1_interval > 1 and moment.step % stage.r1_interval == 0


def discriminator_step(
    players: Players, moment: Moment, reals: Reals, draws: Sequence[Draw]
) -> dict[str, Tensor]:
    """Teach the discriminator a batch of reals against fakes, a draw per chunk.

    An R1 penalty of every step is part of it; a lazy one is `r1_step`.
    """
    stage, chunks = moment.stage, reals.chunks(len(draws))
    with_r1 = stage.r1_lambda > 0 and stage.r1_interval == 1
    stats: dict[str, Tensor] = {}
    players.discriminator.requires_grad_(True)
    for real, draw in zip(chunks, draws, strict=True):
        with torch.no_grad():
            fake = players.fakes(draw, moment, track=True)
        images = real.images.detach().requires_grad_(with_r1)
        on_fake, on_real = players.judge(fake, moment, draw), players.judge(images, moment, real)
        real_logits, fake_logits = on_real.logits.float(), on_fake.logits.float()
        if players.control is not None:
            players.control.report(real_logits)
        loss = losses.fake_loss(fake_logits, stage.adversarial_loss)
        loss = loss + losses.real_loss(real_logits, stage.adversarial_loss)
        _add(stats, "loss_d", loss, chunks)
        if with_r1:
            penalty = losses.r1_penalty(real_logits, images, _scale(players.scaler))
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


def r1_step(players: Players, moment: Moment, reals: Reals, chunks: int) -> dict[str, Tensor]:
    """Penalise the discriminator's slope at real pictures: lazy R1, an update of its own."""
    stage = moment.stage
    stats: dict[str, Tensor] = {}
    players.scaler.update()
    players.discriminator.requires_grad_(True)
    for real in reals.chunks(chunks):
        images = real.images.detach().requires_grad_(True)
        logits = players.judge(images, moment, real).logits.float()
        if players.control is not None:
            players.control.report(logits)
        penalty = losses.r1_penalty(logits, images, _scale(players.scaler))
        stats["r1"] = stats.get("r1", 0) + penalty.detach() / chunks
        loss = 0.5 * stage.r1_lambda * stage.r1_interval * penalty
        players.scaler.scale(loss / chunks).backward()
    parameters = list(players.discriminator.parameters())
    stats["norm_r1"] = _update(players, players.optimizer_d, parameters, stage.grad_clip)
    return stats


def generator_step(players: Players, moment: Moment, draws: Sequence[Draw]) -> dict[str, Tensor]:
    """Teach the generator to please the discriminator, whose weights rest meanwhile."""
    stage = moment.stage
    divisor = 1 if "summed_chunks" in stage.compat else len(draws)
    stats: dict[str, Tensor] = {}
    players.discriminator.requires_grad_(False)
    for draw in draws:
        fake = players.fakes(draw, moment)
        judged = players.judge(fake, moment, draw)
        kept, kind = stage.kept_share(moment.step), stage.adversarial_loss
        loss = losses.generator_loss(judged.logits.float(), kept, kind)
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


def path_length_step(players: Players, moment: Moment, draws: Sequence[Draw]) -> dict[str, Tensor]:
    """Even out how far pictures move per step in w: an update of the generator of its own.

    Always lazy. The mean length that all processes share moves once per step.
    """
    stage = moment.stage
    stats: dict[str, Tensor] = {}
    mean = players.path_length_mean
    for draw in draws:
        draw = draw.first(max(len(draw.z) // stage.pl_batch_shrink, 1))
        w = players.styles(draw)
        images = players.pictures(w, draw, moment).float()
        noise = torch.randn(images.shape, generator=players.rng, device=images.device)
        penalty, moved = path_length_penalty(path_lengths(images, w, noise), mean, stage.pl_decay)
        _add(stats, "path_length", moved, draws)
        _add(stats, "pl_penalty", penalty.mean(), draws)
        loss = stage.pl_lambda * stage.pl_interval * penalty.mean()
        players.scaler.scale(loss / len(draws)).backward()
    players.path_length_mean = players.world.mean(stats["path_length"].clone())
    parameters = list(players.generator.parameters())
    stats["norm_pl"] = _update(players, players.optimizer_g, parameters, stage.grad_clip)
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
    """Bring both optimisers to a stage's learning rates, betas and weight decay.

    A player that a lazy regulariser also updates has all of them adjusted for that.
    """
    lr_d, betas_d = stage.disc_lr, stage.betas
    lr_g, betas_g = stage.gen_lr, stage.betas
    if stage.r1_lambda > 0 and stage.r1_interval > 1:
        lr_d, betas_d = lazy_adam(lr_d, betas_d, stage.r1_interval)
    if stage.pl_lambda > 0:
        lr_g, betas_g = lazy_adam(lr_g, betas_g, stage.pl_interval)
    for group in players.optimizer_d.param_groups:
        group.update(lr=lr_d, betas=betas_d, weight_decay=stage.weight_decay)
    for index, group in enumerate(players.optimizer_g.param_groups):
        slow = index == 1 and stage.unique_lr
        lr = lr_g * (stage.mapping_lr_mul if slow else 1)
        group.update(lr=lr, betas=betas_g, weight_decay=stage.weight_decay)


def restore_scale(scaler: torch.amp.GradScaler) -> None:
    """Bring a loss scale that overflows have driven below 1 back to 1, as the original does."""
    if scaler.is_enabled() and scaler.get_scale() < 1:
        scaler.update(1.0)


def _update(
    players: Players, optimizer: Adam, parameters: list[nn.Parameter], grad_clip: float | None
) -> Tensor:
    """Average over processes, unscale, clip and step; returns the norm before clipping.

    A gradient that is not finite changes nothing: the optimiser's kernel skips on `found_inf`
    without the host having to look, as it does under a gradient scaler.
    """
    players.world.average_gradients(parameters)
    players.scaler.unscale_(optimizer)
    norm = clip_grad_norm_(parameters, math.inf if grad_clip is None else grad_clip)
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

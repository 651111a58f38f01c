"""A whole iteration of Projected GAN against the original, in float64, with its recorded chance."""

import pytest
import torch
from parity.projected_support import assert_outputs, filled, float64_outputs
from parity.support import Case, cases_of
from torch import Tensor, nn

import interop
from discriminators.projected import ProjectedDiscriminator
from generators.fastgan import FastGAN
from interop.projected import (
    discriminator_names,
    export_discriminator,
    export_fastgan,
    fastgan_names,
    is_unused,
)
from rendering.cameras import Cameras
from stages import Stage, make_stage
from training import diffaugment
from training.distributed import World
from training.ema import ExponentialMovingAverage
from training.players import Draw, Moment, Players, Reals
from training.steps import (
    discriminator_step,
    generator_groups,
    generator_step,
    make_optimizer,
    set_hyperparameters,
)

CAMERAS = {
    **{"fov": 12, "sample_dist": "fixed", "h_mean": 0, "h_stddev": 0, "v_mean": 1, "v_stddev": 0},
    **{"num_steps": 3, "ray_start": 0.9, "ray_end": 1.1},
}


def players_of(case: Case) -> Players:
    config = case.config
    generator = interop.convert("fastgan", "generator", case.tensors("weights/"), config)
    blank = ProjectedDiscriminator(backbone_weights="random")
    weights = filled({k: tuple(v.shape) for k, v in export_discriminator(blank).items()})
    options = {"input_resolution": config["img_resolution"], "interp224": config["interp224"]}
    discriminator = interop.convert("projected", "discriminator", weights, options)
    assert isinstance(generator, FastGAN) and isinstance(discriminator, ProjectedDiscriminator)
    generator.double().train()
    discriminator.double().train()
    stage, cpu = stage_of(case), torch.device("cpu")
    players = Players(
        generator=generator,
        discriminator=discriminator,
        optimizer_g=make_optimizer(generator_groups(generator), stage, cpu),
        optimizer_d=make_optimizer([{"params": discriminator.parameters()}], stage, cpu),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        world=World(0, 1, cpu),
        rng=torch.Generator(),
    )
    set_hyperparameters(players, stage)
    players.optimizer_d.param_groups[0]["betas"] = tuple(config["d_betas"])
    return players


def stage_of(case: Case) -> Stage:
    config = case.config
    return make_stage(
        0,
        {
            **CAMERAS,
            "batch_size": config["batch"],
            "img_size": config["img_resolution"],
            "dataset": "ImageFolder",
            "generator": "FastGAN",
            "discriminator": "ProjectedDiscriminator",
            "latent_dim": config["z_dim"],
            "gen_lr": config["g_lr"],
            "disc_lr": config["d_lr"],
            "betas": tuple(config["g_betas"]),
            "grad_clip": None,
            "adversarial_loss": "hinge",
            "diffaugment": config["diffaug_policy"],
        },
    )


def keep_gradients(optimizer: torch.optim.Adam, module: nn.Module) -> dict[str, Tensor]:
    """What an optimiser steps with, by our names."""
    kept: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        kept.update({k: p.grad.clone() for k, p in module.named_parameters() if p.grad is not None})

    optimizer.register_step_pre_hook(keep)
    return kept


@pytest.mark.parametrize("case", cases_of("projected_gan", "training_iteration"))
def test_an_iteration_is_the_originals(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    players, stage, config = players_of(case), stage_of(case), case.config
    generator, discriminator = players.generator, players.discriminator
    assert isinstance(generator, FastGAN) and isinstance(discriminator, ProjectedDiscriminator)
    count = sum("in/draw_" in name for name in case.names)
    chance = iter([case.tensor(f"in/draw_{i}").double() for i in range(count)])

    def recorded(policies: tuple[str, ...], *_: object) -> list[list[Tensor]]:
        return [[next(chance) for _ in range(3 if name == "color" else 2)] for name in policies]

    monkeypatch.setattr(diffaugment, "draw", recorded)
    sizes = generator.network.noise_sizes
    monkeypatch.setattr(generator, "draw_noise", lambda *_: [next(chance) for _ in sizes])
    average = ExponentialMovingAverage(
        generator, 0.0, half_life_kimg=config["batch"] * 10 / 32, rampup=0.05
    )
    logits: list[Tensor] = []
    discriminator.register_forward_hook(lambda *call: logits.append(call[2].logits))
    grads_g = keep_gradients(players.optimizer_g, generator)
    grads_d = keep_gradients(players.optimizer_d, discriminator)
    moment = Moment(stage=stage, step=0, alpha=1.0, settings=stage.render_settings())
    cameras = Cameras.from_angles(torch.zeros(config["batch"]), 1.0, 12.0)

    def draws(name: str) -> list[Draw]:
        return [Draw(case.tensor(name).double(), cameras)]

    stats = generator_step(players, moment, draws("in/z_G"))
    reals = Reals(case.tensor("in/real").double())
    stats |= discriminator_step(players, moment, reals, draws("in/z_D"))
    average.update(generator, config["batch"], config["cur_nimg"])
    assert next(chance, None) is None, "draws are left over"

    names_g, names_d = fastgan_names(generator), discriminator_names(discriminator)
    weights = case.tensors("weights/")
    unused = {k: v for k, v in weights.items() if is_unused(k, config["img_resolution"])}
    assert isinstance(average.module, FastGAN)
    actual = {
        "g_phase_fake_logits": logits[0],
        "d_phase_fake_logits": logits[1],
        "d_phase_real_logits": logits[2],
        "g_loss": stats["loss_g"],
        "d_loss": stats["loss_d"],
    }
    actual |= {f"g_grad/{names_g[name]}": grad for name, grad in grads_g.items()}
    actual |= {f"d_grad_norm/{names_d[name]}": grad.norm() for name, grad in grads_d.items()}
    for prefix, tensors in (
        ("g_after", unused | export_fastgan(generator)),
        ("g_ema_after", unused | export_fastgan(average.module)),
        ("d_after", export_discriminator(discriminator)),
    ):
        actual |= {f"{prefix}/{name}": value for name, value in tensors.items()}
    assert_outputs(case, actual, expected=float64_outputs(case), exact=True)

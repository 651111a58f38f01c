"""One whole training iteration against the original's: losses, gradients, updates, averages."""

import copy
import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pytest
import torch
from parity.support import Case, assert_within, cases_of, fill_by_seed
from torch import Tensor, nn

import interop
from discriminators import DISCRIMINATORS, Discriminator
from discriminators.base import Judgement
from generators import Generator
from rendering.cameras import Cameras
from stages import Stage, make_stage
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


@dataclasses.dataclass
class RecordingPlayers(Players):
    """Players that remember the fakes they make."""

    made: list[Tensor] = dataclasses.field(default_factory=list)

    def fakes(self, draw: Draw, moment: Moment, *, track: bool = False) -> Tensor:
        self.made.append(super().fakes(draw, moment, track=track))
        return self.made[-1]


class Iteration:
    """The case's iteration, run by our steps, with everything worth comparing kept."""

    def __init__(self, case: Case) -> None:
        config = case.config
        self.stage = stage_of(config)
        generator = interop.convert(
            "pigan", "generator", case.tensors("weights/"), config["generator"]
        )
        discriminator = discriminator_of(config["discriminator"]["class"])
        assert isinstance(generator, Generator) and isinstance(discriminator, Discriminator)
        cpu = torch.device("cpu")
        self.players = RecordingPlayers(
            generator=generator,
            discriminator=discriminator,
            optimizer_g=make_optimizer(generator_groups(generator), self.stage, cpu),
            optimizer_d=make_optimizer([{"params": discriminator.parameters()}], self.stage, cpu),
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            world=World(0, 1, cpu),
            rng=torch.Generator(),
        )
        set_hyperparameters(self.players, self.stage)
        self.moment = Moment(
            stage=self.stage,
            step=config["step"],
            alpha=config["alpha"],
            settings=self.stage.render_settings(jitter=False, noise_std=config["nerf_noise"]),
        )
        self.real = case.tensor("in/real")
        self.image_gradient = self._image_gradient()
        averages = [
            ExponentialMovingAverage(generator, config["ema_decays"][n]) for n in ("ema", "ema2")
        ]
        self.judged: list[Judgement] = []
        discriminator.register_forward_hook(lambda *call: self.judged.append(call[2]))
        self.grads: dict[str, dict[str, Tensor]] = {}
        self._keep_gradients("d", discriminator, self.players.optimizer_d, "discriminator")
        self._keep_gradients("g", generator, self.players.optimizer_g, "generator")
        self.poses = {"d": self._draws(case, "disc"), "g": self._draws(case, "gen")}
        self.stats_d = discriminator_step(
            self.players, self.moment, Reals(self.real), self.poses["d"]
        )
        self.judged_d, self.judged = self.judged, []
        self.made_d, self.players.made = self.players.made, []
        self.stats_g = generator_step(self.players, self.moment, self.poses["g"])
        for average in averages:
            average.update(generator)
        self.after = {
            "d": interop.export("pigan", "discriminator", discriminator),
            "g": interop.export("pigan", "generator", generator),
            "ema": interop.export("pigan", "generator", averages[0].module),
            "ema2": interop.export("pigan", "generator", averages[1].module),
        }

    def _draws(self, case: Case, player: str) -> list[Draw]:
        """The case's latents and poses, a draw per chunk."""
        z, yaw, pitch = (case.tensor(f"in/{name}_{player}") for name in ("z", "yaw", "pitch"))
        cameras = Cameras.from_angles(yaw[:, 0], pitch[:, 0], self.stage.fov)
        size = self.stage.batch_size // self.stage.batch_split
        return [Draw(z[i : i + size], cameras[i : i + size]) for i in range(0, len(z), size)]

    def _image_gradient(self) -> Tensor:
        real = self.real.clone().requires_grad_()
        logits = self.players.discriminator(real, self.moment.alpha).logits
        return torch.autograd.grad(logits.sum(), real)[0]

    def _keep_gradients(
        self, player: str, module: nn.Module, optimizer: torch.optim.Adam, role: str
    ) -> None:
        """Keep the clipped gradients that an optimiser steps with, under the original's names."""

        def keep(*_: Any) -> None:
            shadow = copy.deepcopy(module)
            for own, given in zip(shadow.parameters(), module.parameters(), strict=True):
                own.data = torch.zeros_like(own) if given.grad is None else given.grad.clone()
            self.grads[player] = interop.export("pigan", role, shadow)

        optimizer.register_step_pre_hook(keep)


def stage_of(config: Mapping[str, Any]) -> Stage:
    values = {
        **config["curriculum"],
        "generator": "PiGAN",
        "model": config["generator"]["field"],
        "discriminator": config["discriminator"]["class"],
        "dataset": "CelebA",
        "compat": ["summed_chunks"],
    }
    return make_stage(0, values)


def discriminator_of(name: str) -> nn.Module:
    """The case's discriminator, filled by rule: the shapes are those of a module of ours."""
    blank = interop.export("pigan", "discriminator", DISCRIMINATORS[name]())
    filled = fill_by_seed({key: tuple(value.shape) for key, value in blank.items()})
    return interop.convert("pigan", "discriminator", filled, {"class": name})


@lru_cache(maxsize=2)
def iteration_of(case: Case) -> Iteration:
    return Iteration(case)


CASES = cases_of("pigan", "train_step")


@pytest.mark.parametrize("case", CASES)
def test_the_discriminators_losses_and_judgements_are_the_originals(case: Case) -> None:
    run, expected = iteration_of(case), case.tensors("out/d/")
    fake, real = run.judged_d[0::2], run.judged_d[1::2]
    poses = torch.cat([d.cameras.yaw_pitch.flip(-1) for d in run.poses["d"]])
    total = run.stats_d["loss_d"] + 0.5 * run.stage.r1_lambda * run.stats_d["r1"]
    zero = torch.zeros(1)
    identity = expected.get("latent", zero) + expected.get("position", zero)
    scalars = {
        "real and fake": (run.stats_d["loss_d"], expected["real"] + expected["fake"]),
        "r1": (0.5 * run.stage.r1_lambda * run.stats_d["r1"], expected["r1"]),
        "identity": (run.stats_d.get("identity_d", zero), identity),
        "total": (total + run.stats_d.get("identity_d", zero), expected["total"]),
    }
    for name, (ours, theirs) in scalars.items():
        assert_within(ours.reshape(1), theirs.reshape(1), case.tolerance("losses"), name)
    logits = case.tolerance("logits")
    assert_within(torch.cat([j.logits for j in real]), expected["logits_real"], logits, "real")
    assert_within(torch.cat([j.logits for j in fake]), expected["logits_fake"], logits, "fake")
    assert_within(poses, expected["pose_pitch_yaw"], case.tolerance("losses"), "poses")
    for name, part in (("pred_latent", "latent"), ("pred_position", "pose")):
        if name in expected:
            ours = torch.cat([getattr(j, part) for j in fake])
            assert_within(ours, expected[name], logits, name)
    assert_within(
        torch.cat(run.made_d), expected["fake_images"], case.tolerance("images"), "fake images"
    )
    if "r1_image_gradient" in expected:
        rule = case.tolerance("gradients")
        assert_within(run.image_gradient, expected["r1_image_gradient"], rule, "image gradient")


@pytest.mark.parametrize("case", CASES)
def test_the_generators_losses_and_pictures_are_the_originals(case: Case) -> None:
    run = iteration_of(case)
    stage, expected = run.stage, case.tensors("out/g/")
    chunks = range(stage.batch_split)
    for i in chunks:
        images, logits = run.players.made[i], run.judged[i].logits
        assert_within(images, expected[f"split{i}/images"], case.tolerance("images"), "images")
        assert_within(logits, expected[f"split{i}/logits"], case.tolerance("logits"), "logits")
    for ours, theirs in (("loss_g", ["adv"]), ("identity_g", ["latent", "position"])):
        names = [f"split{i}/{part}" for i in chunks for part in theirs]
        mean = sum(float(expected[name]) for name in names if name in expected) / len(chunks)
        measured = run.stats_g.get(ours, torch.zeros(()))
        assert_within(measured, torch.tensor(mean), case.tolerance("losses"), ours)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("player", ["d", "g"])
def test_gradients_and_updates_are_the_originals(case: Case, player: str) -> None:
    run = iteration_of(case)
    rate = run.stage.disc_lr if player == "d" else run.stage.gen_lr
    stats = run.stats_d if player == "d" else run.stats_g
    norm = case.tensor(f"out/{player}/grad_norm_before_clip").reshape(())
    assert_within(stats[f"norm_{player}"], norm, case.tolerance("norms"), "gradient norm")
    gradients = case.tensors(f"out/{player}/grad_clipped/")
    assert gradients
    for key, expected in gradients.items():
        assert_within(run.grads[player][key], expected, case.tolerance("gradients"), key)
    for key, expected in case.tensors(f"out/{player}/param_after/").items():
        rule = case.tolerance("param_after")
        assert_within(run.after[player][key], expected, rule, key, lr=rate)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("average", ["ema", "ema2"])
def test_moving_averages_are_the_originals(case: Case, average: str) -> None:
    run, expected = iteration_of(case), case.tensors(f"out/{average}/")
    assert expected
    for key, value in expected.items():
        rule = case.tolerance("ema")
        assert_within(run.after[average][key], value, rule, key, lr=run.stage.gen_lr)

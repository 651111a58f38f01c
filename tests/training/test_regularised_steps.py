"""What StyleGAN's recipe adds to a step: lazy penalties, mixing, blur, augmentation, labels."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from tiny_runs import TINY
from torch import Tensor
from torch.testing import assert_close

from curriculums import stage_at, with_overrides
from generators.style import StyleGenerator
from rendering.cameras import Cameras
from training import losses
from training.build import build_players
from training.distributed import World
from training.fakes import Sampler
from training.players import Draw, Moment, Players, Reals
from training.random import Streams
from training.regularizers import blur, gradient_penalty, path_lengths
from training.steps import (
    discriminator_step,
    generator_step,
    path_length_step,
    r1_step,
    set_hyperparameters,
)

CPU = torch.device("cpu")
SIZES = {"channel_base": 64, "channel_max": 8, "mapping_layers": 2}
FLAT = [
    "generator=StyleGAN2",
    f"generator_options={SIZES | {'w_dim': 8, 'use_noise': False}}",
    "discriminator=StyleGAN2Discriminator",
    f"discriminator_options={SIZES}",
    "0.img_size=8",
    "pos_lambda=0",
    "z_lambda=0",
    "r1_lambda=2",
    "topk_v=1",
    "grad_clip=None",
    "betas=(0.0,0.99)",
]


class Match:
    """Small players and a batch of four, in double precision."""

    def __init__(self, *changes: str, flat: bool = True, step: int = 16) -> None:
        base = FLAT if flat else ["0.img_size=8", "pos_lambda=0", "z_lambda=0", "grad_clip=None"]
        self.stage = stage_at(with_overrides(TINY, [*base, "nerf_noise=0", *changes]), 0)
        self.streams = Streams(0, 0, CPU)
        self.players, _ = build_players(
            self.stage, 0, World(0, 1, CPU), self.streams.rendering, self.streams.chance
        )
        settings = self.stage.render_settings(jitter=False)
        self.moment = Moment(self.stage, step, 1.0, settings, images_seen=500)
        rng = torch.Generator().manual_seed(1)
        label = torch.arange(4) % self.stage.label_dim if self.stage.label_dim else None
        self.reals = Reals(torch.rand(4, 3, 8, 8, generator=rng) * 2 - 1, label=label)
        self.gradients: dict[str, list[Tensor]] = {}
        for name in ("optimizer_d", "optimizer_g"):
            getattr(self.players, name).register_step_pre_hook(self._keep(name))

    def _keep(self, name: str) -> Any:
        def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            held = [p for group in optimizer.param_groups for p in group["params"]]
            self.gradients[name] = [
                torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in held
            ]

        return keep

    def draws(self) -> list[Draw]:
        labels = torch.arange(self.stage.label_dim) if self.stage.label_dim else None
        return Sampler(self.stage, self.players.generator, self.streams, labels).fakes(0)


def expected_gradients(loss: Tensor, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def assert_all_close(ours: list[Tensor], reference: list[Tensor]) -> None:
    assert sum(float(g.abs().sum()) for g in reference) > 0
    for a, b in zip(ours, reference, strict=True):
        assert_close(a, b, atol=1e-6 * max(float(b.abs().max()), 1e-3), rtol=1e-4)


# -- lazy R1


def test_a_lazy_penalty_is_as_many_times_heavier_as_it_is_rarer() -> None:
    match = Match("r1_interval=16", "batch_split=1")
    images = match.reals.images.clone().requires_grad_()
    logits = match.players.discriminator(images).logits
    penalty = gradient_penalty(logits, images).mean()
    expected = expected_gradients(16 * 0.5 * 2 * penalty, match.players.optimizer_d)
    stats = r1_step(match.players, match.moment, match.reals, 1)
    assert_all_close(match.gradients["optimizer_d"], expected)
    assert_close(stats["r1"], penalty.detach())
    assert stats["norm_r1"].isfinite()


def test_a_lazy_penalty_is_no_part_of_the_main_step() -> None:
    lazy, plain = Match("r1_interval=16"), Match("r1_lambda=0")
    for match in (lazy, plain):
        stats = discriminator_step(match.players, match.moment, match.reals, match.draws())
        assert "r1" not in stats
    assert_all_close(lazy.gradients["optimizer_d"], plain.gradients["optimizer_d"])


def test_the_lazy_penalty_of_chunks_is_that_of_the_batch() -> None:
    whole, halves = (
        Match("r1_interval=4", "discriminator_options.mbstd_num_channels=0") for _ in range(2)
    )
    r1_step(whole.players, whole.moment, whole.reals, 1)
    r1_step(halves.players, halves.moment, halves.reals, 2)
    assert_all_close(halves.gradients["optimizer_d"], whole.gradients["optimizer_d"])


def test_lazily_regularised_players_learn_with_adjusted_constants() -> None:
    match = Match("r1_interval=16", "pl_lambda=2", "pl_interval=4", "0.gen_lr=1", "0.disc_lr=2")
    group_d = match.players.optimizer_d.param_groups[0]
    group_g = match.players.optimizer_g.param_groups[0]
    assert group_d["lr"] == pytest.approx(2 * 16 / 17) and group_g["lr"] == pytest.approx(4 / 5)
    assert group_d["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))
    assert group_g["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    eager = dataclasses.replace(match.stage, r1_interval=1, pl_lambda=0.0)
    set_hyperparameters(match.players, eager)
    for group, lr in ((group_d, 2.0), (group_g, 1.0)):
        assert (group["lr"], group["betas"]) == (lr, (0.0, 0.99))


def test_lazy_updates_take_turns_with_a_loss_scaler() -> None:
    match = Match("r1_interval=2", "pl_lambda=2", "pl_interval=2")
    match.players.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plain = Match("r1_interval=2", "pl_lambda=2", "pl_interval=2")
    for m in (match, plain):
        for _ in range(2):
            discriminator_step(m.players, m.moment, m.reals, m.draws())
            r1_step(m.players, m.moment, m.reals, 2)
            generator_step(m.players, m.moment, m.draws())
            path_length_step(m.players, m.moment, m.draws())
    for ours, reference in zip(
        match.players.generator.parameters(), plain.players.generator.parameters(), strict=True
    ):
        assert_close(ours, reference, atol=1e-3, rtol=1e-3)


# -- path lengths


@pytest.mark.parametrize("flat", [True, False])
def test_path_lengths_of_any_generator_are_pulled_to_their_mean(flat: bool) -> None:
    """The penalty and its gradient by hand, for pictures of half of the latents."""
    changes = ["pl_lambda=3", "pl_interval=5", "batch_split=1", "clamp_mode=softplus"]
    match = Match(*changes, flat=flat)
    players, stage = match.players, match.stage
    players.generator.allow_second_derivatives()
    players.path_length_mean.fill_(0.7)
    (draw,) = match.draws()
    state = players.rng.get_state()
    w = players.generator.mapping(draw.z[:2])
    settings = match.moment.settings
    made = players.generator.synthesis(w, draw.cameras[:2], settings, generator=players.rng).image
    noise = torch.randn(made.shape, generator=players.rng)
    lengths = path_lengths(made, w, noise)
    mean = 0.7 + stage.pl_decay * (lengths.mean() - 0.7)
    penalty = (lengths - mean).square().mean()
    expected = expected_gradients(3 * 5 * penalty, players.optimizer_g)
    players.rng.set_state(state)
    stats = path_length_step(players, match.moment, [draw])
    assert_all_close(match.gradients["optimizer_g"], expected)
    assert_close(stats["pl_penalty"], penalty.detach())
    assert_close(players.path_length_mean, mean.detach())


def test_an_empty_scene_has_no_path_length_and_no_broken_gradient() -> None:
    w = torch.randn(2, 6, requires_grad=True)
    lengths = path_lengths((0 * w.square())[:, :, None, None], w, torch.randn(2, 6, 1, 1))
    (gradient,) = torch.autograd.grad(lengths.sum(), w)
    assert float(lengths.detach().max()) < 1e-6 and not gradient.any()


def test_a_path_length_is_the_slope_of_a_linear_picture() -> None:
    """x = s w has |J^T y| = s |y| / sqrt(pixels) at every w."""
    w = torch.randn(5, 3 * 4 * 4, requires_grad=True)
    images = 2.5 * w.reshape(5, 3, 4, 4)
    noise = torch.randn(5, 3, 4, 4)
    wanted = 2.5 * noise.flatten(1).norm(dim=1) / 4
    assert_close(path_lengths(images, w, noise), wanted)


# -- mixing


def test_mixed_styles_are_one_latents_coarse_and_anothers_fine_ones() -> None:
    match = Match("style_mixing=1", "batch_split=1")
    generator = match.players.generator
    assert isinstance(generator, StyleGenerator)
    draws = [match.draws()[0] for _ in range(40)]
    assert {d.cutoff for d in draws} == set(range(1, generator.num_ws))
    draw = draws[0]
    assert draw.other is not None
    w = match.players.styles(draw)
    assert_close(w[:, : draw.cutoff], generator.mapping(draw.z)[:, : draw.cutoff])
    assert_close(w[:, draw.cutoff :], generator.mapping(draw.other)[:, draw.cutoff :])


def test_styles_are_mixed_as_often_as_asked() -> None:
    match = Match("style_mixing=0.25", "batch_split=1")
    mixed = sum(match.draws()[0].other is not None for _ in range(400))
    assert 70 <= mixed <= 130  # 100 expected, 3.5 standard deviations


def test_only_a_draws_own_style_moves_the_average() -> None:
    match = Match("style_mixing=1", "batch_split=1")
    generator = match.players.generator
    (draw,) = match.draws()
    with torch.no_grad():
        mean = generator.mapping(draw.z).mean(0)
        match.players.fakes(draw, match.moment, track=True)
    assert_close(generator.w_avg, 0.002 * mean)
    match.players.fakes(draw, match.moment)
    assert_close(generator.w_avg, 0.002 * mean)


# -- what the discriminator sees


class Seen:
    """The pictures that a discriminator is shown."""

    def __init__(self, players: Players) -> None:
        self.images: list[Tensor] = []
        self.labels: list[Tensor | None] = []
        players.discriminator.register_forward_pre_hook(self._keep)

    def _keep(self, module: Any, arguments: Any) -> None:
        self.images.append(arguments[0].detach().clone())
        self.labels.append(arguments[3] if len(arguments) > 3 else None)


def test_pictures_are_blurred_less_and_less() -> None:
    match = Match("blur_init_sigma=2", "blur_fade_kimg=1")
    seen = Seen(match.players)
    images = match.reals.images
    for count, sigma in ((0, 2.0), (500, 1.0), (1000, 0.0), (3000, 0.0)):
        moment = dataclasses.replace(match.moment, images_seen=count)
        assert moment.blur_sigma == sigma
        match.players.judge(images, moment)
        assert_close(seen.images[-1], blur(images, sigma))
    assert not torch.equal(seen.images[0], images) and torch.equal(seen.images[-1], images)


def test_reals_and_fakes_are_augmented_with_fresh_chance_that_a_seed_repeats() -> None:
    runs = []
    for _ in range(2):
        match = Match("augment=fixed", "augment_p=1", "augment_preset=color", "batch_split=1")
        seen = Seen(match.players)
        discriminator_step(match.players, match.moment, match.reals, match.draws())
        discriminator_step(match.players, match.moment, match.reals, match.draws())
        runs.append(seen.images)
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)
    first, _, second, _ = runs[0]
    original = Match().reals.images
    assert not torch.allclose(first, original, atol=0.05)
    assert not torch.allclose(first, second, atol=0.05)


def test_ada_hears_what_the_discriminator_says_of_reals_in_both_of_its_updates() -> None:
    match = Match("augment=ada", "ada_interval=1", "ada_kimg=0.004", "r1_interval=2")
    control = match.players.control
    assert control is not None and match.players.augment is not None
    assert match.players.augment.p == control.p == 0
    discriminator_step(match.players, match.moment, match.reals, match.draws())
    assert int(control.state_dict()["moments"][0]) == 4
    r1_step(match.players, match.moment, match.reals, 2)
    assert int(control.state_dict()["moments"][0]) == 8
    control.target = -2.0  # whatever it said, that is overfitting
    assert control.step(4) == 1.0


def test_the_generator_learns_through_the_augmentation() -> None:
    match = Match("augment=fixed", "augment_p=1", "augment_preset=bgc", "batch_split=1")
    chance = copy.deepcopy(match.streams.chance.get_state())
    (draw,) = match.draws()
    match.streams.chance.set_state(chance)
    images = match.players.fakes(draw, match.moment)
    assert match.players.augment is not None
    seen = match.players.augment(images, match.streams.chance)
    loss = losses.generator_loss(match.players.discriminator(seen).logits, 1.0)
    expected = expected_gradients(loss, match.players.optimizer_g)
    match.streams.chance.set_state(chance)
    generator_step(match.players, match.moment, [draw])
    assert_all_close(match.gradients["optimizer_g"], expected)


# -- labels


def test_reals_are_judged_by_their_own_labels_and_fakes_by_drawn_ones() -> None:
    match = Match("label_dim=3", "batch_split=2")
    seen = Seen(match.players)
    draws = match.draws()
    assert all(d.label is not None and d.label.shape == (2,) for d in draws)
    discriminator_step(match.players, match.moment, match.reals, draws)
    fake_a, real_a, fake_b, real_b = (x for x in seen.labels if x is not None)
    assert real_a.tolist() + real_b.tolist() == [0, 1, 2, 0]
    assert [fake_a.tolist(), fake_b.tolist()] == [d.label.tolist() for d in draws]  # type: ignore


def test_fakes_have_classes_in_the_datas_proportions() -> None:
    match = Match("label_dim=2", "batch_split=1")
    labels = torch.tensor([0, 0, 0, 1])
    sampler = Sampler(match.stage, match.players.generator, match.streams, labels)
    found = [sampler.fakes(0)[0].label for _ in range(100)]
    share = float(torch.stack([f for f in found if f is not None]).float().mean())
    assert 0.18 < share < 0.32  # a quarter of 400: standard deviation 0.022


# -- losses


def test_hinge_losses_are_those_of_the_paper() -> None:
    logits = torch.tensor([[-2.0], [-0.5], [0.5], [3.0]])
    assert float(losses.real_loss(logits, "hinge")) == pytest.approx((3 + 1.5 + 0.5 + 0) / 4)
    assert float(losses.fake_loss(logits, "hinge")) == pytest.approx((0 + 0.5 + 1.5 + 4) / 4)
    assert float(losses.generator_loss(logits, 1.0, "hinge")) == pytest.approx(-0.25)
    assert float(losses.generator_loss(logits, 0.5, "hinge")) == pytest.approx(-1.75)


def test_the_hinge_loss_is_a_key() -> None:
    match = Match("adversarial_loss=hinge", "batch_split=1", "r1_lambda=0")
    (draw,) = match.draws()
    with torch.no_grad():
        fake = match.players.discriminator(match.players.fakes(draw, match.moment)).logits
        real = match.players.discriminator(match.reals.images).logits
    wanted = losses.real_loss(real, "hinge") + losses.fake_loss(fake, "hinge")
    stats = discriminator_step(match.players, match.moment, match.reals, [draw])
    assert_close(stats["loss_d"], wanted)
    with torch.no_grad():
        fake = match.players.discriminator(match.players.fakes(draw, match.moment)).logits
    assert_close(generator_step(match.players, match.moment, [draw])["loss_g"], -fake.mean())


def test_cameras_come_with_their_chunk() -> None:
    cameras = Cameras.from_angles(torch.arange(4.0), 1.5, 20.0)
    reals = Reals(torch.zeros(4, 3, 2, 2), cameras, torch.arange(4))
    first, second = reals.chunks(2)
    assert first.cameras is not None and second.cameras is not None
    assert_close(second.cameras.cam2world, cameras.cam2world[2:])
    assert first.label is not None and first.label.tolist() == [0, 1]

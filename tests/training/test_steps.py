"""One step of each player: gradients, chunks, clipping, skipping, learning rates, precision."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_runs import TINY
from torch import Tensor, nn
from torch.testing import assert_close

from curriculums import CARLA, stage_at, with_overrides
from discriminators.base import Judgement
from generators.pigan import PiGAN
from inference.checkpoint import build_generator
from rendering.cameras import Cameras
from siren.fields import SirenNetwork
from training import losses
from training.build import build_discriminator, build_players
from training.distributed import World
from training.log import Averages
from training.players import Draw, Moment, Players, Reals
from training.state import NotFiniteError, RunState
from training.steps import (
    discriminator_step,
    generator_groups,
    generator_step,
    make_optimizer,
    restore_scale,
    set_hyperparameters,
)
from training.trainer import NON_FINITE_LIMIT, RunOptions, Trainer

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
SIZE = 4


class Match:
    """Both players, ready for a step on a batch of four."""

    def __init__(self, *changes: str, seed: int = 0, step: int = 100, double: bool = False) -> None:
        torch.manual_seed(seed)
        base = [f"0.img_size={SIZE}", "nerf_noise=0", "topk_v=1", "grad_clip=1e9"]
        self.stage = stage_at(with_overrides(TINY, [*base, *changes]), 0)
        # as build_players does, but for the weights' type
        generator, _ = build_generator(self.stage)
        discriminator, _ = build_discriminator(self.stage)
        if double:
            generator, discriminator = generator.double(), discriminator.double()
        self.players = Players(
            generator=generator,
            discriminator=discriminator,
            optimizer_g=make_optimizer(generator_groups(generator), self.stage, CPU),
            optimizer_d=make_optimizer([{"params": discriminator.parameters()}], self.stage, CPU),
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            world=WORLD,
            rng=torch.Generator().manual_seed(0),
        )
        set_hyperparameters(self.players, self.stage)
        settings = self.stage.render_settings(jitter=False)
        self.moment = Moment(self.stage, step, alpha=0.7, settings=settings)
        dtype = torch.float64 if double else torch.float32
        rng = torch.Generator().manual_seed(1)
        self.images = torch.rand(4, 3, SIZE, SIZE, generator=rng, dtype=dtype) * 2 - 1
        self.z = torch.randn(4, self.stage.latent_dim, generator=rng, dtype=dtype)
        self.cameras = Cameras.sample(self.stage.pose_law(), 4, rng).to(dtype)
        self.gradients: dict[str, list[Tensor]] = {}
        for name in ("optimizer_d", "optimizer_g"):
            getattr(self.players, name).register_step_pre_hook(self._keep(name))

    def _keep(self, name: str) -> Callable[..., None]:
        def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self.gradients[name] = [
                torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters
            ]

        return keep

    def draws(self) -> list[Draw]:
        size = 4 // self.stage.batch_split
        return [Draw(self.z[i : i + size], self.cameras[i : i + size]) for i in range(0, 4, size)]

    def teach_discriminator(self) -> dict[str, Tensor]:
        return discriminator_step(self.players, self.moment, Reals(self.images), self.draws())

    def teach_generator(self) -> dict[str, Tensor]:
        return generator_step(self.players, self.moment, self.draws())


def copies(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def unchanged(module: nn.Module, before: list[Tensor]) -> bool:
    return all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


# -- chunks


def test_splitting_a_batch_changes_no_gradient() -> None:
    found = []
    for split in (1, 2, 4):
        match = Match(f"batch_split={split}", double=True)
        stats = match.teach_discriminator() | match.teach_generator()
        found.append((match.gradients, {k: v.item() for k, v in stats.items()}))
    whole, numbers = found[0]
    for gradients, others in found[1:]:
        for name, expected in whole.items():
            assert sum(g.abs().sum().item() for g in expected) > 0
            for ours, reference in zip(gradients[name], expected, strict=True):
                assert_close(ours, reference, atol=1e-12, rtol=1e-6)
        assert others == pytest.approx(numbers, rel=1e-6)


def test_summed_chunks_reproduce_the_originals_larger_generator_gradients() -> None:
    averaged, summed = (
        Match("batch_split=4", f"compat={names}", double=True) for names in ([], ["summed_chunks"])
    )
    for match in (averaged, summed):
        match.teach_discriminator()
        match.teach_generator()
    for name, factor in (("optimizer_d", 1), ("optimizer_g", 4)):
        pairs = zip(summed.gradients[name], averaged.gradients[name], strict=True)
        for ours, reference in pairs:
            assert_close(ours, factor * reference, atol=1e-12, rtol=1e-6)


def test_the_discriminators_loss_is_the_whole_batchs() -> None:
    match = Match("batch_split=2", double=True)
    discriminator, stage = match.players.discriminator, match.stage
    with torch.no_grad():
        fake = torch.cat([match.players.fakes(d, match.moment) for d in match.draws()])
    real = match.images.clone().requires_grad_()
    on_real, on_fake = discriminator(real, 0.7), discriminator(fake, 0.7)
    r1 = losses.r1_penalty(on_real.logits, real)
    identity = losses.identity_loss(on_fake, match.z, match.cameras, stage)
    loss = losses.fake_loss(on_fake.logits) + losses.real_loss(on_real.logits)
    total = loss + 0.5 * stage.r1_lambda * r1 + identity
    parameters = list(discriminator.parameters())
    expected = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
    stats = match.teach_discriminator()
    # logits and heads are brought to single precision on their way to the loss
    for ours, reference in zip(match.gradients["optimizer_d"], expected, strict=True):
        assert_close(ours, reference, atol=1e-6, rtol=1e-5)
    assert_close(stats["loss_d"].double(), loss.double(), atol=1e-6, rtol=1e-6)
    assert_close(stats["r1"].double(), r1.double(), atol=1e-6, rtol=1e-5)


def test_top_k_keeps_the_best_of_each_chunk() -> None:
    """With a share of a half, two chunks of two learn from one picture each."""
    match = Match("batch_split=2", "topk_v=0.5", "topk_interval=1", "z_lambda=0", "pos_lambda=0",
                  step=1000)  # fmt: skip
    reached: list[Tensor] = []

    def watch(module: nn.Module, args: Any, out: Any) -> None:
        out.logits.register_hook(lambda slope: reached.append(slope.flatten() != 0))

    match.players.discriminator.register_forward_hook(watch)
    match.teach_generator()
    assert [r.sum().item() for r in reached] == [1, 1]


# -- who learns when


def test_each_player_learns_in_its_own_step_alone() -> None:
    match = Match()
    generator, discriminator = match.players.generator, match.players.discriminator
    before_g, before_d = copies(generator), copies(discriminator)
    match.teach_discriminator()
    assert unchanged(generator, before_g) and not unchanged(discriminator, before_d)
    assert all(p.grad is None for p in generator.parameters())
    before_d = copies(discriminator)
    touched = []
    for p in discriminator.parameters():
        p.register_hook(lambda slope: touched.append(slope)) if p.requires_grad else None
    match.teach_generator()
    assert not unchanged(generator, before_g) and unchanged(discriminator, before_d)
    assert touched == [] and all(p.grad is None for p in discriminator.parameters())
    match.teach_discriminator()
    assert not unchanged(discriminator, before_d)


def test_the_generator_meets_the_discriminator_that_has_just_learned() -> None:
    match = Match("batch_split=1")
    before = copies(match.players.discriminator)
    match.teach_discriminator()
    assert not unchanged(match.players.discriminator, before)
    with torch.no_grad():
        fake = match.players.fakes(match.draws()[0], match.moment)
        judged = match.players.discriminator(fake, 0.7)
    assert_close(match.teach_generator()["loss_g"], losses.generator_loss(judged.logits, 1.0))


def test_the_norm_is_told_before_clipping_and_clipped_to_the_limit() -> None:
    for teach, name in (("discriminator", "d"), ("generator", "g")):
        told, norms = [], []
        for match in (Match(), Match("grad_clip=1e-3")):
            stats = getattr(match, f"teach_{teach}")()
            told.append(stats[f"norm_{name}"].item())
            flat = torch.cat([g.flatten() for g in match.gradients[f"optimizer_{name}"]])
            norms.append(flat.norm().item())
        assert told[0] == pytest.approx(told[1]) == pytest.approx(norms[0], rel=1e-5)
        assert norms[0] > 1e-2 and norms[1] == pytest.approx(1e-3, rel=1e-3)


# -- learning rates


def rates(players: Players) -> list[float]:
    groups = [*players.optimizer_g.param_groups, *players.optimizer_d.param_groups]
    return [group["lr"] for group in groups]


def test_learning_rates_and_betas_follow_the_stages() -> None:
    curriculum = with_overrides(
        CARLA,
        ["generator_options={'hidden_dim': 4, 'num_layers': 1}", "latent_dim=4",
         "discriminator_options={'base': 512, 'max_channels': 2}",
         "10000.betas=0.5,0.99", "10000.weight_decay=0.25"],
    )  # fmt: skip
    players, _ = build_players(stage_at(curriculum, 0), 0, WORLD, torch.Generator())
    assert rates(players) == [4e-5, 4e-5, 4e-4]
    set_hyperparameters(players, stage_at(curriculum, 10_000))
    assert rates(players) == [2e-5, 2e-5, 2e-4]
    for optimizer in (players.optimizer_g, players.optimizer_d):
        for group in optimizer.param_groups:
            assert (group["betas"], group["weight_decay"]) == ((0.5, 0.99), 0.25)
    set_hyperparameters(players, stage_at(curriculum, 55_000))
    assert rates(players) == [1e-5, 1e-5, 1e-4]
    assert players.optimizer_d.param_groups[0]["betas"] == (0.0, 0.9)
    slow = dataclasses.replace(stage_at(curriculum, 0), unique_lr=True)
    set_hyperparameters(players, slow)
    assert rates(players) == pytest.approx([4e-5, 0.05 * 4e-5, 4e-4])


@pytest.mark.parametrize(("unique", "share"), [("False", 1.0), ("True", 0.05)])
def test_unique_lr_slows_the_mapping_network_and_nothing_else(unique: str, share: float) -> None:
    """Adam's first step without momentum moves a weight by its learning rate."""
    match = Match(f"unique_lr={unique}", "gen_lr=1e-3")
    generator = match.players.generator
    assert isinstance(generator, PiGAN)
    before = {n: p.detach().clone() for n, p in generator.named_parameters()}
    match.teach_generator()
    moved = {n: (p - before[n]).abs().max().item() for n, p in generator.named_parameters()}
    for name, distance in moved.items():
        slow = name.startswith("mapping_network.")
        assert distance == pytest.approx(1e-3 * (share if slow else 1.0), rel=0.02), name
    assert sum(n.startswith("mapping_network.") for n in moved) == 8


def test_every_weight_is_in_exactly_one_group() -> None:
    generator = Match().players.generator
    groups = generator_groups(generator)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in generator.parameters())
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in generator.mapping_parameters()}


# -- gradients that are not finite


def use(match: Match, way: str) -> None:
    """Let the players skip through the fused kernel, on the host, or by the scaler."""
    players = match.players
    if way == "scaler":
        players.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    if way == "host":
        for name in ("optimizer_g", "optimizer_d"):
            groups = [{"params": g["params"]} for g in getattr(players, name).param_groups]
            setattr(players, name, torch.optim.Adam(groups, betas=(0.0, 0.9), fused=False))
        set_hyperparameters(players, match.stage)


def states(optimizer: torch.optim.Adam) -> list[Tensor]:
    held = optimizer.state.values()
    return [s[key].clone() for s in held for key in ("step", "exp_avg", "exp_avg_sq")]


@pytest.mark.parametrize("way", ["kernel", "host", "scaler"])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(way: str, warm: bool, bad: float) -> None:
    match = Match()
    use(match, way)
    players = match.players
    if warm:
        match.teach_discriminator()
        match.teach_generator()
    before = [copies(m) for m in (players.generator, players.discriminator)]
    held = [states(o) for o in (players.optimizer_g, players.optimizer_d)]

    def spoil(module: nn.Module, args: Any, out: Judgement) -> Any:
        return dataclasses.replace(out, logits=out.logits * bad)

    handle = players.discriminator.register_forward_hook(spoil)
    stats = match.teach_discriminator() | match.teach_generator()
    handle.remove()
    assert not stats["norm_d"].isfinite() and not stats["norm_g"].isfinite()
    assert unchanged(players.generator, before[0])
    assert unchanged(players.discriminator, before[1])
    for optimizer, was in zip((players.optimizer_g, players.optimizer_d), held, strict=True):
        now = states(optimizer)
        if warm:
            assert all(torch.equal(a, b) for a, b in zip(now, was, strict=True))
        assert not any(v.any() for v in now) or warm
    stats = match.teach_discriminator() | match.teach_generator()
    assert stats["norm_d"].isfinite() and stats["norm_g"].isfinite()
    assert not unchanged(players.generator, before[0])
    assert not unchanged(players.discriminator, before[1])


def test_one_players_bad_gradient_does_not_hold_up_the_other() -> None:
    match = Match()
    before = [copies(m) for m in (match.players.generator, match.players.discriminator)]
    match.images[0, 0, 0, 0] = float("nan")
    stats = match.teach_discriminator() | match.teach_generator()
    assert not stats["norm_d"].isfinite() and stats["norm_g"].isfinite()
    assert unchanged(match.players.discriminator, before[1])
    assert not unchanged(match.players.generator, before[0])


def test_the_loss_scale_halves_on_overflow_and_leaves_the_gradient_as_it_is() -> None:
    plain, scaled = Match(), Match()
    use(scaled, "scaler")
    for match in (plain, scaled):
        match.teach_discriminator()
        match.teach_generator()
    for name, expected in plain.gradients.items():
        for ours, reference in zip(scaled.gradients[name], expected, strict=True):
            assert_close(ours, reference, atol=1e-6, rtol=1e-4)
    scaler = scaled.players.scaler
    assert scaler.get_scale() == 1024
    scaled.images.fill_(float("inf"))
    scaled.teach_discriminator()
    scaled.teach_generator()
    assert scaler.get_scale() == 512


def counting_state() -> RunState:
    players: Any = SimpleNamespace(world=WORLD)
    return RunState(players, {}, {}, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]


def test_skipped_steps_are_counted_in_a_row_and_in_all() -> None:
    state = counting_state()
    seen = []
    for finite in (True, False, False, True, False):
        state.count(torch.tensor(finite), 4)
        seen.append((state.step, state.non_finite.item(), state.skipped.item()))
    assert seen == [(1, 0, 0), (2, 1, 1), (3, 2, 2), (4, 0, 2), (5, 1, 3)]


@pytest.mark.parametrize(
    ("bad", "stops"), [(NON_FINITE_LIMIT - 1, False), (NON_FINITE_LIMIT, True)]
)
def test_a_run_of_skipped_steps_stops_training_with_advice(bad: int, stops: bool) -> None:
    assert NON_FINITE_LIMIT == 40
    state = counting_state()
    for k in range(100 + bad):
        state.count(torch.tensor(k < 100), 4)
    state.players.scaler = torch.amp.GradScaler("cpu", enabled=False)
    trainer: Any = SimpleNamespace(
        state=state, averages=Averages(), options=RunOptions(Path("runs/x")), _log=None
    )
    if not stops:
        return Trainer._report(trainer)
    with pytest.raises(NotFiniteError) as caught:
        Trainer._report(trainer)
    for word in ("40 steps in a row", "step 140", "lower gen_lr, disc_lr or r1_lambda", "runs/x"):
        assert word in str(caught.value)


# -- precision


def test_bf16_trains_while_geometry_styles_and_weights_stay_in_full_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    match = Match()
    players = match.players
    players.dtype = torch.bfloat16
    seen: dict[str, torch.dtype] = {}
    encode, bind = SirenNetwork.encode, SirenNetwork.bind

    def watch_points(network: SirenNetwork, points: Tensor) -> Tensor:
        seen["points"] = points.dtype
        return encode(network, points)

    def watch_styles(network: SirenNetwork, w: Tensor) -> Any:
        seen["w"] = w.dtype
        return bind(network, w)

    monkeypatch.setattr(SirenNetwork, "encode", watch_points)
    monkeypatch.setattr(SirenNetwork, "bind", watch_styles)
    players.discriminator.register_forward_hook(
        lambda module, args, out: seen.update(pictures=args[0].dtype, logits=out.logits.dtype)
    )
    before = [copies(m) for m in (players.generator, players.discriminator)]
    stats = match.teach_discriminator() | match.teach_generator()
    assert seen == {
        "points": torch.float32, "w": torch.float32, "pictures": torch.float32,
        "logits": torch.bfloat16,
    }  # fmt: skip
    assert all(v.isfinite() and v.dtype == torch.float32 for v in stats.values())
    for module, was in zip((players.generator, players.discriminator), before, strict=True):
        assert not unchanged(module, was)
        assert all(p.dtype == torch.float32 for p in module.parameters())
        assert all(p.isfinite().all() for p in module.parameters())
    full = Match()
    reference = full.teach_discriminator() | full.teach_generator()
    for name in ("loss_d", "loss_g", "norm_d"):
        assert stats[name].item() == pytest.approx(reference[name].item(), rel=0.1)
    assert stats["loss_d"] != reference["loss_d"]


@pytest.mark.parametrize("scale, restored", [(0.25, 1.0), (1.0, 1.0), (8.0, 8.0)])
def test_a_loss_scale_below_one_is_brought_back_to_one(scale: float, restored: float) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.ones(()))  # a scaler makes its scale when it is first used
    restore_scale(scaler)
    assert scaler.get_scale() == restored

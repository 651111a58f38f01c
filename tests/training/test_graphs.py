"""Training steps as graphs, in an emulator: the same numbers, or none of the graph's."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_emulator import Emulator, Tape
from tiny_runs import differences, run_main, tiny_curriculum, write_pictures
from torch import Tensor

from generators.pigan import PiGAN
from stages import Stage
from training import losses
from training.distributed import World
from training.graph_backend import CudaBackend
from training.graphs import WARM_UP, GraphedSteps, check_graphs
from training.players import Players
from training.trainer import RunOptions, Trainer

CPU, GPU = World(0, 1, torch.device("cpu")), World(0, 1, torch.device("cuda", 0))
# nothing changes from the first step to the sixth, and from then on
STEADY = ("fade_steps=0", "nerf_noise_steps=0", "topk_v=1", "clamp_mode=softplus")
RECORDED = WARM_UP + 1  # the number of the step that is
FLAT = {"channel_base": 64, "channel_max": 8, "mapping_layers": 2}
STYLEGAN3 = (  # whose running averages are buffers that its pictures move
    "generator=StyleGAN3",
    f"generator_options={FLAT | {'w_dim': 8, 'num_layers': 4}}",
    "discriminator=StyleGAN2Discriminator",
    f"discriminator_options={FLAT}",
    *("img_size=16", "z_lambda=0", "pos_lambda=0"),
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures")


class Run:
    """A run, with graphs or without, and all its numbers."""

    def __init__(self, trainer: Trainer, graphs: GraphedSteps | None) -> None:
        if trainer.world.device.type == "cpu":  # whose blocks wait
            trainer.state.players.generator.allow_second_derivatives()
        self.trainer = trainer
        if graphs is not None:
            trainer.both_steps = graphs

    @property
    def players(self) -> Players:
        return self.trainer.state.players

    def train(self, steps: int) -> "Run":
        """So many steps more."""
        for _ in range(steps):
            self.trainer._follow_curriculum()
            self.trainer.train_step()
        return self

    def numbers(self) -> dict[str, Any]:
        """Copies of all that a step changes."""
        state, players = self.trainer.state, self.players
        parts = [players.generator, players.discriminator, players.scaler, state.streams]
        parts += [players.optimizer_g, players.optimizer_d]
        parts += [ema.module for ema in state.emas.values()]
        sums = {"sums": self.trainer.averages._sums, "skipped": state.skipped, "step": state.step}
        return copy.deepcopy({**sums, **{str(i): p.state_dict() for i, p in enumerate(parts)}})


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> Callable[..., Run]:
    def make(*changes: str, graphs: GraphedSteps | None = None, load: Path | None = None) -> Run:
        options = RunOptions(tmp_path, load)
        curriculum = tiny_curriculum(pictures, *STEADY, *changes)
        return Run(Trainer(curriculum, options, CPU), graphs)

    return make


@pytest.fixture
def graphs() -> GraphedSteps:
    return GraphedSteps(Emulator())


def recorded(graphs: GraphedSteps) -> int:
    """How often something was recorded to the end."""
    assert isinstance(graphs.backend, Emulator)
    return graphs.backend.recorded


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("0.batch_split=1", "z_lambda=0", "pos_lambda=0", "grad_clip=None"),
        (
            "discriminator=StridedDiscriminator",
            "adversarial_loss=hinge",
            "z_lambda=0",
            "pos_lambda=0",
            "hierarchical_sample=False",
        ),
        STYLEGAN3,
    ],
    ids=["pi-GAN", "whole batch", "hinge", "StyleGAN3"],
)
@pytest.mark.filterwarnings("ignore:grad and param do not obey")  # where a mode looks on
def test_a_run_with_graphs_equals_one_without_in_every_number(
    run: Callable[..., Run], graphs: GraphedSteps, changes: tuple[str, ...]
) -> None:
    with_graphs, without = run(*changes, graphs=graphs).train(13), run(*changes).train(13)
    assert differences(with_graphs.numbers(), without.numbers()) == []
    assert graphs.problem is None
    assert recorded(graphs) == 2  # a stage of 6 steps, then the next
    assert graphs.replays == 13 - 2 * RECORDED
    assert without.trainer.averages.take()["norm_g"] > 0


def test_density_noise_that_stays_is_drawn_anew_in_every_replay(
    run: Callable[..., Run], graphs: GraphedSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stage, "noise_std", lambda self, step: 0.7)
    with_graphs, without = run(graphs=graphs).train(6), run().train(6)
    assert differences(with_graphs.numbers(), without.numbers()) == []
    assert graphs.replays == 6 - RECORDED


def test_replayed_steps_learn_from_new_pictures_and_latents(
    run: Callable[..., Run], graphs: GraphedSteps
) -> None:
    trained = run(graphs=graphs).train(RECORDED)
    stats = []
    for _ in range(2):
        trained.trainer.averages.take()
        stats.append(trained.train(1).trainer.averages.take())
    assert graphs.replays == 2
    for name in ("loss_d", "loss_g", "real_logits", "identity_d", "norm_g"):
        assert stats[0][name] != stats[1][name], name


@pytest.mark.parametrize(
    "changes",
    [("fade_steps=100",), ("nerf_noise_steps=100",), ("blur_init_sigma=3", "blur_fade_kimg=1")],
    ids=str,
)
def test_while_something_fades_steps_are_computed_as_ever(
    run: Callable[..., Run], graphs: GraphedSteps, changes: tuple[str, ...]
) -> None:
    with_graphs, without = run(*changes, graphs=graphs).train(6), run(*changes).train(6)
    assert differences(with_graphs.numbers(), without.numbers()) == []
    assert graphs.problem is None
    assert (recorded(graphs), graphs.replays) == (0, 0)


def test_a_graph_lasts_until_top_k_leaves_one_more_picture_out(
    run: Callable[..., Run], graphs: GraphedSteps
) -> None:
    # of 4 pictures: 4 until 0.99^step <= 3/4, at step 29
    changes = ("0.batch_split=1", "6.img_size=8", "6.batch_size=4", "topk_v=0.6",
               "topk_interval=0.2", "6.gen_lr=1e-3")  # fmt: skip
    with_graphs = run(*changes, graphs=graphs).train(12)
    assert differences(with_graphs.numbers(), run(*changes).train(12).numbers()) == []
    assert recorded(graphs) == 2


def test_a_changed_learning_rate_takes_effect_at_once(
    run: Callable[..., Run], graphs: GraphedSteps
) -> None:
    with_graphs, without = run(graphs=graphs), run()
    for trained in (with_graphs, without):
        trained.train(RECORDED + 1)
        trained.players.optimizer_g.param_groups[0]["lr"] *= 10
        trained.train(1)
    assert graphs.replays == 1
    assert differences(with_graphs.numbers(), without.numbers()) == []


def test_steps_with_a_lazy_regulariser_are_computed_as_ever(
    run: Callable[..., Run], graphs: GraphedSteps
) -> None:
    changes = ("r1_interval=5", "pl_lambda=2", "pl_interval=4", "6.img_size=8", "6.batch_size=4")
    with_graphs, without = run(*changes, graphs=graphs).train(13), run(*changes).train(13)
    assert differences(with_graphs.numbers(), without.numbers()) == []
    assert graphs.problem is None and graphs.replays > 0


def test_the_loss_scale_and_skipped_steps_are_the_graphs_too(
    run: Callable[..., Run], graphs: GraphedSteps
) -> None:
    both = [run("6.img_size=8", graphs=graphs), run("6.img_size=8")]
    for trained in both:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        trained.players.scaler = scaler
        trained.train(RECORDED + 1)
        scaler.update(math.inf)  # the next step, a replay, overflows
        before = copy.deepcopy(trained.players.generator.state_dict())
        trained.train(1)
        assert differences(before, trained.players.generator.state_dict()) == []
        scaler.update(2.0**10)
        trained.train(6)
        assert (float(trained.trainer.state.skipped), scaler.get_scale()) == (1, 2.0**12)
    assert differences(both[0].numbers(), both[1].numbers()) == []
    assert graphs.problem is None and graphs.replays == 2 + 6 - RECORDED


def test_a_step_that_is_skipped_is_not_recorded_but_the_next_one_is(
    run: Callable[..., Run], graphs: GraphedSteps
) -> None:
    trained = run(graphs=graphs)
    trained.players.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    trained.train(WARM_UP)
    trained.players.scaler.update(math.inf)
    trained.train(1)
    assert recorded(graphs) == 0
    trained.players.scaler.update(2.0**10)
    trained.train(1)
    assert recorded(graphs) == 1


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(
    run: Callable[..., Run], graphs: GraphedSteps, tmp_path: Path
) -> None:
    whole, half = run(graphs=graphs), run(graphs=GraphedSteps(Emulator()))
    for trained in (whole, half):
        trained.train(5).trainer.state.save(tmp_path, trained.trainer.curriculum)
    whole.train(7)
    assert not any(g["capturable"] for g in half.players.optimizer_g.param_groups)
    again = GraphedSteps(Emulator())
    resumed = run(graphs=again, load=tmp_path).train(7)
    assert again.replays > 0
    wanted, found = whole.numbers(), resumed.numbers()
    del wanted["sums"], found["sums"]
    assert differences(found, wanted) == []


class Deaf(Tape):
    """A replay that leaves out ops of a kind."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names

    def run(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        if not any(name in str(func) for name in self.names):
            super().run(func, args, kwargs, out)


class Repeating(Tape):
    """A replay whose random numbers are those of the recording."""

    def replay(self) -> None:
        generators = {k["generator"] for _, _, k, _ in self.calls if k.get("generator")}
        before = [g.get_state() for g in generators]
        super().replay()
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


@pytest.mark.parametrize(
    ("tape", "said"),
    [
        (lambda: Deaf("_fused_adam_"), "weights"),
        (lambda: Deaf("_foreach_add_"), "weights"),
        (lambda: Deaf("aten.sin"), "off"),
        (lambda: Deaf("aten.rand"), "off|random numbers"),
        (Repeating, "draws other random numbers"),
    ],
    ids=["Adam", "Adam's step", "sines", "draws", "streams"],
)
def test_a_wrong_replay_is_found_and_leaves_no_trace(
    run: Callable[..., Run], tape: Callable[[], Tape], said: str
) -> None:
    graphs = GraphedSteps(Emulator(tape))
    trained = run(graphs=graphs)
    with pytest.warns(UserWarning, match=f"CUDA graphs are not used: .*({said})"):
        trained.train(RECORDED)
    assert differences(trained.numbers(), run().train(RECORDED).numbers()) == []
    trained.train(4)  # without another warning
    assert differences(trained.numbers(), run().train(RECORDED + 4).numbers()) == []
    assert graphs.replays == 0


def test_a_step_that_waits_for_the_device_is_not_recorded(
    run: Callable[..., Run], graphs: GraphedSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = losses.generator_loss

    def waiting(logits: Tensor, kept: float, kind: str) -> Tensor:
        assert float(logits.detach().mean()) < 1e9
        return plain(logits, kept, kind)

    monkeypatch.setattr(losses, "generator_loss", waiting)
    with pytest.warns(UserWarning, match="not used: .*_local_scalar_dense"):
        trained = run(graphs=graphs).train(8)
    assert differences(trained.numbers(), run().train(8).numbers()) == []
    assert recorded(graphs) == 0


class Breaking(Tape):
    """A recording that fails when it comes to Adam for the second time."""

    updates = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.updates += func is torch.ops.aten._fused_adam_.default
        if self.updates == 2:
            raise RuntimeError("operation not permitted when stream is capturing")
        return super().__torch_dispatch__(func, types, args, kwargs)


def test_a_recording_that_breaks_leaves_no_trace(run: Callable[..., Run]) -> None:
    both = [run(graphs=GraphedSteps(Emulator(Breaking))), run()]
    for trained in both:
        trained.players.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with pytest.warns(UserWarning, match="not used: RuntimeError: operation not permitted"):
        both[0].train(8)
    assert differences(both[0].numbers(), both[1].train(8).numbers()) == []


def test_a_step_that_replaces_a_buffer_is_not_recorded(
    run: Callable[..., Run], graphs: GraphedSteps
) -> None:
    both = [run(graphs=graphs), run()]
    for trained in both:
        generator = trained.players.generator
        assert isinstance(generator, PiGAN)
        generator.mapping_network.register_forward_pre_hook(
            lambda *_, g=generator: setattr(g, "w_avg", g.w_avg + 1)
        )
    with pytest.warns(UserWarning, match="a step replaces the generator's buffers"):
        both[0].train(8)
    assert differences(both[0].numbers(), both[1].train(8).numbers()) == []


def test_a_step_that_draws_on_the_host_is_not_recorded(
    run: Callable[..., Run], graphs: GraphedSteps
) -> None:
    changes = ("augment=fixed", "augment_p=0.5", "augment_preset=bg")
    with pytest.warns(UserWarning, match="not used"):
        trained = run(*changes, graphs=graphs).train(6)
    assert differences(trained.numbers(), run(*changes).train(6).numbers()) == []


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu_a_run_with_graphs_equals_one_without(
    pictures: Path, tmp_path: Path, precision: str
) -> None:
    curriculum = tiny_curriculum(pictures, *STEADY, f"precision={precision}")
    trainers = [
        Trainer(curriculum, RunOptions(tmp_path, cuda_graphs=on), GPU) for on in (True, False)
    ]
    graphs = trainers[0].both_steps
    assert isinstance(graphs, GraphedSteps)
    networks = [(t.state.players.generator, t.state.players.discriminator) for t in trainers]
    began = [p.detach().clone() for network in networks[0] for p in network.parameters()]
    for trainer in trainers:
        Run(trainer, None).train(20)  # in fp16 the first ones overflow
        trainer.state.data.close()
    assert graphs.problem is None
    assert graphs.replays > 0
    found, wanted = ([p for network in pair for p in network.parameters()] for pair in networks)
    off = sum((a - b).square().sum() for a, b in zip(found, wanted, strict=True))
    way = sum((a - b).square().sum() for a, b in zip(began, wanted, strict=True))
    assert off < 1e-2 * way  # sums in no fixed order add up
    streams = [t.state.streams.state_dict() for t in trainers]
    assert differences(streams[0], streams[1]) == []


@pytest.mark.gpu
def test_on_a_gpu_a_step_that_waits_leaves_random_streams_and_training_intact(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curriculum = tiny_curriculum(pictures, *STEADY, "precision=fp32")
    options = RunOptions(tmp_path, cuda_graphs=True)
    trainer = Trainer(curriculum, options, GPU)
    plain = losses.generator_loss
    monkeypatch.setattr(
        losses, "generator_loss", lambda x, *more: plain(x * (float(x.mean()) < 1e9), *more)
    )
    # no rehearsal: the recording itself has to break
    monkeypatch.setattr(CudaBackend, "rehearsal", lambda self: nullcontext())
    with pytest.warns(UserWarning, match="CUDA graphs are not used"):
        Run(trainer, None).train(8)
    trainer.state.data.close()
    assert all(p.isfinite().all() for p in trainer.state.players.generator.parameters())


@pytest.mark.parametrize(
    ("device", "size", "changes", "said"),
    [
        ("cpu", 1, (), "needs a CUDA device, got cpu"),
        ("cuda", 2, (), "one process on one GPU, got 2"),
        ("cuda", 1, ("augment=ada",), "augment draws .* must be 'noaug', got 'ada'"),
        ("cuda", 1, ("6.diffaugment=color",), r"diffaugment draws .* got 'color' \(stage 6\)"),
        ("cuda", 1, ("style_mixing=0.9",), "style_mixing draws .* got 0.9"),
    ],
)
def test_runs_that_cannot_be_recorded_are_refused_before_any_work(
    device: str, size: int, changes: tuple[str, ...], said: str
) -> None:
    curriculum = tiny_curriculum(Path("nowhere"), *changes)
    with pytest.raises(ValueError, match=said):
        check_graphs(curriculum, World(0, size, torch.device(device)))


def test_without_a_gpu_the_command_says_so_in_one_line(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = ["--curriculum", "Toys", "--output_dir", str(tmp_path / "run"), "--device", "cpu"]
    assert run_main("train.py", [*arguments, "--cuda_graphs"], monkeypatch) != 0
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("--cuda_graphs needs a CUDA device, got cpu")
    assert not (tmp_path / "run").exists()

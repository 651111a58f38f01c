"""What the ranks of multi-process tests run; spawned processes must be able to import it."""

import dataclasses
from pathlib import Path
from typing import Any

import tiny_networks
import torch
import torch.distributed as dist
from tiny_runs import TINY
from torch.multiprocessing.spawn import start_processes

from curriculums import Curriculum, stage_at
from discriminators.projected import ProjectedDiscriminator
from generators.pigan import PiGAN
from generators.stylegan3 import StyleGAN3
from inference.samples import Samples
from metrics import features
from metrics.protocols import find_protocols
from rendering.cameras import Cameras
from training import distributed
from training.build import build_players
from training.evaluate import Evaluation, measure
from training.pictures import FilePictures
from training.players import Draw, Moment, Players, Reals
from training.steps import discriminator_step, generator_step
from training.trainer import RunOptions, Trainer

BATCH = 8
EVERY_METRIC = ["fid", "kid", "is", "pr", "swd", "ppl", "pr50k3_full"]


def one_iteration(curriculum: Curriculum, world: distributed.World) -> Players:
    """A step of both players on this rank's share of a batch that is the same for all."""
    share = BATCH // world.size
    stage = dataclasses.replace(stage_at(curriculum, 0), batch_size=share, batch_split=1)
    players, _ = build_players(stage, 0, world, torch.Generator())
    rng = torch.Generator().manual_seed(5)
    images = torch.rand(BATCH, 3, 8, 8, generator=rng) * 2 - 1
    mine = slice(world.rank * share, (world.rank + 1) * share)
    draws = []
    for _ in range(2):
        z = torch.randn(BATCH, stage.latent_dim, generator=rng)
        cameras = Cameras.sample(stage.pose_law(), BATCH, rng)
        draws.append([Draw(z[mine], cameras[mine])])
    moment = Moment(stage, 0, 0.5, stage.render_settings(jitter=False))
    discriminator_step(players, moment, Reals(images[mine]), draws[0])
    generator_step(players, moment, draws[1])
    return players


def iterate(rank: int, size: int, port: int, curriculum: Curriculum, output: Path) -> None:
    torch.set_num_threads(1)
    world = distributed.join("cpu", rank, size, port)
    players = one_iteration(curriculum, world)
    moments = {
        name: [state["exp_avg_sq"] for state in optimizer.state.values()]
        for name, optimizer in (("d", players.optimizer_d), ("g", players.optimizer_g))
    }
    torch.save(moments, output / f"{size}-{rank}.pth")
    world.barrier()
    distributed.leave(world)


def train(
    rank: int, size: int, port: int, curriculum: Curriculum, output: Path, steps: int,
    load: Path | None,
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    world = distributed.join("cpu", rank, size, port)
    options = RunOptions(output, load, n_steps=steps, eval_freq=5)
    Trainer(curriculum, options, world, evaluate=measure).fit()
    distributed.leave(world)


def train_projected(rank: int, size: int, port: int, curriculum: Curriculum, output: Path) -> None:
    """A run under the projected discriminator; keeps what was sent, and what the features are."""
    torch.set_num_threads(1)
    world = distributed.join("cpu", rank, size, port)
    sent, reduce = [], dist.all_reduce

    def counting(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        sent.append(tensor.numel())
        return reduce(tensor, *args, **options)

    dist.all_reduce = counting
    trainer = Trainer(curriculum, RunOptions(output / "run", n_steps=2, eval_freq=0), world)
    trainer.fit()
    discriminator = trainer.state.players.discriminator
    assert isinstance(discriminator, ProjectedDiscriminator)
    network = discriminator.feature_network
    kept = {
        "sent": sent,
        "modes": [module.training for module in network.modules()],
        "features": dict(network.named_buffers()),
        "heads": [p.detach() for p in discriminator.parameters()],
        "generator": sum(p.numel() for p in trainer.state.players.generator.parameters()),
    }
    torch.save(kept, output / f"{rank}.pth")
    world.barrier()
    distributed.leave(world)


def evaluate(rank: int, size: int, port: int, reals: Path, output: Path) -> None:
    """Every metric of a 3D and of a movable generator; feature networks are tiny ones."""
    torch.set_num_threads(1)
    features.inception, features.vgg16 = tiny_networks.inception, tiny_networks.vgg16
    features.Lpips = tiny_networks.Difference  # type: ignore[misc, assignment]
    world = distributed.join("cpu", rank, size, port)
    torch.manual_seed(0)
    numbers = {}
    stage = stage_at(TINY | {"white_back": False, "clamp_mode": "softplus"}, 6)
    for generator, names in (
        (PiGAN(latent_dim=6, hidden_dim=8, num_layers=2, mapping_dim=8), EVERY_METRIC),
        (StyleGAN3(resolution=16, latent_dim=6, w_dim=6, channel_base=64, channel_max=8,
                   num_layers=4, margin_size=2), ["eqt50k_int", "eqt50k_frac", "eqr50k"]),
    ):  # fmt: skip
        samples = Samples(generator.eval().requires_grad_(False), stage, seed=3)
        evaluation = Evaluation(
            world, find_protocols(names), FilePictures(reals), num_images=11,
            batch_size=2, progress=False,
        )  # fmt: skip
        numbers |= evaluation.of_generator(samples)
    if world.is_main:
        torch.save(numbers, output / f"{size}.pth")
    world.barrier()
    distributed.leave(world)


def spawn(function, *arguments: object) -> None:
    """Run a function as two ranks."""
    port = distributed.free_port()
    start_processes(function, (2, port, *arguments), nprocs=2, start_method="spawn")

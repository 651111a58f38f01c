"""What the ranks of multi-process tests run; spawned processes must be able to import it."""

import dataclasses
from pathlib import Path

import torch
from torch.multiprocessing.spawn import start_processes

from curriculums import Curriculum, stage_at
from rendering.cameras import Cameras
from training import distributed
from training.build import build_players
from training.evaluate import measure
from training.players import Draw, Moment, Players, Reals
from training.steps import discriminator_step, generator_step
from training.trainer import RunOptions, Trainer

BATCH = 8


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


def spawn(function, *arguments: object) -> None:
    """Run a function as two ranks."""
    port = distributed.free_port()
    start_processes(function, (2, port, *arguments), nprocs=2, start_method="spawn")

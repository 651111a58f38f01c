"""Processes that train together: how they start, agree and share gradients.

Gradients are averaged by hand after the backward pass, in one flat all-reduce per network: the
discriminator is called several times per backward pass (real, fake, R1's second derivative), with
parameters that fade-in leaves unused, both of which torch's DistributedDataParallel wrapper has to
be talked into, and which made the original fail on several GPUs.
"""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process's place among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        pieces = flat.split([g.numel() for g in gradients])
        shaped = [p.view_as(g) for p, g in zip(pieces, gradients, strict=True)]
        torch._foreach_copy_(gradients, shaped)  # pyright: ignore[reportPrivateImportUsage]

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must ask at the same step."""
        if self.size == 1:
            return flag
        tensor = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor.item())

    def gather(self, value: Any) -> list[Any]:
        """Plain data of every process, by rank, on every process."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier()


def free_port() -> int:
    """Return a port on this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launched_by_torchrun() -> bool:
    """Whether the environment names this process's rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def torchrun_rank() -> int:
    """This process's rank among those that torchrun started."""
    return int(os.environ["RANK"])


def torchrun_size() -> int:
    """How many processes torchrun started."""
    return int(os.environ["WORLD_SIZE"])


def join(device: str, rank: int = 0, size: int = 1, port: int | None = None) -> World:
    """Join the processes given by torchrun, or `size` spawned on this machine at `port`."""
    local_rank = rank
    if launched_by_torchrun():
        rank, size = torchrun_rank(), torchrun_size()
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
    own = torch.device(device)
    if own.type == "cuda":
        index = local_rank if own.index is None else own.index
        own = torch.device("cuda", index)
        torch.cuda.set_device(own)
    if size > 1:
        backend = "nccl" if own.type == "cuda" else "gloo"
        method = "env://" if launched_by_torchrun() else f"tcp://127.0.0.1:{port}"
        dist.init_process_group(
            backend, init_method=method, rank=rank, world_size=size, timeout=timedelta(minutes=30)
        )
    return World(rank, size, own)


def leave(world: World) -> None:
    """Leave the group that `join` entered."""
    if world.size > 1:
        dist.destroy_process_group()

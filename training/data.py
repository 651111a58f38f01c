"""The endless stream of real pictures, the same for any number of processes.

Epoch e visits the data set in a random order drawn from (seed, e). Step by step the stream takes
the next world_size x batch_size pictures of it, of which each rank gets its own consecutive share;
what is left of an epoch that no longer fills a step is dropped. Flips are drawn per place in the
order. So N processes see what one with an N times larger batch sees, and two integers, the epoch
and how many of its pictures are used up, say where the stream stands.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from datasets import ImageBatch, ImageDataset
from training.random import derive_seed


class DataStream(Iterator[ImageBatch]):
    """Batches of a data set without end, on the CPU.

    Give the `state_dict()` of another stream as `state` to go on where that one stands, also with
    another batch size, image size or number of processes.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,  # pictures of this process per step
        *,
        seed: int,  # of the order and the flips, the same for all ranks
        rank: int = 0,
        world_size: int = 1,
        state: Mapping[str, int] | None = None,  # None: from the start
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1}, got {rank}")
        if batch_size * world_size > len(dataset):
            processes = f" in each of {world_size} processes" if world_size > 1 else ""
            raise ValueError(
                f"batch_size is {batch_size}{processes}, but the data set has only "
                f"{len(dataset)} images"
            )
        self.dataset, self.batch_size = dataset, batch_size
        self._seed, self._rank, self._step = seed, rank, batch_size * world_size
        self._drawn: int | None = None  # the epoch that these belong to:
        self._order, self._flips = torch.empty(0), torch.empty(0)
        self.load_state_dict({"epoch": 0, "position": 0} if state is None else state)

    @property
    def epoch(self) -> int:
        """How many passes over the data set are complete."""
        return self._epoch

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands, as plain numbers."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to where a stream stood."""
        values = [state.get(key) for key in ("epoch", "position")]
        if not all(isinstance(v, int) and v >= 0 for v in values):
            raise ValueError(f"a data stream's state is an epoch and a position, got {state!r}")
        self._epoch, self._position = state["epoch"], state["position"]
        self._turn_over()

    def close(self) -> None:
        """Nothing to release: there for whoever may hold a `Prefetch` in its place."""

    def _turn_over(self) -> None:
        """Begin the next epoch if this one no longer fills a step."""
        if self._position + self._step > len(self.dataset):
            self._epoch, self._position = self._epoch + 1, 0

    def __next__(self) -> ImageBatch:
        if self._drawn != self._epoch:
            self._order, self._flips = self._draw(self._epoch)
            self._drawn = self._epoch
        start = self._position + self._rank * self.batch_size
        mine = slice(start, start + self.batch_size)
        batch = self.dataset.batch(self._order[mine], self._flips[mine])
        self._position += self._step
        self._turn_over()
        return batch

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Order and flips of an epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "data", epoch))
        order = torch.randperm(len(self.dataset), generator=generator)
        flips = torch.rand(len(self.dataset), generator=generator) < self.dataset.mirror
        return order, flips


class Prefetch(Iterator[ImageBatch]):
    """A stream whose next batch is prepared by a thread while the device computes.

    `epoch` and `state_dict()` tell about the batches handed out, not of the one in preparation.
    The stream belongs to the thread until `close()`.
    """

    def __init__(self, stream: DataStream, device: torch.device | str) -> None:
        self._stream, self._device = stream, torch.device(device)
        if self._device.type == "cuda" and self._device.index is None:
            self._device = torch.device("cuda", torch.cuda.current_device())
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._state = stream.state_dict()
        self._pending = self._pool.submit(self._prepare)

    @property
    def epoch(self) -> int:
        """How many passes over the data set are complete."""
        return self._state["epoch"]

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands after the last batch that was handed out."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to where a stream stood; the batch in preparation is thrown away."""
        self._pending.exception()  # waits for it
        self._stream.load_state_dict(state)
        self._state = self._stream.state_dict()
        self._pending = self._pool.submit(self._prepare)

    def __next__(self) -> ImageBatch:
        batch, self._state = self._pending.result()
        self._pending = self._pool.submit(self._prepare)
        return batch.to(self._device, non_blocking=True)

    def close(self) -> None:
        """End the thread; the stream stands where the last batch handed out left it."""
        self._pool.shutdown()
        self._stream.load_state_dict(self._state)

    def _prepare(self) -> tuple[ImageBatch, dict[str, int]]:
        batch = next(self._stream)
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # or pinning would wake up the first GPU
            batch = batch.pin_memory()
        return batch, self._stream.state_dict()

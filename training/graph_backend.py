"""What records and replays a training step: CUDA, or whatever stands in for it in a test."""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

Stats = dict[str, Tensor]


class Graph(Protocol):
    """A recorded step."""

    def replay(self) -> None:
        """Compute it again, on the tensors that it was recorded with."""
        ...


class Backend(Protocol):
    """A way to record."""

    def generators(self) -> list[torch.Generator]:
        """Random streams of the device that are nobody's own."""
        ...

    def rehearsal(self) -> AbstractContextManager[Any]:
        """Within, whatever waits for the device raises an error."""
        ...

    def capture(
        self, run: Callable[[], Stats], generators: list[torch.Generator]
    ) -> tuple[Graph, Stats]:
        """Record what `run` launches, which is not computed; replays fill in its results.

        `generators` are all random streams that it draws from.
        """
        ...

    def renew(self, generator: torch.Generator, state: Tensor) -> None:
        """Set a generator, also one that a broken recording left useless."""
        ...


class CudaBackend:
    """Graphs of the present CUDA device."""

    def generators(self) -> list[torch.Generator]:
        """Torch's own."""
        return [torch.cuda.default_generators[torch.cuda.current_device()]]

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """On a stream of its own, as a recording is."""
        side, mode = torch.cuda.Stream(), torch.cuda.get_sync_debug_mode()
        side.wait_stream(torch.cuda.current_stream())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this mode does not see everything
            torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(side):
                yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            torch.cuda.current_stream().wait_stream(side)

    def capture(
        self, run: Callable[[], Stats], generators: list[torch.Generator]
    ) -> tuple[Graph, Stats]:
        """Record with torch.cuda.graph."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        _register(graph, generators)
        gc.collect()  # gradients accumulate on the stream of whatever step is not dead yet
        try:
            # thread_local: the thread that prepares pictures may pin memory meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                stats = run()
        except BaseException:
            torch.cuda.set_stream(stream)  # torch stays on the recording's when its end fails
            graph.reset()
            raise
        return graph, stats

    def renew(self, generator: torch.Generator, state: Tensor) -> None:
        """Set a generator; one that still believes in a recording refuses every draw."""
        fresh = torch.Generator(generator.device)
        fresh.set_state(state)
        generator.graphsafe_set_state(fresh)


def _register(graph: torch.cuda.CUDAGraph, generators: list[torch.Generator]) -> None:
    """Tell a graph of its random streams, where torch does not find them by itself.

    It does of late, and warns; the method is to go.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for generator in generators:
            if register := getattr(graph, "register_generator_state", None):
                register(generator)

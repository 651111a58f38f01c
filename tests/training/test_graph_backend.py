"""How CUDA is asked to record, with a CUDA that only listens."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from training.graph_backend import CudaBackend


class Cuda:
    """Notes calls in order; nothing that a real one lacks can be called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.mode: int | str = 0
        self.graphs: list[MagicMock] = []
        self.fails_to_end = False
        self.methods = {"reset", "replay", "register_generator_state"}
        for name in ("current_stream", "set_stream", "Stream"):
            self.listen(monkeypatch, name)
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: self.mode)
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", self.set_mode)
        monkeypatch.setattr(torch.cuda, "stream", self.within("stream"))
        monkeypatch.setattr(torch.cuda, "graph", self.within("graph"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", self.graph)

    def listen(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        assert hasattr(torch.cuda, name)
        result = MagicMock(spec=["wait_stream"])
        monkeypatch.setattr(torch.cuda, name, lambda *_: self.calls.append(name) or result)

    def register(self, generator: torch.Generator) -> None:
        self.calls.append("register")
        warnings.warn("register_generator_state() is deprecated", stacklevel=2)

    def set_mode(self, mode: int | str) -> None:
        self.mode = mode

    def within(self, name: str) -> Any:
        @contextmanager
        def within(*_: Any, **options: Any) -> Iterator[None]:
            self.calls.append(f"{name} {options}" if options else name)
            yield
            self.calls.append(f"end of {name}")
            if name == "graph" and self.fails_to_end:
                raise RuntimeError("operation failed due to a previous error during capture")

        return within

    def graph(self) -> MagicMock:
        made = MagicMock(spec=list(self.methods))
        if "register_generator_state" in self.methods:
            made.register_generator_state.side_effect = self.register
        made.reset.side_effect = lambda: self.calls.append("reset")
        self.graphs.append(made)
        return made


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def test_a_rehearsal_lets_nothing_wait_on_a_stream_of_its_own(cuda: Cuda) -> None:
    with CudaBackend().rehearsal():
        assert cuda.mode == "error"
        assert cuda.calls[-1] == "stream"
    assert cuda.mode == 0
    with pytest.raises(ValueError, match="in the step"), CudaBackend().rehearsal():
        raise ValueError("in the step")
    assert cuda.mode == 0


def test_random_streams_are_registered_before_recording_begins(cuda: Cuda) -> None:
    streams = [torch.Generator(), torch.Generator()]
    graph, stats = CudaBackend().capture(lambda: {"loss": torch.ones(())}, streams)
    assert graph is cuda.graphs[0] and set(stats) == {"loss"}
    begun = "graph {'capture_error_mode': 'thread_local'}"
    assert cuda.calls == ["current_stream", "register", "register", begun, "end of graph"]


def test_a_torch_that_finds_random_streams_by_itself_need_not_be_told(cuda: Cuda) -> None:
    cuda.methods.remove("register_generator_state")
    CudaBackend().capture(lambda: {}, [torch.Generator()])
    assert "register" not in cuda.calls


def test_a_recording_that_fails_gives_the_stream_back(cuda: Cuda) -> None:
    cuda.fails_to_end = True
    with pytest.raises(RuntimeError, match="during capture"):
        CudaBackend().capture(lambda: {}, [])
    assert cuda.calls[-2:] == ["set_stream", "reset"]


def test_torch_has_all_that_is_asked_of_it() -> None:
    assert hasattr(torch.Generator, "graphsafe_set_state")
    assert hasattr(torch.cuda.CUDAGraph, "reset") and hasattr(torch.cuda.CUDAGraph, "replay")
    assert "capture_error_mode" in inspect.signature(torch.cuda.graph).parameters

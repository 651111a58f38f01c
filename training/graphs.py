"""Training steps as CUDA graphs: a step's kernels recorded once, then launched all together.

A step launches thousands of kernels, and a fast GPU waits for Python to name them. A replay runs no
Python: it repeats the kernels at the addresses and with the numbers that they were recorded with.
So pictures, latents and cameras are copied into tensors that stay in place, random numbers come
from streams that the graph is told of, and all that Python decides makes the step's `Kind`. A step
is recorded once a few of its kind came in a row; others are computed as ever, which is all of them
while a stage fades in or density noise or blur fades out, and those with a lazy R1. Averages of
weights and path length regularisation come after it, as ever.

No graph is trusted unseen: the step that is recorded is computed as ever, too, and a replay from
the same state must move weights, optimisers and random streams alike. If it does not, or a step
cannot be recorded, a warning says why, and the run goes on without graphs from the step as it was
computed. A replay that is trusted may differ from that by rounding.
All of it was written without a GPU at hand; tests run it in an emulator (tests/graph_emulator.py).
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curriculums import Curriculum, stage_at, stage_starts
from rendering.settings import RenderSettings
from stages import Stage
from training.distributed import World
from training.graph_backend import Backend, CudaBackend, Graph, Stats
from training.graph_state import StepState, check_stats
from training.players import Draw, Moment, Players, Reals
from training.steps import both_steps, r1_is_due

WARM_UP = 3  # steps of a kind before one is recorded: kernels are compiled, memory is at hand

Work = tuple[Reals, list[Draw], list[Draw]]  # what both players' steps are made of


@dataclass(frozen=True)
class Kind:
    """What Python decides in a step: its graph is right while none of this changes."""

    players: int  # whose step it is
    stage: Stage
    alpha: float
    settings: RenderSettings
    blur_sigma: float
    kept: int  # fakes of a chunk that top-k learns from
    dtype: torch.dtype  # of matrix products
    training: tuple[bool, bool]
    rates: list[tuple[Any, ...]]  # of each group of weights
    inputs: list[Any]  # shapes, and whatever is no tensor

    @classmethod
    def of(cls, players: Players, moment: Moment, work: Work) -> "Kind":
        """The kind of a step."""
        return cls(
            id(players),
            moment.stage,
            moment.alpha,
            moment.settings,
            moment.blur_sigma,
            math.ceil(moment.stage.kept_share(moment.step) * len(work[2][0].z)),
            players.dtype,
            (players.generator.training, players.discriminator.training),
            [
                (group["lr"], tuple(group["betas"]), group["weight_decay"])
                for optimizer in (players.optimizer_d, players.optimizer_g)
                for group in optimizer.param_groups
            ],
            [(x.shape, x.dtype) if isinstance(x, Tensor) else x for x in _leaves(work)],
        )


class _Recording(NamedTuple):
    graph: Graph
    inputs: Work
    stats: Stats

    def replay(self, work: Work) -> Stats:
        for mine, given in zip(_tensors(self.inputs), _tensors(work), strict=True):
            mine.copy_(given)
        self.graph.replay()
        return {name: value.clone() for name, value in self.stats.items()}


class GraphedSteps:
    """`both_steps`, replayed where nothing but its inputs changes.

    `problem` says why graphs are no longer used; None while they are. `replays` counts steps.
    """

    def __init__(self, backend: Backend | None = None) -> None:
        self.backend = CudaBackend() if backend is None else backend
        self.problem: str | None = None
        self.replays = 0
        self._kind: Kind | None = None
        self._repeats = 0
        self._recording: _Recording | None = None

    def __call__(
        self, players: Players, moment: Moment, reals: Reals, draws: Callable[[], list[Draw]]
    ) -> Stats:
        """A step of each player."""
        if self.problem is not None or r1_is_due(moment):
            return both_steps(players, moment, reals, draws)
        work = (reals, draws(), draws())
        kind = Kind.of(players, moment, work)
        if kind != self._kind:
            self._kind, self._repeats, self._recording = kind, 0, None
        self._repeats += 1
        if self._repeats <= WARM_UP:
            return _plain(players, moment, work)
        if self._recording is None:
            return self._record(players, moment, work)
        self.replays += 1
        return self._recording.replay(work)

    def _record(self, players: Players, moment: Moment, work: Work) -> Stats:
        """Compute a step as ever, then record it and hold a replay against that."""
        inputs: Work = _cloned(work)
        state = StepState(players, self.backend)
        before, stats = state.copy(), {}
        try:
            with self.backend.rehearsal():
                stats = _plain(players, moment, inputs)
        except Exception as error:
            self.problem = _in_short(error)
        if self.problem is not None:  # not above: there a broken step's tensors are still alive
            state.put_back(before)
            self._give_up()
            return _plain(players, moment, work)
        if not all(value.isfinite() for name, value in stats.items() if name.startswith("norm")):
            return stats  # a skipped step shows nothing: the next one is tried
        right = state.copy()
        try:
            state.check_step(before, right)
            state.put_back(before)
            with _capturable(players):
                graph, found = self.backend.capture(
                    lambda: _plain(players, moment, inputs), state.streams
                )
            graph.replay()
            state.check_replay(before, right)
            check_stats(found, stats)
            self._recording = _Recording(graph, inputs, found)
        except Exception as error:
            self.problem = _in_short(error)
        if self.problem is not None:
            state.put_back(right)
            self._give_up()
        return stats

    def _give_up(self) -> None:
        warnings.warn(f"CUDA graphs are not used: {self.problem}", stacklevel=4)


def check_graphs(curriculum: Curriculum, world: World) -> None:
    """Refuse runs whose steps cannot be recorded, before work starts."""
    if world.device.type != "cuda":
        raise ValueError(f"--cuda_graphs needs a CUDA device, got {world.device.type}")
    if world.size > 1:
        raise ValueError(f"--cuda_graphs is for one process on one GPU, got {world.size}")
    for start in stage_starts(curriculum):
        stage = stage_at(curriculum, start)
        given = {"augment": stage.augment, "diffaugment": ", ".join(stage.diffaugment)}
        given |= {"style_mixing": stage.style_mixing}
        for key, off in {"augment": "noaug", "diffaugment": "", "style_mixing": 0}.items():
            if given[key] != off:
                raise ValueError(
                    f"--cuda_graphs: {key} draws on the CPU anew in every step, and must be "
                    f"{off!r}, got {given[key]!r} (stage {start})"
                )


def _plain(players: Players, moment: Moment, work: Work) -> Stats:
    """The step as ever."""
    reals, *draws = work
    return both_steps(players, moment, reals, iter(draws).__next__)


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


@contextmanager
def _capturable(players: Players) -> Iterator[None]:
    """Adam refuses to be recorded unless told that it can be; fused, it computes the same."""
    groups = [*players.optimizer_d.param_groups, *players.optimizer_g.param_groups]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["capturable"] = value


def _leaves(value: Any) -> Iterator[Any]:
    """Tensors and plain values in order."""
    if is_dataclass(value):
        value = [getattr(value, f.name) for f in fields(value)]
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _tensors(value: Any) -> list[Tensor]:
    return [x for x in _leaves(value) if isinstance(x, Tensor)]


def _cloned(value: Any) -> Any:
    """The same with tensors of its own."""
    if isinstance(value, Tensor):
        return value.clone()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _cloned(getattr(value, f.name)) for f in fields(value)})
    return type(value)(map(_cloned, value)) if isinstance(value, (list, tuple)) else value

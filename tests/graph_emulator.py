"""CUDA graphs without CUDA: the same semantics, on the CPU, op by op.

Recording notes every op with its very tensors and undoes whatever it changed, because a capture
computes nothing; results that are nowhere yet are set to NaN. A replay runs the ops again on the
same tensors and puts results where they were: addresses are static, Python's values baked in, only
random streams go on. What would wait for a device raises, in a rehearsal and in a recording.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense.default,  # .item(), float(), bool()
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.lift_fresh.default,  # a tensor made of Python numbers is copied from the host
}


class NoWaiting(TorchDispatchMode):
    """Raises where a device would have to be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.dtype == torch.bool]
        by_mask = func in (aten.index.Tensor, aten.index_put_.default) and masks
        if func in WAITS or by_mask:
            raise RuntimeError(f"called a synchronizing operation: {func}")
        return func(*args, **(kwargs or {}))


class Tape(NoWaiting):
    """A recorded graph."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, Any]] = []
        self.undo: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.undo += [(x, x.detach().clone()) for x in _written(func, args, kwargs)]
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if not isinstance(out, (bool, int, float)):
            self.calls.append((func, args, kwargs, out))
        return out

    def rewind(self) -> None:
        """Leave no trace of the recording but NaNs."""
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                there = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
                for x in _made(func, out):
                    if x.is_floating_point() and _storage(x) not in there:
                        x.fill_(torch.nan)
            for place, value in reversed(self.undo):
                place.copy_(value)
        self.undo.clear()

    def replay(self) -> None:
        """Run all ops again."""
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                self.run(func, args, kwargs, out)

    def run(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        """Run an op again; what it writes and what it views is where it was."""
        made = _made(func, out)
        if made or list(_written(func, args, kwargs)):
            fresh = func(*args, **kwargs)
            for place, value in zip(made, _made(func, fresh), strict=True):
                place.copy_(value)


class Emulator:
    """A backend of `training.graphs` for the CPU; `tape` is what it records with."""

    def __init__(self, tape: Callable[[], Tape] = Tape) -> None:
        self.tape, self.recorded = tape, 0

    def generators(self) -> list[torch.Generator]:
        """None but the player's own."""
        return []

    def rehearsal(self) -> AbstractContextManager[Any]:
        """Within, waiting raises."""
        return NoWaiting()

    def capture(
        self, run: Callable[[], dict[str, Tensor]], generators: list[torch.Generator]
    ) -> tuple[Tape, dict[str, Tensor]]:
        """Record a run; one that breaks leaves random streams unusable, as CUDA does."""
        tape, states = self.tape(), [g.get_state() for g in generators]
        broken = True
        try:
            with tape:
                results = run()
            broken = False
        finally:
            tape.rewind()
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
                if broken:
                    generator.manual_seed(999)
        self.recorded += 1
        return tape, results

    def renew(self, generator: torch.Generator, state: Tensor) -> None:
        """Set a generator."""
        generator.set_state(state)


def _written(func: Any, args: tuple, kwargs: dict) -> list[Tensor]:
    """Arguments that an op changes."""
    found = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            found += [x for x in tree_leaves(value) if isinstance(x, Tensor)]
    return found


def _made(func: Any, out: Any) -> list[Tensor]:
    """Results that are neither arguments nor views of them."""
    if any(result.alias_info is not None for result in func._schema.returns):
        return []
    return [x for x in tree_leaves(out) if isinstance(x, Tensor)]


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()

"""All that a training step changes: to be copied, put back, and compared with what it should be."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.graph_backend import Backend
from training.players import Players

TOLERANCE = 0.02  # of how far a step moves a part: some kernels add up in no fixed order


class Copy(NamedTuple):
    """What a step changes, at one moment."""

    places: dict[str, list[Tensor]]  # the tensors themselves
    values: dict[str, list[Tensor]]  # what was in them
    streams: list[Tensor]
    host: list[Tensor]


class StepState:
    """Weights, buffers, optimisers, the loss scale, and random streams."""

    def __init__(self, players: Players, backend: Backend) -> None:
        self.players, self.backend = players, backend
        self.streams = [players.rng, *backend.generators()]
        self.host = [torch.default_generator]  # no graph continues those on the CPU
        self.host += [] if players.chance is None else [players.chance]

    def places(self) -> dict[str, list[Tensor]]:
        """Tensors by part."""
        parts: dict[str, list[Tensor]] = {}
        for name in ("generator", "discriminator"):
            network = getattr(self.players, name)
            parts[f"{name}'s weights"] = list(network.parameters())
            parts[f"{name}'s buffers"] = list(network.buffers())
        for name in ("optimizer_g", "optimizer_d"):
            for state in getattr(self.players, name).state.values():
                for key, value in state.items():
                    parts.setdefault(f"{name}'s {key}", []).append(value)
        scaler = self.players.scaler
        if scaler.is_enabled():
            scale = (scaler._scale, scaler._growth_tracker)
            parts["loss scale"] = [x for x in scale if x is not None]
        return parts

    def copy(self) -> Copy:
        """All of it, as it is now."""
        places = self.places()
        values = {name: [x.detach().clone() for x in part] for name, part in places.items()}
        streams, host = ([g.get_state() for g in own] for own in (self.streams, self.host))
        return Copy(places, values, streams, host)

    @torch.no_grad()
    def put_back(self, copy: Copy) -> None:
        """Return to a copy, ready for a step, whatever broke off."""
        for name, part in self.places().items():
            values = copy.values.get(name, [])
            for place, value in zip(part, values, strict=False):
                place.copy_(value)
            for place in part[len(values) :]:  # of an optimiser that had no state: as it begins
                place.zero_()
        for generator, state in zip(self.streams, copy.streams, strict=True):
            self.backend.renew(generator, state)
        for generator, state in zip(self.host, copy.host, strict=True):
            generator.set_state(state)
        for optimizer in (self.players.optimizer_g, self.players.optimizer_d):
            optimizer.zero_grad(set_to_none=True)
        if self.players.scaler.is_enabled():
            self.players.scaler._per_optimizer_states.clear()

    def check_step(self, before: Copy, after: Copy) -> None:
        """Refuse a step that does what a replay would leave out."""
        for name, part in after.places.items():
            if list(map(id, part)) != list(map(id, before.places.get(name, []))):
                raise RuntimeError(f"a step replaces the {name}: a replay would not")
        if not all(map(torch.equal, before.host, after.host)):
            raise RuntimeError("a step draws random numbers on the CPU: a replay would not")

    def check_replay(self, before: Copy, right: Copy) -> None:
        """Refuse a present state that is not the right one."""
        now = self.copy()
        for name, values in now.values.items():
            off = _distance(values, right.values[name])
            way = _distance(before.values[name], right.values[name])
            if not off <= TOLERANCE * way:
                raise RuntimeError(f"a replay leaves the {name} {off:.1e} off after {way:.1e}")
        if not all(map(torch.equal, now.streams, right.streams)):
            raise RuntimeError("a replay draws other random numbers")


def check_stats(found: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Refuse numbers of a step that are not the right ones."""
    for name, value in right.items():
        off = float((found[name] - value).abs())
        if not off <= TOLERANCE * (1 + float(value.abs())):
            raise RuntimeError(f"a replay's {name} is {off:.1e} off")


def _distance(a: list[Tensor], b: list[Tensor]) -> float:
    pairs = zip(a, b, strict=True)
    return math.sqrt(sum(float((x.double() - y.double()).square().sum()) for x, y in pairs))

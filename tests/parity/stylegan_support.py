"""What the StyleGAN parity tests share: tolerances per output, test losses, replayed chance.

Cases are run in float64 wherever gradients are compared: leaky ReLUs and clamps make gradients jump
where a number lies within rounding of a kink, and the fixtures' tolerances are the original's own
float32 error against float64.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from parity.support import Case
from torch import Tensor, nn

DTYPES = [torch.float32, torch.float64]


def assert_outputs(
    case: Case, actual: Mapping[str, Tensor], *, only: Callable[[str], bool] | None = None
) -> None:
    """Compare everything that the case records (of those names that `only` accepts)."""
    expected = {k: v for k, v in case.tensors("out/").items() if only is None or only(k)}
    missing = set(expected) - set(actual)
    assert not missing, f"nothing compares {sorted(missing)}"
    tolerance = case.spec["tolerance"]
    broken = {}
    for name, value in expected.items():
        ours = actual[name].detach().double()
        assert ours.shape == value.shape, f"{name}: {tuple(ours.shape)}, not {tuple(value.shape)}"
        is_gradient = "grad" in name
        share = tolerance["suggested_rel_to_max_grad" if is_gradient else "suggested_rel_to_max"]
        limit = share * tolerance["per_output"][name]["scale"]
        error = float((ours - value.double()).abs().max()) if value.numel() else 0.0
        if not error <= limit:
            broken[name] = (error, limit)
    assert not broken, f"(measured, allowed) is {broken}"


def is_forward(name: str) -> bool:
    """Whether an output is no gradient, nor computed from one."""
    return "grad" not in name and "r1_" not in name


def cosine_loss(y: Tensor) -> Tensor:
    """The fixtures' loss: sum of y times the cosine of its flat index."""
    return (y.flatten() * torch.arange(y.numel(), dtype=torch.float64).cos().to(y.dtype)).sum()


def inputs_of(case: Case, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The case's inputs by name."""
    return {name: value.to(dtype) for name, value in case.tensors("in/").items()}


def arguments(subcase: Mapping[str, Any], inputs: Mapping[str, Tensor], *leave: str) -> Any:
    """A subcase's arguments, inputs in place of their names; without "name" and `leave`."""
    return {
        key: inputs[value] if isinstance(value, str) and value in inputs else value
        for key, value in subcase.items()
        if key not in ("name", *leave)
    }


def gradients(loss: Tensor, named: Mapping[str, Tensor | None], prefix: str) -> dict[str, Tensor]:
    """d loss / d each of the tensors, under prefixed names."""
    tensors = {name: t for name, t in named.items() if t is not None}
    if not tensors:
        return {}
    values = torch.autograd.grad(loss, list(tensors.values()), retain_graph=True)
    return {prefix + name: value for name, value in zip(tensors, values, strict=True)}


def asked(case: Case, prefix: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors of which the case records something under `prefix`."""
    return {name: t for name, t in named.items() if f"out/{prefix}{name}" in case.names}


def original_parameters(module: nn.Module, names: Mapping[str, str]) -> dict[str, Tensor]:
    """A module's parameters under the original's names."""
    return {names[ours]: p for ours, p in module.named_parameters()}


class Recorded:
    """A case's random draws, in the order in which the original made them."""

    def __init__(self, case: Case, prefix: str = "in/rng/", dtype: Any = torch.float32) -> None:
        names = sorted(name for name in case.names if name.startswith(prefix))
        self.draws = [case.tensor(name).to(dtype) for name in names]
        self.next = 0

    def take(self) -> Tensor:
        """The next draw."""
        self.next += 1
        return self.draws[self.next - 1]

    def take_many(self, count: int) -> list[Tensor]:
        """The next draws."""
        return [self.take() for _ in range(count)]

    def assert_used_up(self) -> None:
        """Nothing that the original drew is left over."""
        assert self.next == len(self.draws)


def collect(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join results."""
    return {name: value for part in parts for name, value in part.items()}

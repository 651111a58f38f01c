"""The parity cases: where they are, what is in them, and how close is close enough.

A case is a JSON that names its `system`, `role` and `config`, and mostly a safetensors file of the
same stem with tensors `weights/...`, `in/...` and `out/...`. Cases are found by these, never by
their file names, in the folder PERIGAN_PARITY, or in shared/parity beside the checkout, or among
the small ones that are kept here. Tolerances are the case's own.
"""

import fnmatch
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "parity"


@dataclass(frozen=True, eq=False)
class Case:
    """One parity case; tensors are read when they are asked for."""

    path: Path  # of its JSON
    spec: Mapping[str, Any]

    @property
    def system(self) -> str:
        return self.spec["system"]

    @property
    def role(self) -> str:
        return self.spec.get("role", "")

    @property
    def config(self) -> Mapping[str, Any]:
        return self.spec.get("config", {})

    @property
    def suggested(self) -> Any:
        """The case's tolerances, by the outputs that they hold for."""
        return self.spec["tolerance"]["suggested"]

    @cached_property
    def names(self) -> list[str]:
        file = self.path.with_suffix(".safetensors")
        if not file.exists():
            return []
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())

    def tensor(self, name: str) -> Tensor:
        with safe_open(self.path.with_suffix(".safetensors"), "pt") as tensors:
            return tensors.get_tensor(name)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Every tensor whose name starts with `prefix`, by the rest of its name."""
        with safe_open(self.path.with_suffix(".safetensors"), "pt") as tensors:
            return {
                name.removeprefix(prefix): tensors.get_tensor(name)
                for name in self.names
                if name.startswith(prefix)
            }

    def outputs(self, variant: str) -> dict[str, Tensor]:
        """What a variant is expected to give."""
        return self.tensors(f"out/{variant}/")

    def tolerance(self, output: str) -> Mapping[str, Any]:
        """The tolerance whose key covers an output: "all", or a list of names or patterns.

        "forward (raw_*, rgb_sigma)" covers raw_frequencies and rgb_sigma.
        """
        for key, rule in self.suggested.items():
            patterns = re.split(r"[,\s()]+", key)
            if "all" in patterns or any(fnmatch.fnmatchcase(output, p) for p in patterns if p):
                return rule
        raise KeyError(f"{self.path} suggests no tolerance for {output}")


def folder() -> Path:
    """Where the cases are."""
    given = os.environ.get("PERIGAN_PARITY")
    if given:
        if not Path(given).is_dir():
            raise pytest.UsageError(f"PERIGAN_PARITY is not a folder: {given}")
        return Path(given)
    return SHARED if SHARED.is_dir() else HERE / "cases"


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case there is, of whatever system."""
    found = []
    for path in sorted(folder().rglob("*.json")):
        spec = json.loads(path.read_text())
        if isinstance(spec, dict) and "system" in spec:
            found.append(Case(path, spec))
    return tuple(found)


def cases_of(system: str, role: str) -> list[Any]:
    """Parameters for a test: the cases of a role."""
    return [
        pytest.param(case, id=_identify(case))
        for case in all_cases()
        if (case.system, case.role) == (system, role)
    ]


def variants_of(system: str, role: str, key: str = "variants") -> list[Any]:
    """Parameters for a test: (case, variant) of every case of a role."""
    return [
        pytest.param(case, variant, id=f"{_identify(case)}:{variant}")
        for case in all_cases()
        if (case.system, case.role) == (system, role)
        for variant in case.config[key]
    ]


def roles_with_a_test() -> set[tuple[str, str]]:
    """The (system, role) pairs that some test, here or in another folder of tests, asks for."""
    asked = re.compile(r'\b(?:cases|variants)_of\(\s*"([\w-]+)",\s*"([\w/-]+)"')
    return {
        (system, role)
        for file in HERE.parent.rglob("test_*.py")
        for system, role in asked.findall(file.read_text())
    }


def assert_within(
    actual: Tensor,
    expected: Tensor,
    rule: Mapping[str, Any],
    what: str,
    *,
    hierarchical: bool = False,
    lr: float | None = None,
) -> None:
    """Hold `actual` to a tolerance of a case, whatever kinds of limits it sets.

    `hierarchical` chooses between the limits for pictures with and without a fine pass; `lr` is the
    learning rate where a limit is expressed by it.
    """
    assert actual.shape == expected.shape, f"{what}: {tuple(actual.shape)}"
    a, b = actual.detach().double(), expected.double()
    assert a.isfinite().all(), f"{what} is not finite"
    error, size = (a - b).abs(), b.abs()
    limits = dict(rule)
    text = limits.pop("rule", None)
    measured: dict[str, tuple[float, float]] = {}
    if text is not None:
        measured |= _textual_limits(text, error, size, lr)
    if "atol" in limits or "rtol" in limits:
        allowed = limits.pop("atol", 0) + limits.pop("rtol", 0) * size
        measured["excess over atol + rtol |b|"] = (float((error - allowed).max()), 0.0)
    other = "max_abs_single_pass" if hierarchical else "max_abs_hierarchical"
    limits.pop(other, None)
    statistics = {
        "median_abs": lambda: error.median(),
        "q99_abs": lambda: error.flatten().quantile(0.99),
        "max_abs": lambda: error.max(),
        "max_abs_hierarchical": lambda: error.max(),
        "max_abs_single_pass": lambda: error.max(),
    }
    for name, limit in limits.items():
        measured[name] = (float(statistics[name]()), limit)  # an unknown limit is a KeyError
    assert measured, f"{what}: the tolerance {rule} says nothing"
    broken = {name: pair for name, pair in measured.items() if not pair[0] <= pair[1]}
    assert not broken, f"{what}: (measured, allowed) is {broken}"


def _textual_limits(
    text: str, error: Tensor, size: Tensor, lr: float | None
) -> dict[str, tuple[float, float]]:
    """Limits such as "max|a-b| <= 2e-2 * max|b|"; every inequality of the text must be known."""
    number = r"([\d.]+(?:e-?\d+)?)"
    found: dict[str, tuple[float, float]] = {}
    for kind, factor in re.findall(rf"(max|mean)\|a-b\| <= {number} \* \1\|b\|", text):
        measured, scale = (
            (error.max(), size.max()) if kind == "max" else (error.mean(), size.mean())
        )
        found[f"{kind}|a-b|"] = (float(measured), float(factor) * float(scale))
    if share := re.search(rf"at least {number}% of the elements within {number}", text):
        outside = float((error > float(share[2])).double().mean())
        found[f"share beyond {share[2]}"] = (outside, 1 - float(share[1]) / 100)
    if every := re.search(rf"all within {number}\*lr", text):
        assert lr is not None, "this tolerance needs the learning rate"
        found["max|a-b|"] = (float(error.max()), float(every[1]) * lr)
    assert len(found) == text.count("<=") + text.count("within"), f"unknown tolerance: {text}"
    return found


def assert_checksums(
    tensors: Mapping[str, Tensor], checksums: Mapping[str, Any], rtol: float = 1e-6
) -> None:
    """Compare tensors with the shape, sums and first numbers that a case records of them."""
    assert set(tensors) == set(checksums)
    for key, expected in checksums.items():
        value = tensors[key].double()
        assert list(value.shape) == expected["shape"], key
        scale = expected["abs_sum"]
        assert math.isclose(float(value.abs().sum()), scale, rel_tol=rtol), key
        assert abs(float(value.sum()) - expected["sum"]) <= rtol * max(scale, 1), key
        first = value.flatten()[:3].tolist()
        assert first == pytest.approx(expected["first3"], rel=rtol), key


def filled_weights(fill: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that a case describes by a rule in place of storing them, verified.

    The i-th key in plain string order is a standard normal tensor from seed i, scaled as the rule
    says for its kind.
    """
    checksums = fill["checksums"]
    shapes = {key: tuple(entry["shape"]) for key, entry in checksums.items()}
    scale = _siren_scale if "spatial_embeddings" in fill["rule"] else _fan_in_scale
    weights = fill_by_seed(shapes, scale)
    assert_checksums(weights, checksums)
    return weights


def fill_by_seed(shapes: Mapping[str, tuple[int, ...]], scale: Any = None) -> dict[str, Tensor]:
    """Tensors of these shapes by the fill rule; by default that of the discriminators."""
    scale = scale or _fan_in_scale
    weights = {}
    for seed, key in enumerate(sorted(shapes)):
        noise = torch.randn(shapes[key], generator=torch.Generator().manual_seed(seed))
        weights[key] = noise * scale(key, shapes[key])
    return weights


def _fan_in_scale(key: str, shape: tuple[int, ...]) -> float:
    return 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1


def _siren_scale(key: str, shape: tuple[int, ...]) -> float:
    if len(shape) == 1 or key == "spatial_embeddings":
        return 0.1
    if key.startswith("mapping_network."):
        return _fan_in_scale(key, shape) * (0.25 if key.endswith("network.6.weight") else 1)
    return math.sqrt(2 / shape[1]) / 25


def _identify(case: Case) -> str:
    return case.path.relative_to(folder()).with_suffix("").as_posix()

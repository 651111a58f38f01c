"""The registry of the systems whose weights can be read, and what their converters share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ops.registry import Registry

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Role:
    """What one kind of network of a system needs.

    `convert` makes our module of the original's weights, key names and configuration; `export`
    gives our module's weights under the original's key names.
    """

    convert: Callable[[Weights, Mapping[str, Any]], nn.Module]
    export: Callable[[Any], dict[str, Tensor]] | None = None


SYSTEMS: Registry[dict[str, Role]] = Registry("system")


def require_same_shapes(given: Weights, expected: Weights, what: str) -> None:
    """Raise ValueError that names what is missing, unexpected or of another shape."""
    problems = {
        "missing": [key for key in expected if key not in given],
        "unexpected": [key for key in given if key not in expected],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} in place of {tuple(expected[key].shape)}"
            for key in expected
            if key in given and given[key].shape != expected[key].shape
        ],
    }
    listed = [
        f"{problem}: {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if keys[3:] else "")
        for problem, keys in problems.items()
        if keys
    ]
    if listed:
        raise ValueError(f"weights do not fit {what}; {'; '.join(listed)}")


def size_of(weights: Weights, key: str, axis: int, what: str) -> int:
    """Length of one axis of a tensor, which tells a size of the network."""
    if key not in weights:
        raise ValueError(f"weights do not fit {what}; missing: {key}")
    shape = tuple(weights[key].shape)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"weights do not fit {what}; of another shape: {key} {shape}")
    return shape[axis]

"""Closed curves through styles: straight from one to the next, or smoothly (periodic splines)."""

import torch
from torch import Tensor

from ops.shapes import Float

KINDS = ("linear", "cubic")


def interpolate_loop(
    keys: Float[Tensor, "keys ..."], phases: Float[Tensor, " frames"], kind: str = "linear"
) -> Float[Tensor, "frames ..."]:
    """Points of a closed curve through `keys`, which it passes at phases 0, 1, ... and again.

    A phase of len(keys) is back at the first key. "cubic" is the periodic cubic spline: its first
    and second derivatives are continuous everywhere, also where the loop closes.
    """
    if kind not in KINDS:
        raise ValueError(f"interpolation must be one of {', '.join(KINDS)}, got {kind!r}")
    count = len(keys)
    flat = keys.reshape(count, -1).double()
    phases = phases.double().to(flat.device) % count
    before = phases.floor().long() % count
    after = (before + 1) % count
    t = (phases - phases.floor())[:, None]
    values = (1 - t) * flat[before] + t * flat[after]
    if kind == "cubic":
        bend = _second_derivatives(flat)
        s = 1 - t
        values = values + ((s**3 - s) * bend[before] + (t**3 - t) * bend[after]) / 6
    return values.to(keys.dtype).reshape(len(phases), *keys.shape[1:])


def interpolate_line(
    first: Float[Tensor, "1 ..."], last: Float[Tensor, "1 ..."], steps: int
) -> Float[Tensor, "steps ..."]:
    """Evenly from one style to another, both included."""
    t = torch.linspace(0, 1, steps, dtype=torch.float64, device=first.device)
    t = t.reshape(-1, *[1] * (first.ndim - 1))
    return ((1 - t) * first + t * last).to(first.dtype)


def _second_derivatives(keys: Tensor) -> Tensor:
    """Those of the spline at its keys: M[i-1] + 4 M[i] + M[i+1] = 6 (second difference)."""
    identity = torch.eye(len(keys), dtype=keys.dtype, device=keys.device)
    neighbours = identity.roll(1, 0) + identity.roll(-1, 0)
    bend = keys.roll(1, 0) - 2 * keys + keys.roll(-1, 0)
    return torch.linalg.solve(4 * identity + neighbours, 6 * bend)

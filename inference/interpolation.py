"""Closed curves through styles: straight from one to the next, or smoothly (cubic splines)."""

import torch
from torch import Tensor

from ops.shapes import Float

KINDS = ("linear", "cubic", "tiled")
WRAPS = 2  # rounds before and after the one that is shown, of "tiled"


def interpolate_loop(
    keys: Float[Tensor, "keys ..."], phases: Float[Tensor, " frames"], kind: str = "linear"
) -> Float[Tensor, "frames ..."]:
    """Points of a closed curve through `keys`, which it passes at phases 0, 1, ... and again.

    A phase of len(keys) is back at the first key. "cubic" is the periodic cubic spline: its first
    and second derivatives are continuous everywhere, also where the loop closes. "tiled" is what
    StyleGAN's video script and its heirs have in its place: the middle one of five rounds of an
    open spline (not a knot at its ends), which closes nearly as smoothly.
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
    if kind != "linear":
        bend = _second_derivatives(flat) if kind == "cubic" else _tiled_derivatives(flat)
        s = 1 - t  # the last bend is where the loop closes
        values = values + ((s**3 - s) * bend[before] + (t**3 - t) * bend[before + 1]) / 6
    return values.to(keys.dtype).reshape(len(phases), *keys.shape[1:])


def interpolate_line(
    first: Float[Tensor, "1 ..."], last: Float[Tensor, "1 ..."], steps: int
) -> Float[Tensor, "steps ..."]:
    """Evenly from one style to another, both included."""
    t = torch.linspace(0, 1, steps, dtype=torch.float64, device=first.device)
    t = t.reshape(-1, *[1] * (first.ndim - 1))
    return ((1 - t) * first + t * last).to(first.dtype)


def _second_derivatives(keys: Tensor) -> Tensor:
    """Those of the periodic spline at its keys and at the first again.

    M[i-1] + 4 M[i] + M[i+1] = 6 (second difference).
    """
    matrix, bend = _equations(keys)
    found = torch.linalg.solve(matrix, bend)
    return torch.cat([found, found[:1]])


def _tiled_derivatives(keys: Tensor) -> Tensor:
    """Those of the open spline through five rounds, in the middle one and at its end.

    Not a knot: at the second key and the last but one, the third derivative is continuous, too.
    """
    matrix, bend = _equations(keys.repeat(2 * WRAPS + 1, 1))
    for end, step in ((0, 1), (-1, -1)):
        bend[end] = 0
        matrix[end] = 0
        for place, weight in ((end, 1.0), (end + step, -2.0), (end + 2 * step, 1.0)):
            matrix[end, place] = weight
    first = WRAPS * len(keys)
    return torch.linalg.solve(matrix, bend)[first : first + len(keys) + 1]


def _equations(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix and right sides of the second derivatives of a closed spline."""
    identity = torch.eye(len(keys), dtype=keys.dtype, device=keys.device)
    neighbours = identity.roll(1, 0) + identity.roll(-1, 0)
    bend = keys.roll(1, 0) - 2 * keys + keys.roll(-1, 0)
    return 4 * identity + neighbours, 6 * bend

"""Where along a ray the field is looked at.

Letters: t depths along the unit ray, u uniform numbers in [0, 1], w weights of samples.
"""

import torch
from torch import Tensor

from ops.shapes import Float

WEIGHT_FLOOR = 1e-5  # keeps empty intervals reachable by importance sampling


def stratified_depths(
    ray_start: float, ray_end: float, u: Float[Tensor, "batch rays samples"]
) -> Float[Tensor, "batch rays samples"]:
    """Regular depths from `ray_start` to `ray_end`, each moved by (u - 1/2) of a step.

    u = 1/2 everywhere gives the regular grid, both ends included.
    """
    samples = u.shape[-1]
    t = torch.linspace(ray_start, ray_end, samples, device=u.device, dtype=u.dtype)
    return t + (u - 0.5) * (t[1] - t[0])


def jittered_depths(
    t: Float[Tensor, "*rays samples"], u: Float[Tensor, "*rays samples"]
) -> Float[Tensor, "*rays samples"]:
    """Each depth moved to the share u of the way between the midpoints to its neighbours.

    The first and the last move inwards only, so that all stay between them (NeRF, eq. 2).
    """
    middle = (t[..., 1:] + t[..., :-1]) / 2
    low = torch.cat([t[..., :1], middle], dim=-1)
    high = torch.cat([middle, t[..., -1:]], dim=-1)
    return low + (high - low) * u


def importance_depths(
    t: Float[Tensor, "batch rays samples"],
    w: Float[Tensor, "batch rays samples"],
    u: Float[Tensor, "batch rays fine"],
) -> Float[Tensor, "batch rays fine"]:
    """Depths distributed as the weights `w` of the coarse samples at `t` (NeRF, section 5.2).

    The bins lie between the midpoints of neighbouring coarse depths, so that the first and the
    last sample have none. Not sorted unless `u` is; no gradient.
    """
    with torch.no_grad():
        edges = (t[..., 1:] + t[..., :-1]) / 2
        return invert_cdf(edges, w[..., 1:-1] + WEIGHT_FLOOR, u)


def invert_cdf(
    edges: Float[Tensor, "*rays bins_plus_1"],
    w: Float[Tensor, "*rays bins"],
    u: Float[Tensor, "*rays fine"],
) -> Float[Tensor, "*rays fine"]:
    """Quantiles `u` of the piecewise constant density with `w` per bin between `edges`."""
    w = w + WEIGHT_FLOOR
    cdf = torch.cumsum(w / w.sum(-1, keepdim=True), dim=-1)
    cdf = torch.cat([torch.zeros_like(cdf[..., :1]), cdf], dim=-1)
    upper = torch.searchsorted(cdf, u.contiguous(), right=False)
    lower = (upper - 1).clamp(min=0)
    upper = upper.clamp(max=cdf.shape[-1] - 1)  # u above a cdf that rounding ends below 1
    cdf_lower, cdf_upper = cdf.gather(-1, lower), cdf.gather(-1, upper)
    mass = cdf_upper - cdf_lower
    mass = torch.where(mass < WEIGHT_FLOOR, 1.0, mass)  # an empty bin: stay at its lower edge
    low, high = edges.gather(-1, lower), edges.gather(-1, upper)
    return low + (u - cdf_lower) / mass * (high - low)


def quantiles(
    batch: int, rays: int, samples: int, *, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "batch rays samples"]:
    """The deterministic stand-in for uniform draws: u_i = (i + 1/2) / N on every ray."""
    u = (torch.arange(samples, device=device, dtype=dtype) + 0.5) / samples
    return u.expand(batch, rays, samples)

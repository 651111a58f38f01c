"""From densities and colours along rays to pixels (NeRF, eq. 3; pi-GAN, section 3.2)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Float

FAR_DELTA = 1e10  # the last sample's interval reaches to infinity
NEAR_DELTA = 1e-3  # ... or, with something to be seen behind it, hardly anywhere (EpiGRAF)


@dataclass(frozen=True)
class Composite:
    """What one ray bundle sees.

    `depth` is the expected distance along the ray, not divided by `opacity`; `weights` sum to
    `opacity`, or to 1 when the last sample stands for the background. `transmittance` is the share
    of the light at the last sample that arrives.
    """

    radiance: Float[Tensor, "batch rays channels"]
    depth: Float[Tensor, "batch rays"]
    opacity: Float[Tensor, "batch rays"]
    weights: Float[Tensor, "batch rays samples"]
    transmittance: Float[Tensor, "batch rays"]


def activate_density(raw: Tensor, clamp_mode: str, noise: Tensor | None = None) -> Tensor:
    """Raw density plus noise, made non-negative by "relu" or "softplus"."""
    raw = raw if noise is None else raw + noise
    if clamp_mode == "relu":
        return F.relu(raw)
    if clamp_mode == "softplus":
        return F.softplus(raw)
    raise ValueError(f"clamp_mode must be 'relu' or 'softplus', got {clamp_mode!r}")


def render_weights(
    density: Float[Tensor, "batch rays samples"],
    t: Float[Tensor, "batch rays samples"],
    last_delta: float = FAR_DELTA,
) -> Float[Tensor, "batch rays samples"]:
    """Share of the ray's light that each sample sends: w = (1 - exp(-density delta)) T.

    T, the transmittance up to the sample, is exp(-sum of density x delta before it). Density is
    non-negative, per unit length; `t` ascends; `last_delta` is the last interval.
    """
    return _opacities(density, t, last_delta) * transmittance(density, t)


def _opacities(density: Tensor, t: Tensor, last_delta: float) -> Tensor:
    """Share of the light that each sample's interval absorbs."""
    delta = t[..., 1:] - t[..., :-1]
    delta = torch.cat([delta, torch.full_like(delta[..., :1], last_delta)], dim=-1)
    return -torch.expm1(-density * delta)


def transmittance(
    density: Float[Tensor, "batch rays samples"], t: Float[Tensor, "batch rays samples"]
) -> Float[Tensor, "batch rays samples"]:
    """Share of the light of each sample that nothing in front of it absorbs."""
    thickness = density[..., :-1] * (t[..., 1:] - t[..., :-1])
    return torch.exp(-F.pad(torch.cumsum(thickness, dim=-1), (1, 0)))


def composite(
    radiance: Float[Tensor, "batch rays samples channels"],
    density: Float[Tensor, "batch rays samples"],
    t: Float[Tensor, "batch rays samples"],
    *,
    white_back: bool = False,
    last_back: bool = False,
    last_delta: float = FAR_DELTA,
    fill_mode: str | None = None,
) -> Composite:
    """Integrate radiance along each ray.

    Light that nothing absorbs is black; with `white_back` it is 1, with `last_back` it has the last
    sample's colour and depth. `fill_mode` paints diagnostics as the original does: "debug" marks
    rays of opacity below 0.9 red, "weight" shows the opacity.
    """
    light = transmittance(density, t)
    weights = _opacities(density, t, last_delta) * light
    opacity = weights.sum(-1)
    if last_back:
        rest = (1 - opacity)[..., None]
        weights = torch.cat([weights[..., :-1], weights[..., -1:] + rest], dim=-1)
    pixels = torch.einsum("brs,brsc->brc", weights, radiance)
    depth = (weights * t).sum(-1)
    if white_back:
        pixels = pixels + (1 - opacity)[..., None]
    if fill_mode == "debug":
        red = pixels.new_tensor([1.0] + [0.0] * (pixels.shape[-1] - 1))
        pixels = torch.where((opacity < 0.9)[..., None], red, pixels)
    elif fill_mode == "weight":
        pixels = opacity[..., None].expand_as(pixels)
    elif fill_mode is not None:
        raise ValueError(f"fill_mode must be None, 'debug' or 'weight', got {fill_mode!r}")
    return Composite(pixels, depth, opacity, weights, light[..., -1])

"""The only ray loop: a field, cameras and settings in, pictures out.

Training, scripts, metrics and the viewer all render here, whole, chunked or as a patch, with or
without gradients. Geometry, sampling and compositing stay in full precision whatever autocast
says; only the field itself follows it. All random numbers of a picture are drawn before the first
ray is cast, so that chunking changes nothing.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ops.shapes import Float
from rendering.cameras import Cameras, Patch
from rendering.compositing import activate_density, composite, render_weights
from rendering.sampling import importance_depths, quantiles, stratified_depths
from rendering.settings import RenderSettings

LOCKED_DIRECTION = (0.0, 0.0, -1.0)  # what the frontal camera's central ray sees along


@runtime_checkable
class Field(Protocol):
    """One latent's scene per batch entry: radiance and raw density at points in space."""

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n channels"], Float[Tensor, "batch n 1"]]:
        """Radiance in the field's own range, and density before activation."""
        ...


@dataclass(frozen=True)
class Rendering:
    """A batch of pictures with their geometry.

    `depth` is the expected distance along the ray (not divided by `opacity`); 2D generators have
    neither depth nor opacity.
    """

    image: Float[Tensor, "batch channels height width"]
    depth: Float[Tensor, "batch height width"] | None = None
    opacity: Float[Tensor, "batch height width"] | None = None


@dataclass
class _Draws:
    """The random numbers of a batch of pictures, one row per ray."""

    jitter: Tensor | None = None
    importance: Tensor | None = None
    coarse_noise: Tensor | None = None
    final_noise: Tensor | None = None

    def rows(self, rays: slice) -> "_Draws":
        cut = {k: v if v is None else v[:, rays] for k, v in vars(self).items()}
        return _Draws(**cut)


def render(
    field: Field,
    cameras: Cameras,
    settings: RenderSettings,
    *,
    patch: Patch | None = None,
    generator: torch.Generator | None = None,
) -> Rendering:
    """Render one picture per camera; radiance is returned as the field gives it.

    `patch` renders only a window of the image, at `settings.resolution` pixels. `generator` feeds
    jitter and density noise and must live on the cameras' device. With gradients and
    `max_batch_size`, chunks are recomputed in the backward pass, so that memory stays bounded.
    """
    batch, size = len(cameras), settings.resolution
    device_type = cameras.cam2world.device.type
    autocast_field = _with_ambient_autocast(field, device_type)
    with torch.autocast(device_type, enabled=False):
        origins, directions = cameras.rays(size, size, patch)
        draws = _draw(batch, size * size, settings, generator, directions)
        rays = size * size
        chunk = rays
        if settings.max_batch_size is not None:
            chunk = max(1, min(rays, settings.max_batch_size // (batch * settings.num_steps)))
        parts = []
        for start in range(0, rays, chunk):
            rows = slice(start, start + chunk)
            arguments = (
                autocast_field,
                origins[:, rows],
                directions[:, rows],
                settings,
                draws.rows(rows),
            )
            if chunk < rays and torch.is_grad_enabled():
                parts.append(
                    checkpoint(_trace, *arguments, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                parts.append(_trace(*arguments))
        radiance, depth, opacity = (torch.cat(p, dim=1) for p in zip(*parts, strict=True))
    image = radiance.transpose(1, 2).reshape(batch, -1, size, size)
    return Rendering(image, depth.reshape(batch, size, size), opacity.reshape(batch, size, size))


def _trace(
    field: Field, origins: Tensor, directions: Tensor, settings: RenderSettings, draws: _Draws
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, evaluate and integrate a bundle of rays: coarse, then fine, then their union."""
    batch, rays, _ = directions.shape
    if draws.jitter is None:
        u = directions.new_full((batch, rays, settings.num_steps), 0.5)
    else:
        u = draws.jitter
    t = stratified_depths(settings.ray_start, settings.ray_end, u)
    radiance, raw = _evaluate(field, origins, directions, t, settings)
    if settings.hierarchical:
        with torch.no_grad():
            density = activate_density(raw, settings.clamp_mode, draws.coarse_noise)
            w = render_weights(density, t)
            if draws.importance is None:
                u = quantiles(batch, rays, settings.num_steps, device=t.device, dtype=t.dtype)
            else:
                u = draws.importance
            fine_t = importance_depths(t, w, u)
        fine_radiance, fine_raw = _evaluate(field, origins, directions, fine_t, settings)
        t, order = torch.sort(torch.cat([fine_t, t], dim=-1), dim=-1, stable=True)
        raw = torch.cat([fine_raw, raw], dim=-1).gather(-1, order)
        radiance = torch.cat([fine_radiance, radiance], dim=-2)
        radiance = radiance.gather(-2, order[..., None].expand_as(radiance))
    density = activate_density(raw, settings.clamp_mode, draws.final_noise)
    result = composite(
        radiance, density, t, white_back=settings.white_back, last_back=settings.last_back
    )
    return result.radiance, result.depth, result.opacity


def _evaluate(
    field: Field, origins: Tensor, directions: Tensor, t: Tensor, settings: RenderSettings
) -> tuple[Tensor, Tensor]:
    """Radiance (batch, rays, samples, channels) and raw density (batch, rays, samples) at t."""
    batch, rays, samples = t.shape
    points = origins[:, :, None] + directions[:, :, None] * t[..., None]
    if settings.lock_view_dependence:
        views = directions.new_tensor(LOCKED_DIRECTION).expand_as(points)
    else:
        views = directions[:, :, None].expand_as(points)
    flat = (batch, rays * samples, 3)
    radiance, raw = field(points.reshape(flat), views.reshape(flat))
    return radiance.reshape(batch, rays, samples, -1), raw.reshape(batch, rays, samples)


def _draw(
    batch: int,
    rays: int,
    settings: RenderSettings,
    generator: torch.Generator | None,
    like: Tensor,
) -> _Draws:
    """All random numbers that these settings call for; none for a deterministic picture."""
    options = {"generator": generator, "device": like.device, "dtype": like.dtype}
    shape = (batch, rays, settings.num_steps)
    draws = _Draws()
    if settings.jitter:
        draws.jitter = torch.rand(shape, **options)
        if settings.hierarchical:
            draws.importance = torch.rand(shape, **options)
    if settings.noise_std > 0:
        if settings.hierarchical:
            draws.coarse_noise = settings.noise_std * torch.randn(shape, **options)
            shape = (batch, rays, 2 * settings.num_steps)
        draws.final_noise = settings.noise_std * torch.randn(shape, **options)
    return draws


def _with_ambient_autocast(field: Field, device_type: str) -> Field:
    """Let the field alone keep the precision that the caller's autocast asks for."""
    if not torch.is_autocast_enabled(device_type):
        return field
    dtype = torch.get_autocast_dtype(device_type)

    def evaluate(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device_type, dtype=dtype):
            radiance, raw = field(points, directions)
        return radiance.to(points.dtype), raw.to(points.dtype)

    return evaluate

"""The only ray loop: a field, cameras and settings in, pictures out.

Training, scripts, metrics and the viewer all render here, whole, chunked or as a patch, with or
without gradients. Geometry, sampling and compositing stay in full precision whatever autocast
says; only the field itself follows it. All random numbers of a picture are drawn before the first
ray is cast, so that chunking changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ops.shapes import Float
from rendering.cameras import Cameras, Patch, pixel_axes
from rendering.compositing import (
    FAR_DELTA,
    NEAR_DELTA,
    activate_density,
    composite,
    render_weights,
)
from rendering.field import Background, Field, background_of
from rendering.proposal import Proposal, ProposedSamples, check_proposal
from rendering.samples import Samples
from rendering.sampling import (
    importance_depths,
    jittered_depths,
    quantiles,
    stratified_depths,
)
from rendering.settings import RenderSettings
from rendering.skip import Occupancy
from rendering.sparse import BUNDLE, SparseSamples, background_shows


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
    background: Tensor | None = None

    def rows(self, rays: slice | Tensor) -> "_Draws":
        cut = {k: v if v is None else v[:, rays] for k, v in vars(self).items()}
        return _Draws(**cut)


def render(
    field: Field,
    cameras: Cameras,
    settings: RenderSettings,
    *,
    occupancy: Occupancy | None = None,
    proposal: Proposal | None = None,
    patch: Patch | None = None,
    generator: torch.Generator | None = None,
) -> Rendering:
    """Render one picture per camera; radiance is returned as the field gives it.

    `occupancy` says where the field, of a single scene, is empty: what it leaves out costs nothing.
    `proposal`, of a single scene, too, places its few samples in place of the settings' many.
    `patch` renders only a window of the image, at `settings.resolution` pixels. `generator` feeds
    jitter and density noise and must live on the cameras' device. With gradients and
    `max_batch_size`, chunks are recomputed in the backward pass, so that memory stays bounded.
    """
    batch, size = len(cameras), settings.resolution
    rays = size * size
    device_type = cameras.cam2world.device.type
    if proposal is not None:
        _check_sparse(batch, settings)
        check_proposal(settings, occupancy)
        occupancy = proposal.extend(field, cameras, settings)
    autocast_field, background = _with_ambient_autocast(field, device_type), background_of(field)
    with torch.autocast(device_type, enabled=False):
        origins, directions = cameras.rays(size, size, patch)
        x, y = pixel_axes(size, size, patch, origins[:, 0, 0])
        positions = torch.stack([x.repeat(1, size), y.repeat_interleave(size, dim=1)], dim=-1)
        draws = _draw(batch, rays, settings, generator, directions, background)
        chunk = rays
        if settings.max_batch_size is not None:
            chunk = max(1, min(rays, settings.max_batch_size // (batch * settings.num_steps)))
        bundles: Sequence[slice | Tensor] = [
            slice(start, start + chunk) for start in range(0, rays, chunk)
        ]
        met = None
        if occupancy is not None:
            _check_sparse(batch, settings)
            met = torch.arange(rays, device=origins.device)
            if background is None and not background_shows(settings):
                met = occupancy.rays(origins, directions, settings)
            bundles = met.split(min(chunk, BUNDLE))
        parts = []
        for rows in bundles:
            arguments = (
                autocast_field,
                background,
                origins[:, rows],
                directions[:, rows],
                positions[:, rows],
                settings,
                draws.rows(rows),
                occupancy,
                proposal,
            )
            if chunk < rays and torch.is_grad_enabled():
                parts.append(
                    checkpoint(_trace, *arguments, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                parts.append(_trace(*arguments))
        radiance, depth, opacity = (torch.cat(p, dim=1) for p in zip(*parts, strict=True))
        if met is not None:
            back = float(settings.white_back)
            radiance = _among(radiance, met, rays, back)
            depth, opacity = _among(depth, met, rays, 0.0), _among(opacity, met, rays, 0.0)
    image = radiance.transpose(1, 2).reshape(batch, -1, size, size)
    return Rendering(image, depth.reshape(batch, size, size), opacity.reshape(batch, size, size))


def _check_sparse(batch: int, settings: RenderSettings) -> None:
    """Refuse what an occupancy says nothing about."""
    if torch.is_grad_enabled():
        raise ValueError("leaving out samples has no gradients: render under torch.no_grad()")
    if batch != 1:
        raise ValueError(f"samples are left out of one scene and camera at a time, got {batch}")
    if settings.noise_std:
        raise ValueError(f"noise_std must be 0 to leave out samples, got {settings.noise_std}")


def _among(values: Tensor, rows: Tensor, rays: int, background: float) -> Tensor:
    """All rays of a picture: values for some rows, the background for the rest."""
    whole = values.new_full((1, rays, *values.shape[2:]), background)
    return whole.index_copy(1, rows, values)


def _trace(
    field: Field,
    background: Background | None,
    origins: Tensor,
    directions: Tensor,
    positions: Tensor,
    settings: RenderSettings,
    draws: _Draws,
    occupancy: Occupancy | None,
    proposal: Proposal | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, evaluate and integrate a bundle of rays."""
    last_delta = FAR_DELTA if background is None else NEAR_DELTA
    if proposal is not None:
        samples = ProposedSamples(field, origins, directions, settings, proposal)
    else:
        samples = Samples(field, origins, directions, settings)
        if occupancy is not None:
            samples = SparseSamples(field, origins, directions, settings, occupancy)
        _look_twice(samples, settings, draws, last_delta)
    density = activate_density(samples.raw, settings.clamp_mode, draws.final_noise)
    result = composite(
        samples.radiance,
        density,
        samples.t,
        white_back=settings.white_back,
        last_back=settings.last_back,
        last_delta=last_delta,
    )
    radiance = result.radiance
    if background is not None:
        behind = background(
            origins, directions, positions, draws.background, white_back=settings.white_back
        )
        radiance = radiance + behind * result.transmittance[..., None]
    return radiance, result.depth, result.opacity


def _look_twice(
    samples: Samples, settings: RenderSettings, draws: _Draws, last_delta: float
) -> None:
    """Coarse samples, then with `hierarchical` fine ones where these found something."""
    directions = samples.directions
    samples.add(_coarse_depths(settings, draws.jitter, directions))
    if settings.hierarchical:
        with torch.no_grad():
            density = activate_density(samples.raw, settings.clamp_mode, draws.coarse_noise)
            w = render_weights(density, samples.t, last_delta)
            u = draws.importance
            if u is None:
                batch, rays, _ = directions.shape
                u = quantiles(batch, rays, settings.num_steps, device=w.device, dtype=w.dtype)
            fine = importance_depths(samples.t, w, u)
        samples.add(fine)


def _coarse_depths(settings: RenderSettings, u: Tensor | None, directions: Tensor) -> Tensor:
    """Depths of the first pass: on a regular grid, or moved about it by uniform numbers."""
    middle = directions.new_full((*directions.shape[:2], settings.num_steps), 0.5)
    if u is None or settings.bounded_jitter:
        t = stratified_depths(settings.ray_start, settings.ray_end, middle)
        return t if u is None else jittered_depths(t, u)
    return stratified_depths(settings.ray_start, settings.ray_end, u)


def _draw(
    batch: int,
    rays: int,
    settings: RenderSettings,
    generator: torch.Generator | None,
    like: Tensor,
    background: Background | None,
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
    if settings.jitter and background is not None and background.num_draws:
        draws.background = torch.rand((batch, rays, background.num_draws), **options)
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

"""What the original computes, written plainly: the other side of every ratio.

Layer by layer over all points at once, FiLM applied point by point, the view direction
concatenated, transmittance by a cumulative product, both players' weights always collecting
gradients. Checked against our modules, and through them against the parity fixtures, in
tests/benchmarks.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from generators.pigan import PiGAN
from rendering.cameras import Cameras
from rendering.sampling import importance_depths, stratified_depths
from rendering.settings import RenderSettings
from siren.film import FilmLayer


def reference_field(generator: PiGAN, w: Tensor, points: Tensor, directions: Tensor) -> Tensor:
    """(batch, n, 4): colour and raw density of points, every activation in memory."""
    siren = generator.siren
    frequency, phase = w.chunk(2, dim=-1)
    frequency = 15 * frequency + 30
    x = siren.encode(points)
    hidden = siren.hidden_dim
    for i, film in enumerate(siren.network):
        assert isinstance(film, FilmLayer)
        part = slice(i * hidden, (i + 1) * hidden)
        f, p = frequency[:, None, part], phase[:, None, part]
        x = torch.sin(f * film.layer(x) + p)
    density = siren.final_layer(x) * siren.density_gain
    if siren.view_direction:
        x = torch.cat([directions, x], dim=-1)
    f, p = frequency[:, None, -hidden:], phase[:, None, -hidden:]
    x = torch.sin(f * siren.color_layer_sine.layer(x) + p)
    return torch.cat([torch.sigmoid(siren.color_layer_linear(x)), density], dim=-1)


def reference_render(
    generator: PiGAN,
    w: Tensor,
    cameras: Cameras,
    settings: RenderSettings,
    rng: torch.Generator | None = None,
    field: Callable[..., Tensor] = reference_field,  # may be a compiled one
) -> Tensor:
    """Pictures (batch, 3, size, size) in [-1, 1] of styles: coarse pass, fine pass, their union."""
    batch, size, samples = len(cameras), settings.resolution, settings.num_steps
    origins, directions = cameras.rays(size, size)
    shape, device = (batch, size * size, samples), w.device

    def uniform() -> Tensor:
        return torch.rand(shape, generator=rng, device=device)

    u = uniform() if settings.jitter else torch.full(shape, 0.5, device=device)
    t = stratified_depths(settings.ray_start, settings.ray_end, u)

    def evaluate(depths: Tensor) -> Tensor:
        points = origins[:, :, None] + directions[:, :, None] * depths[..., None]
        views = directions[:, :, None].expand_as(points)
        out = field(generator, w, points.flatten(1, 2), views.reshape(batch, -1, 3))
        return out.float().reshape(*depths.shape, 4)

    outputs = evaluate(t)
    if settings.hierarchical:
        with torch.no_grad():
            weights = integrate(outputs, t, settings)[1] + 1e-5
            grid = (torch.arange(samples, device=device) + 0.5) / samples
            u = uniform() if settings.jitter else grid.expand(shape)
            fine = importance_depths(t, weights, u)
        fine_outputs = evaluate(fine)
        t, order = torch.sort(torch.cat([fine, t], dim=-1), dim=-1)
        outputs = torch.cat([fine_outputs, outputs], dim=-2)
        outputs = outputs.gather(-2, order[..., None].expand_as(outputs))
    pixels, _ = integrate(outputs, t, settings)
    return 2 * pixels.transpose(1, 2).reshape(batch, 3, size, size) - 1


def integrate(outputs: Tensor, t: Tensor, settings: RenderSettings) -> tuple[Tensor, Tensor]:
    """Colours and weights of rays by the cumulative product of 1 - alpha."""
    delta = torch.cat([t[..., 1:] - t[..., :-1], torch.full_like(t[..., :1], 1e10)], dim=-1)
    activate = torch.relu if settings.clamp_mode == "relu" else torch.nn.functional.softplus
    alpha = 1 - torch.exp(-delta * activate(outputs[..., 3]))
    before = torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha + 1e-10], dim=-1)
    weights = alpha * torch.cumprod(before, dim=-1)[..., :-1]
    opacity = weights.sum(-1)
    if settings.last_back:
        last = torch.zeros_like(weights)
        last[..., -1] = 1 - opacity
        weights = weights + last
    pixels = (weights[..., None] * outputs[..., :3]).sum(-2)
    if settings.white_back:
        pixels = pixels + (1 - opacity)[..., None]
    return pixels, weights

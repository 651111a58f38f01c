"""Slow and obvious versions of what the core computes, and scenes whose pictures are known.

Each oracle follows its definition literally, one ray, sample or unit at a time and in float64, and
computes with nothing of the core.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rendering.settings import RenderSettings


def integrate_ray(
    radiance: Sequence[Sequence[float]],
    density: Sequence[float],
    t: Sequence[float],
    *,
    white_back: bool = False,
    last_back: bool = False,
) -> tuple[list[float], float, float, list[float]]:
    """One ray by the sum of NeRF, eq. 3: colour, depth, opacity, weights."""
    weights: list[float] = []
    transmittance = 1.0
    for k in range(len(t)):
        delta = t[k + 1] - t[k] if k + 1 < len(t) else 1e10
        alpha = 1 - math.exp(-density[k] * delta)
        weights.append(transmittance * alpha)
        transmittance *= 1 - alpha
    opacity = math.fsum(weights)
    if last_back:
        weights[-1] += 1 - opacity
    channels = range(len(radiance[0]))
    colour = [math.fsum(w * radiance[k][c] for k, w in enumerate(weights)) for c in channels]
    if white_back:
        colour = [c + 1 - opacity for c in colour]
    depth = math.fsum(w * t_k for w, t_k in zip(weights, t, strict=True))
    return colour, depth, opacity, weights


def invert_cdf(edges: Sequence[float], mass: Sequence[float], u: float) -> float:
    """Where the piecewise uniform distribution with `mass` between `edges` has the share u below.

    Walks along the bins until the mass walked over reaches u.
    """
    share = u * sum(mass)
    for k, m in enumerate(mass):
        if share <= m or k == len(mass) - 1:
            return edges[k] + (edges[k + 1] - edges[k]) * share / m
        share -= m
    raise AssertionError("no bins")


def camera_matrix(yaw: float, pitch: float, radius: float) -> np.ndarray:
    """Camera to world by rotating a camera at the origin into place, step by step.

    A camera that looks along -z is tilted about x, turned about y, then moved back by `radius`.
    """
    tilt, turn = pitch - math.pi / 2, math.pi / 2 - yaw
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]]
    )
    about_y = np.array(
        [[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = about_y @ about_x
    matrix[:3, 3] = matrix[:3, :3] @ [0, 0, radius]
    return matrix


def render_pixel(
    field: "WaveField",
    settings: RenderSettings,
    pose: tuple[float, float, float, float],
    row: int,
    column: int,
) -> tuple[list[float], float, float]:
    """Colour, depth and opacity of one pixel without jitter; `pose` is yaw, pitch, fov, radius.

    Coarse samples on the grid, fine ones at the quantiles (i + 1/2) / N of the coarse weights,
    whose floor of 1e-5 is added twice; then the integral over both.
    """
    yaw, pitch, fov, radius = pose
    matrix = camera_matrix(yaw, pitch, radius)
    last = settings.resolution - 1
    ray = np.array(
        [-1 + 2 * column / last, 1 - 2 * row / last, -1 / math.tan(math.radians(fov) / 2)]
    )
    direction = matrix[:3, :3] @ (ray / np.linalg.norm(ray))

    def look(t: float) -> tuple[float, list[float], float]:
        point = torch.from_numpy(matrix[:3, 3] + t * direction)[None, None]
        colour, raw = field(point, torch.from_numpy(direction)[None, None])
        if settings.clamp_mode == "softplus":
            return t, colour[0, 0].tolist(), math.log1p(math.exp(float(raw)))
        return t, colour[0, 0].tolist(), max(float(raw), 0.0)

    steps = settings.num_steps
    span = settings.ray_end - settings.ray_start
    samples = [look(settings.ray_start + span * k / (steps - 1)) for k in range(steps)]
    if settings.hierarchical:
        t = [s[0] for s in samples]
        weights = integrate_ray([s[1] for s in samples], [s[2] for s in samples], t)[3]
        edges = [(a + b) / 2 for a, b in zip(t[:-1], t[1:], strict=True)]
        mass = [w + 2e-5 for w in weights[1:-1]]
        samples += [look(invert_cdf(edges, mass, (i + 0.5) / steps)) for i in range(steps)]
        samples.sort(key=lambda s: s[0])
    t, colours, densities = zip(*samples, strict=True)
    return integrate_ray(
        colours, densities, t, white_back=settings.white_back, last_back=settings.last_back
    )[:3]


def film_siren(
    weights: Mapping[str, Tensor],
    w: Tensor,
    encoded: Tensor,
    direction: Tensor | None,
    density_gain: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Colour and raw density of one point for one style: every layer sin(f * (W x + b) + p).

    `encoded` is what the first layer sees of the point; `weights` has the names of a SirenNetwork's
    state_dict; without `direction` colour does not depend on it.
    """
    hidden = weights["final_layer.weight"].shape[1]
    layers = w.numel() // (2 * hidden)
    frequencies = 15 * w[: layers * hidden].reshape(layers, hidden) + 30
    phases = w[layers * hidden :].reshape(layers, hidden)

    def film(name: str, x: Tensor, layer: int) -> Tensor:
        a = weights[f"{name}.layer.weight"] @ x + weights[f"{name}.layer.bias"]
        return torch.sin(frequencies[layer] * a + phases[layer])

    x = encoded
    for layer in range(layers - 1):
        x = film(f"network.{layer}", x, layer)
    raw = weights["final_layer.weight"] @ x + weights["final_layer.bias"]
    seen = x if direction is None else torch.cat([direction, x])
    x = film("color_layer_sine", seen, layers - 1)
    x = weights["color_layer_linear.0.weight"] @ x + weights["color_layer_linear.0.bias"]
    return 1 / (1 + torch.exp(-x)), raw * density_gain


def trilinear(grid: np.ndarray, place: Sequence[float]) -> np.ndarray:
    """Features at (x, y, z) in [-1, 1]^3 of `grid` (channels, z, y, x); zero outside the grid.

    -1 and 1 are the centres of the first and last voxel.
    """
    result = np.zeros(grid.shape[0])
    at = [(c + 1) / 2 * (n - 1) for c, n in zip(place, grid.shape[:0:-1], strict=True)]
    low = [math.floor(a) for a in at]
    for corner in np.ndindex(2, 2, 2):
        voxel = [lo + c for lo, c in zip(low, corner, strict=True)]
        share = math.prod(1 - abs(a - v) for a, v in zip(at, voxel, strict=True))
        if all(0 <= v < n for v, n in zip(voxel, grid.shape[:0:-1], strict=True)):
            x, y, z = voxel
            result += share * grid[:, z, y, x]
    return result


class BallField:
    """An opaque ball of one colour, centred at the origin: its silhouette and depth are known."""

    def __init__(self, radius: float, colour: tuple[float, ...] = (0.25, 0.5, 0.75)) -> None:
        self.radius, self.colour = radius, colour

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        inside = points.norm(dim=-1, keepdim=True) < self.radius
        colour = points.new_tensor(self.colour).expand(*points.shape[:2], len(self.colour))
        return colour, torch.where(inside, 1e6, -1.0).to(points.dtype)


class FogField:
    """Constant density everywhere; colour is a function of the view direction or constant."""

    def __init__(self, density: float, colour: Callable[[Tensor], Tensor] | None = None) -> None:
        self.density, self.colour = density, colour

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        raw = torch.full_like(points[..., :1], self.density)
        return torch.ones_like(points) if self.colour is None else self.colour(directions), raw


class WaveField:
    """A smooth scene without symmetry, with weights (6, 4) to differentiate by.

    `evaluated` keeps the number of points of each call.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.evaluated: list[int] = []

    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        self.evaluated.append(points.shape[0] * points.shape[1])
        waves = torch.sin(5 * points @ self.weights[:3] + 0.3 * directions @ self.weights[3:])
        return torch.sigmoid(waves[..., :3]), 20 * waves[..., 3:]

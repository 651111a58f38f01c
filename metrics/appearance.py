"""Silhouettes and colours of things on a plain ground: statistics that need no trained network.

`appearance_distance` compares two sets of pictures, such as Toys and what a generator learned from
them; `identity_drift` asks whether the views of one scene have more in common than scenes have.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ops.shapes import Float

SILHOUETTE = ("area", "centre_x", "centre_y", "width", "height")
COLOUR = ("red", "green", "blue", "red_spread", "green_spread", "blue_spread")
APART = 0.1  # of the colours' range: a pixel that differs less from the ground belongs to it
QUANTILES = 256
BINS = 4  # of a colour histogram, per channel


def appearance(
    images: Float[Tensor, "batch 3 height width"], ground: float = 1.0
) -> Float[Tensor, "batch 11"]:
    """Numbers SILHOUETTE and COLOUR of each picture; `ground` is the background's grey in [-1, 1].

    The area is a share of the picture; the centre lies in -1..1, x to the right and y up; width and
    height are standard deviations in the same units; colours are 0..1, means and standard
    deviations over the silhouette. A picture that is all ground has no extent and its colour.
    """
    height, width = images.shape[-2:]
    mask = ((images - ground).abs().amax(1) > 2 * APART).to(images)
    area = mask.mean(dim=(1, 2))
    total = mask.sum(dim=(1, 2)).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (mask * values).sum(dim=(1, 2)) / total

    def spread(values: Tensor, centre: Tensor) -> Tensor:
        return mean((values - centre[:, None, None]).square()).sqrt()

    x = torch.linspace(-1, 1, width, device=images.device).expand_as(mask)
    y = torch.linspace(1, -1, height, device=images.device)[:, None].expand_as(mask)
    centre = mean(x), mean(y)
    empty = (area == 0).to(images)
    channels = (images / 2 + 0.5).unbind(1)
    colours = [mean(c) + empty * (ground / 2 + 0.5) for c in channels]
    spreads = [spread(c, m) for c, m in zip(channels, colours, strict=True)]
    extent = [spread(x, centre[0]), spread(y, centre[1])]
    return torch.stack([area, *centre, *extent, *colours, *spreads], dim=1)


def appearance_distance(
    real: Float[Tensor, "n 11"], fake: Float[Tensor, "m 11"]
) -> dict[str, float]:
    """How far apart two sets of `appearance` are: {"silhouette": ..., "colour": ...}.

    Each number's 1D Wasserstein distance in standard deviations of the real set, averaged over
    SILHOUETTE and over COLOUR; 0 is equality.
    """
    if len(real) < 2 or len(fake) < 2:
        raise ValueError(f"need two or more pictures of each kind, got {len(real)}, {len(fake)}")
    real, fake = real.double(), fake.double()
    levels = (torch.arange(QUANTILES, device=real.device).double() + 0.5) / QUANTILES
    gap = (real.quantile(levels, dim=0) - fake.quantile(levels, dim=0)).abs().mean(0)
    gap = gap / real.std(0).clamp(min=1e-3)
    shape, colour = gap.split([len(SILHOUETTE), len(COLOUR)])
    return {"silhouette": float(shape.mean()), "colour": float(colour.mean())}


def colour_histogram(
    images: Float[Tensor, "batch 3 height width"], opacity: Float[Tensor, "batch height width"]
) -> Float[Tensor, "batch bins"]:
    """How much of what a picture shows has which colour: shares that sum to 1, BINS per channel."""
    level = ((images / 2 + 0.5) * BINS).floor().clamp(0, BINS - 1).long()
    bin_index = (level[:, 0] * BINS + level[:, 1]) * BINS + level[:, 2]
    counts = opacity.new_zeros(len(images), BINS**3)
    counts.scatter_add_(1, bin_index.flatten(1), opacity.flatten(1))
    return counts / counts.sum(1, keepdim=True).clamp(min=1e-6)


def total_variation(
    a: Float[Tensor, "batch bins"], b: Float[Tensor, "batch bins"]
) -> Float[Tensor, " batch"]:
    """Share of one histogram that must move to make it the other."""
    return 0.5 * (a - b).abs().sum(1)


def identity_drift(
    items: Float[Tensor, "scenes views ..."],
    distance: Callable[[Tensor, Tensor], Tensor] = total_variation,
) -> float:
    """Distance between views of one scene, as a share of that between scenes from one side.

    0 is a scene that looks the same from everywhere; 1 or more, views that might as well be of
    different scenes. `items` are histograms, or with a `distance` of that kind (LPIPS) pictures.
    1 if all scenes are the same, too.
    """
    scenes, views = items.shape[:2]
    if scenes < 2 or views < 2:
        raise ValueError(f"need two or more scenes and views, got {scenes} and {views}")
    within = torch.cat([distance(items[:, i], items[:, j]) for i, j in _pairs(views)]).mean()
    between = torch.cat([distance(items[i], items[j]) for i, j in _pairs(scenes)]).mean()
    return float(within / between) if between > 1e-6 else 1.0


def _pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i)]

"""Distances to geometry that is known exactly: of one shape to its partner, of a set to a set.

A reconstruction has a partner: `surface_errors` and `chamfer` compare the two. What a generator
makes up has none; then sets are compared: `match_shapes` asks how far every known shape is from the
nearest made one, and how many of the known shapes are nearest to some made one (minimum matching
distance and coverage, Achlioptas et al. 2018, "Learning representations and generative models for
3D point clouds", section 4.2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metrics.geometry import OPAQUE, Views, surface_normals
from ops.shapes import Float


@dataclass(frozen=True)
class SurfaceErrors:
    """Pixelwise errors where both show a surface; None where no pixel can be compared.

    `depth` is the mean absolute error along the ray in world units, `normal` the mean angle in
    degrees, `silhouette` the intersection over union of the pixels that show a surface.
    """

    depth: float | None
    normal: float | None
    silhouette: float


def surface_errors(
    views: Views,
    distance: Float[Tensor, "views height width"],
    opacity: Float[Tensor, "views height width"],
    normals: Float[Tensor, "views height width 3"],
) -> SurfaceErrors:
    """Compare the surface that views show with exact distances and normals from the same cameras.

    `distance` is from the camera along the unit ray, `normals` have unit length in world space;
    both count where `opacity` says that there is a surface.
    """
    true = opacity >= OPAQUE
    both, either = views.solid & true, views.solid | true
    own, known = surface_normals(views)
    known = known & true
    depth = normal = None
    if both.any():
        depth = float((views.distance - distance)[both].abs().mean())
    if known.any():
        cosine = (own * normals).sum(-1)[known].clamp(-1, 1)
        normal = float(torch.rad2deg(cosine.arccos()).mean())
    return SurfaceErrors(depth, normal, float(both.sum() / either.sum().clamp(min=1)))


def surface_points(views: Views, count: int, seed: int = 0) -> Float[Tensor, "count 3"]:
    """Points of the surface that all views show together, as many as asked for.

    They are drawn from the pixels, again and again if those are fewer; empty without a surface.
    """
    points = views.points[views.solid]
    rng = torch.Generator().manual_seed(seed)
    if not len(points):
        return points
    order = torch.randperm(len(points), generator=rng).repeat(-(-count // len(points)))
    return points[order[:count].to(points.device)]


def chamfer(a: Float[Tensor, "n 3"], b: Float[Tensor, "m 3"]) -> float:
    """Mean distance from a point to the nearest one of the other cloud, both ways averaged.

    In world units, not squared ("Chamfer-L1", Mescheder et al. 2019, section 4.1).
    """
    if not len(a) or not len(b):
        raise ValueError("chamfer distance of an empty point cloud")
    distances = torch.cdist(a, b)
    return 0.5 * float(distances.amin(1).mean() + distances.amin(0).mean())


@dataclass(frozen=True)
class Matching:
    """Known shapes against made ones: `distance` in world units, `coverage` a share.

    `partner[i]` is the known shape that is nearest to made shape i.
    """

    distance: float
    coverage: float
    partner: list[int]


def match_shapes(table: Float[Tensor, "made known"]) -> Matching:
    """Minimum matching distance and coverage, given how far made shapes are from known ones."""
    if not table.numel():
        raise ValueError(f"need shapes of both kinds, got {table.shape[0]} and {table.shape[1]}")
    partner = table.argmin(dim=1).tolist()
    return Matching(float(table.amin(0).mean()), len(set(partner)) / table.shape[1], partner)

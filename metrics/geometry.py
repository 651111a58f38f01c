"""Do the pictures of a scene show one solid thing? Numbers that need nothing but the scene.

`reproject` carries what one view sees to where another view sees it, and tells what is hidden there
from what the other view sees through. `view_consistency` scores the colours that should agree;
`flatness` tells relief from a billboard.

Views have the conventions of `rendering.cameras`: a camera looks along its own -z, +x right, +y up,
and the outermost pixels' rays pass through the image border. Lengths are the world's, colours
differ by shares of their range: 0 is equal, 1 is black against white.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.shapes import Bool, Float

OPAQUE = 0.9  # a pixel of at least this opacity shows a surface; of at most 1 - OPAQUE, none
TOLERANCE = 2.0  # pixel widths by which depths of one surface may differ
LEAST_CONTRAST = 2 / 255  # pictures that vary by less show nothing that could be found again
LEAST_PIXELS = 16  # fewer have no shape
BALL_RELIEF = math.sqrt(2) / 3  # of a ball seen from afar: standard deviations along and across


@dataclass(frozen=True)
class Views:
    """Pictures of one scene from several cameras, and the surface that they show.

    `image` is in [-1, 1]; `points` is what each pixel sees, in world coordinates, and means nothing
    where `opacity` is low.
    """

    image: Float[Tensor, "views 3 height width"]
    points: Float[Tensor, "views height width 3"]
    opacity: Float[Tensor, "views height width"]
    cam2world: Float[Tensor, "views 4 4"]
    fov: Float[Tensor, " views"]  # degrees

    @property
    def distance(self) -> Float[Tensor, "views height width"]:
        """From the cameras to the points."""
        return (self.points - self.cam2world[:, None, None, :3, 3]).norm(dim=-1)

    @property
    def solid(self) -> Bool[Tensor, "views height width"]:
        """Where the pixels show a surface."""
        return self.opacity >= OPAQUE

    def __getitem__(self, index: slice | Tensor) -> "Views":
        return Views(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Reprojection:
    """Where each pixel of a view is found in another one; the masks exclude each other.

    `colour` is what the other view shows at that place.
    """

    colour: Float[Tensor, "views pixels 3"]
    seen: Bool[Tensor, "views pixels"]  # the same surface
    missing: Bool[Tensor, "views pixels"]  # nothing, or a surface behind: it looks through
    hidden: Bool[Tensor, "views pixels"]  # a surface in front


def project(
    points: Float[Tensor, "views n 3"],
    cam2world: Float[Tensor, "views 4 4"],
    fov: Float[Tensor, " views"],
) -> Float[Tensor, "views n 2"]:
    """Places of world points in the pictures: x to the right, y up, both -1..1 within the border.

    Points behind the camera are infinitely far outside.
    """
    local = (points - cam2world[:, None, :3, 3]) @ cam2world[:, :3, :3]
    ahead = -local[..., 2:]
    focal = 1 / torch.tan(torch.deg2rad(fov) / 2)
    return torch.where(ahead > 0, focal[:, None, None] * local[..., :2] / ahead, math.inf)


def reproject(source: Views, target: Views, tolerance: float = TOLERANCE) -> Reprojection:
    """Look for every surface pixel of `source` in the view of `target` with the same number.

    A place lies between four pixels. Of those, only the ones that show a surface at the expected
    distance, to `tolerance` pixel widths, are interpolated, so that nothing bleeds over edges. The
    kind of place is the one that has most of their weight.
    """
    views, height, width = target.opacity.shape
    points = source.points.flatten(1, 2)
    place = project(points, target.cam2world, target.fov)
    inside = (place.abs() <= 1).all(-1)
    place = torch.where(inside[..., None], place, 0)
    column = (place[..., 0] + 1) / 2 * (width - 1)
    row = (1 - place[..., 1]) / 2 * (height - 1)
    left, top = column.floor().clamp(max=width - 2), row.floor().clamp(max=height - 2)

    distance = (points - target.cam2world[:, None, :3, 3]).norm(dim=-1)
    pixel = _pixel_width(target.fov, distance, width)
    shown, opacity = target.distance.flatten(1), target.opacity.flatten(1)
    colours = target.image.flatten(2).transpose(1, 2)
    same, front, back = (torch.zeros_like(distance) for _ in range(3))
    matched, plain = (torch.zeros_like(points) for _ in range(2))
    for down in (0, 1):
        for right in (0, 1):
            index = ((top + down) * width + left + right).long()
            weight = (1 - (column - left - right).abs()) * (1 - (row - top - down).abs())
            gap = (shown.gather(1, index) - distance) / pixel
            alpha = opacity.gather(1, index)
            solid = alpha >= OPAQUE
            agrees = weight * (solid & (gap.abs() <= tolerance))
            same += agrees
            front += weight * (solid & (gap < -tolerance))
            back += weight * ((solid & (gap > tolerance)) | (alpha <= 1 - OPAQUE))
            colour = colours.gather(1, index[..., None].expand(*index.shape, 3))
            matched += agrees[..., None] * colour
            plain += weight[..., None] * colour
    asked = inside & source.solid.flatten(1)
    seen, hidden = asked & (same > 0.5), asked & (front > 0.5)
    missing = asked & (back > 0.5) & (same + front == 0)  # next to an edge nothing is certain
    colour = torch.where(seen[..., None], matched / same.clamp(min=1e-6)[..., None], plain)
    return Reprojection(colour, seen, missing, hidden)


@dataclass(frozen=True)
class Consistency:
    """How well one view of a scene foretells the next; all are shares, means over view pairs.

    `r2` is the share of the colours' variance over the surface that is foretold: 1 is a solid
    scene, 0 as good as one plain colour, -1 (never less) what unrelated pictures score. `error` is
    the mean colour difference, None if there is nothing to compare; `missing` is how much of what
    should be seen the other view looks through; `solid` how much of the pictures shows a surface.
    """

    r2: float
    error: float | None
    missing: float
    solid: float


def view_consistency(source: Views, target: Views, tolerance: float = TOLERANCE) -> Consistency:
    """Score the colours of `source`'s surface against what `target` shows in their places.

    View i of `source` is compared with view i of `target`. What is hidden there does not count;
    what is missing there counts by the colour that is seen in its place. A scene without any
    opaque pixel, such as fog, foretells nothing: its `r2` is 0.
    """
    found = reproject(source, target, tolerance)
    expected = found.seen | found.missing
    solid = float(source.solid.float().mean())
    if not expected.any():
        return Consistency(0.0, None, 0.0, solid)
    own = source.image.flatten(2).transpose(1, 2)
    difference = ((found.colour - own) / 2)[expected]
    surface = (own / 2)[expected]
    variance = (surface - surface.mean(0)).square().mean().clamp(min=LEAST_CONTRAST**2)
    return Consistency(
        r2=max(-1.0, 1 - float(difference.square().mean() / variance)),
        error=float(difference.abs().mean()),
        missing=float(found.missing.sum() / expected.sum()),
        solid=solid,
    )


def flatness(views: Views) -> float | None:
    """Relief that a view's surface lacks: 1 is a billboard, however it is turned, 0 a ball.

    Relief is the depth of the visible points, measured as standard deviation along the normal of
    the plane that fits them best, in shares of their lesser extent within it; that of a ball seen
    from afar is the unit. Mean over views; None if no view has a surface of some pixels.
    """
    values = []
    for points, solid in zip(views.points, views.solid, strict=True):
        cloud = points[solid].double()
        if len(cloud) < LEAST_PIXELS:
            continue
        variances = torch.linalg.eigvalsh(torch.cov(cloud.T)).clamp(min=0)
        relief = float((variances[0] / variances[1].clamp(min=1e-12)).sqrt())
        values.append(1 - relief / BALL_RELIEF)
    return sum(values) / len(values) if values else None


def billboard_share(views: Views, angle: float = 15.0) -> float | None:
    """Largest share of a view's surface that faces one way to `angle` degrees.

    1 for a billboard, sin^2(angle) for a ball seen from afar: 0.07. Mean over views.
    """
    normals, known = surface_normals(views)
    shares = []
    for field, mask in zip(normals, known, strict=True):
        directions = field[mask]
        if len(directions) < LEAST_PIXELS:
            continue
        candidates = directions[:: 1 + len(directions) // 512]
        alike = candidates @ directions.T >= math.cos(math.radians(angle))
        shares.append(float(alike.float().mean(dim=1).max()))
    return sum(shares) / len(shares) if shares else None


def surface_normals(
    views: Views,
) -> tuple[Float[Tensor, "views height width 3"], Bool[Tensor, "views height width"]]:
    """Unit normals towards the cameras, by central differences, and where they are known.

    A pixel's four neighbours must show the same surface: one without a jump in distance.
    """
    p = views.points
    normals, known = torch.zeros_like(p), torch.zeros_like(views.solid)
    across, down = p[:, 1:-1, 2:] - p[:, 1:-1, :-2], p[:, 2:, 1:-1] - p[:, :-2, 1:-1]
    normal = torch.cross(across, down, dim=-1)
    length = normal.norm(dim=-1, keepdim=True)
    away = p[:, 1:-1, 1:-1] - views.cam2world[:, None, None, :3, 3]
    towards = torch.where((normal * away).sum(-1, keepdim=True) > 0, -1, 1)
    normals[:, 1:-1, 1:-1] = towards * normal / length.clamp(min=1e-12)
    distance, solid = views.distance, views.solid
    middle = distance[:, 1:-1, 1:-1]
    jump = TOLERANCE * _pixel_width(views.fov, middle.flatten(1), p.shape[2]).view_as(middle)
    found = solid[:, 1:-1, 1:-1] & (length[..., 0] > 0)
    inner, before, after = slice(1, -1), slice(0, -2), slice(2, None)
    for rows, columns in ((inner, before), (inner, after), (before, inner), (after, inner)):
        gap = (distance[:, rows, columns] - middle).abs()
        found = found & solid[:, rows, columns] & (gap <= jump)
    known[:, 1:-1, 1:-1] = found
    return normals, known


def _pixel_width(
    fov: Float[Tensor, " views"], distance: Float[Tensor, "views n"], width: int
) -> Float[Tensor, "views n"]:
    """How wide the spacing of pixels is at a distance, in world units."""
    return 2 * torch.tan(torch.deg2rad(fov) / 2)[:, None] * distance / (width - 1)

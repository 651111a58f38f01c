"""Could the silhouettes of a scene be those of one solid body? For generators that know no depth.

The visual hull (Laurentini 1994) is the largest body that no view sees beyond its silhouette: the
points of space that lie inside all silhouettes. A solid body is within its hull, so that from every
side the hull covers the whole silhouette. Where pictures contradict each other, because what they
show does not turn, or turns wrongly, or changes, a part of a silhouette is cut away by other views.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.geometry import project
from ops.shapes import Float

SIDE = 32  # pixels that larger silhouettes are brought to, so that sizes can be compared
VOXELS = 48  # per side: finer than those pixels


def hull_coverage(
    silhouettes: Float[Tensor, "views height width"],  # 0 to 1
    cam2world: Float[Tensor, "views 4 4"],
    fov: Float[Tensor, " views"],  # degrees
    radius: float,  # half the side of the cube around the origin that holds the scene
) -> float | None:
    """Share of the silhouettes' pixels behind which the hull has something; None without any.

    1 is what a solid body scores, but for the grid. Of what does not turn, more views cut away
    more: compare numbers of as many views only.
    """
    side = min(SIDE, silhouettes.shape[-1])
    solid = F.adaptive_avg_pool2d(silhouettes[:, None].float(), side)[:, 0] > 0.5
    if not solid.any():
        return None
    line = torch.linspace(-radius, radius, VOXELS).to(silhouettes)
    points = torch.cartesian_prod(line, line, line).expand(len(solid), -1, -1)
    place = project(points, cam2world, fov)
    inside = (place.abs() <= 1).all(-1)
    across, up = place.clamp(-1, 1).unbind(-1)
    column, row = (((x + 1) / 2 * (side - 1)).round().long() for x in (across, -up))
    pixel = row * side + column
    hull = (solid.flatten(1).gather(1, pixel) & inside).all(0)
    covered = torch.zeros_like(solid).flatten(1).scatter_(1, pixel[:, hull], True)
    return float((covered & solid.flatten(1)).sum() / solid.sum())

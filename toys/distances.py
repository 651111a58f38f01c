"""Signed distances from points to simple solids: negative inside, exact everywhere.

Points come as a tuple (x, y, z) of tensors (batch, 1, points) and the solids of one kind as
(batch, solids, parameters); the result is (batch, solids, points). Exact distances have slope 1,
and so has the least of several: sphere tracing lives on that (Hart, "Sphere Tracing", 1996).

These few lines are where the data set's time goes, and most of that is memory: hence coordinates on
their own, for contiguous operations, and sums that grow in place.
"""

from torch import Tensor

from ops.shapes import Float

Coordinate = Float[Tensor, "batch 1 points"]
Points = tuple[Coordinate, Coordinate, Coordinate]


def ball_distance(
    points: Points, balls: Float[Tensor, "batch solids 4"]
) -> Float[Tensor, "batch solids points"]:
    """Balls given by centre and radius."""
    centre_x, centre_y, centre_z, radius = _columns(balls)
    x, y, z = points[0] - centre_x, points[1] - centre_y, points[2] - centre_z
    return _squares(x, y, z).sqrt_().sub_(radius)


def cone_distance(
    points: Points, cones: Float[Tensor, "batch solids 8"]
) -> Float[Tensor, "batch solids points"]:
    """Round cones: the hull of two balls, each given by centre and radius.

    The hull is a run of balls whose radius changes linearly along the axis. The one that a point is
    nearest to lies where the perpendicular of the slanted side meets the axis, within its ends.
    """
    start, first, end, last = cones.split((3, 1, 3, 1), dim=-1)
    length = (end - start).norm(dim=-1, keepdim=True)
    sine = (first - last) / length  # of half the opening angle
    slant = sine / (1 - sine * sine).sqrt()
    start_x, start_y, start_z = _columns(start)
    axis_x, axis_y, axis_z = _columns((end - start) / length)
    x, y, z = points[0] - start_x, points[1] - start_y, points[2] - start_z
    along = (axis_x * x).addcmul_(axis_y, y).addcmul_(axis_z, z)
    across = _squares(x, y, z).addcmul_(along, along, value=-1).clamp_min_(0).sqrt_()
    foot = (slant * across).neg_().add_(along).clamp_min_(0).minimum(length)
    along.sub_(foot)
    return _squares(across, along).sqrt_().sub_(first).addcmul_(sine, foot)


def drum_distance(
    points: Points, drums: Float[Tensor, "batch solids 4"]
) -> Float[Tensor, "batch solids points"]:
    """Upright cylinders around the y axis: height of the centre, radius, half height, rounding.

    Radius and half height include the rounding of the edges.
    """
    x, y, z = points
    middle, radius, half, rounding = _columns(drums)
    beyond_side = _squares(x, z).sqrt_() - (radius - rounding)
    beyond_end = (y - middle).abs_().sub_(half - rounding)
    inside = beyond_side.maximum(beyond_end).clamp_max_(0)
    corner = _squares(beyond_side.clamp_min_(0), beyond_end.clamp_min_(0)).sqrt_()
    return corner.add_(inside).sub_(rounding)


def ring_distance(
    points: Points, rings: Float[Tensor, "batch solids 3"]
) -> Float[Tensor, "batch solids points"]:
    """Tori around the y axis: height, radius of the circle, radius of the tube."""
    x, y, z = points
    height, circle, tube = _columns(rings)
    return _squares(_squares(x, z).sqrt_() - circle, y - height).sqrt_().sub_(tube)


def _squares(first: Tensor, *others: Tensor) -> Tensor:
    """Sum of squares."""
    total = first * first
    for other in others:
        total.addcmul_(other, other)
    return total


def _columns(solids: Tensor) -> list[Tensor]:
    """The parameters one by one, each (batch, solids, 1)."""
    return list(solids[..., None, :].unbind(-1))

"""Tri-plane fields: each plane sees its own two axes, features are means, decoders decode."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generators.triplane import TriPlaneDecoder, TriPlaneField, sample_planes


def ramps(size: int = 5) -> Tensor:
    """Three planes of two features: the coordinate along the width, then along the height."""
    x = torch.linspace(-1, 1, size)
    return torch.stack([x.expand(size, size), x[:, None].expand(size, size)] * 3)[None]


def test_each_plane_sees_a_pair_of_axes_of_its_own() -> None:
    points = torch.rand(1, 7, 3) * 2 - 1
    met = sample_planes(ramps(), points)[0]
    for plane, pair in enumerate([(0, 1), (0, 2), (1, 2)]):
        assert_close(met[plane], points[0][:, list(pair)], atol=1e-6, rtol=0)


def test_the_third_plane_of_eg3d_is_the_second_again() -> None:
    points = torch.rand(1, 7, 3) * 2 - 1
    exact, eg3d = (sample_planes(ramps(), points, axes)[0] for axes in ("exact", "eg3d"))
    assert torch.equal(exact[:2], eg3d[:2])
    assert_close(eg3d[2], points[0][:, [2, 0]], atol=1e-6, rtol=0)
    y_moved = points + torch.tensor([0.0, 0.1, 0.0])
    assert torch.equal(sample_planes(ramps(), y_moved, "eg3d")[0, 2], eg3d[2])


def slow_bilinear(plane: Tensor, x: float, y: float) -> Tensor:
    """One look at (channels, height, width) with its outermost texels at -1 and 1."""
    _, height, width = plane.shape
    column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
    total = torch.zeros(len(plane))
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * plane[:, i, j]
    return total


def test_planes_are_sampled_bilinearly_with_zeros_outside(rng: torch.Generator) -> None:
    planes = torch.randn(2, 9, 4, 4, generator=rng)
    points = torch.rand(2, 20, 3, generator=rng) * 3 - 1.5
    met = sample_planes(planes, points)
    for b in range(2):
        for p, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
            plane = planes[b, 3 * p : 3 * p + 3]
            for n in range(20):
                x, y = float(points[b, n, i]), float(points[b, n, j])
                assert_close(met[b, p, n], slow_bilinear(plane, x, y), atol=1e-5, rtol=1e-5)


def test_planes_can_be_differentiated_twice_by_another_way(rng: torch.Generator) -> None:
    planes = torch.randn(1, 6, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    points = torch.rand(1, 5, 3, generator=rng, dtype=torch.float64) * 2.4 - 1.2
    once, twice = (sample_planes(planes, points, twice=way) for way in (False, True))
    assert_close(once, twice)
    gradients = [torch.autograd.grad(y.sin().sum(), planes)[0] for y in (once, twice)]
    assert_close(*gradients)
    assert torch.autograd.gradgradcheck(
        lambda p: sample_planes(p, points, twice=True).square(), planes
    )


def test_far_outside_the_cube_every_point_looks_alike() -> None:
    decoder = TriPlaneDecoder(feature_dim=4, cube_scale=0.5)
    field = TriPlaneField(torch.randn(1, 12, 8, 8), decoder)
    radiance, density = field(torch.tensor([[[9.0, 9, 9], [-9, 8, 7]]]), torch.zeros(1, 2, 3))
    assert torch.equal(radiance[0, 0], radiance[0, 1]) and torch.equal(density[0, 0], density[0, 1])


def test_the_cubes_faces_are_where_cube_scale_says() -> None:
    decoder = TriPlaneDecoder(feature_dim=2, cube_scale=0.25)
    points = torch.tensor([[[0.25, -0.25, 0.125]]])
    x, y, z = 1.0, -1.0, 0.5
    mean = torch.tensor([(x + x + y) / 3, (y + z + z) / 3])
    assert_close(decoder.features(ramps(), points)[0, 0], mean, atol=1e-6, rtol=0)


def test_gain_and_shift_move_density_alone() -> None:
    plain = TriPlaneDecoder(feature_dim=4)
    moved = TriPlaneDecoder(feature_dim=4, density_gain=3.0, density_shift=-2.0)
    moved.load_state_dict(plain.state_dict())
    features = torch.randn(1, 5, 4)
    assert torch.equal(plain(features)[0], moved(features)[0])
    assert_close(moved(features)[1], 3 * plain(features)[1] - 2)


def test_beyond_the_bound_nothing_is() -> None:
    planes = torch.randn(2, 12, 8, 8)
    points = torch.tensor([[0.3, 0.0, 0.0], [0.29, 0.1, 0.0], [0.2, 0.2, 0.2]]).expand(2, 3, 3)
    free, bound = (TriPlaneDecoder(feature_dim=4, bound_radius=r) for r in (0.0, 0.3))
    bound.load_state_dict(free.state_dict())
    for density in (
        lambda decoder: TriPlaneField(planes, decoder)(points, points)[1],
        lambda decoder: TriPlaneField(planes, decoder).density(points),
    ):
        all_of_it, inner = density(free), density(bound)
        assert torch.equal(inner[:, 0], all_of_it[:, 0])
        assert (inner[:, 1:] < -1000).all() and (all_of_it.abs() < 1000).all()


def test_only_colours_depend_on_the_direction_and_only_if_asked() -> None:
    planes, points = torch.randn(1, 12, 8, 8), torch.rand(1, 6, 3) - 0.5
    ahead, aside = torch.eye(3)[:2, None, None].expand(2, 1, 6, 3)
    for view_direction in (False, True):
        field = TriPlaneField(planes, TriPlaneDecoder(feature_dim=4, view_direction=view_direction))
        a, b = field(points, ahead), field(points, aside)
        assert torch.equal(a[1], b[1]) and torch.equal(a[1], field.density(points))
        assert torch.equal(a[0], b[0]) != view_direction


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "at least 1 layer, got 0"),
        ({"axes": "egd3"}, "'egd3'.*eg3d"),
        ({"cube_scale": 0.0}, "cube_scale must be positive"),
    ],
)
def test_impossible_decoders_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TriPlaneDecoder(**{"feature_dim": 4, **changes})

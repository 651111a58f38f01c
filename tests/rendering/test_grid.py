"""The lattice of points that shapes are extracted from."""

import pytest
import torch
from oracles import WaveField
from torch.testing import assert_close

from rendering.grid import FieldDensity, dense_slabs, voxel_lattice


def test_a_reshaped_lattice_has_axes_x_y_z_and_both_faces_of_the_cube() -> None:
    points = voxel_lattice(4, 0.3).reshape(4, 4, 4, 3)
    ticks = torch.tensor([-0.15, -0.05, 0.05, 0.15])
    for x, y, z in [(0, 0, 0), (3, 0, 1), (1, 2, 3), (3, 3, 3)]:
        assert_close(points[x, y, z], torch.stack([ticks[x], ticks[y], ticks[z]]))


def test_parts_of_a_lattice_are_the_whole() -> None:
    whole = voxel_lattice(5, 1.0)
    cuts = [0, 1, 40, 41, 125]
    parts = [voxel_lattice(5, 1.0, start=a, stop=b) for a, b in zip(cuts, cuts[1:], strict=False)]
    assert torch.equal(torch.cat(parts), whole)


def test_large_lattices_stay_on_their_planes() -> None:
    n = 300
    last_plane = voxel_lattice(n, 2.0, start=n**3 - n**2)
    assert last_plane[:, 0].unique().tolist() == [1.0]
    assert len(last_plane[:, 1].unique()) == n


def test_the_originals_lattice_is_sheared_by_less_than_a_voxel() -> None:
    exact, sheared = voxel_lattice(6, 1.0), voxel_lattice(6, 1.0, compat_shear=True)
    drift = (sheared - exact) * 5  # in voxels
    assert_close(drift[:, 2], torch.zeros(6**3))
    z = torch.arange(6**3) % 6
    assert_close(drift[:, 1], z / 6, atol=1e-5, rtol=0)
    assert drift[:, 0].min() >= -1e-5 and 0.9 < drift[:, 0].max() < 1


@pytest.mark.parametrize("arguments", [{"resolution": 1}, {"start": 3, "stop": 2}, {"stop": 9}])
def test_impossible_lattices_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 2|need 0 <= start"):
        voxel_lattice(**{"resolution": 2, "cube_size": 1.0, **arguments})  # type: ignore[arg-type]


def test_slabs_are_the_lattices_planes_from_left_to_right() -> None:
    direction = torch.tensor([1.0, 10.0, 100.0])
    slabs = list(dense_slabs(lambda points: points @ direction, 5, 2.0))
    assert_close(torch.stack(slabs), (voxel_lattice(5, 2.0) @ direction).reshape(5, 5, 5))
    sheared = list(dense_slabs(lambda points: points @ direction, 5, 2.0, compat_shear=True))
    expected = voxel_lattice(5, 2.0, compat_shear=True) @ direction
    assert_close(torch.stack(sheared), expected.reshape(5, 5, 5))


def test_a_fields_density_is_counted_and_has_a_slope() -> None:
    field = WaveField(torch.randn(6, 4))
    density = FieldDensity(field)
    points = torch.rand(7, 3, requires_grad=True)
    values = density(points)
    assert_close(values, field(points[None], torch.zeros(1, 7, 3))[1][0, :, 0])
    values.sum().backward()
    assert points.grad is not None and points.grad.abs().min() > 0
    assert density.evaluations == 7

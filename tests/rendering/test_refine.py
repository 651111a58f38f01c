"""Coarse-to-fine evaluation against evaluation everywhere."""

import pytest
import torch
from analytic_shapes import Distance, ball, box, ring, union
from torch import Tensor

from rendering.grid import dense_slabs, voxel_lattice
from rendering.refine import near_surface

SHEET = box((0.1, 0.02, 0.0), (0.3, 0.026, 0.3))
SCENES = {
    "ball": ball((0.07, -0.11, 0.05), 0.31),
    "torus": ring((0.0, 0.05, 0.1), 0.3, 0.06),
    "thin sheet": SHEET,
    "ball and crumb": union(ball((0.2, 0, 0), 0.2), ball((-0.3, -0.3, 0.3), 0.05)),
}


class Counted:
    """Density of a solid, with a record of the points that it was asked for."""

    def __init__(self, distance: Distance, slope: float = 50.0) -> None:
        self.distance, self.slope = distance, slope
        self.points = 0

    def __call__(self, points: Tensor) -> Tensor:
        self.points += len(points)
        return -self.slope * self.distance(points)


def dense(density: Counted, resolution: int, side: float = 1.0) -> Tensor:
    return torch.stack(list(dense_slabs(density, resolution, side)))


def crossed(volume: Tensor, level: float) -> Tensor:
    """The corners of all cells that have corners on both sides of the level."""
    inside = (volume > level).float()[None, None]
    most = torch.nn.functional.max_pool3d(inside, 2, 1)
    least = -torch.nn.functional.max_pool3d(-inside, 2, 1)
    cells = (most - least) > 0
    corners = torch.nn.functional.conv_transpose3d(cells.float(), torch.ones(1, 1, 2, 2, 2))
    return corners[0, 0] > 0


@pytest.mark.parametrize("resolution", [33, 48, 65, 90])
@pytest.mark.parametrize("name", SCENES)
def test_cells_at_the_surface_are_exact_and_all_others_on_their_side(
    name: str, resolution: int
) -> None:
    density = Counted(SCENES[name])
    whole = dense(density, resolution)
    near = near_surface(density, resolution, 1.0, 0.5)
    where = crossed(whole, 0.5)
    assert where.sum() > 20
    torch.testing.assert_close(near.volume[where], whole[where], rtol=0, atol=1e-4)
    assert torch.equal(near.volume > 0.5, whole > 0.5)


@pytest.mark.parametrize("name", SCENES)
def test_a_rough_search_ends_with_the_precise_surface(name: str) -> None:
    density, resolution = Counted(SCENES[name]), 65
    whole = dense(density, resolution)
    where = crossed(whole, 0.5)
    density.points = 0

    def rough(points: Tensor) -> Tensor:
        """Off by up to a third of what a voxel makes."""
        return Counted(SCENES[name])(points) + 0.25 * torch.sin(4000 * points.sum(-1))

    near = near_surface(density, resolution, 1.0, 0.5, rough=rough)
    torch.testing.assert_close(near.volume[where], whole[where], rtol=0, atol=1e-4)
    assert torch.equal(near.volume > 0.5, whole > 0.5)
    assert density.points < 2.5 * where.sum()
    searched = near_surface(rough, resolution, 1.0, 0.5)
    assert not torch.equal(searched.volume > 0.5, whole > 0.5)  # alone it is not good enough


def test_a_wavy_field_without_any_flat_place_is_found_too() -> None:
    torch.manual_seed(3)
    directions, phases = 12 * torch.randn(3, 8), 6 * torch.rand(8)
    waves = Counted(lambda p: -torch.sin(p @ directions + phases).sum(-1), slope=1.0)
    whole, near = dense(waves, 80), near_surface(waves, 80, 1.0, 2.0)
    where = crossed(whole, 2.0)
    missed = (near.volume > 2.0) != (whole > 2.0)
    assert missed.sum() <= 1e-3 * where.sum()
    assert (near.volume - whole)[where].abs().gt(1e-4).sum() <= 1e-3 * where.sum()


def test_few_points_are_evaluated() -> None:
    density = Counted(SCENES["ball"])
    near_surface(density, 129, 1.0, 0.0)
    assert density.points < 129**3 / 7


def test_something_smaller_than_the_first_lattice_is_looked_for_until_it_is_found() -> None:
    density = Counted(ball((0.011, 0.052, -0.033), 0.02))
    near = near_surface(density, 129, 1.0, 0.0)
    assert torch.equal(near.volume > 0, dense(density, 129) > 0)
    assert (near.volume > 0).sum() > 30


def test_a_level_that_is_nowhere_leaves_the_true_extremes() -> None:
    density = Counted(SCENES["ball"])
    whole = dense(density, 33)
    near = near_surface(density, 33, 1.0, 1e3)
    assert near.lowest == pytest.approx(whole.min().item(), rel=1e-5)
    assert near.highest == pytest.approx(whole.max().item(), rel=1e-5)
    assert not (near.volume > 1e3).any()


def test_the_lattice_is_that_of_the_voxels() -> None:
    """A density that is different at every point, where nothing is left out."""
    near = near_surface(lambda p: p @ torch.tensor([1.0, 10.0, 100.0]), 9, 2.0, 0.0)
    points = voxel_lattice(9, 2.0).reshape(9, 9, 9, 3)
    torch.testing.assert_close(near.volume, points @ torch.tensor([1.0, 10.0, 100.0]))


def test_impossible_lattices_are_refused() -> None:
    with pytest.raises(ValueError, match="resolution must be at least 2, got 1"):
        near_surface(Counted(SCENES["ball"]), 1, 1.0, 0.0)

"""What the benchmarks' fitted field is taught, and that it learns."""

import pytest
import torch

from benchmarks.fitted import HALF_BOX, SCALE, SOFT, SOLID, WALL, batches, fit, target
from generators.pigan import PiGAN
from inference.views import seeded_latents
from toys.scenes import Figures

FIGURES = Figures.sample(0, [0, 1])


def test_figures_are_solid_and_the_wall_is_behind_them() -> None:
    inside = FIGURES.balls[:, :1, :3] * SCALE  # the middle of the belly
    behind = torch.tensor([0.1, 0.1, WALL - SOFT]).expand(2, 1, 3)
    before = torch.tensor([0.1, 0.1, WALL + SOFT]).expand(2, 1, 3)
    points = torch.cat([inside, behind, before], dim=1)
    _, density, distance = target(FIGURES, points, wall=True)
    torch.testing.assert_close(density, torch.tensor([[1.0, 1.0, -1.0]] * 2))
    torch.testing.assert_close(distance[:, 1:], torch.tensor([[-SOFT, SOFT]] * 2))
    _, density, _ = target(FIGURES, points, wall=False)
    torch.testing.assert_close(density, torch.tensor([[1.0, -1.0, -1.0]] * 2))


def test_colours_are_striped_and_in_range() -> None:
    points = HALF_BOX * (2 * torch.rand(2, 500, 3, generator=torch.Generator().manual_seed(0)) - 1)
    colour, density, _ = target(FIGURES, points, wall=True)
    assert 0 <= colour.min() and colour.max() <= 1 and colour.std(dim=1).min() > 0.05
    assert density.min() == -1 and density.max() == 1


def test_half_of_a_batch_is_nearer_to_surfaces_than_the_other() -> None:
    points, colour, density = next(batches(FIGURES, 64, wall=False))
    assert points.shape == colour.shape == (2, 64, 3) and density.shape == (2, 64)
    distance = target(FIGURES, points, wall=False)[2].abs()
    assert (distance[:, 32:].mean(1) < 0.5 * distance[:, :32].mean(1)).all()


@pytest.mark.parametrize("wall", [True, False])
def test_a_small_field_learns_where_things_are(wall: bool) -> None:
    torch.manual_seed(0)
    generator = PiGAN(latent_dim=4, hidden_dim=32, num_layers=3, mapping_dim=16)

    @torch.no_grad()
    def wrong() -> float:
        points, _, density = next(batches(FIGURES, 512, wall=wall))
        raw = generator.field(generator.mapping(seeded_latents([0, 1], 4)))(points, points)[1]
        return float(((raw[..., 0] / SOLID - density) ** 2).mean())

    untrained = wrong()
    fit(generator, 2, 200, 512, 1e-3, wall=wall)
    assert wrong() < 0.65 * untrained

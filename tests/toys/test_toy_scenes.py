"""What snow figures are, how far points are from them, and how they vary."""

import torch
from torch import Tensor

from toys.anatomy import FIGURE_RADIUS
from toys.dataset import VERSION
from toys.scenes import PARTS, SOLIDS, Figures

PIXEL = 2 * 0.4663 / 31  # width of a pixel of 32 x 32 at the origin, fov 50, distance 1


def directions(rng: torch.Generator, batch: int, count: int) -> Tensor:
    """Unit vectors in all directions."""
    return torch.nn.functional.normalize(torch.randn(batch, count, 3, generator=rng), dim=-1)


def part_at(figures: Figures, points: Tensor) -> list[str]:
    """The part nearest to one point of each figure."""
    _, part = figures.signed_distance(points[:, None])
    return [PARTS[i] for i in part[:, 0].tolist()]


def test_a_figure_is_the_same_in_every_batch() -> None:
    together, alone = Figures.sample(2, [4, 9, 1]), Figures.sample(2, [9])
    for name, value in vars(alone).items():
        assert torch.equal(getattr(together, name)[1:2], value), name


def test_another_seed_gives_other_figures() -> None:
    one, other = Figures.sample(0, range(4)), Figures.sample(1, range(4))
    assert ((one.colours - other.colours).abs().amax(dim=(1, 2)) > 0.05).all()


def test_a_change_of_the_figures_needs_a_new_version() -> None:
    # Caches are keyed by the version: whoever changes these numbers raises it.
    figure = Figures.sample(0, [0])
    sums = [getattr(figure, name).double().sum().item() for name in vars(figure)]
    assert VERSION == 1
    assert torch.allclose(
        torch.tensor(sums), torch.tensor([1.10971, 1.14285, 0.86255, 0.2089, 6.807]), atol=1e-4
    )


def test_no_figure_leaves_its_ball(rng: torch.Generator) -> None:
    figures = Figures.sample(0, range(300))
    shell = FIGURE_RADIUS * directions(rng, 300, 500)
    assert figures.distance(shell).min() > -1e-5


def test_figures_reach_as_far_down_as_up() -> None:
    figures = Figures.sample(0, range(50))
    poles = torch.tensor([0.0, 1.0, 0.0]) * torch.linspace(-0.5, 0.5, 2001)[:, None]
    inside = figures.distance(poles.expand(50, -1, -1)) < 0
    heights = poles[:, 1].expand(50, -1)
    top = heights.masked_fill(~inside, -1).amax(dim=1)
    bottom = heights.masked_fill(~inside, 1).amin(dim=1)
    assert torch.allclose(top, -bottom, atol=1e-3)
    assert (top > 0.32).all()


def test_distances_between_points_bound_how_their_distances_differ(rng: torch.Generator) -> None:
    figures = Figures.sample(0, range(30))
    points = torch.rand(30, 2, 400, 3, generator=rng) - 0.5
    points[:, 1] = torch.lerp(points[:, 0], points[:, 1], 0.1)
    first, second = figures.distance(points[:, 0]), figures.distance(points[:, 1])
    assert ((first - second).abs() <= (points[:, 0] - points[:, 1]).norm(dim=-1) + 1e-6).all()


def test_a_step_by_the_distance_against_its_slope_ends_on_the_surface(
    rng: torch.Generator,
) -> None:
    figures = Figures.sample(0, range(10)).to(torch.float64)
    points = 0.45 * directions(rng, 10, 100).double()
    step = 1e-6 * torch.eye(3, dtype=torch.float64)
    ahead = [(figures.distance(points + s) - figures.distance(points - s)) / 2e-6 for s in step]
    slope = torch.stack(ahead, dim=-1)
    assert torch.allclose(slope.norm(dim=-1), torch.ones(10, 100, dtype=torch.float64))
    landed = points - figures.distance(points)[..., None] * slope
    assert figures.distance(landed).abs().max() < 1e-6


def test_the_distance_comes_with_the_nearest_part() -> None:
    figures = Figures.sample(0, range(20))
    point = torch.zeros(20, 3)
    point[:, 1] = 1
    assert part_at(figures, point) == ["hat"] * 20
    assert part_at(figures, -point) == ["body"] * 20
    carrot_tip = figures.cones[:, 0, 4:7]
    assert part_at(figures, carrot_tip) == ["nose"] * 20
    hands = figures.cones[:, 2:, 4:7]
    assert part_at(figures, hands[:, 0]) == part_at(figures, hands[:, 1]) == ["arms"] * 20
    scarf_back = torch.zeros(20, 3)
    scarf_back[:, 1], scarf_back[:, 2] = figures.rings[:, 0, 0], -figures.rings[:, 0, 1]
    assert part_at(figures, scarf_back) == ["scarf"] * 20
    eyes = figures.balls[:, 3:5, :3] + torch.tensor([0.0, 0.0, 0.02])
    assert part_at(figures, eyes[:, 0]) == part_at(figures, eyes[:, 1]) == ["coal"] * 20


def test_distance_and_signed_distance_agree(rng: torch.Generator) -> None:
    figures = Figures.sample(0, range(5))
    points = torch.rand(5, 50, 3, generator=rng) - 0.5
    assert torch.equal(figures.distance(points), figures.signed_distance(points)[0])


def test_figures_look_ahead() -> None:
    figures = Figures.sample(0, range(50))
    head = figures.balls[:, 2]
    assert (figures.cones[:, 0, 6] > head[:, 2] + head[:, 3] + 2 * PIXEL).all()  # the carrot's tip
    assert (figures.balls[:, 3:5, 2] > 0).all()  # eyes
    assert (figures.balls[:, 3, 0] < 0).all() and (figures.balls[:, 4, 0] > 0).all()
    assert (figures.cones[:, 2, 4] < 0).all() and (figures.cones[:, 3, 4] > 0).all()  # hands


def test_every_part_is_wider_than_a_pixel_and_a_half_of_32() -> None:
    figures = Figures.sample(0, range(200))
    widths = torch.cat(
        [
            2 * figures.balls[..., 3],
            2 * figures.cones[..., 3],
            2 * figures.drums[..., 1:3].flatten(1),
            2 * figures.rings[..., 2],
        ],
        dim=1,
    )
    assert widths.min() > 1.5 * PIXEL


def test_colours_and_proportions_vary_strongly() -> None:
    figures = Figures.sample(0, range(400))
    colours = dict(zip(PARTS, figures.colours.std(dim=0), strict=True))
    assert (colours["hat"] > 0.2).all() and (colours["scarf"] > 0.2).all()
    assert (colours["body"] > 0.06).all()
    head, belly = figures.balls[:, 2, 3], figures.balls[:, 0, 3]
    assert belly.max() / belly.min() > 1.8 and head.max() / head.min() > 1.8
    crown = figures.drums[:, 1, 2]
    assert crown.max() / crown.min() > 2
    rise = figures.cones[:, 2:, 5] - figures.cones[:, 2:, 1]
    assert (rise > 0.1).any() and (rise < -0.05).any()
    three = figures.balls[:, 1, 1] > figures.balls[:, 0, 1]
    assert 0.4 < three.float().mean() < 0.6


def test_bodies_stand_out_from_white_and_from_hat_and_scarf() -> None:
    colours = dict(zip(PARTS, Figures.sample(0, range(400)).colours.unbind(1), strict=True))
    assert (1 - colours["body"]).amax(dim=1).min() > 0.1
    for part in ("coal", "nose", "hat", "scarf", "arms"):
        assert (colours["body"] - colours[part]).abs().amax(dim=1).min() > 0.2, part
    assert (colours["nose"] - colours["scarf"]).abs().amax(dim=1).min() > 0.1


def test_solids_and_parts_are_counted_alike() -> None:
    figures = Figures.sample(0, [0])
    counts = [len(getattr(figures, name)[0]) for name in ("balls", "cones", "drums", "rings")]
    assert sum(counts) == len(SOLIDS)
    assert figures.colours.shape == (1, len(PARTS), 3)


def test_selecting_figures_keeps_their_parts_together() -> None:
    figures = Figures.sample(0, range(6))
    for index in (slice(2, 4), torch.tensor([2, 3])):
        some = figures[index]
        assert len(some) == 2
        for name, value in vars(Figures.sample(0, [2, 3])).items():
            assert torch.equal(getattr(some, name), value), name

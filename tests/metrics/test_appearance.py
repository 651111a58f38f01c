"""Silhouettes, colours and identities of pictures drawn by hand."""

import pytest
import torch
from torch import Tensor

from metrics.appearance import (
    COLOUR,
    SILHOUETTE,
    appearance,
    appearance_distance,
    colour_histogram,
    identity_drift,
    total_variation,
)


def box(rows: slice, columns: slice, colour: tuple[float, float, float], size: int = 21) -> Tensor:
    """A box of one colour (0..1) on white."""
    image = torch.ones(3, size, size)
    image[:, rows, columns] = 2 * torch.tensor(colour)[:, None, None] - 1
    return image


def numbers(*images: Tensor, ground: float = 1.0) -> dict[str, list[float]]:
    table = appearance(torch.stack(images), ground)
    return {name: table[:, i].tolist() for i, name in enumerate((*SILHOUETTE, *COLOUR))}


def test_a_box_is_measured() -> None:
    found = numbers(box(slice(0, 10), slice(5, 16), (0.2, 0.4, 0.6)))
    assert found["area"] == pytest.approx([10 * 11 / 21**2])
    assert found["centre_x"] == pytest.approx([0], abs=1e-6)
    assert found["centre_y"] == pytest.approx([0.55])  # rows 0..9: y from 1 to 0.1
    assert found["width"] == pytest.approx([0.1 * 10**0.5])  # std of -0.5, -0.4 .. 0.5
    assert found["height"] == pytest.approx([0.1 * (99 / 12) ** 0.5])
    assert [found[c][0] for c in COLOUR] == pytest.approx([0.2, 0.4, 0.6, 0, 0, 0], abs=1e-6)


def test_colours_are_those_of_the_silhouette_alone() -> None:
    two = box(slice(0, 10), slice(0, 10), (0.0, 0.5, 0.5))
    two[0, :5, :10] = 1.0  # half of it reddish
    found = numbers(two)
    assert found["red"] == pytest.approx([0.5]) and found["red_spread"] == pytest.approx([0.5])
    assert found["green_spread"] == pytest.approx([0], abs=1e-6)


def test_an_empty_picture_is_all_ground() -> None:
    found = numbers(torch.ones(3, 21, 21))
    assert [v[0] for v in found.values()] == [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    dark = numbers(torch.full((3, 21, 21), -1.0), ground=-1.0)
    assert dark["area"] == [0] and dark["red"] == [0]


def test_sets_are_compared_in_standard_deviations(rng: torch.Generator) -> None:
    real = torch.randn(2000, 11, generator=rng)
    assert appearance_distance(real, real) == {"silhouette": 0, "colour": 0}
    shifted = real.clone()
    shifted[:, :5] += 0.5  # every number of the silhouette by half a standard deviation
    shifted[:, 5] += 3.0  # one of the six colour numbers by three
    found = appearance_distance(real, shifted)
    assert found["silhouette"] == pytest.approx(0.5, rel=0.05)
    assert found["colour"] == pytest.approx(3 / 6, rel=0.05)
    assert max(appearance_distance(real[:1000], real[1000:]).values()) < 0.1
    with pytest.raises(ValueError, match="two or more pictures"):
        appearance_distance(real, real[:1])


def test_a_histogram_counts_what_is_opaque() -> None:
    image = box(slice(0, 21), slice(0, 7), (0.0, 0.0, 0.0))[None]
    opacity = torch.ones(1, 21, 21)
    counts = colour_histogram(image, opacity)
    assert counts.shape == (1, 64)
    assert counts[0, 0] == pytest.approx(1 / 3) and counts[0, 63] == pytest.approx(2 / 3)
    opacity[:, :, 7:] = 0.25
    weighted = colour_histogram(image, opacity)
    assert weighted[0, 0] == pytest.approx(7 / (7 + 14 / 4))
    assert colour_histogram(image, opacity * 0).sum() == 0
    edges = torch.tensor([-1.0, -0.501, -0.5, 0.0, 1.0]).reshape(5, 1, 1, 1).expand(5, 3, 1, 1)
    bins = colour_histogram(edges, torch.ones(5, 1, 1)).argmax(1)
    assert bins.tolist() == [0, 0, 21, 42, 63]


def test_total_variation_is_what_must_move() -> None:
    a = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    b = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])
    assert total_variation(a, b).tolist() == [0.25, 1.0]


def test_identity_drift_compares_views_with_scenes() -> None:
    scenes = torch.eye(3)[:, None].expand(3, 4, 3)  # one colour each, from every side
    assert identity_drift(scenes) == 0
    mixed = torch.eye(3).expand(3, 3, 3)  # every side has its colour, whatever the scene
    assert identity_drift(mixed) == 1.0  # no scene differs from another: nothing to keep
    half = 0.5 * scenes[:, :3] + 0.5 * mixed
    assert identity_drift(half) == pytest.approx(1.0)


def test_identity_drift_is_a_ratio_of_means() -> None:
    items = torch.tensor([[[0.0], [1.0]], [[10.0], [13.0]]])

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs()[:, 0]

    within, between = (1 + 3) / 2, (10 + 12) / 2
    assert identity_drift(items, distance) == pytest.approx(within / between)
    with pytest.raises(ValueError, match="two or more scenes and views, got 2 and 1"):
        identity_drift(items[:, :1], distance)

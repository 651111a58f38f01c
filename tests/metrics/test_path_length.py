"""Path lengths of generators whose pictures move at a known speed."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics.path_length import path_distances, slerp, trimmed_mean

EPSILON = 1e-3


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).sum(1)


def flat_picture(w: Tensor) -> Tensor:
    """Three pixels per channel that are the first three numbers of w."""
    return w[:, :3, None, None].expand(-1, 3, 8, 8).double()


def ends(rng: torch.Generator, n: int = 4) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, n, 5, generator=rng, dtype=torch.float64)
    return a, b


def test_a_picture_that_is_its_style_moves_as_the_style_does(rng: torch.Generator) -> None:
    z = ends(rng)
    found = path_distances(lambda z: z, flat_picture, squared, z, torch.rand(4), epsilon=EPSILON)
    speed = (z[1] - z[0])[:, :3].square().sum(1)  # per pixel, in units of [-1, 1]
    assert np.allclose(found, speed * 64 * (255 / 2) ** 2, rtol=1e-6)


def test_a_constant_picture_does_not_move(rng: torch.Generator) -> None:
    found = path_distances(
        lambda z: z, lambda w: torch.zeros(len(w), 3, 8, 8), squared, ends(rng), torch.zeros(4)
    )
    assert torch.equal(found, torch.zeros(4))


def test_great_circles_are_travelled_at_their_angle(rng: torch.Generator) -> None:
    a, b = ends(rng)
    found = path_distances(
        lambda z: z,
        lambda w: w[:, :, None, None],
        lambda x, y: squared(x, y) / (255 / 2) ** 2,
        (a, b),
        torch.full((4,), 0.3, dtype=torch.float64),
        space="z",
        epsilon=EPSILON,
    )
    angle = torch.nn.functional.cosine_similarity(a, b).acos()
    assert np.allclose(found, angle.square(), rtol=1e-4)


def test_a_great_circle_begins_and_ends_at_its_ends(rng: torch.Generator) -> None:
    a, b = ends(rng)
    for t, end in ((0.0, a), (1.0, b)):
        point = slerp(a, b, torch.full((4, 1), t, dtype=torch.float64))
        assert np.allclose(point, end / end.norm(dim=1, keepdim=True), atol=1e-12)


def test_large_and_grey_pictures_are_seen_small_and_coloured(rng: torch.Generator) -> None:
    seen = []

    def look(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a)
        return squared(a, b)

    picture = torch.rand(4, 1, 512, 512, generator=rng) * 2 - 1
    path_distances(lambda z: z, lambda w: picture, look, ends(rng), torch.zeros(4))
    assert seen[0].shape == (4, 3, 256, 256)
    assert np.allclose(seen[0][:, 0, 0, 0], (picture[:, 0, :2, :2].mean((1, 2)) + 1) * 127.5)


def test_the_crop_is_where_faces_are(rng: torch.Generator) -> None:
    seen = []
    picture = torch.rand(4, 3, 16, 16, generator=rng)

    def look(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a)
        return squared(a, b)

    path_distances(lambda z: z, lambda w: picture, look, ends(rng), torch.zeros(4), crop=True)
    assert torch.allclose(seen[0], (picture[:, :, 6:14, 4:12] + 1) * 127.5)


def test_an_unknown_space_is_refused(rng: torch.Generator) -> None:
    with pytest.raises(ValueError, match="space must be one of .* got 'x'"):
        path_distances(lambda z: z, flat_picture, squared, ends(rng), torch.zeros(4), space="x")


def test_the_outermost_percent_is_left_out() -> None:
    values = torch.cat([torch.tensor([-1e9, 1e9, 1e9]), torch.arange(300.0)])
    assert trimmed_mean(values) == pytest.approx(float(torch.arange(2.0, 299.0).mean()), abs=0.5)
    assert trimmed_mean(torch.full((5,), 3.0)) == 3

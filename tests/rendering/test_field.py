"""Density by the cheapest way that a field offers."""

import torch
from torch import Tensor

from rendering import field as module
from rendering.field import raw_density


def colourful(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    assert not directions.any()
    return points.sin(), points.sum(-1, keepdim=True)


class Cheap:
    def __call__(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("the colours were asked for")

    def density(self, points: Tensor) -> Tensor:
        assert points.shape[1] <= module.BLOCK
        return points.sum(-1, keepdim=True)


def test_both_ways_give_the_density_of_every_point() -> None:
    points = torch.randn(2, module.BLOCK + 5, 3, generator=torch.Generator().manual_seed(0))
    wanted = points.sum(-1, keepdim=True)
    assert torch.equal(raw_density(colourful, points), wanted)
    assert torch.equal(raw_density(Cheap(), points), wanted)

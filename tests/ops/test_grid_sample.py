"""Bilinear sampling that can be differentiated twice."""

import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from ops.grid_sample import grid_sample


def test_sampling_is_pytorchs() -> None:
    x, grid = torch.randn(2, 3, 5, 4), torch.rand(2, 6, 7, 2) * 2.6 - 1.3
    assert_close(grid_sample(x, grid), F.grid_sample(x, grid, align_corners=False))


def test_the_identity_grid_returns_the_picture() -> None:
    x = torch.randn(2, 3, 5, 4)
    theta = torch.eye(2, 3).expand(2, 2, 3)
    grid = F.affine_grid(theta, [2, 3, 5, 4], align_corners=False)
    assert_close(grid_sample(x, grid), x)


def test_sampling_has_derivatives_of_every_order_in_the_picture() -> None:
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(1, 3, 5, 2, dtype=torch.float64) * 2.6 - 1.3
    assert gradcheck(lambda x: grid_sample(x, grid), x)
    assert gradgradcheck(lambda x: grid_sample(x, grid), x)

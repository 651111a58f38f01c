"""Bilinear sampling that can be differentiated any number of times in the picture.

PyTorch's own `grid_sample` has no second derivative in every version and on every device. Sampling
is linear in the picture: its gradient scatters, the gradient of that samples again.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Float

BILINEAR, ZEROS = 0, 0  # as the backward kernel names them


def grid_sample(
    x: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Sample at (x, y) of `grid`, -1 and 1 being the picture's outer edges, zeros beyond.

    No gradient in the grid.
    """
    return _Sample.apply(x, grid.detach())


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, grid: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return F.grid_sample(x, grid.to(x.dtype), align_corners=False)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (grid,) = ctx.saved_tensors
        return _Scatter.apply(grad, grid, ctx.shape), None


class _Scatter(torch.autograd.Function):
    """The adjoint of sampling."""

    @staticmethod
    def forward(ctx, grad: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(grid)
        like = grad.new_empty(1).expand(shape)  # only its shape matters
        return torch.ops.aten.grid_sampler_2d_backward(
            grad, like, grid.to(grad.dtype), BILINEAR, ZEROS, False, [True, False]
        )[0]

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (grid,) = ctx.saved_tensors
        return _Sample.apply(grad, grid), None, None

"""Coordinate convolutions against their definition, and the initial weights of discriminators."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from ops.conv import CoordConv2d, coordinate_grid, fan_in, kaiming_leaky_


def with_coordinate_channels(x: Tensor) -> Tensor:
    """The definition: append each pixel's row and column, 2 i / (n - 1) - 1, as channels."""
    batch, _, height, width = x.shape
    extra = torch.zeros(batch, 2, height, width, dtype=x.dtype)
    for i in range(height):
        extra[:, 0, i, :] = 2 * i / (height - 1) - 1
    for j in range(width):
        extra[:, 1, :, j] = 2 * j / (width - 1) - 1
    return torch.cat([x, extra], dim=1)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_coordinate_convolution_sees_rows_then_columns_as_further_channels(stride: int) -> None:
    conv = CoordConv2d(3, 5, stride=stride).double()
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    weight = torch.cat([conv.weight, conv.coordinate_weight], dim=1)
    expected = F.conv2d(with_coordinate_channels(x), weight, conv.bias, stride, padding=1)
    assert_close(conv(x), expected)


def test_gradients_of_gradients_of_a_coordinate_convolution_are_exact() -> None:
    conv = CoordConv2d(2, 3).double()
    inputs = (torch.randn(1, 2, 3, 3, dtype=torch.float64), *conv.parameters())
    names = [name for name, _ in conv.named_parameters()]
    inputs = tuple(value.detach().requires_grad_() for value in inputs)

    def apply(x: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.tanh(torch.func.functional_call(conv, state, (x,)))

    assert torch.autograd.gradcheck(apply, inputs)
    assert torch.autograd.gradgradcheck(apply, inputs)


def test_training_can_use_the_coordinates_that_inference_cached() -> None:
    coordinate_grid.cache_clear()
    conv = CoordConv2d(1, 1)
    x = torch.randn(1, 1, 7, 5)
    with torch.inference_mode():
        conv(x)
    conv(x).sum().backward()
    assert conv.coordinate_weight.grad is not None


def test_coordinates_are_computed_once_per_size() -> None:
    device, dtype = torch.device("cpu"), torch.float32
    first = coordinate_grid(3, 5, device, dtype)
    assert coordinate_grid(3, 5, device, dtype) is first
    assert coordinate_grid(5, 3, device, dtype).shape == (1, 2, 5, 3)


def test_initial_weights_are_those_of_a_plain_convolution_that_sees_two_more_channels() -> None:
    conv = CoordConv2d(30, 64)
    assert fan_in(conv) == 32 * 9
    bound = 1 / math.sqrt(32 * 9)
    for parameter in conv.parameters():
        assert parameter.abs().max() <= bound
    assert conv.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert conv.coordinate_weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_kaiming_weights_have_the_variance_that_a_leaky_relu_needs() -> None:
    plain, coordinate = nn.Conv2d(20, 100, 3), CoordConv2d(18, 100)
    for conv in (plain, coordinate):
        kaiming_leaky_(conv)
        expected = math.sqrt(2 / 1.04 / (20 * 9))
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.03)
    assert coordinate.coordinate_weight.std().item() == pytest.approx(expected, rel=0.1)

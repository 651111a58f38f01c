"""The mapping network: its formula, its initial weights, its precision."""

import math

import torch
from torch.testing import assert_close

from siren.mapping import MappingNetwork


def test_styles_are_three_leaky_layers_and_a_linear_one() -> None:
    network = MappingNetwork(5, 7, 11).double()
    z = torch.randn(3, 5, dtype=torch.float64)
    weights = list(network.parameters())
    x = z
    for weight, bias in zip(weights[0:6:2], weights[1:6:2], strict=True):
        x = x @ weight.T + bias
        x = torch.where(x > 0, x, 0.2 * x)
    assert_close(network(z), x @ weights[6].T + weights[7])


def test_initial_weights_are_kaiming_normal_and_the_last_a_quarter_of_it() -> None:
    network = MappingNetwork(200, 300, 400)
    for i, (weight, bias) in enumerate(
        zip(list(network.parameters())[::2], list(network.parameters())[1::2], strict=True)
    ):
        fan_in = weight.shape[1]
        std = math.sqrt(2 / 1.04 / fan_in) * (0.25 if i == 3 else 1)
        assert_close(float(weight.detach().std()), std, rtol=0.02, atol=0)
        assert weight.abs().max() > 3.5 * std  # normal, not uniform
        assert 0.97 / math.sqrt(fan_in) < bias.abs().max() <= 1 / math.sqrt(fan_in)


def test_styles_keep_full_precision_under_autocast() -> None:
    network, z = MappingNetwork(5, 7, 11), torch.randn(3, 5)
    exact = network(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(network(z), exact, atol=0, rtol=0)

"""The sphere background's layers: styles change weights as their formulas say."""

import math

import pytest
import torch
from torch.testing import assert_close

from generators.inverted_sphere import MODULATIONS, ModulatedLinear, SphereNetwork


def test_styled_weights_have_unit_norm_and_output_weights_do_not() -> None:
    w = torch.randn(2, 5)
    hidden = ModulatedLinear(6, 4, w_dim=5)
    assert_close(hidden.weights(w).norm(dim=-1), torch.ones(2, 4))
    out = ModulatedLinear(6, 4, w_dim=5, is_output=True)
    expected = out.weight * out.affine(w)[:, None] / math.sqrt(6)
    assert_close(out.weights(w), expected)


@pytest.mark.parametrize("modulation", ["tanh", "sigmoid", "demod"])
def test_low_rank_modulation_is_a_product_of_two_factors(modulation: str) -> None:
    layer = ModulatedLinear(6, 4, w_dim=5, modulation=modulation, rank=2)
    w = torch.randn(1, 5)
    numbers = layer.affine(w)[0].detach()
    left, right = numbers[:8].reshape(4, 2), numbers[8:].reshape(2, 6)
    expected = torch.empty(4, 6)
    for o in range(4):
        for i in range(6):
            m = float(left[o] @ right[:, i]) / math.sqrt(2)
            m = {"tanh": math.tanh(m), "sigmoid": 1 / (1 + math.exp(-m)) - 0.5, "demod": m}[
                modulation
            ]
            expected[o, i] = layer.weight[o, i].item() * (1 + m)
    if modulation == "demod":
        expected = expected / expected.norm(dim=1, keepdim=True)
    assert_close(layer.weights(w)[0].detach(), expected)


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_every_slot_of_the_styles_counts(modulation: str) -> None:
    network = SphereNetwork(
        w_dim=5, num_blocks=3, channel_base=64, channel_max=8, modulation=modulation
    )
    assert network.num_ws == 6
    w = torch.randn(2, 6, 5, requires_grad=True)
    network(torch.rand(2, 7, 4), w).square().sum().backward()
    assert w.grad is not None and w.grad.flatten(2).any(-1).all()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_widths_halve_from_block_to_block_up_to_the_largest() -> None:
    network = SphereNetwork(w_dim=5, num_blocks=3, channel_base=128, channel_max=20)
    widths = [block.linear1.weight.shape[0] for block in network.blocks]  # type: ignore[union-attr]
    assert widths == [20, 16, 8]

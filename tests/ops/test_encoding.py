"""Encodings of numbers and poses against their formulas."""

import math

import pytest
import torch
from torch.testing import assert_close

from ops.encoding import PoseEncoder, ScalarEncoder


def test_features_of_a_number_are_itself_its_waves_and_its_row() -> None:
    encoder = ScalarEncoder(2, multiplier=5.0, table_dim=3, use_raw=True)
    assert encoder.table is not None and encoder.table.num_embeddings == 6
    x = torch.tensor([[0.3, 1.0]])
    found = encoder(x)[0]
    assert len(found) == encoder.out_dim == 2 * (1 + 3 + 3 + 3)
    for i, value in enumerate((0.3, 1.0)):
        phases = [math.pi * 2**k / 8 * 5 * value for k in range(3)]
        waves = [*map(math.sin, phases), *map(math.cos, phases)]
        part = found[10 * i : 10 * (i + 1)]
        assert_close(part[:7], torch.tensor([value, *waves]), atol=1e-6, rtol=0)
        row = encoder.table.weight[round(5 * value)]
        assert torch.equal(part[7:], row)


def test_octaves_reach_the_next_power_of_two() -> None:
    for multiplier, octaves in ((1000, 10), (64, 6), (8, 3), (100, 7)):
        assert len(ScalarEncoder(1, multiplier=multiplier).frequencies) == octaves


def test_waves_have_first_and_second_derivatives() -> None:
    encoder = ScalarEncoder(2, multiplier=5.0, use_raw=True).double()
    x = torch.tensor([[0.3, 1.0], [-0.7, 0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, x)
    assert torch.autograd.gradgradcheck(encoder, x)


def test_an_encoder_that_would_see_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a multiplier"):
        ScalarEncoder(1, multiplier=0)


def test_angles_are_counted_in_turns_with_their_sign() -> None:
    encoder = PoseEncoder(multiplier=0, use_raw=True)
    angles = torch.tensor([[math.pi, -math.pi / 2], [math.tau + 0.5, -math.tau - 0.5]])
    expected = torch.tensor([[0.5, -0.25], [0.5 / math.tau, -0.5 / math.tau]])
    assert_close(encoder(angles), expected, atol=1e-6, rtol=0)


def test_gaps_keep_the_mean_and_come_in_training_only(rng: torch.Generator) -> None:
    encoder = PoseEncoder(multiplier=0, use_raw=True, drop_p=0.25)
    encoder.rng = rng
    angles = torch.ones(20_000, 2)
    found = encoder(angles)
    dropped = found == 0
    assert float(dropped.double().mean()) == pytest.approx(0.25, abs=0.01)
    assert (dropped[:, 0] != dropped[:, 1]).any()  # numbers, not poses, are dropped
    assert float(found.double().mean()) == pytest.approx(1 / math.tau, rel=0.02)
    assert_close(encoder.eval()(angles), angles / math.tau)


def test_noise_is_in_units_of_the_batchs_spread(rng: torch.Generator) -> None:
    encoder = PoseEncoder(multiplier=0, use_raw=True, noise_std=0.5)
    encoder.rng = rng
    angles = torch.stack([torch.linspace(1, 2, 50_000), torch.full((50_000,), 1.5)], dim=1)
    moved = encoder(angles) * math.tau - angles
    assert float(moved[:, 0].std()) == pytest.approx(0.5 * float(angles[:, 0].std()), rel=0.02)
    assert_close(moved[:, 1], torch.zeros(50_000), atol=1e-6, rtol=0)  # an angle all alike


def test_chance_comes_from_the_encoders_generator() -> None:
    encoder = PoseEncoder(multiplier=4, use_raw=False, drop_p=0.5, noise_std=0.1)
    angles = torch.rand(8, 2)
    state = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        encoder.rng = torch.Generator().manual_seed(seed)
        found.append(encoder(angles))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert torch.equal(state, torch.get_rng_state())


def test_an_impossible_share_of_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="1.0 and 0"):
        PoseEncoder(multiplier=4, use_raw=False, drop_p=1.0)

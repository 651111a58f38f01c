"""The moving average of weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from generators.pigan import PiGAN
from inference.checkpoint import CheckpointError
from training.ema import ExponentialMovingAverage

Build = Callable[..., PiGAN]


def wander(generator: PiGAN, rng: torch.Generator) -> None:
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(torch.randn(p.shape, generator=rng))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_an_average_keeps_its_decay_but_no_more_than_its_age_allows(
    tiny_pigan: Build, rng: torch.Generator, decay: float
) -> None:
    generator = tiny_pigan()
    ema = ExponentialMovingAverage(generator, decay)
    expected = [p.detach().double() for p in generator.parameters()]
    for n in range(1, 31):
        wander(generator, rng)
        ema.update(generator)
        kept = min(decay, (1 + n) / (10 + n))
        weights = [p.detach().double() for p in generator.parameters()]
        expected = [kept * a + (1 - kept) * w for a, w in zip(expected, weights, strict=True)]
    assert ema.num_updates == 30
    for ours, reference in zip(ema.module.parameters(), expected, strict=True):
        assert_close(ours.double(), reference, atol=1e-5, rtol=1e-5)


def test_the_first_update_takes_nine_elevenths_of_the_weights(tiny_pigan: Build) -> None:
    generator = tiny_pigan()
    ema = ExponentialMovingAverage(generator, 0.999)
    before = next(ema.module.parameters()).clone()
    with torch.no_grad():
        next(generator.parameters()).add_(11.0)
    ema.update(generator)
    assert_close(next(ema.module.parameters()), before + 9.0)


def test_an_average_of_weights_that_rest_rests(tiny_pigan: Build) -> None:
    generator = tiny_pigan()
    ema = ExponentialMovingAverage(generator, 0.9)
    for _ in range(5):
        ema.update(generator)
    for ours, weights in zip(ema.module.parameters(), generator.parameters(), strict=True):
        assert torch.equal(ours, weights)


def test_an_average_is_a_generator_of_its_own_that_needs_no_gradient(
    tiny_pigan: Build, rng: torch.Generator
) -> None:
    generator = tiny_pigan()
    weights = [p.detach().clone() for p in generator.parameters()]
    ema = ExponentialMovingAverage(generator, 0.9)
    assert not ema.module.training and generator.training
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert all(p.requires_grad for p in generator.parameters())
    with torch.no_grad():
        next(ema.module.parameters()).zero_()
    for p, before in zip(generator.parameters(), weights, strict=True):
        assert torch.equal(p, before)


def test_a_restored_average_goes_on_as_the_saved_one(
    tiny_pigan: Build, rng: torch.Generator
) -> None:
    generator, file = tiny_pigan(), Path("ema.pth")
    ema = ExponentialMovingAverage(generator, 0.999)
    for _ in range(3):
        wander(generator, rng)
        ema.update(generator)
    other = ExponentialMovingAverage(tiny_pigan(), 0.999)
    other.load_state_dict(ema.state_dict(), file)
    wander(generator, rng)
    for average in (ema, other):
        average.update(generator)
    assert other.num_updates == 4
    for a, b in zip(ema.module.parameters(), other.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_is_no_average_is_refused(tiny_pigan: Build) -> None:
    ema = ExponentialMovingAverage(tiny_pigan(), 0.9)
    with pytest.raises(CheckpointError, match="x.pth is not a moving average"):
        ema.load_state_dict({"state_dict": ema.module.state_dict()}, Path("x.pth"))
    wider = ExponentialMovingAverage(tiny_pigan(hidden_dim=9), 0.9)
    with pytest.raises(CheckpointError, match="x.pth is from another architecture"):
        ema.load_state_dict(wider.state_dict(), Path("x.pth"))

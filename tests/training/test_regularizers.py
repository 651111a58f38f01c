"""StyleGAN's regularisers against closed forms."""

import math

import pytest
import torch
from torch.testing import assert_close

from training.regularizers import (
    blur,
    blur_sigma,
    gradient_penalty,
    half_life_decay,
    lazy_adam,
    mix_styles,
    mixing_cutoff,
    path_length_penalty,
    path_lengths,
)


def test_r1_of_a_linear_discriminator_is_the_norm_of_its_weights() -> None:
    weights = torch.randn(3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = (images * weights).sum((1, 2, 3))[:, None]
    assert_close(gradient_penalty(logits, images), weights.square().sum().expand(5))


def test_r1_can_be_differentiated() -> None:
    scale = torch.tensor(3.0, requires_grad=True)
    images = torch.randn(2, 1, 2, 2, requires_grad=True)
    logits = (scale * images.square() / 2).sum((1, 2, 3))[:, None]
    gradient_penalty(logits, images).sum().backward()
    assert_close(scale.grad, (2 * 3 * images.square()).sum().detach())


def test_the_path_length_of_a_linear_generator_is_known() -> None:
    jacobian = torch.randn(2, 6, 3 * 4 * 4)  # per slot
    w = torch.randn(5, 2, 6, requires_grad=True)
    images = torch.einsum("bsd,sdp->bp", w, jacobian).reshape(5, 3, 4, 4)
    noise = torch.randn(5, 3, 4, 4)
    pulled = torch.einsum("sdp,bp->bsd", jacobian, noise.flatten(1)) / 4
    expected = pulled.square().sum(2).mean(1).sqrt()
    assert_close(path_lengths(images, w, noise), expected)


def test_the_mean_path_length_moves_slowly_and_carries_gradient_once() -> None:
    lengths = torch.tensor([1.0, 3.0], requires_grad=True)
    penalty, mean = path_length_penalty(lengths, torch.tensor(1.0), decay=0.1)
    assert_close(mean, torch.tensor(1.1))
    assert not mean.requires_grad
    assert_close(penalty, torch.tensor([0.01, 3.61]))
    penalty.sum().backward()  # d/dl_i of sum (l_j - m)^2 with dm/dl_i = 0.1 / 2
    sums = 2 * (lengths.detach() - 1.1)
    assert_close(lengths.grad, sums - 0.05 * sums.sum())


def test_styles_are_mixed_from_the_cutoff_on() -> None:
    w, other = torch.zeros(2, 5, 3), torch.ones(2, 5, 3)
    mixed = mix_styles(w, other, 2)
    assert not mixed[:, :2].any() and mixed[:, 2:].all()
    assert torch.equal(mix_styles(w, other, 5), w)


def test_cutoffs_are_uniform_with_the_probability_given() -> None:
    rng = torch.Generator().manual_seed(0)
    draws = torch.tensor([mixing_cutoff(6, 0.9, rng) for _ in range(4000)])
    counts = torch.bincount(draws, minlength=7) / 4000
    assert counts[0] == 0
    assert counts[6] == pytest.approx(0.1, abs=0.02)
    assert_close(counts[1:6], torch.full((5,), 0.18), atol=0.02, rtol=0)
    assert {mixing_cutoff(6, 0.0, rng) for _ in range(20)} == {6}


def test_blur_is_a_normalised_bell_that_ends_at_three_sigma() -> None:
    sigma = 1.5
    impulse = torch.zeros(1, 1, 21, 21)
    impulse[:, :, 10, 10] = 1
    spread = blur(impulse, sigma)[0, 0]
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert_close(spread, spread.t())
    ratio = spread[10, 12] / spread[10, 10]
    assert ratio == pytest.approx(2 ** -((2 / sigma) ** 2), rel=1e-4)
    assert spread[10, 14] > 0 and spread[10, 15] == 0  # floor(4.5) pixels


def test_no_blur_is_the_picture_itself() -> None:
    images = torch.randn(1, 3, 8, 8)
    assert blur(images, 0.0) is images and blur(images, 0.3) is images


def test_blur_fades_linearly() -> None:
    assert blur_sigma(0, 10, 200) == 10
    assert blur_sigma(50_000, 10, 200) == pytest.approx(7.5)
    assert blur_sigma(300_000, 10, 200) == 0
    assert blur_sigma(0, 10, 0) == 0


def test_lazy_adam_forgets_and_moves_as_much_per_interval() -> None:
    lr, betas = lazy_adam(0.002, (0.0, 0.99), 16)
    assert lr * 17 == pytest.approx(0.002 * 16)
    assert betas[1] ** 17 == pytest.approx(0.99**16)
    assert betas[0] == 0 and all(isinstance(b, float) for b in betas)


def test_an_average_halves_over_its_half_life() -> None:
    decay = half_life_decay(32, 10, images_seen=10**9)
    assert decay ** (10_000 / 32) == pytest.approx(0.5)
    assert half_life_decay(32, 10, 20_000, rampup=0.05) == pytest.approx(0.5 ** (32 / 1000))
    assert half_life_decay(32, 10, 0, rampup=0.05) == 0
    assert math.isfinite(half_life_decay(32, 0, 100))

"""The losses against closed forms."""

import math

import pytest
import torch
from torch.testing import assert_close

from curriculums import CelebA, stage_at, with_overrides
from discriminators.base import Judgement
from rendering.cameras import Cameras
from training.losses import fake_loss, generator_loss, identity_loss, r1_penalty, real_loss

LOGITS = torch.tensor([[0.0], [2.0], [-3.0], [0.5]])


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def test_adversarial_losses_are_mean_softplus() -> None:
    logits = LOGITS.flatten().tolist()
    assert real_loss(LOGITS).item() == pytest.approx(sum(map(softplus, (-x for x in logits))) / 4)
    assert fake_loss(LOGITS).item() == pytest.approx(sum(map(softplus, logits)) / 4)
    assert generator_loss(LOGITS, 1.0).item() == pytest.approx(real_loss(LOGITS).item())


def test_losses_stay_finite_where_the_exponential_would_not() -> None:
    extreme = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    for loss in (real_loss(extreme), fake_loss(extreme), generator_loss(extreme, 1.0)):
        assert loss.item() == pytest.approx(5000)
        (slope,) = torch.autograd.grad(loss, extreme)
        assert slope.isfinite().all()


@pytest.mark.parametrize(
    ("share", "kept"),
    [(1.0, [0, 1, 2, 3]), (0.76, [0, 1, 2, 3]), (0.75, [0, 1, 3]), (0.5, [1, 3]), (0.01, [1])],
)
def test_top_k_learns_from_the_largest_logits_alone(share: float, kept: list[int]) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = generator_loss(logits, share)
    expected = sum(softplus(-LOGITS[i].item()) for i in kept) / len(kept)
    assert loss.item() == pytest.approx(expected)
    (slope,) = torch.autograd.grad(loss, logits)
    assert slope.flatten().nonzero().flatten().tolist() == kept


# -- R1


@pytest.mark.parametrize("scale", [1.0, torch.tensor(65536.0)])
def test_r1_of_a_linear_discriminator_is_its_squared_weight(scale: float | torch.Tensor) -> None:
    v = torch.randn(3, 4, 4, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = (images * v).sum(dim=(1, 2, 3))[:, None]
    penalty = r1_penalty(logits, images, scale)
    assert_close(penalty, v.square().sum())
    (slope,) = torch.autograd.grad(penalty, v)
    assert_close(slope, 2 * v)


def test_r1_is_the_mean_over_pictures_of_their_own_squared_gradients() -> None:
    images = torch.randn(4, 1, 2, 2, requires_grad=True)
    logits = 0.5 * images.square().sum(dim=(1, 2, 3))[:, None]
    assert_close(r1_penalty(logits, images), images.square().sum() / 4)


def test_r1_of_half_precision_logits_does_not_underflow() -> None:
    """A slope of 1e-8 is nought in fp16 unless the sum is scaled first."""
    images, small = torch.ones(1, 1, 1, 1, requires_grad=True), torch.tensor(1e-4).half()
    logits = (images.half() * small * small).reshape(1, 1)
    assert r1_penalty(logits, images).item() == 0
    scaled = r1_penalty(logits, images, torch.tensor(2.0**15))
    assert scaled.sqrt().item() == pytest.approx(1e-8, rel=0.01)


# -- identity


def judged(latent: torch.Tensor | None, pose: torch.Tensor | None) -> Judgement:
    return Judgement(torch.zeros(2, 1), latent, pose)


def test_the_identity_loss_is_the_mean_squared_error_of_latent_and_pitch_and_yaw() -> None:
    z, latent = torch.zeros(2, 4), torch.tensor([[1.0, 0, 0, 0], [0, 0, 2, 0]])
    cameras = Cameras.from_angles(torch.tensor([0.5, 1.0]), torch.tensor([1.5, 1.2]), 12.0)
    right = torch.tensor([[1.5, 0.5], [1.2, 1.0]])  # pitch, then yaw
    stage = stage_at(with_overrides(CelebA, ["z_lambda=3", "pos_lambda=2"]), 0)
    loss = identity_loss(judged(latent, right), z, cameras, stage)
    assert_close(loss, torch.tensor(3 * 5 / 8))
    loss = identity_loss(judged(z, right + 0.1), z, cameras, stage)
    assert_close(loss, torch.tensor(2 * 0.01))


def test_without_weights_there_is_no_identity_loss() -> None:
    stage = stage_at(with_overrides(CelebA, ["pos_lambda=0"]), 0)
    cameras = Cameras.from_angles(torch.tensor([0.5, 1.0]), 1.5, 12.0)
    assert identity_loss(judged(None, None), torch.zeros(2, 4), cameras, stage) == 0.0

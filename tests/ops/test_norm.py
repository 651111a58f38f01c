"""Second-moment normalisation and the minibatch standard deviation."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from ops.norm import minibatch_std, normalize_2nd_moment


def test_normalised_vectors_have_a_mean_square_of_one() -> None:
    x = torch.randn(4, 7) * torch.tensor([[1e-2], [1.0], [30.0], [1e4]])
    assert_close(normalize_2nd_moment(x).square().mean(1), torch.ones(4), atol=1e-3, rtol=0)
    assert torch.isfinite(normalize_2nd_moment(torch.zeros(2, 3))).all()


def test_the_extra_map_is_the_spread_within_each_group() -> None:
    x = torch.randn(6, 4, 3, 2, dtype=torch.float64)
    y = minibatch_std(x, group_size=3, num_channels=2)
    assert torch.equal(y[:, :4], x)
    for n in range(6):
        members = x[n % 2 :: 2]  # pictures n, n + 2, n + 4
        spread = (members.var(0, unbiased=False) + 1e-8).sqrt()
        for channel in range(2):
            expected = spread[2 * channel : 2 * channel + 2].mean()
            assert_close(y[n, 4 + channel], expected.expand(3, 2))


def test_equal_pictures_have_no_spread_and_a_group_is_at_most_the_batch() -> None:
    x = torch.randn(1, 3, 4, 4).repeat(4, 1, 1, 1)
    assert minibatch_std(x)[:, 3].max() < 1e-3
    assert torch.equal(minibatch_std(x, 64), minibatch_std(x, None))


def test_norms_have_derivatives_of_every_order() -> None:
    x = torch.randn(4, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    for function in (normalize_2nd_moment, lambda x: minibatch_std(x, 2, 2)):
        assert gradcheck(function, x)
        assert gradgradcheck(function, x)


def test_a_batch_that_is_no_multiple_of_the_group_is_refused() -> None:
    with pytest.raises(ValueError, match="divisible by its group of 4, got 6; nearest: 4 or 8"):
        minibatch_std(torch.ones(6, 2, 4, 4))
    with pytest.raises(ValueError, match="3 channels into 2"):
        minibatch_std(torch.ones(4, 3, 4, 4), num_channels=2)

"""DiffAugment and the young discriminator's blur against the original."""

import pytest
import torch
from parity.projected_support import assert_outputs
from parity.support import Case, cases_of
from torch import Tensor

from training.diffaugment import diff_augment, draw
from training.regularizers import blur


def recorded(case: Case, policies: list[str]) -> list[list[Tensor]]:
    """The case's draws, by policy."""
    counts = [len(part) for part in draw(policies, case.config["shape"])]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [
        [case.tensor(f"in/draw_{i}") for i in range(start, start + count)]
        for start, count in zip(starts, counts, strict=True)
    ]


@pytest.mark.parametrize("case", cases_of("projected_gan", "diffaug"))
def test_pictures_and_gradients_with_the_originals_draws(case: Case) -> None:
    policies = case.config["policy"].split(",")
    draws = recorded(case, policies)
    x = case.tensor("in/x").requires_grad_()
    y = diff_augment(x, policies, draws)
    (grad,) = torch.autograd.grad((y * case.tensor("in/probe")).sum(), x)
    assert_outputs(case, {"y": y, "grad": grad})
    assert len(list(n for n in case.names if "in/draw_" in n)) == sum(map(len, draws))


@pytest.mark.parametrize("case", cases_of("projected_gan", "blur"))
def test_blur(case: Case) -> None:
    x = case.tensor("in/x")
    actual = {f"y_{i}": blur(x, sigma) for i, sigma in enumerate(case.config["sigmas"])}
    assert_outputs(case, actual)

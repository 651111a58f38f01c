"""DiffAugment: closed forms, slow oracles, gradients, reproducible draws, its curriculum key."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from stages import DIFFAUGMENTS, make_stage
from training.diffaugment import POLICIES, cutout, diff_augment, draw, translation

ALL = ("color", "translation", "cutout")


def pictures(*shape: int) -> Tensor:
    return torch.randn(shape or (3, 3, 16, 24), generator=torch.Generator().manual_seed(0))


def augmented(images: Tensor, policies: Sequence[str], seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return diff_augment(images, policies, draw(policies, images.shape, rng))


@pytest.mark.parametrize("policy", ALL)
def test_draws_come_from_the_generator_alone(policy: str) -> None:
    state = torch.get_rng_state()
    first, again = augmented(pictures(), [policy]), augmented(pictures(), [policy])
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, augmented(pictures(), [policy], seed=1))
    assert first.shape == pictures().shape


@pytest.mark.parametrize("policy", ALL)
def test_pictures_of_a_batch_have_draws_of_their_own(policy: str) -> None:
    one = pictures(1, 3, 16, 16)
    result = augmented(one.expand(8, -1, -1, -1), [policy])
    assert any(not torch.equal(result[0], other) for other in result[1:])


@pytest.mark.parametrize("policies", [[policy] for policy in ALL] + [list(ALL)])
def test_gradients_are_those_of_finite_differences(policies: list[str]) -> None:
    images = pictures(2, 2, 8, 8).double().requires_grad_()
    draws = draw(policies, images.shape, torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, policies, draws), images)


def test_translation_is_a_shift_with_zeros_behind() -> None:
    images = pictures(2, 1, 8, 8)
    down, right = torch.tensor([1, -2]), torch.tensor([0, 3])
    result = translation(images, [down.view(-1, 1, 1), right.view(-1, 1, 1)])
    for n in range(2):
        for i in range(8):
            for j in range(8):
                y, x = i + int(down[n]), j + int(right[n])
                expected = images[n, 0, y, x] if 0 <= y < 8 and 0 <= x < 8 else torch.zeros(())
                assert result[n, 0, i, j] == expected


def test_shifts_reach_an_eighth_of_each_side() -> None:
    ((down, right),) = draw(["translation"], (4000, 3, 16, 40), torch.Generator().manual_seed(0))
    assert sorted(down.unique().tolist()) == list(range(-2, 3))
    assert sorted(right.unique().tolist()) == list(range(-5, 6))


def test_cutout_zeroes_a_fifth_of_each_side_and_less_at_the_border() -> None:
    images = torch.ones(1, 1, 20, 30)
    hole = 1 - cutout(images, [torch.full((1, 1, 1), 10), torch.full((1, 1, 1), 15)])
    assert hole.sum() == 4 * 6
    assert hole[0, 0, 8:12, 12:18].all()
    corner = 1 - cutout(images, [torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)])
    assert corner.sum() == 2 * 3 and corner[0, 0, :2, :3].all()
    rows, columns = draw(["cutout"], (4000, 3, 20, 25), torch.Generator().manual_seed(0))[0]
    assert (int(rows.max()), int(columns.max())) == (20, 24)  # even squares end between pixels


def test_a_colour_change_with_the_middle_draws_changes_nothing() -> None:
    images = pictures()
    middle = [torch.full((3, 1, 1, 1), 0.5)] * 3
    assert_close(diff_augment(images, ["color"], [middle]), images)


def test_colours_are_changed_as_named() -> None:
    images = pictures()
    half = torch.full((3, 1, 1, 1), 0.5)
    brighter = diff_augment(images, ["color"], [[half + 0.25, half, half]])
    assert_close(brighter, images + 0.25)
    grey = diff_augment(images, ["color"], [[half, half * 0, half]])
    assert_close(grey, images.mean(1, keepdim=True).expand_as(images))
    flat = diff_augment(images, ["color"], [[half, half, half * 0]])
    assert_close(flat.std((1, 2, 3)), images.std((1, 2, 3)) / 2)


def test_policies_are_applied_in_order() -> None:
    images = pictures()
    rng = torch.Generator().manual_seed(0)
    draws = draw(ALL, images.shape, rng)
    step = images
    for name, values in zip(ALL, draws, strict=True):
        step = POLICIES[name].apply(step, values)
    assert torch.equal(diff_augment(images, ALL, draws), step)
    assert torch.equal(diff_augment(images, (), []), images)


def test_the_curriculum_and_the_code_know_the_same_policies() -> None:
    assert set(DIFFAUGMENTS) == set(POLICIES)
    with pytest.raises(ValueError, match="unknown diffaugment policy 'colour', did you mean"):
        draw(["colour"], (1, 3, 8, 8))


def stage_with(value: Any) -> tuple[str, ...]:
    required = {
        **{"batch_size": 2, "img_size": 8, "dataset": "Toys", "generator": "PiGAN", "fov": 12},
        **{"discriminator": "StridedDiscriminator", "sample_dist": "gaussian", "h_mean": 0},
        **{"h_stddev": 0, "v_mean": 1, "v_stddev": 0, "num_steps": 3, "ray_start": 1, "ray_end": 2},
        **{"gen_lr": 1e-4, "disc_lr": 1e-4},
    }
    return make_stage(0, {**required, "diffaugment": value}).diffaugment


def test_the_key_takes_names_separated_by_commas_or_a_list() -> None:
    assert stage_with("color,translation, cutout") == ALL
    assert stage_with(["cutout"]) == ("cutout",)
    assert stage_with("") == stage_with(()) == stage_with([]) == ()
    with pytest.raises(ValueError, match=r"unknown diffaugment policy 'cut' \(stage 0\)"):
        stage_with("color,cut")
    with pytest.raises(ValueError, match="diffaugment must be a list of names, got 3"):
        stage_with(3)

"""The control of the augmentation's probability."""

import pytest
import torch
from torch import Tensor

from training.adaptive import AdaptiveControl, make_augmentation


def run(control: AdaptiveControl, share_positive: float, steps: int, batch_size: int = 50) -> None:
    signs = torch.where(torch.arange(batch_size) < share_positive * batch_size, 1.0, -1.0)
    for _ in range(steps):
        control.report(signs[:, None])
        control.step(batch_size)


def test_p_rises_to_one_over_the_images_given_while_the_discriminator_overfits() -> None:
    control = AdaptiveControl(target=0.6, interval=4, kimg=1)
    run(control, 1.0, steps=20)  # 1,000 pictures
    assert control.p == pytest.approx(1)
    run(control, 1.0, steps=4)
    assert control.p == pytest.approx(1.2)  # no upper limit


def test_p_falls_below_the_target_but_not_below_zero() -> None:
    control = AdaptiveControl(target=0.6, interval=4, kimg=1, p=0.3)
    run(control, 0.7, steps=4)  # mean sign 0.4
    assert control.p == pytest.approx(0.1)
    run(control, 0.7, steps=4)
    assert control.p == 0


def test_p_stays_on_target_and_between_adjustments() -> None:
    control = AdaptiveControl(target=0.6, interval=4, kimg=1, p=0.3)
    run(control, 0.8, steps=4)  # mean sign 0.6
    assert control.p == 0.3
    run(control, 1.0, steps=3)
    assert control.p == 0.3
    run(control, 1.0, steps=1)
    assert control.p == pytest.approx(0.5)


def test_without_reports_nothing_changes() -> None:
    control = AdaptiveControl(interval=1, kimg=1, p=0.3)
    assert control.step(1000) == 0.3


def test_signs_are_summed_over_processes() -> None:
    control = AdaptiveControl(target=0.0, interval=1, kimg=1, p=0.5)
    control.report(torch.ones(10, 1))

    def with_another(moments: Tensor) -> Tensor:  # which thought the opposite of more pictures
        return moments + torch.tensor([30.0, -30.0])

    control.step(100, with_another)
    assert control.p == pytest.approx(0.4)


def test_a_restored_control_goes_on_as_if_nothing_had_happened() -> None:
    first, second = (AdaptiveControl(interval=4, kimg=1) for _ in range(2))
    run(first, 1.0, steps=6)
    second.load_state_dict(first.state_dict())
    for control in (first, second):
        run(control, 0.7, steps=2)  # below the target, but the two steps before were above
        assert control.p == pytest.approx(0.4)
    assert first.state_dict() == second.state_dict()


def test_modes_make_a_pipeline_and_a_control() -> None:
    assert make_augmentation("noaug") == (None, None)
    pipe, control = make_augmentation("fixed", p=0.3)
    assert pipe is not None and pipe.p == 0.3 and control is None
    pipe, control = make_augmentation("ada", target=0.5, preset="blit")
    assert pipe is not None and pipe.p == 0 and set(pipe.strengths) == {"xflip", "rotate90", "xint"}
    assert control is not None and control.target == 0.5


def test_impossible_augmentations_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'noaug'"):
        make_augmentation("noaugg")
    with pytest.raises(ValueError, match=r"0\.\.1, got 2"):
        make_augmentation("fixed", p=2)
    with pytest.raises(ValueError, match="interval = 0"):
        AdaptiveControl(interval=0)

"""The patch discriminator: it knows the window, and is as deep as one for whole images."""

import pytest
import torch
from torch import Tensor

from discriminators.patch import PatchDiscriminator
from rendering.cameras import Cameras, Patch

TINY = {"resolution": 32, "patch_size": 8, "channel_base": 128, "channel_max": 12}


def tiny(**options: object) -> PatchDiscriminator:
    discriminator = PatchDiscriminator(**{**TINY, **options})  # type: ignore[arg-type]
    for name, parameter in discriminator.named_parameters():
        if name.endswith("bias"):  # zeros at first: codes would scale nothing
            torch.nn.init.normal_(parameter)
    return discriminator


def images(batch: int = 4) -> Tensor:
    return torch.rand(batch, 3, 8, 8) * 2 - 1


def windows(scale: float, x: float = 0.0, y: float = 0.0, batch: int = 4) -> Patch:
    return Patch(torch.full((batch,), scale), torch.tensor([[x, y]]).repeat(batch, 1))


def test_it_is_as_deep_as_one_for_whole_images_and_keeps_the_patchs_size_first() -> None:
    discriminator = tiny()
    downs = [(b.conv1.down, b.skip.down) for b in discriminator.blocks]  # type: ignore[union-attr]
    assert downs == [(1, 1), (1, 1), (2, 2)]
    widths = [b.conv0.weight.shape[0] for b in discriminator.blocks]  # type: ignore[union-attr]
    assert widths == [4, 8, 12]


@pytest.mark.parametrize("other", [(0.5, 0.5, 0.0), (0.5, 0.0, 0.5), (0.6, 0.0, 0.0)])
def test_the_same_patch_elsewhere_is_judged_differently(other: tuple[float, float, float]) -> None:
    discriminator, given = tiny(), images()
    here = discriminator(given, patch=windows(0.5)).logits
    there = discriminator(given, patch=windows(*other)).logits
    assert (here - there).abs().min() > 1e-4


def test_windows_scale_features_and_not_only_the_head() -> None:
    discriminator = tiny()
    code = torch.randn(2, 512)
    block = discriminator.blocks[1]
    x = torch.randn(1, 8, 8, 8).expand(2, -1, -1, -1)
    y, _ = block(x, None, dtype=x.dtype, code=code)
    assert (y[0] - y[1]).abs().max() > 1e-3


def test_few_waves_and_no_table_judge_near_windows_nearly_alike() -> None:
    given = images()
    changes = []
    for options in ({}, {"window_periods": 4.0, "window_table_dim": 0}):
        torch.manual_seed(0)
        discriminator = tiny(**options)
        here, near, far = (discriminator(given, patch=windows(s)).logits for s in (0.5, 0.502, 0.8))
        changes.append((near - here).abs().mean() / (far - here).abs().mean())
    assert changes[0] > 0.3 and changes[1] < 0.05
    assert PatchDiscriminator(**TINY, condition_on_cameras=True, pose_periods=4.0).pose.out_dim == 8  # type: ignore[union-attr,arg-type]


def test_without_a_window_it_judges_whole_images() -> None:
    discriminator, given = tiny(), images()
    whole = discriminator(given, patch=Patch.whole(4)).logits
    assert torch.equal(discriminator(given).logits, whole)


def test_unaware_of_windows_it_judges_all_alike() -> None:
    discriminator, given = tiny(condition_on_patches=False), images()
    assert torch.equal(discriminator(given, patch=windows(0.5)).logits, discriminator(given).logits)


def test_labels_and_poses_are_judged_with_the_patch() -> None:
    discriminator = tiny(label_dim=3, condition_on_cameras=True)
    given = images(1).expand(2, -1, -1, -1)
    cameras = Cameras.from_angles(torch.tensor([0.3, 1.3]), 1.2, 20.0)

    def judge(label: list[int], views: Cameras) -> Tensor:
        return discriminator(given, cameras=views, label=torch.tensor(label)).logits[:, 0]

    same = Cameras.cat([cameras[0]] * 2)
    a, b = judge([0, 1], same)
    assert (a - b).abs() > 1e-4
    a, b = judge([1, 1], cameras)
    assert (a - b).abs() > 1e-4
    with pytest.raises(ValueError, match="with their cameras"):
        discriminator(given, label=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="needs labels"):
        discriminator(given, cameras=cameras)


def test_poses_are_dropped_in_training_only() -> None:
    discriminator = tiny(condition_on_cameras=True, pose_drop_p=0.5)
    given, cameras = images(), Cameras.from_angles(torch.rand(4), 1.2, 20.0)
    assert discriminator.pose is not None
    discriminator.pose.rng = torch.Generator().manual_seed(0)
    first, second = (discriminator(given, cameras=cameras).logits for _ in range(2))
    assert not torch.equal(first, second)
    discriminator.eval()
    first, second = (discriminator(given, cameras=cameras).logits for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("patch_size", [4, 12, 64])
def test_impossible_patch_sizes_are_refused(patch_size: int) -> None:
    with pytest.raises(ValueError, match=f"resolution 32, got {patch_size}"):
        tiny(patch_size=patch_size)

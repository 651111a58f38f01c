"""The StyleGAN2 discriminator: conditions, architectures, freezing, and what it refuses."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from discriminators import stylegan2
from discriminators.stylegan2 import ARCHITECTURES, StyleGAN2Discriminator, camera_vectors
from rendering.cameras import Cameras, Patch
from training.regularizers import gradient_penalty

TINY: dict[str, Any] = {
    "resolution": 16,
    "channel_base": 128,
    "channel_max": 12,
    "mapping_layers": 2,
}


def tiny(**options: Any) -> StyleGAN2Discriminator:
    return StyleGAN2Discriminator(**{**TINY, **options})


def views(batch: int) -> Cameras:
    return Cameras.from_angles(torch.linspace(0.8, 2.2, batch), 1.3, 25.0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_logit_per_picture_and_a_gradient_everywhere(architecture: str) -> None:
    discriminator = tiny(architecture=architecture)
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    judgement = discriminator(images)
    assert judgement.logits.shape == (4, 1)
    assert judgement.latent is None and judgement.pose is None
    judgement.logits.square().sum().backward()
    assert images.grad is not None and images.grad.flatten(1).any(1).all()
    assert all(p.grad is not None and p.grad.any() for p in discriminator.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gradient_penalty_reaches_the_weights(architecture: str) -> None:
    discriminator = tiny(architecture=architecture)
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    logits = discriminator(images).logits
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    weights = [p for n, p in discriminator.named_parameters() if n.endswith("weight")]
    assert all(p.grad is not None and p.grad.any() for p in weights)


def test_pictures_of_one_group_are_compared_with_each_other() -> None:
    discriminator = tiny(mbstd_group_size=2)
    images = torch.randn(4, 3, 16, 16)
    together = discriminator(images).logits
    changed = images.clone()
    changed[2] += 1  # the partner of picture 0
    again = discriminator(changed).logits
    assert_close(again[[1, 3]], together[[1, 3]])
    assert (again[0] - together[0]).abs() > 1e-6
    alone = tiny(mbstd_num_channels=0)
    assert_close(alone(changed).logits[0], alone(images).logits[0])


def test_a_class_is_a_direction_that_features_are_projected_on() -> None:
    discriminator = tiny(label_dim=3, mbstd_num_channels=0)
    image = torch.randn(1, 3, 16, 16).expand(3, 3, 16, 16)
    logits = discriminator(image, label=torch.tensor([0, 1, 2])).logits
    assert logits.std() > 1e-4
    one_hot = discriminator(image, label=torch.eye(3)).logits
    assert torch.equal(one_hot, logits)


def test_a_picture_can_be_judged_with_its_camera() -> None:
    discriminator = tiny(condition_on_cameras=True, mbstd_num_channels=0)
    image = torch.randn(1, 3, 16, 16).expand(3, 3, 16, 16)
    assert discriminator(image, cameras=views(3)).logits.std() > 1e-4
    both = tiny(condition_on_cameras=True, label_dim=2)
    assert both(image, cameras=views(3), label=torch.tensor([0, 1, 1])).logits.shape == (3, 1)
    with pytest.raises(ValueError, match="with their cameras"):
        discriminator(image)


def test_a_camera_vector_is_pose_and_normalised_intrinsics() -> None:
    cameras = Cameras.from_angles(1.0, 1.2, 90.0, radius=2.0)
    vector = camera_vectors(cameras)[0]
    assert_close(vector[:16].reshape(4, 4), cameras.cam2world[0])
    expected = torch.tensor([[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]])  # 90 degrees: focal 1/2
    assert_close(vector[16:].reshape(3, 3), expected)


def test_without_a_condition_cameras_and_alpha_make_no_difference() -> None:
    discriminator = tiny()
    images = torch.randn(3, 3, 16, 16)
    expected = discriminator(images).logits
    assert torch.equal(discriminator(images, 0.3, views(3)).logits, expected)


@pytest.mark.parametrize(("count", "frozen"), [(0, 0), (1, 1), (3, 3), (5, 5), (99, 7)])
def test_the_first_layers_can_be_frozen_but_never_the_last(count: int, frozen: int) -> None:
    free, partly = tiny(), tiny(freeze_layers=count)
    assert list(partly.state_dict()) and set(partly.state_dict()) == set(free.state_dict())
    missing = {n for n, _ in free.named_parameters()} - {n for n, _ in partly.named_parameters()}
    layers = {name.rsplit(".", 1)[0] for name in missing}
    order = ["0.fromrgb", "0.conv0", "0.conv1", "0.skip", "1.conv0", "1.conv1", "1.skip"]
    assert layers == {f"blocks.{name}" for name in order[:frozen]}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_16_bit_blocks_change_little_and_can_be_differentiated_twice(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    discriminator = tiny(architecture=architecture, fp16_channels_last=True)
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    exact = discriminator(images).logits.detach()
    monkeypatch.setattr(stylegan2, "half_dtype", lambda images: torch.float16)  # as on CUDA
    logits = discriminator(images).logits
    assert logits.dtype == torch.float32 and not torch.equal(logits, exact)
    assert_close(logits, exact, atol=0.01, rtol=0.01)
    gradient_penalty(logits, images).mean().backward()
    weights = [p for n, p in discriminator.named_parameters() if n.endswith("weight")]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in weights)


def test_the_number_of_channels_can_be_chosen() -> None:
    assert tiny(img_channels=1)(torch.randn(2, 1, 16, 16)).logits.shape == (2, 1)
    assert tiny(img_channels=6)(torch.randn(2, 6, 16, 16)).logits.shape == (2, 1)


def test_what_it_cannot_judge_is_refused() -> None:
    discriminator = tiny()
    assert discriminator.image_sizes == (16,)
    with pytest.raises(ValueError, match="16 pixels, got \\(32, 32\\)"):
        discriminator(torch.randn(2, 3, 32, 32))
    with pytest.raises(ValueError, match="patch must be None"):
        discriminator(torch.randn(1, 3, 16, 16), patch=Patch(torch.ones(1), torch.zeros(1, 2)))
    with pytest.raises(ValueError, match="unconditional"):
        discriminator(torch.randn(2, 3, 16, 16), label=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="group of 4, got 6"):
        discriminator(torch.randn(6, 3, 16, 16))
    for resolution in (20, 4):
        with pytest.raises(ValueError, match=f"got {resolution}"):
            tiny(resolution=resolution)
    with pytest.raises(ValueError, match="did you mean 'resnet'"):
        tiny(architecture="resnett")

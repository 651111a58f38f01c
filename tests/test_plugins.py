"""Every generator and every discriminator, through one contract.

A plugin that is registered and has no entry in TINY_GENERATORS or TINY_DISCRIMINATORS fails. What
every generator owes comes first; radiance generators owe depth, opacity, the range of their
pictures, chunks, turning cameras and patches besides, which 2D networks do not have.
"""

import dataclasses
from typing import Any

import pytest
import torch
from tiny_plugins import (
    SETTINGS,
    assert_gradient_everywhere,
    build_discriminator,
    build_generator,
    every_discriminator,
    every_fading_discriminator,
    every_flat_generator,
    every_generator,
    every_radiance_generator,
    extra,
    latents,
    picture,
    real_like,
    settings_of,
    styles,
    views,
)
from torch import Tensor
from torch.testing import assert_close

from discriminators import DISCRIMINATORS
from generators import GENERATORS, RadianceGenerator
from rendering.cameras import Cameras, Patch

MANY_LOGITS = ("ProjectedDiscriminator",)  # per picture

# -- generators: styles


@every_generator
def test_mapping_gives_a_style_per_latent(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    assert w.shape == (3, *generator.w_avg.shape)
    assert torch.isfinite(w).all()
    assert (w[0] - w[1]).abs().max() > 0


@every_generator
def test_psi_zero_is_the_average_and_psi_one_no_truncation(
    name: str, options: dict[str, Any]
) -> None:
    generator = build_generator(name, options)
    z, label = latents(generator)
    assert generator.w_avg.any()
    average = generator.mapping(z, label, views(), psi=0.0)
    assert_close(average, generator.w_avg.expand_as(average), atol=0, rtol=0)
    whole = generator.mapping(z, label, views(), psi=1.0)
    assert torch.equal(whole, generator.style(z, label, views()))
    half = generator.mapping(z, label, views(), psi=0.5)
    assert_close(half, (average + whole) / 2)


@every_generator
def test_each_latent_is_mapped_as_if_it_were_alone(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    z, label = latents(generator)
    together = generator.mapping(z, label, views())
    for i in range(3):
        row = slice(i, i + 1)
        alone = generator.mapping(z[row], None if label is None else label[row], views()[i])
        assert_close(alone, together[row])


# -- generators: pictures


@every_generator
def test_pictures_have_their_shape(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    result = picture(generator, styles(generator))
    size = generator.resolution or SETTINGS.resolution
    assert result.image.shape == (3, 3, size, size)
    assert result.image.dtype == torch.float32
    assert result.image.isfinite().all() and result.image.std() > 0


@every_generator
def test_without_jitter_pictures_are_a_pure_function(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    first = picture(generator, w, hierarchical=True)
    state = torch.get_rng_state()
    assert torch.equal(picture(generator, w, hierarchical=True).image, first.image)
    assert torch.equal(state, torch.get_rng_state())


@every_generator
def test_jitter_and_noise_come_from_the_generator_given(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    settings = settings_of(generator, jitter=True, noise_std=1.0)

    def image(seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return generator.synthesis(w, views(), settings, generator=rng).image

    state = torch.get_rng_state()
    assert torch.equal(image(1), image(1))
    assert torch.equal(state, torch.get_rng_state())
    noisy = any(key.endswith("noise_strength") for key, _ in generator.named_parameters())
    if noisy or isinstance(generator, RadianceGenerator):
        assert not torch.equal(image(1), image(2))
    else:  # nothing in it is random
        assert torch.equal(image(1), picture(generator, w).image)


@every_generator
def test_forward_is_synthesis_of_mapping(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    z, label = latents(generator)
    ours = generator(z, views(), settings_of(generator), label)
    parts = generator.synthesis(
        generator.mapping(z, label, views()), views(), settings_of(generator)
    )
    assert torch.equal(ours.image, parts.image)


@every_generator
def test_a_picture_does_not_depend_on_its_batch(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    together = picture(generator, w).image
    for i in range(3):
        with torch.no_grad():
            alone = generator.synthesis(w[i : i + 1], views()[i], settings_of(generator)).image
        assert_close(alone[0], together[i], atol=1e-5, rtol=0)


@every_generator
def test_different_styles_give_different_pictures(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    camera = Cameras.cat([views()[0]] * 3)
    with torch.no_grad():
        image = generator.synthesis(w, camera, settings_of(generator)).image
    assert (image[0] - image[1]).abs().max() > 1e-3


@every_generator
def test_gradients_reach_the_latent_and_every_weight(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    z, label = latents(generator)
    image = generator(z.requires_grad_(), views(), settings_of(generator), label).image
    (image * torch.randn_like(image)).sum().backward()
    assert z.grad is not None and z.grad.flatten(1).any(1).all()
    assert_gradient_everywhere(generator)


@every_generator
def test_a_state_dict_carries_the_whole_generator(name: str, options: dict[str, Any]) -> None:
    generator, other = build_generator(name, options), build_generator(name, options)
    w = styles(generator)
    assert not torch.equal(picture(other, w).image, picture(generator, w).image)
    other.load_state_dict(generator.state_dict())
    assert torch.equal(picture(other, w).image, picture(generator, w).image)
    assert torch.equal(other.w_avg, generator.w_avg)


@every_generator
def test_mapping_parameters_are_parameters_of_the_generator(
    name: str, options: dict[str, Any]
) -> None:
    generator = build_generator(name, options)
    own = {id(p) for p in generator.parameters()}
    mapping = [id(p) for p in generator.mapping_parameters()]
    assert set(mapping) <= own and len(set(mapping)) == len(mapping) < len(own)


# -- generators whose pictures are 2D networks


@every_flat_generator
def test_a_flat_generator_has_one_size_and_no_geometry(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    result = picture(generator, w)
    assert result.depth is None and result.opacity is None
    turned = dataclasses.replace(views(), cam2world=views().cam2world.flip(0))
    with torch.no_grad():
        again = generator.synthesis(w, turned, settings_of(generator)).image
    assert torch.equal(again, result.image) != generator.sees_cameras
    assert generator.resolution is not None
    with pytest.raises(ValueError, match=f"of {generator.resolution} pixels, .* = 9"):
        picture(generator, w, resolution=9)
    patch = Patch(torch.ones(3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="patch must be None"):
        generator.synthesis(w, views(), settings_of(generator), patch=patch)


# -- generators whose pictures are renderings


@every_radiance_generator
def test_renderings_have_their_range_and_geometry(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    assert generator.resolution is None
    result = picture(generator, styles(generator))
    if generator.bounds_radiance:
        assert -1 <= result.image.min() and result.image.max() <= 1 + 1e-6
    size = SETTINGS.resolution
    for geometry in (result.depth, result.opacity):
        assert geometry is not None and geometry.shape == (3, size, size)


@every_radiance_generator
def test_chunked_pictures_are_whole_ones(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    chunked = picture(generator, w, max_batch_size=100)
    assert_close(chunked.image, picture(generator, w).image, atol=1e-5, rtol=0)


@every_radiance_generator
def test_turning_the_camera_changes_the_picture(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator, 1).expand(3, *generator.w_avg.shape)
    image = picture(generator, w).image
    assert (image[0] - image[1]).abs().max() > 1e-3
    assert (image[1] - image[2]).abs().max() > 1e-3


@every_radiance_generator
def test_the_patch_of_scale_one_is_the_whole_picture(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    patch = Patch(torch.ones(3), torch.zeros(3, 2))
    with torch.no_grad():
        patched = generator.synthesis(w, views(), SETTINGS, patch=patch).image
    assert_close(patched, picture(generator, w).image, atol=1e-5, rtol=0)


@every_radiance_generator
def test_a_patch_is_cut_out_of_the_picture(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    patch = Patch(torch.full((3,), 0.5), torch.tensor([[0.0, 0.5], [0.5, 0.0], [0.25, 0.375]]))
    with torch.no_grad():
        small = dataclasses.replace(SETTINGS, resolution=5)
        patched = generator.synthesis(w, views(), small, patch=patch).image
    whole = picture(generator, w).image
    for i, (row, column) in enumerate([(0, 0), (4, 4), (1, 2)]):
        cut = whole[i, :, row : row + 5, column : column + 5]
        assert_close(patched[i], cut, atol=1e-4, rtol=0)


# -- discriminators


@every_discriminator
def test_a_judgement_has_the_heads_that_the_class_declares(
    name: str, options: dict[str, Any]
) -> None:
    discriminator = build_discriminator(name, options)
    assert discriminator.image_sizes
    for size in discriminator.image_sizes:
        judgement = discriminator(real_like(size), **extra())
        assert judgement.logits.ndim == 2 and len(judgement.logits) == 3
        assert judgement.logits.shape[1] == 1 or name in MANY_LOGITS
        assert torch.isfinite(judgement.logits).all()
        assert (judgement.latent is not None) == discriminator.predicts_latent
        assert (judgement.pose is not None) == discriminator.predicts_pose
        if judgement.latent is not None:
            assert judgement.latent.shape == (3, options["latent_dim"])
        if judgement.pose is not None:
            assert judgement.pose.shape == (3, 2)


@every_discriminator
def test_each_picture_is_judged_as_if_it_were_alone_or_the_class_says_otherwise(
    name: str, options: dict[str, Any]
) -> None:
    """Minibatch standard deviation is meant to make pictures of a batch depend on each other."""
    discriminator = build_discriminator(name, options)
    images = real_like(max(discriminator.image_sizes))
    together = discriminator(images, 0.4, **extra()).logits
    alone = torch.cat(
        [discriminator(images[i : i + 1], 0.4, cameras=views()[i]).logits for i in range(3)]
    )
    if discriminator.compares_pictures:
        assert (alone - together).abs().min() > 1e-4
    else:
        assert_close(alone, together, atol=1e-5, rtol=1e-4)
    assert together.std() > 0


@every_fading_discriminator
def test_a_size_is_faded_in_from_one_judgement_to_another(
    name: str, options: dict[str, Any]
) -> None:
    discriminator = build_discriminator(name, options)
    images = real_like(max(discriminator.image_sizes))

    def judge(alpha: float) -> Tensor:
        return discriminator(images, alpha, **extra()).logits

    assert (judge(0.0) - judge(1.0)).abs().max() > 1e-5
    assert_close(judge(1e-5), judge(0.0), atol=1e-4, rtol=0)
    assert_close(judge(1 - 1e-5), judge(1.0), atol=1e-4, rtol=0)
    assert torch.equal(judge(1.0), discriminator(images, **extra()).logits)


@every_discriminator
def test_gradients_reach_the_pictures_and_every_weight(name: str, options: dict[str, Any]) -> None:
    discriminator = build_discriminator(name, options)
    for size in discriminator.image_sizes:
        images = real_like(size).requires_grad_()
        judgement = discriminator(images, 0.5, **extra())
        heads = [h for h in (judgement.logits, judgement.latent, judgement.pose) if h is not None]
        torch.cat(heads, dim=1).square().sum().backward()
        assert images.grad is not None and images.grad.flatten(1).any(1).all()
    assert_gradient_everywhere(discriminator)


@every_discriminator
def test_the_gradient_penalty_can_be_differentiated_again(
    name: str, options: dict[str, Any]
) -> None:
    discriminator = build_discriminator(name, options)
    images = real_like(max(discriminator.image_sizes)).requires_grad_()
    logits = discriminator(images, **extra()).logits
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in discriminator.parameters())


@every_discriminator
def test_a_state_dict_carries_the_whole_discriminator(name: str, options: dict[str, Any]) -> None:
    first, second = build_discriminator(name, options), build_discriminator(name, options)
    images = real_like(max(first.image_sizes))
    assert not torch.equal(second(images, **extra()).logits, first(images, **extra()).logits)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(images, **extra()).logits, first(images, **extra()).logits)


@every_discriminator
def test_pictures_of_a_size_it_does_not_take_are_refused(
    name: str, options: dict[str, Any]
) -> None:
    discriminator = build_discriminator(name, options)
    largest = max(discriminator.image_sizes)
    for size in (largest - 1, largest * 2):
        with pytest.raises(ValueError, match=f"{size}"):
            discriminator(real_like(size))


# -- the registries themselves


@pytest.mark.parametrize(
    "registry", [GENERATORS, DISCRIMINATORS], ids=["generator", "discriminator"]
)
def test_every_plugin_takes_keywords_only_and_no_others(registry: Any) -> None:
    for name in registry:
        with pytest.raises(TypeError):
            registry[name](1)
        with pytest.raises(TypeError, match="no_such_option"):
            registry[name](no_such_option=1)

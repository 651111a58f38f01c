"""Every generator and every discriminator, through one contract.

A plugin that is registered and has no entry in TINY_GENERATORS or TINY_DISCRIMINATORS fails.
"""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from discriminators import DISCRIMINATORS, Discriminator
from discriminators.pyramid import PyramidDiscriminator
from generators import GENERATORS, Generator, RadianceGenerator
from rendering.cameras import Cameras, Patch
from rendering.renderer import Rendering
from rendering.settings import RenderSettings

TINY_SIREN = {"latent_dim": 4, "hidden_dim": 8, "num_layers": 2, "mapping_dim": 8}

# canonical name -> constructor arguments of the small ones that are tested
TINY_GENERATORS: dict[str, list[dict[str, Any]]] = {
    "PiGAN": [
        {**TINY_SIREN, "model": "TallSiren"},
        {**TINY_SIREN, "model": "SpatialSiren", "view_direction": False, "density_gain": 3.0},
        {**TINY_SIREN, "model": "EmbeddingSiren128", "grid_size": 4},
        {**TINY_SIREN, "model": "EmbeddingSiren256", "grid_size": 4},
    ],
}
TINY_PYRAMID = {"latent_dim": 4, "max_size": 16, "base": 64, "max_channels": 12}
TINY_DISCRIMINATORS: dict[str, list[dict[str, Any]]] = {
    name: [TINY_PYRAMID]
    for name in (
        "ProgressiveDiscriminator",
        "ProgressiveEncoderDiscriminator",
        "StridedDiscriminator",
        "CCSDiscriminator",
        "CCSEncoderDiscriminator",
    )
}

SETTINGS = RenderSettings(9, 6, 0.7, 1.3, hierarchical=False, jitter=False, white_back=True)


def cases(registry: Any, table: dict[str, list[dict[str, Any]]]) -> list[Any]:
    """A parameter for each tiny plugin, and one that fails for a plugin without any."""
    missing = [
        pytest.param(name, None, id=f"{name}-missing") for name in registry if name not in table
    ]
    return missing + [
        pytest.param(name, options, id=f"{name}-{i}")
        for name, variants in table.items()
        for i, options in enumerate(variants)
    ]


def registered(registry: Any, case: Any) -> type:
    """The class that a parameter stands for."""
    return registry[case.values[0]]


ALL_GENERATORS = cases(GENERATORS, TINY_GENERATORS)
every_generator = pytest.mark.parametrize(("name", "options"), ALL_GENERATORS)
every_radiance_generator = pytest.mark.parametrize(
    ("name", "options"),
    [c for c in ALL_GENERATORS if issubclass(registered(GENERATORS, c), RadianceGenerator)],
)
ALL_DISCRIMINATORS = cases(DISCRIMINATORS, TINY_DISCRIMINATORS)
every_discriminator = pytest.mark.parametrize(("name", "options"), ALL_DISCRIMINATORS)
every_fading_discriminator = pytest.mark.parametrize(
    ("name", "options"),
    [
        c
        for c in ALL_DISCRIMINATORS
        if issubclass(registered(DISCRIMINATORS, c), PyramidDiscriminator)
    ],
)


def build_generator(name: str, options: dict[str, Any] | None) -> Generator:
    if options is None:
        pytest.fail(f"generator {name} has no entry in TINY_GENERATORS")
    generator = GENERATORS[name](**options)
    generator.update_w_avg()
    return generator


def build_discriminator(name: str, options: dict[str, Any] | None) -> Discriminator:
    if options is None:
        pytest.fail(f"discriminator {name} has no entry in TINY_DISCRIMINATORS")
    return DISCRIMINATORS[name](**options)


def latents(generator: Generator, batch: int = 3) -> tuple[Tensor, Tensor | None]:
    """Latents and, for a conditional generator, one-hot labels."""
    z = torch.randn(batch, generator.latent_dim)
    if not generator.label_dim:
        return z, None
    return z, torch.eye(generator.label_dim)[torch.arange(batch) % generator.label_dim]


def views(batch: int = 3) -> Cameras:
    return Cameras.from_angles(torch.linspace(0.8, 2.2, batch), 1.3, 25.0)


def styles(generator: Generator, batch: int = 3) -> Tensor:
    z, label = latents(generator, batch)
    with torch.no_grad():
        return generator.mapping(z, label, views(batch))


def picture(generator: Generator, w: Tensor, **options: Any) -> Rendering:
    settings = dataclasses.replace(SETTINGS, **options)
    with torch.no_grad():
        return generator.synthesis(w, views(len(w)), settings)


def assert_gradient_everywhere(module: nn.Module) -> None:
    dead = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead, f"no gradient reaches {dead}"


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
def test_pictures_have_their_shape_and_range(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    result = picture(generator, styles(generator))
    size = SETTINGS.resolution
    assert result.image.shape == (3, 3, size, size)
    assert result.image.dtype == torch.float32
    assert -1 <= result.image.min() and result.image.max() <= 1 + 1e-6
    assert result.image.std() > 0
    if isinstance(generator, RadianceGenerator):
        assert result.depth is not None and result.opacity is not None
    for geometry in (result.depth, result.opacity):
        assert geometry is None or geometry.shape == (3, size, size)


@every_generator
def test_forward_is_synthesis_of_mapping(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    z, label = latents(generator)
    ours = generator(z, views(), SETTINGS, label)
    parts = generator.synthesis(generator.mapping(z, label, views()), views(), SETTINGS)
    assert torch.equal(ours.image, parts.image)


@every_generator
def test_without_jitter_pictures_are_a_pure_function(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    first = picture(generator, w, hierarchical=True)
    state = torch.get_rng_state()
    assert torch.equal(picture(generator, w, hierarchical=True).image, first.image)
    assert torch.equal(state, torch.get_rng_state())


@every_generator
def test_a_picture_does_not_depend_on_its_batch(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    together = picture(generator, w).image
    for i in range(3):
        with torch.no_grad():
            alone = generator.synthesis(w[i : i + 1], views()[i], SETTINGS).image
        assert_close(alone[0], together[i], atol=1e-5, rtol=0)


@every_generator
def test_chunked_pictures_are_whole_ones(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    chunked = picture(generator, w, max_batch_size=100)
    assert_close(chunked.image, picture(generator, w).image, atol=1e-5, rtol=0)


@every_generator
def test_different_styles_give_different_pictures(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    camera = Cameras.cat([views()[0]] * 3)
    with torch.no_grad():
        image = generator.synthesis(w, camera, SETTINGS).image
    assert (image[0] - image[1]).abs().max() > 1e-3


@every_generator
def test_gradients_reach_the_latent_and_every_weight(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    z, label = latents(generator)
    image = generator(z.requires_grad_(), views(), SETTINGS, label).image
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


# -- generators whose pictures are renderings


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


@every_radiance_generator
def test_jitter_and_noise_come_from_the_generator_given(name: str, options: dict[str, Any]) -> None:
    generator = build_generator(name, options)
    w = styles(generator)
    settings = dataclasses.replace(SETTINGS, jitter=True, noise_std=1.0)

    def image(seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return generator.synthesis(w, views(), settings, generator=rng).image

    assert torch.equal(image(1), image(1))
    assert not torch.equal(image(1), image(2))


# -- discriminators


def real_like(size: int, batch: int = 3) -> Tensor:
    return torch.rand(batch, 3, size, size) * 2 - 1


def extra(batch: int = 3) -> dict[str, Any]:
    """What any discriminator may be given beside the pictures."""
    return {"cameras": views(batch)}


@every_discriminator
def test_a_judgement_has_the_heads_that_the_class_declares(
    name: str, options: dict[str, Any]
) -> None:
    discriminator = build_discriminator(name, options)
    assert discriminator.image_sizes
    for size in discriminator.image_sizes:
        judgement = discriminator(real_like(size), **extra())
        assert judgement.logits.shape == (3, 1)
        assert torch.isfinite(judgement.logits).all()
        assert (judgement.latent is not None) == discriminator.predicts_latent
        assert (judgement.pose is not None) == discriminator.predicts_pose
        if judgement.latent is not None:
            assert judgement.latent.shape == (3, options["latent_dim"])
        if judgement.pose is not None:
            assert judgement.pose.shape == (3, 2)


@every_discriminator
def test_each_picture_is_judged_as_if_it_were_alone(name: str, options: dict[str, Any]) -> None:
    discriminator = build_discriminator(name, options)
    images = real_like(max(discriminator.image_sizes))
    together = discriminator(images, 0.4, **extra()).logits
    for i in range(3):
        alone = discriminator(images[i : i + 1], 0.4, cameras=views()[i]).logits
        assert_close(alone, together[i : i + 1], atol=1e-5, rtol=1e-4)
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
    assert not torch.equal(second(images).logits, first(images).logits)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(images).logits, first(images).logits)


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

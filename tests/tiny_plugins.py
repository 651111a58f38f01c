"""Small instances of every plugin, for the contract tests: options, builders, inputs."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discriminators import DISCRIMINATORS, Discriminator
from discriminators.pyramid import PyramidDiscriminator
from generators import GENERATORS, Generator, RadianceGenerator
from generators.fastgan import FastGAN
from generators.style import StyleGenerator
from rendering.cameras import Cameras
from rendering.renderer import Rendering
from rendering.settings import RenderSettings

TINY_SIREN = {"latent_dim": 4, "hidden_dim": 8, "num_layers": 2, "mapping_dim": 8}
TINY_SIZES = {"resolution": 16, "channel_base": 128, "channel_max": 12, "mapping_layers": 2}
TINY_STYLES = {**TINY_SIZES, "latent_dim": 4, "w_dim": 8}

# canonical name -> constructor arguments of the small ones that are tested
TINY_GENERATORS: dict[str, list[dict[str, Any]]] = {
    "PiGAN": [
        {**TINY_SIREN, "model": "TallSiren"},
        {**TINY_SIREN, "model": "SpatialSiren", "view_direction": False, "density_gain": 3.0},
        {**TINY_SIREN, "model": "EmbeddingSiren128", "grid_size": 4},
        {**TINY_SIREN, "model": "EmbeddingSiren256", "grid_size": 4},
    ],
    "StyleGAN2": [
        TINY_STYLES,
        {**TINY_STYLES, "label_dim": 2, "architecture": "resnet"},
        {**TINY_STYLES, "use_noise": False, "architecture": "orig"},
    ],
    "RayConditionedStyleGAN2": [
        TINY_STYLES,
        {**TINY_STYLES, "ray_mode": "reference", "architecture": "resnet"},
    ],
    "RayConditionedStyleGAN3": [{**TINY_STYLES, "num_layers": 4}],
    "StyleGAN3": [
        {**TINY_STYLES, "num_layers": 4},
        {**TINY_STYLES, "num_layers": 4, "config": "R", "label_dim": 2},
    ],
}
TINY_FASTGAN = {"resolution": 32, "latent_dim": 4, "width": 2}
TINY_GENERATORS["FastGAN"] = [
    TINY_FASTGAN,
    {**TINY_FASTGAN, "label_dim": 2},
]
TINY_GENERATORS["FastGANLite"] = [
    {**TINY_FASTGAN, "resolution": 64},
    {**TINY_FASTGAN, "label_dim": 2},
]
TINY_TRIPLANE = {
    **{"latent_dim": 4, "w_dim": 8, "channel_base": 64, "channel_max": 12},
    **{"plane_resolution": 8, "feature_dim": 4, "decoder_width": 8, "cube_scale": 0.4},
}
TINY_GENERATORS["EpiGRAF"] = [
    TINY_TRIPLANE,
    {
        **TINY_TRIPLANE,
        "label_dim": 2,
        "pose_conditioning": True,
        "view_direction": True,
        "coordinate_periods": 4.0,
    },
    {**TINY_TRIPLANE, "background": "plane", "density_shift": -0.5, "axes": "eg3d"},
    {
        **TINY_TRIPLANE,
        "background": "sphere",
        "background_channel_base": 64,
        "background_steps": 4,
        "backbone": "stylegan3-r",
        "channel_base": 32,
        "channel_max": 6,
    },
]
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
} | {
    "StyleGAN2Discriminator": [
        TINY_SIZES,  # compares the pictures of a batch
        {**TINY_SIZES, "mbstd_group_size": 1, "architecture": "skip"},
        {**TINY_SIZES, "mbstd_num_channels": 0, "condition_on_cameras": True},
    ],
    "PatchDiscriminator": [
        {**TINY_SIZES, "patch_size": 8},
        {**TINY_SIZES, "patch_size": 16, "condition_on_cameras": True, "mbstd_group_size": 1},
        {**TINY_SIZES, "patch_size": 8, "condition_on_patches": False, "mbstd_num_channels": 0},
    ],
}

TINY_FEATURES = {
    **{"resolution": 16, "backbone_weights": "random", "input_size": 64},
    **{"channels": 4, "head_size": 64, "head_width": 8},
}
TINY_DISCRIMINATORS["ProjectedDiscriminator"] = [
    {**TINY_FEATURES, "num_discs": 2},
    {**TINY_FEATURES, "separable": True, "num_discs": 1},
]

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
every_flat_generator = pytest.mark.parametrize(
    ("name", "options"),
    [c for c in ALL_GENERATORS if not issubclass(registered(GENERATORS, c), RadianceGenerator)],
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
    if isinstance(generator, FastGAN):  # its statistics are kept, and moved, by training
        with torch.no_grad():
            for _ in range(10):
                generator.network(generator.mapping(*latents(generator, 8)))
        generator.eval()
    for key, parameter in generator.named_parameters():
        if key.endswith("noise_strength"):  # 0 at first: noise would not be seen
            nn.init.constant_(parameter, 0.3)
    if isinstance(generator, StyleGenerator):  # its average is kept by training
        with generator.tracking(), torch.no_grad():
            generator.style(*latents(generator))
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


def settings_of(generator: Generator, **options: Any) -> RenderSettings:
    """SETTINGS with changes, at a resolution that the generator has."""
    resolution = generator.resolution or SETTINGS.resolution
    return dataclasses.replace(SETTINGS, **{"resolution": resolution, **options})


def picture(generator: Generator, w: Tensor, **options: Any) -> Rendering:
    settings = settings_of(generator, **options)
    with torch.no_grad():
        return generator.synthesis(w, views(len(w)), settings)


def assert_gradient_everywhere(module: nn.Module) -> None:
    dead = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead, f"no gradient reaches {dead}"


def real_like(size: int, batch: int = 3) -> Tensor:
    return torch.rand(batch, 3, size, size) * 2 - 1


def extra(batch: int = 3) -> dict[str, Any]:
    """What any discriminator may be given beside the pictures."""
    return {"cameras": views(batch)}

"""Weights of the official StyleGANs: there and back, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import interop
from discriminators.stylegan2 import StyleGAN2Discriminator
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3

SIZES = {"img_resolution": 16, "channel_base": 64, "channel_max": 8}
GENERATOR = {"z_dim": 6, "w_dim": 6, **SIZES}
CASES: list[tuple[str, str, nn.Module, dict[str, Any]]] = [
    (
        "stylegan2",
        "generator",
        StyleGAN2(
            resolution=16,
            latent_dim=6,
            label_dim=3,
            w_dim=6,
            channel_base=64,
            channel_max=8,
            architecture="resnet",
            mapping_layers=3,
        ),
        {**GENERATOR, "c_dim": 3, "architecture": "resnet", "mapping_kwargs": {"num_layers": 3}},
    ),
    (
        "stylegan3",
        "generator",
        StyleGAN3(
            resolution=16,
            latent_dim=6,
            w_dim=6,
            config="R",
            channel_base=64,
            channel_max=8,
            num_layers=4,
        ),
        {**GENERATOR, "c_dim": 0, "num_layers": 4, "conv_kernel": 1, "use_radial_filters": True},
    ),
    (
        "stylegan2",
        "discriminator",
        StyleGAN2Discriminator(
            resolution=16,
            label_dim=3,
            channel_base=64,
            channel_max=8,
            architecture="skip",
            freeze_layers=2,
            mbstd_num_channels=2,
        ),
        {
            **SIZES,
            "c_dim": 3,
            "architecture": "skip",
            "block_kwargs": {"freeze_layers": 2},
            "epilogue_kwargs": {"mbstd_num_channels": 2},
        },
    ),
]
every_network = pytest.mark.parametrize(("system", "role", "module", "config"), CASES)


@every_network
def test_weights_survive_the_way_there_and_back(
    system: str, role: str, module: nn.Module, config: dict[str, Any]
) -> None:
    if isinstance(getattr(module, "w_avg", None), Tensor):
        module.w_avg.copy_(torch.randn(6))  # type: ignore[union-attr, operator]
    exported = interop.export(system, role, module)
    for given in (config, {"init_kwargs": config, "note": "as the fixtures have it"}):
        again = interop.convert(system, role, exported, given)
        assert type(again) is type(module)
        for name, value in module.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name
    assert {n for n, _ in again.named_parameters()} == {n for n, _ in module.named_parameters()}


@every_network
def test_what_does_not_fit_is_named(
    system: str, role: str, module: nn.Module, config: dict[str, Any]
) -> None:
    weights = interop.export(system, role, module)
    some = next(iter(weights))
    with pytest.raises(ValueError, match=f"missing.*{some}"):
        interop.convert(system, role, {k: v for k, v in weights.items() if k != some}, config)
    with pytest.raises(ValueError, match="unexpected.*synthesis.b99.weight"):
        interop.convert(system, role, {**weights, "synthesis.b99.weight": torch.ones(1)}, config)
    with pytest.raises(ValueError, match="'img_resolutoin'.*did you mean 'img_resolution'"):
        interop.convert(system, role, weights, {**config, "img_resolutoin": 16})


def test_filters_that_are_not_the_arguments_are_refused() -> None:
    system, role, module, config = CASES[0]
    weights = interop.export(system, role, module)
    weights["synthesis.b8.resample_filter"] = torch.full((4, 4), 1 / 16)
    with pytest.raises(ValueError, match="b8.resample_filter differs"):
        interop.convert(system, role, weights, config)
    weights = interop.export(system, role, module)
    assert_close(weights["synthesis.b8.resample_filter"].sum(), torch.tensor(1.0))

"""pi-GAN: its size, its names, its own refusals. The contract is tested with all plugins."""

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from generators import GENERATORS
from generators.pigan import PiGAN

Build = Callable[..., PiGAN]


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("TALLSIREN", 1_910_788),
        ("SPATIALSIRENBASELINE", 1_910_788),
        ("EmbeddingPiGAN128", 29_238_660),
        ("EmbeddingPiGAN256", 10_307_588),
    ],
)
def test_the_original_sizes_have_the_original_number_of_weights(model: str, count: int) -> None:
    with torch.device("meta"):
        generator = PiGAN(latent_dim=256, model=model)
    assert sum(p.numel() for p in generator.parameters()) == count


def test_the_original_name_is_an_alias() -> None:
    assert GENERATORS["ImplicitGenerator3d"] is PiGAN
    assert GENERATORS.name_of(PiGAN) == "PiGAN"


def test_styles_are_frequencies_then_phase_shifts(tiny_pigan: Build) -> None:
    generator = tiny_pigan(model="TallSiren")
    z = torch.randn(1, 6)
    w = generator.mapping(z)
    assert w.shape == (1, 2 * 4 * 8)  # three layers and the colour layer, 8 wide
    with torch.no_grad():
        w[:, :32] = -2  # 15 * -2 + 30: all frequencies are nought
        points = torch.rand(1, 5, 3)
        density = generator.field(w).density(points)
    assert_close(density, density[:, :1].expand(1, 5, 1))
    w = generator.mapping(z).detach()
    assert generator.field(w).density(points).std() > 0


def test_only_the_mapping_network_counts_as_its_parameters(tiny_pigan: Build) -> None:
    generator = tiny_pigan()
    names = {n: p for n, p in generator.named_parameters() if n.startswith("mapping_network.")}
    ours = generator.mapping_parameters()
    assert len(ours) == len(names) == 8
    assert {id(p) for p in ours} == {id(p) for p in names.values()}


def test_class_labels_are_refused(tiny_pigan: Build) -> None:
    with pytest.raises(ValueError, match="pi-GAN has no class labels"):
        tiny_pigan().mapping(torch.zeros(1, 6), label=torch.zeros(1, 2))


def test_an_unknown_field_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown model 'SpatialSirens', did you mean"):
        PiGAN(model="SpatialSirens")


def test_styles_can_be_truncated_under_autocast(tiny_pigan: Build) -> None:
    generator, z = tiny_pigan(), torch.randn(2, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = generator.mapping(z, psi=0.7)
    assert_close(mixed, generator.mapping(z, psi=0.7), atol=0, rtol=0)

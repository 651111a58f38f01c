"""FastGAN: sizes, skip excitation, noise, classes, and statistics that only training moves."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from generators.fastgan import FastGAN, FastGANLite, SkipExcitation, UpBlock
from ops import spectral
from rendering.settings import RenderSettings

SETTINGS = RenderSettings(32, 2, 0.9, 1.1, hierarchical=False)
TINY = {"resolution": 32, "latent_dim": 4, "width": 2}


def tiny(cls: type[FastGAN] = FastGAN, *, noise: float = 0.3, **options: Any) -> FastGAN:
    torch.manual_seed(0)
    generator = cls(**{**TINY, **options}).eval()
    for key, parameter in generator.named_parameters():
        if key.endswith("noise_strength"):
            nn.init.constant_(parameter, noise)
    return generator


def picture(
    network: FastGAN,
    w: Tensor,
    *,
    jitter: bool = False,
    generator: torch.Generator | None = None,
    noise_mode: str | None = None,
) -> Tensor:
    settings = dataclasses.replace(SETTINGS, resolution=network.resolution, jitter=jitter)
    with torch.no_grad():
        made = network.synthesis(w, None, settings, generator=generator, noise_mode=noise_mode)
    return made.image


@pytest.mark.parametrize("label_dim", [0, 3])
@pytest.mark.parametrize("cls", [FastGAN, FastGANLite])
@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512, 1024])
def test_every_size_with_and_without_classes(
    cls: type[FastGAN], resolution: int, label_dim: int
) -> None:
    generator = tiny(cls, resolution=resolution, width=8, label_dim=label_dim)
    label = torch.tensor([1]) if label_dim else None
    image = picture(generator, generator.mapping(torch.randn(1, 4), label))
    assert image.shape == (1, 3, resolution, resolution)
    assert image.isfinite().all() and image.std() > 0
    excited = [size for size in (64, 128, 256, 512) if size <= resolution]
    assert list(generator.network.excitations) == [str(size) for size in excited]


def test_full_size_networks_have_the_published_numbers_of_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spectral, "FIRST_ITERATIONS", 0)
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in cls().parameters()) / 1e6 for cls in (FastGAN, FastGANLite)
        ]
    assert counts == pytest.approx([105.7, 79.4], abs=0.05)


def test_pictures_never_explode_before_the_first_step() -> None:
    generator = tiny(resolution=64, latent_dim=64, width=16)
    image = picture(generator, generator.mapping(torch.randn(4, 64)))
    assert image.abs().max() < 10


def test_noise_is_random_constant_or_absent() -> None:
    generator = tiny()
    w = generator.mapping(torch.randn(2, 4))

    def drawn(seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return picture(generator, w, jitter=True, generator=rng)

    const, none = picture(generator, w), picture(generator, w, noise_mode="none")
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    assert torch.equal(const, picture(generator, w, jitter=True, noise_mode="const"))
    assert not torch.equal(const, none)
    assert torch.equal(picture(tiny(), w), const), "the same noise in every process"
    assert torch.equal(picture(tiny(noise=0), w), none)
    with pytest.raises(ValueError, match="unknown noise_mode 'randm', did you mean 'random'"):
        picture(generator, w, noise_mode="randm")


def test_constant_noise_is_no_part_of_the_state() -> None:
    assert not any("noise_const" in key for key in tiny().state_dict())


def test_conditional_blocks_share_one_noise_strength_and_survive_a_copy() -> None:
    generator = copy.deepcopy(tiny(label_dim=2))
    shared, own = generator.network.ups["8"], tiny().network.ups["8"]
    assert isinstance(shared, UpBlock) and isinstance(own, UpBlock)
    assert len({id(conv.noise_strength) for conv in shared.convs}) == 1
    assert len({id(conv.noise_strength) for conv in own.convs}) == 2


def test_only_training_moves_statistics() -> None:
    generator = tiny()
    w = generator.mapping(torch.randn(3, 4))
    before = copy.deepcopy(generator.state_dict())
    picture(generator, w)
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    generator.train()
    picture(generator, w)
    moved = {k for k, v in generator.state_dict().items() if not torch.equal(v, before[k])}
    assert any("running_mean" in key for key in moved) and any("weight_u" in key for key in moved)


def test_truncation_pulls_towards_the_mean_picture() -> None:
    generator = tiny(FastGANLite)
    generator.update_w_avg()
    z = torch.randn(8, 4)
    spread = [
        picture(generator, generator.mapping(z, psi=psi)).std(0).mean() for psi in (0, 0.5, 1)
    ]
    assert spread[0] == 0 < spread[1] < spread[2]


def test_the_mean_style_of_a_conditional_generator_is_over_all_classes() -> None:
    generator = tiny(label_dim=2)
    generator.update_w_avg()
    assert generator.embedding is not None
    assert_close(generator.w_avg[4:], generator.embedding.weight.mean(0))
    assert generator.w_avg[:4].abs().max() < 0.05


def test_classes_change_the_picture_and_numbers_and_vectors_name_the_same() -> None:
    generator = tiny(label_dim=3)
    z = torch.randn(1, 4).expand(3, 4)
    classes = torch.arange(3)
    w = generator.mapping(z, classes)
    assert torch.equal(w, generator.mapping(z, torch.eye(3)))
    image = picture(generator, w)
    assert not torch.allclose(image[0], image[1])
    with pytest.raises(ValueError, match="conditional: it needs labels of size 3"):
        generator.mapping(z)
    with pytest.raises(ValueError, match="unconditional"):
        tiny().mapping(z, classes)
    with pytest.raises(ValueError, match="0..2"):
        generator.mapping(z, classes + 1)


def test_skip_excitation_scales_whole_channels_by_less_than_one() -> None:
    torch.manual_seed(0)
    module = SkipExcitation(3, 5)
    large = torch.rand(2, 5, 8, 8) + 1
    share = module(torch.randn(2, 3, 16, 16), large) / large
    assert_close(share, share[..., :1, :1].expand_as(share))
    assert 0 < share.min() and share.max() < 1


def test_skip_excitation_can_be_left_out() -> None:
    assert not tiny(resolution=64, skip_excitation=False).network.excitations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 16}, "got 16"),
        ({"resolution": 48}, "got 48"),
        ({"resolution": 1024, "width": 4}, "width must be at least 8, got 4"),
    ],
)
def test_sizes_that_cannot_be_made_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_styles_and_noise_of_another_network_are_refused() -> None:
    generator = tiny()
    with pytest.raises(ValueError, match=r"styles of shape \(batch, 4\)"):
        picture(generator, torch.randn(2, 5))
    with pytest.raises(ValueError, match="noise must have 6 entries, got 1"):
        generator.network(torch.randn(2, 4), [None])

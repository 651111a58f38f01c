"""StyleGAN2's generator: styles, noise, architectures, and what it refuses."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generators import stylegan2
from generators.stylegan2 import ARCHITECTURES, StyleGAN2
from rendering.cameras import Cameras, Patch
from rendering.settings import RenderSettings
from training.regularizers import path_lengths

SETTINGS = RenderSettings(16, 4, 0.5, 1.5, jitter=False)
CHANCE = dataclasses.replace(SETTINGS, jitter=True)
TINY: dict[str, Any] = {
    "resolution": 16,
    "latent_dim": 8,
    "w_dim": 8,
    "channel_base": 128,
    "channel_max": 12,
    "mapping_layers": 2,
}


def tiny(**options: Any) -> StyleGAN2:
    generator = StyleGAN2(**{**TINY, **options}).eval()
    with torch.no_grad():
        for layer in generator.synthesis_network.layers:
            if layer.noise_strength is not None:
                layer.noise_strength.fill_(0.3)
    return generator


def picture(
    network: StyleGAN2, w: Tensor, settings: RenderSettings = SETTINGS, **options: Any
) -> Tensor:
    with torch.no_grad():
        return network.synthesis(w, None, settings, **options).image


def styles(generator: StyleGAN2, batch: int = 3) -> Tensor:
    with torch.no_grad():
        return generator.mapping(torch.randn(batch, generator.latent_dim))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_has_a_style_that_matters(architecture: str) -> None:
    generator = tiny(architecture=architecture)
    w = styles(generator, 1)
    assert w.shape == (1, generator.num_ws, 8) and generator.num_ws == 6
    before = picture(generator, w)
    assert before.shape == (1, 3, 16, 16)
    for slot in range(generator.num_ws):
        changed = w.clone()
        changed[:, slot] = torch.randn(8)
        assert (picture(generator, changed) - before).abs().max() > 1e-4, slot


def test_a_skip_generator_adds_a_picture_per_resolution_and_others_make_one() -> None:
    for architecture, torgbs in (("skip", 3), ("resnet", 1), ("orig", 1)):
        names = {n.rsplit(".", 1)[0] for n, _ in tiny(architecture=architecture).named_parameters()}
        assert sum(name.endswith("torgb") for name in names) == torgbs
        skips = sum(name.endswith("skip") for name in names)
        assert skips == (2 if architecture == "resnet" else 0)


def test_resolutions_double_and_channels_follow_the_base() -> None:
    generator = tiny(resolution=32, channel_base=256, channel_max=24)
    widths = [layer.weight.shape[0] for layer in generator.synthesis_network.layers]
    assert widths == [24, 24, 24, 16, 16, 8, 8]
    assert generator.num_ws == 2 * 5 - 2


def test_without_chance_the_noise_is_each_layers_own() -> None:
    generator = tiny()
    w = styles(generator)
    state = torch.get_rng_state()
    const = picture(generator, w, noise_mode="const")
    assert torch.equal(picture(generator, w), const)
    assert torch.equal(torch.get_rng_state(), state)
    assert (picture(generator, w, noise_mode="none") - const).abs().max() > 1e-3


def test_chance_comes_from_the_generator_given() -> None:
    generator = tiny()
    w = styles(generator)

    def draw(seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return picture(generator, w, CHANCE, generator=rng)

    assert torch.equal(draw(1), draw(1))
    assert (draw(1) - draw(2)).abs().max() > 1e-3
    assert torch.equal(picture(generator, w, CHANCE, noise_mode="const"), picture(generator, w))


def test_a_network_without_noise_inputs_has_none_in_any_mode() -> None:
    generator = StyleGAN2(**TINY, use_noise=False).eval()
    w = styles(generator)
    none = picture(generator, w, noise_mode="none")
    assert torch.equal(picture(generator, w, CHANCE), none)
    assert not [n for n, _ in generator.named_buffers() if "noise" in n]


def test_noise_pictures_fit_the_layers() -> None:
    network = tiny().synthesis_network
    drawn = network.draw_noise(5)
    assert [tuple(n.shape) for n in drawn] == [(5, 1, r, r) for r in (4, 8, 8, 16, 16)]
    with pytest.raises(ValueError, match="5 entries, got 2"):
        network(torch.zeros(1, 6, 8), drawn[:2])


def test_training_and_evaluation_compute_the_same_picture() -> None:
    generator = tiny(resolution=32, channel_max=4)  # some layers are fused in evaluation
    w = styles(generator)
    settings = dataclasses.replace(SETTINGS, resolution=32)
    assert_close(
        picture(generator.train(), w, settings),
        picture(generator.eval(), w, settings),
        atol=1e-4,
        rtol=1e-4,
    )


def test_activations_are_clamped() -> None:
    w = styles(tiny())
    wild = tiny(conv_clamp=0.01, architecture="orig")
    assert picture(wild, 100 * w).abs().max() <= 0.01
    assert tiny(conv_clamp=None).synthesis_network.layers[0].conv_clamp is None


def test_the_average_moves_only_while_tracking_and_then_a_little() -> None:
    generator = tiny()
    z = torch.randn(64, 8)
    generator.mapping(z)
    generator.update_w_avg()
    assert not generator.w_avg.any()
    with generator.tracking():
        w = generator.mapping(z)
    assert_close(generator.w_avg, 0.002 * w.mean(0))
    with generator.tracking():
        generator.mapping(z)
    assert_close(generator.w_avg, (0.002 + 0.998 * 0.002) * w.mean(0))
    generator.mapping(z)
    assert_close(generator.w_avg, (0.002 + 0.998 * 0.002) * w.mean(0))


def test_truncation_reaches_only_the_first_slots() -> None:
    generator = tiny()
    generator.w_avg.copy_(torch.randn(8))
    z = torch.randn(2, 8)
    w = generator.mapping(z)
    truncated = generator.mapping(z, psi=0.5, cutoff=2)
    assert_close(truncated[:, :2], (w[:, :2] + generator.w_avg[:2]) / 2)
    assert torch.equal(truncated[:, 2:], w[:, 2:])


def test_labels_change_the_picture_and_are_required() -> None:
    generator = tiny(label_dim=3)
    z = torch.randn(1, 8).expand(3, 8)
    w = generator.mapping(z, torch.tensor([0, 1, 2]))
    image = picture(generator, w)
    assert (image[0] - image[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="labels of size 3"):
        generator.mapping(z)
    with pytest.raises(ValueError, match="unconditional"):
        tiny().mapping(z, torch.tensor([0, 1, 2]))


def test_cameras_make_no_difference_and_there_is_no_geometry() -> None:
    generator = tiny()
    z = torch.randn(2, 8)
    cameras = Cameras.from_angles(torch.tensor([1.0, 2.0]), 1.5, 20.0)
    rendering = generator(z, cameras, SETTINGS)
    assert rendering.depth is None and rendering.opacity is None
    others = Cameras.from_angles(torch.tensor([0.5, 2.5]), 1.0, 40.0)
    assert torch.equal(rendering.image, generator(z, others, SETTINGS).image)


def test_16_bit_blocks_are_the_finest_and_never_below_8_pixels() -> None:
    for resolution, num_fp16_res, coarsest in ((256, 4, 32), (64, 4, 8), (16, 4, 8), (256, 0, 512)):
        network = StyleGAN2(
            resolution=resolution,
            num_fp16_res=num_fp16_res,
            channel_base=256,
            w_dim=4,
            latent_dim=4,
        ).synthesis_network
        assert network.half_resolution == coarsest


def test_autocast_on_the_cpu_changes_nothing() -> None:
    generator = tiny()
    z = torch.randn(2, 8)
    exact = picture(generator, generator.mapping(z))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(picture(generator, generator.mapping(z)), exact)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 48}, "power of two, at least 4, got 48"),
        ({"resolution": 2}, "power of two, at least 4, got 2"),
        ({"architecture": "resent"}, "did you mean 'resnet'"),
    ],
)
def test_impossible_networks_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_impossible_requests_are_refused() -> None:
    generator = tiny()
    w = styles(generator)
    with pytest.raises(ValueError, match=r"16 pixels, got settings.resolution = 32"):
        picture(generator, w, dataclasses.replace(SETTINGS, resolution=32))
    with pytest.raises(ValueError, match="patch must be None"):
        picture(generator, w, patch=Patch(torch.ones(3), torch.zeros(3, 2)))
    with pytest.raises(ValueError, match="did you mean 'random'"):
        picture(generator, w, noise_mode="randon")
    with pytest.raises(ValueError, match=r"shape \(batch, 6, 8\), got \(3, 5, 8\)"):
        picture(generator, w[:, :5])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_blocks_change_the_picture_little_and_can_be_differentiated_twice(
    architecture: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = tiny(architecture=architecture, fp16_channels_last=True).train()
    network, w = generator.synthesis_network, styles(generator).requires_grad_()
    noise = network.draw_noise(3)
    exact = network(w, noise).detach()
    monkeypatch.setattr(stylegan2, "half_dtype", lambda w, force_fp32: dtype)  # as on CUDA
    layouts = []
    last = network.layers[-1]
    last.register_forward_hook(
        lambda _m, _i, y: layouts.append(
            (y.dtype, y.is_contiguous(memory_format=torch.channels_last))
        )
    )
    mixed = network(w, noise)
    assert layouts == [(dtype, True)] and mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    assert (mixed - exact).abs().max() < 0.03 * exact.abs().max()
    path_lengths(mixed, w, torch.randn_like(mixed)).sum().backward()
    assert last.weight.grad is not None and torch.isfinite(last.weight.grad).all()


@pytest.mark.gpu
def test_16_bit_blocks_run_on_cuda_unless_told_otherwise() -> None:
    generator = tiny()
    w = styles(generator)
    expected = picture(generator, w)
    generator.cuda()
    full = picture(generator, w.cuda(), force_fp32=True)
    assert_close(full.cpu(), expected, atol=1e-3, rtol=1e-3)
    mixed = picture(generator, w.cuda())
    assert mixed.dtype == torch.float32 and not torch.equal(mixed, full)
    assert_close(mixed, full, atol=0.02, rtol=0.02)

"""StyleGAN3's generator: schedule, equivariance, running magnitudes, and what it refuses."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generators import stylegan3
from generators.stylegan3 import StyleGAN3, input_transform
from generators.stylegan3_schedule import layer_schedule
from rendering.settings import RenderSettings
from training.regularizers import path_lengths

SETTINGS = RenderSettings(32, 4, 0.5, 1.5, jitter=False)
TINY: dict[str, Any] = {
    "resolution": 32,
    "latent_dim": 8,
    "w_dim": 8,
    "channel_base": 256,
    "channel_max": 12,
    "num_layers": 4,
    "num_critical": 1,
    "mapping_layers": 1,
}


def tiny(**options: Any) -> StyleGAN3:
    return StyleGAN3(**{**TINY, **options}).eval()


def styles(generator: StyleGAN3, batch: int = 2) -> Tensor:
    with torch.no_grad():
        return generator.mapping(torch.randn(batch, 8))


def picture(generator: StyleGAN3, w: Tensor, transform: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return generator.synthesis(w, None, SETTINGS, transform=transform).image


def psnr(a: Tensor, b: Tensor) -> float:
    """Decibels, with the range of `b` as the peak."""
    return float(20 * torch.log10((b.max() - b.min()) / (a - b).square().mean().sqrt()))


@pytest.mark.parametrize("config", ["T", "R"])
def test_every_slot_has_a_style_that_matters(config: str) -> None:
    generator = tiny(config=config)
    w = styles(generator, 1)
    assert w.shape == (1, 4 + 2, 8)
    with torch.no_grad():  # at the start the input is the same for all styles
        generator.synthesis_network.input.affine.weight.normal_()
    before = picture(generator, w)
    for slot in range(generator.num_ws):
        changed = w.clone()
        changed[:, slot] = torch.randn(8)
        assert (picture(generator, changed) - before).abs().max() > 1e-4, slot


def test_config_r_turns_the_picture_with_its_input_exactly_and_config_t_does_not() -> None:
    quarter = input_transform(rotate=90)
    for config, is_exact in (("R", True), ("T", False)):
        generator = tiny(config=config)
        w = styles(generator)
        turned, still = picture(generator, w, quarter), picture(generator, w)
        error = (turned - still.rot90(1, (2, 3))).abs().max() / still.abs().max()
        assert bool(error < 1e-4) == is_exact, (config, float(error))


@pytest.mark.parametrize("config", ["T", "R"])
def test_the_picture_moves_with_its_input(config: str) -> None:
    generator = tiny(config=config, margin_size=24)
    w = styles(generator)
    still = picture(generator, w)
    moved = picture(generator, w, input_transform(translate=(4 / 32, -2 / 32)))
    inside = (slice(None), slice(None), slice(6, -6), slice(6, -6))
    assert psnr(moved[inside], still.roll((-2, 4), (2, 3))[inside]) > 45
    assert psnr(still[inside], moved[inside]) < 30


def test_the_input_transform_is_the_inverse_of_the_motion() -> None:
    assert_close(input_transform(), torch.eye(3))
    shift = input_transform(translate=(0.25, -0.5))
    assert_close(shift @ torch.tensor([0.25, -0.5, 1]), torch.tensor([0.0, 0, 1]))
    turn = input_transform(rotate=90)
    assert_close(turn @ torch.tensor([1.0, 0, 1]), torch.tensor([0.0, 1, 1]), atol=1e-6, rtol=0)


def test_magnitudes_are_tracked_and_normalise_the_layers_input() -> None:
    generator = tiny(magnitude_ema_beta=0.5)
    layers = list(generator.synthesis_network.layers)
    picture(generator, styles(generator))
    assert all(float(layer.magnitude_ema) == 1 for layer in layers)  # type: ignore[arg-type]
    w = styles(generator, 8)
    with generator.tracking():
        for _ in range(12):
            picture(generator, w)
    first = generator.synthesis_network.input(w[:, 0]).detach()
    tracked = float(layers[0].magnitude_ema)  # type: ignore[arg-type]
    assert tracked == pytest.approx(float(first.square().mean()), rel=1e-2)
    assert not generator.w_avg.any()  # nobody mapped meanwhile


def test_chance_and_jitter_make_no_difference() -> None:
    generator = tiny()
    w = styles(generator)
    settings = dataclasses.replace(SETTINGS, jitter=True)
    with torch.no_grad():
        assert torch.equal(generator.synthesis(w, None, settings).image, picture(generator, w))


def test_frequencies_stay_within_the_first_cutoff() -> None:
    freqs = tiny(channel_max=512, channel_base=4096).synthesis_network.input.freqs
    radii = freqs.norm(dim=1)
    assert radii.max() <= 2 and radii.median() == pytest.approx(2 / math.sqrt(2), rel=0.15)


def test_config_r_is_wide_and_has_small_kernels_and_radial_filters() -> None:
    plans = layer_schedule(64, conv_kernel=1, use_radial_filters=True)
    radial = [plan.down_filter() for plan in plans if plan.down_radial]
    assert len(radial) == 12 and all(f is not None and f.ndim == 2 for f in radial)
    with torch.device("meta"):
        generator = StyleGAN3(resolution=64, config="R")
    layer = generator.synthesis_network.layers[0]
    assert tuple(layer.weight.shape) == (1024, 1024, 1, 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("resolution", [16, 64])
@pytest.mark.parametrize("kernel", [1, 3])
def test_layers_fit_each_other_and_the_picture(resolution: int, kernel: int) -> None:
    plans = layer_schedule(resolution, conv_kernel=kernel, num_layers=7, margin_size=5)
    for before, after in zip(plans[:-1], plans[1:], strict=True):
        assert after.before == before.after
    for plan in plans:
        low, high = plan.padding
        grown = (plan.before.size + plan.kernel_size - 1) * plan.up + low + high
        size = (grown - (plan.up_taps - 1) - (plan.down_taps - 1) + plan.down - 1) // plan.down
        assert size == plan.after.size
        assert plan.before.cutoff <= plan.after.cutoff <= resolution / 2
    assert plans[-1].after.size == resolution and plans[-1].is_torgb


@pytest.mark.parametrize("config", ["T", "R"])
def test_16_bit_layers_change_the_picture_little_and_can_be_differentiated_twice(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = tiny(config=config).train()
    network, w = generator.synthesis_network, styles(generator).requires_grad_()
    exact = network(w).detach()
    monkeypatch.setattr(stylegan3, "half_dtype", lambda w, force_fp32: torch.float16)  # on CUDA
    mixed = network(w)
    assert mixed.dtype == torch.float32 and not torch.equal(mixed, exact)
    assert (mixed - exact).abs().max() < 0.01 * exact.abs().max()
    path_lengths(mixed, w, torch.randn_like(mixed)).sum().backward()
    weights = [p for name, p in network.layers.named_parameters() if name.endswith("weight")]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 48}, "power of two"),
        ({"config": "S"}, "unknown config 'S'"),
        ({"num_critical": 4}, "num_critical < num_layers, got 4 and 4"),
    ],
)
def test_impossible_networks_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_pictures_of_another_size_are_refused() -> None:
    generator = tiny()
    with pytest.raises(ValueError, match="32 pixels, got settings.resolution = 64"):
        generator.synthesis(styles(generator), None, dataclasses.replace(SETTINGS, resolution=64))

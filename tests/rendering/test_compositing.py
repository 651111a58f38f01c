"""Integration along rays: closed forms, a slow oracle, gradients, backgrounds."""

import math

import oracles
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from rendering.compositing import FAR_DELTA, activate_density, composite, render_weights

BACKGROUNDS = [(False, False), (True, False), (False, True), (True, True)]


def ray_bundle(samples: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Radiance, density and depths of 2 x 3 rays; the last density of some rays is zero."""
    radiance = torch.rand(2, 3, samples, 3, dtype=torch.float64)
    density = 4 * torch.rand(2, 3, samples, dtype=torch.float64)
    density[:, 1:, -1] = 0
    t = 0.5 + torch.rand(2, 3, samples, dtype=torch.float64).sort(dim=-1).values
    return radiance, density, t


# -- weights


@given(st.floats(0.01, 20.0), st.integers(2, 9), st.floats(0.1, 3.0))
@settings(max_examples=40)
def test_constant_fog_absorbs_one_minus_exp_of_density_times_length(
    density: float, samples: int, length: float
) -> None:
    t = torch.linspace(1, 1 + length, samples, dtype=torch.float64)[None, None]
    w = render_weights(torch.full_like(t, density), t)
    absorbed = w[..., :-1].sum()  # the last sample's interval is endless
    assert_close(float(absorbed), 1 - math.exp(-density * length), atol=1e-12, rtol=1e-9)
    assert_close(float(w.sum()), 1.0)


def test_constant_fog_in_front_of_nothing_has_the_finite_opacity() -> None:
    t = torch.linspace(1, 3, 9, dtype=torch.float64)[None, None]
    density = torch.full_like(t, 0.7)
    density[..., -1] = 0
    result = composite(torch.ones(1, 1, 9, 3).double(), density, t)
    assert_close(float(result.opacity), 1 - math.exp(-1.4))
    assert_close(result.radiance[0, 0].tolist(), [1 - math.exp(-1.4)] * 3)


def test_empty_space_has_no_weight() -> None:
    t = torch.linspace(1, 3, 4).expand(1, 2, 4)
    assert not render_weights(torch.zeros(1, 2, 4), t).any()


def test_the_first_opaque_sample_hides_all_behind_it() -> None:
    density = torch.tensor([0.0, 0.0, 1e6, 3.0, 1e6]).expand(1, 1, 5)
    t = torch.linspace(1, 2, 5).expand(1, 1, 5)
    assert render_weights(density, t)[0, 0].tolist() == [0, 0, 1, 0, 0]


def test_however_thin_a_last_sample_is_opaque() -> None:
    t = torch.tensor([1.0, 2.0]).expand(1, 1, 2)
    w = render_weights(torch.tensor([0.0, 1e-8]).expand(1, 1, 2), t)
    assert_close(w[0, 0].tolist(), [0.0, 1.0])
    assert FAR_DELTA == 1e10


@pytest.mark.parametrize("density", [1e-30, 1e3, 1e25, 3e28])
def test_weights_and_gradients_stay_finite_at_extreme_densities(density: float) -> None:
    raw = torch.full((1, 1, 4), density, requires_grad=True)
    t = torch.linspace(1, 2, 4).expand(1, 1, 4)
    w = render_weights(raw, t)
    w.square().sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(w).all() and torch.isfinite(raw.grad).all()
    assert 0 <= w.sum() <= 1 + 1e-6


def test_splitting_an_interval_changes_no_weight_in_total() -> None:
    t = torch.tensor([1.0, 1.3, 2.0], dtype=torch.float64)[None, None]
    density = torch.tensor([0.8, 1.1, 0.0], dtype=torch.float64)[None, None]
    finer_t = torch.tensor([1.0, 1.1, 1.3, 1.9, 2.0], dtype=torch.float64)[None, None]
    finer_density = torch.tensor([0.8, 0.8, 1.1, 1.1, 0.0], dtype=torch.float64)[None, None]
    coarse = render_weights(density, t)[0, 0]
    fine = render_weights(finer_density, finer_t)[0, 0]
    assert_close(fine[0] + fine[1], coarse[0])
    assert_close(fine[2] + fine[3], coarse[1])


def test_weights_have_the_gradient_of_their_formula() -> None:
    density = torch.rand(1, 2, 4, dtype=torch.float64) + 0.1
    density[..., -1] = 0.5e-10  # where the endless interval is neither clear nor opaque
    t = (1 + torch.rand(1, 2, 4, dtype=torch.float64)).sort(dim=-1).values
    inner = density[..., :-1].clone().requires_grad_()

    def weights_of(inner: Tensor, t: Tensor) -> Tensor:
        return render_weights(torch.cat([inner, density[..., -1:]], dim=-1), t)

    assert torch.autograd.gradcheck(weights_of, (inner, t.requires_grad_()))


# -- compositing


@pytest.mark.parametrize(("white_back", "last_back"), BACKGROUNDS)
def test_compositing_is_the_sum_along_each_ray(white_back: bool, last_back: bool) -> None:
    radiance, density, t = ray_bundle()
    ours = composite(radiance, density, t, white_back=white_back, last_back=last_back)
    for b in range(2):
        for r in range(3):
            colour, depth, opacity, weights = oracles.integrate_ray(
                radiance[b, r].tolist(),
                density[b, r].tolist(),
                t[b, r].tolist(),
                white_back=white_back,
                last_back=last_back,
            )
            assert_close(ours.radiance[b, r].tolist(), colour)
            assert_close(float(ours.depth[b, r]), depth)
            assert_close(float(ours.opacity[b, r]), opacity)
            assert_close(ours.weights[b, r].tolist(), weights, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("white_back", "last_back"), BACKGROUNDS)
def test_compositing_has_the_gradient_of_its_formula(white_back: bool, last_back: bool) -> None:
    radiance, density, t = ray_bundle(4)
    inner = density[..., :-1].clone().requires_grad_()

    def pixels_of(radiance: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
        whole = torch.cat([inner, torch.zeros_like(density[..., -1:])], dim=-1)
        result = composite(radiance, whole, t, white_back=white_back, last_back=last_back)
        return result.radiance, result.depth

    assert torch.autograd.gradcheck(pixels_of, (radiance.requires_grad_(), inner))


def test_weights_sum_to_opacity_or_to_one_with_the_last_sample_as_background() -> None:
    radiance, density, t = ray_bundle()
    plain = composite(radiance, density, t)
    backed = composite(radiance, density, t, last_back=True)
    assert_close(plain.weights.sum(-1), plain.opacity)
    assert_close(backed.weights.sum(-1), torch.ones_like(plain.opacity))
    assert_close(backed.opacity, plain.opacity)


def test_empty_rays_show_the_background() -> None:
    radiance, density, t = torch.rand(1, 2, 3, 3), torch.zeros(1, 2, 3), torch.rand(1, 2, 3)
    assert not composite(radiance, density, t).radiance.any()
    white = composite(radiance, density, t, white_back=True)
    assert_close(white.radiance, torch.ones(1, 2, 3))
    last = composite(radiance, density, t, last_back=True)
    assert_close(last.radiance, radiance[:, :, -1])
    assert_close(last.depth, t[..., -1])


def test_rays_are_composited_independently() -> None:
    radiance, density, t = ray_bundle()
    order = torch.tensor([2, 0, 1])
    together = composite(radiance, density, t, white_back=True)
    shuffled = composite(radiance[:, order], density[:, order], t[:, order], white_back=True)
    assert_close(shuffled.radiance, together.radiance[:, order], atol=0, rtol=0)
    assert_close(shuffled.depth, together.depth[:, order], atol=0, rtol=0)


def test_channels_are_composited_independently() -> None:
    radiance, density, t = ray_bundle()
    all_channels = composite(radiance, density, t).radiance
    one = composite(radiance[..., 1:2], density, t).radiance
    assert_close(one, all_channels[..., 1:2])


def test_fill_modes_paint_what_they_say() -> None:
    t = torch.linspace(1, 2, 3).expand(1, 2, 3)
    density = torch.tensor([[[1.9, 1.9, 0.0], [3.0, 3.0, 0.0]]])  # opacities 0.85 and 0.95
    radiance = torch.full((1, 2, 3, 3), 0.5)
    debug = composite(radiance, density, t, fill_mode="debug").radiance[0]
    plain = composite(radiance, density, t)
    assert plain.opacity[0, 0] < 0.9 < plain.opacity[0, 1]
    assert debug[0].tolist() == [1, 0, 0]
    assert_close(debug[1], plain.radiance[0, 1])
    weight = composite(radiance, density, t, fill_mode="weight").radiance
    assert_close(weight, plain.opacity[..., None].expand(1, 2, 3))


def test_an_unknown_fill_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="fill_mode must be .*, got 'wieght'"):
        composite(*ray_bundle(), fill_mode="wieght")


# -- density


def test_density_is_rectified_after_the_noise_is_added() -> None:
    raw, noise = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([1.5, -1.0, 1.0])
    assert_close(activate_density(raw, "relu", noise), torch.tensor([0.5, 0.0, 3.0]))
    assert_close(activate_density(raw, "relu"), torch.tensor([0.0, 0.5, 2.0]))
    assert_close(activate_density(raw, "softplus", noise), F.softplus(raw + noise))


def test_softplus_of_zero_is_log_two() -> None:
    assert_close(float(activate_density(torch.zeros(1), "softplus")), math.log(2))


def test_an_unknown_clamp_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="clamp_mode must be 'relu' or 'softplus', got 'rleu'"):
        activate_density(torch.zeros(1), "rleu")

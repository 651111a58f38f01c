"""Windows are where the laws say, cut as they are rendered, and whole images are whole."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from rendering.cameras import Cameras, Patch
from training.patches import PatchLaw, anneal, beta_quantile, cut_patches, placed

# -- cutting


def test_the_whole_image_at_its_own_size_is_itself_bit_for_bit(rng: torch.Generator) -> None:
    for size in (5, 64, 96, 512):
        images = torch.randn(2, 1, size, size, generator=rng)
        assert torch.equal(cut_patches(images, Patch.whole(2), size), images)
        assert torch.equal(cut_patches(images, Patch.whole(2), size, antialias=True), images)


def test_windows_on_pixels_are_crops(rng: torch.Generator) -> None:
    images = torch.randn(3, 2, 9, 9, generator=rng)
    patch = Patch(torch.full((3,), 0.5), torch.tensor([[0.0, 0.5], [0.5, 0.0], [0.25, 0.375]]))
    cut = cut_patches(images, patch, 5)
    for i, (row, column) in enumerate([(0, 0), (4, 4), (1, 2)]):
        assert_close(cut[i], images[i, :, row : row + 5, column : column + 5])


@given(st.floats(0.1, 1.0), st.floats(0, 1), st.floats(0, 1))
def test_a_patch_of_a_ramp_shows_where_its_rays_go(scale: float, u: float, v: float) -> None:
    patch = placed(torch.tensor([scale]), torch.tensor([[u, v]]))
    x = torch.linspace(-1, 1, 17)
    ramps = torch.stack([x.expand(17, 17), -x[:, None].expand(17, 17)])[None]  # x, y upwards
    cut = cut_patches(ramps, patch, 6)[0]
    camera = Cameras(torch.eye(4)[None], torch.tensor([90.0]))  # sees (x, y, -1)
    _, rays = camera.rays(6, 6, patch)
    seen = (rays[0] / -rays[0, :, 2:])[:, :2].reshape(6, 6, 2)
    assert_close(cut.permute(1, 2, 0), seen, atol=2e-6, rtol=0)


def test_without_antialiasing_pixels_between_samples_are_not_seen() -> None:
    images = torch.zeros(1, 1, 9, 9)
    images[..., 1::2, :] = 1.0  # every second row
    assert not cut_patches(images, Patch.whole(1), 5).any()
    smooth = cut_patches(images, Patch.whole(1), 5, antialias=True)
    assert_close(smooth[0, 0, 1:-1], torch.full((3, 5), 0.5))


def test_cutting_keeps_constants_and_can_be_differentiated_twice(rng: torch.Generator) -> None:
    patch = PatchLaw(kind="uniform", min_scale=0.2).sample(4, 20_000, generator=rng)
    assert_close(cut_patches(torch.ones(4, 1, 12, 12), patch, 7), torch.ones(4, 1, 7, 7))
    images = torch.randn(4, 1, 6, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: cut_patches(x, patch, 3).square(), images)


# -- laws


def test_windows_fit_into_the_image(rng: torch.Generator) -> None:
    for kind in ("beta", "uniform", "discrete_uniform"):
        law = PatchLaw(kind=kind, min_scale=0.25)
        for kimg in (0.0, 4_000.0, 10_000.0):
            patch = law.sample(512, kimg, generator=rng)
            assert (patch.scale >= 0.25 - 1e-6).all() and (patch.scale <= 1).all()
            assert (patch.offset >= 0).all()
            assert (patch.offset + patch.scale[:, None] <= 1 + 1e-6).all()


def test_every_law_starts_with_whole_images(rng: torch.Generator) -> None:
    for kind in ("uniform", "discrete_uniform"):
        patch = PatchLaw(kind=kind, min_scale=0.25).sample(64, 0.0, generator=rng)
        assert torch.equal(patch.scale, torch.ones(64)) and not patch.offset.any()
    scales = PatchLaw(min_scale=0.25).sample(1000, 0.0, generator=rng).scale
    assert (scales > 0.999).double().mean() > 0.98


def test_beta_scales_have_the_mean_and_variance_of_beta(rng: torch.Generator) -> None:
    law = PatchLaw(min_scale=0.1, max_scale=0.9)
    b = law.beta(5_000)
    assert b == pytest.approx((0.001 + 0.8) / 2)
    share = (law.sample(100_000, 5_000, generator=rng).scale.double() - 0.1) / 0.8
    mean, variance = 1 / (1 + b), b / ((1 + b) ** 2 * (2 + b))
    assert float(share.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / 1e5))
    assert float(share.var()) == pytest.approx(variance, rel=0.03)


def test_quantiles_of_beta_invert_its_distribution() -> None:
    u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    for b in (0.3, 0.8, 2.0):
        beta = torch.distributions.Beta(torch.tensor(1.0).double(), torch.tensor(b).double())
        x = beta_quantile(u, b)
        density = (beta_quantile(u + 1e-6, b) - beta_quantile(u - 1e-6, b)) / 2e-6
        assert_close(1 / density, beta.log_prob(x).exp(), rtol=1e-4, atol=0)


def test_discrete_scales_join_as_the_smallest_falls(rng: torch.Generator) -> None:
    law = PatchLaw(kind="discrete_uniform", min_scale=0.25, scales=(0.25, 0.5, 1.0))

    def drawn(kimg: float) -> list[float]:
        return sorted(set(law.sample(200, kimg, generator=rng).scale.tolist()))

    assert [drawn(k) for k in (0, 7_000, 10_000)] == [[1.0], [0.5, 1.0], [0.25, 0.5, 1.0]]


def test_groups_are_those_that_the_discriminator_compares(rng: torch.Generator) -> None:
    law = PatchLaw(kind="uniform", min_scale=0.25, anneal_kimg=0)
    patch = law.sample(8, 0, group_size=4, generator=rng)
    assert torch.equal(patch.scale[0::2], patch.scale[:1].expand(4))
    assert torch.equal(patch.offset[1::2], patch.offset[1:2].expand(4, 2))
    assert patch.scale[0] != patch.scale[1]
    with pytest.raises(ValueError, match="batch of 8 .* groups of 3"):
        law.sample(8, 0, group_size=3)


def test_the_same_generator_draws_the_same_windows() -> None:
    law = PatchLaw(min_scale=0.25)
    state = torch.get_rng_state()
    a, b = (law.sample(6, 9e3, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a.scale, b.scale) and torch.equal(a.offset, b.offset)
    assert torch.equal(state, torch.get_rng_state())


def test_annealing_is_linear_and_ends() -> None:
    assert [anneal(k, 1.0, 0.5, 1000) for k in (-1, 0, 500, 1000, 2000)] == [1, 1, 0.75, 0.5, 0.5]
    assert anneal(0, 1.0, 0.5, 0) == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "betta"}, "'betta'.*beta"),
        ({"min_scale": 0.0}, "min_scale"),
        ({"min_scale": 0.9, "max_scale": 0.5}, "0.9 and 0.5"),
        ({"max_scale": 1.5}, "1.5"),
        ({"anneal_kimg": -1}, "-1"),
        ({"beta_start": 0.0}, "beta_start"),
        ({"kind": "discrete_uniform", "scales": (0.25, 0.5)}, "max_scale 1.0 must be one of"),
    ],
)
def test_an_impossible_law_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchLaw(**{"min_scale": 0.25, **changes})

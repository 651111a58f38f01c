"""What every generator inherits: truncation, the stored average, pictures of fields."""

import pytest
import torch
from oracles import FogField
from torch import Tensor
from torch.testing import assert_close

from generators.base import AVERAGE_SAMPLES, Generator, RadianceGenerator
from rendering.cameras import Cameras, Patch
from rendering.renderer import Field, Rendering
from rendering.settings import RenderSettings


class Layered(Generator):
    """Styles with a slot per layer: z times 1, 2, 3 and 4, plus one."""

    def __init__(self) -> None:
        super().__init__(latent_dim=5, w_shape=(4, 5))

    def style(self, z: Tensor, label: Tensor | None, cameras: Cameras | None) -> Tensor:
        return z[:, None] * torch.arange(1.0, 5)[:, None] + 1

    def synthesis(
        self,
        w: Tensor,
        cameras: Cameras,
        settings: RenderSettings,
        *,
        patch: Patch | None = None,
        generator: torch.Generator | None = None,
    ) -> Rendering:
        size = settings.resolution
        return Rendering(w.mean((1, 2)).tanh()[:, None, None, None].expand(-1, 3, size, size))


class Glow(RadianceGenerator):
    """Fog whose density is w; its radiance lies in 0..1."""

    def __init__(self) -> None:
        super().__init__(latent_dim=1, w_shape=(1,))

    def style(self, z: Tensor, label: Tensor | None, cameras: Cameras | None) -> Tensor:
        return z

    def field(self, w: Tensor) -> Field:
        return FogField(float(w[0, 0]))


@pytest.fixture
def layered() -> Layered:
    generator = Layered()
    generator.w_avg.copy_(torch.randn(4, 5))
    return generator


def test_psi_one_leaves_styles_untouched(layered: Layered) -> None:
    z = torch.randn(3, 5)
    assert torch.equal(layered.mapping(z), layered.style(z, None, None))
    assert torch.equal(layered.mapping(z, psi=1.0, cutoff=2), layered.style(z, None, None))


def test_psi_zero_gives_the_average_whatever_the_latent(layered: Layered) -> None:
    assert torch.equal(layered.mapping(torch.randn(3, 5), psi=0), layered.w_avg.expand(3, 4, 5))


@pytest.mark.parametrize("psi", [0.3, 0.5, 0.7, -1.0, 1.5])
def test_truncation_moves_styles_along_the_line_to_the_average(
    layered: Layered, psi: float
) -> None:
    z = torch.randn(3, 5)
    w = layered.style(z, None, None)
    expected = layered.w_avg + psi * (w - layered.w_avg)
    assert_close(layered.mapping(z, psi=psi), expected)


def test_a_cutoff_truncates_only_the_first_layers(layered: Layered) -> None:
    z = torch.randn(3, 5)
    w = layered.mapping(z, psi=0.5, cutoff=3)
    assert_close(w[:, :3], layered.mapping(z, psi=0.5)[:, :3])
    assert torch.equal(w[:, 3:], layered.mapping(z)[:, 3:])


def test_a_cutoff_of_styles_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="cutoff needs a style per layer; Glow has one"):
        Glow().mapping(torch.randn(2, 1), psi=0.5, cutoff=3)


def test_the_average_is_the_mean_style_of_normal_latents(layered: Layered) -> None:
    layered.update_w_avg()
    # style = z * layer + 1 has mean 1 and standard deviation `layer`
    deviation = (layered.w_avg - 1) / torch.arange(1.0, 5)[:, None]
    assert deviation.abs().max() < 4 / AVERAGE_SAMPLES**0.5
    assert deviation.any()


def test_the_average_is_the_same_on_every_call_and_draws_nothing_else(layered: Layered) -> None:
    state = torch.get_rng_state()
    layered.update_w_avg()
    first = layered.w_avg.clone()
    torch.manual_seed(5)
    layered.update_w_avg()
    assert torch.equal(first, layered.w_avg)
    torch.set_rng_state(state)
    layered.update_w_avg()
    assert torch.equal(state, torch.get_rng_state())


def test_the_average_travels_with_the_weights(layered: Layered) -> None:
    copy = Layered()
    copy.load_state_dict(layered.state_dict())
    assert torch.equal(copy.w_avg, layered.w_avg)


def test_forward_is_mapping_then_synthesis_without_truncation(
    layered: Layered, tiny_settings: RenderSettings
) -> None:
    z, cameras = torch.randn(2, 5), Cameras.from_angles(torch.zeros(2), 1.0, 30.0)
    ours = layered(z, cameras, tiny_settings).image
    assert_close(ours, layered.synthesis(layered.mapping(z), cameras, tiny_settings).image)


def test_radiance_of_nought_to_one_becomes_pictures_of_minus_one_to_one() -> None:
    settings = RenderSettings(3, 4, 0.5, 1.5, hierarchical=False, jitter=False)
    camera = Cameras.from_angles(0.3, 1.0, 30.0)
    bright = Glow().synthesis(torch.full((1, 1), 1e6), camera, settings)
    assert_close(bright.image, torch.ones(1, 3, 3, 3))
    dark = Glow().synthesis(torch.full((1, 1), -1.0), camera, settings)
    assert_close(dark.image, -torch.ones(1, 3, 3, 3))
    assert bright.opacity is not None and dark.opacity is not None
    assert (bright.opacity == 1).all() and (dark.opacity == 0).all()

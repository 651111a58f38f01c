"""The benchmarks' plain reference computes what our fast path computes."""

import dataclasses
import itertools

import pytest
import torch

from benchmarks.reference import reference_field, reference_render
from generators.pigan import PiGAN
from rendering.cameras import Cameras
from rendering.settings import RenderSettings


@pytest.mark.parametrize("model", ["TallSiren", "SpatialSiren", "EmbeddingSiren128"])
def test_the_reference_field_equals_ours(model: str) -> None:
    grid = 4 if model.startswith("Embedding") else None
    generator = PiGAN(latent_dim=5, model=model, hidden_dim=8, num_layers=3, grid_size=grid)
    w = generator.mapping(torch.randn(2, 5))
    points, directions = 0.1 * torch.randn(2, 2, 50, 3)
    radiance, density = generator.field(w)(points, directions)
    expected = reference_field(generator, w, points, directions)
    torch.testing.assert_close(torch.cat([radiance, density], -1), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("hierarchical, back, clamp", list(itertools.product(
    (False, True), ("white_back", "last_back"), ("relu", "softplus"))))  # fmt: skip
def test_the_reference_picture_equals_ours(hierarchical: bool, back: str, clamp: str) -> None:
    generator = PiGAN(latent_dim=5, hidden_dim=8, num_layers=3)
    w = generator.mapping(torch.randn(2, 5))
    cameras = Cameras.from_angles(torch.tensor([1.2, 1.9]), 1.4, 12.0)
    settings = RenderSettings(6, 7, 0.88, 1.12, hierarchical=hierarchical, clamp_mode=clamp)
    settings = dataclasses.replace(settings, jitter=False, **{back: True})
    ours = generator.synthesis(w, cameras, settings).image
    expected = reference_render(generator, w, cameras, settings)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=2e-4)

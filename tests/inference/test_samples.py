"""Numbered pictures: each is its own number's, whatever else is made with it."""

from typing import Any

import pytest
import torch
from tiny_runs import TINY

from curriculums import stage_at, with_overrides
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3
from inference.media import to_uint8
from inference.samples import Samples
from inference.views import seeded_latents

STAGE = stage_at(with_overrides(TINY, ["h_stddev_eval=0.7"]), 0)
FLAT: dict[str, Any] = {
    "resolution": 8,
    "latent_dim": 6,
    "w_dim": 6,
    "channel_base": 64,
    "channel_max": 8,
}


def stylegan2(**options: Any) -> StyleGAN2:
    generator = StyleGAN2(**FLAT, mapping_layers=2, **options)
    for layer in generator.synthesis_network.layers:
        assert layer.noise_strength is not None
        torch.nn.init.constant_(layer.noise_strength, 0.5)
    return generator.eval()


def test_latents_are_those_of_the_seeds_and_poses_those_of_metrics(tiny_pigan: Any) -> None:
    draw = Samples(tiny_pigan(), STAGE, seed=40).draw(range(200))
    assert torch.equal(draw.z, seeded_latents(range(40, 240), 6))
    assert draw.label is None
    yaw = draw.cameras.yaw_pitch[:, 0]
    assert float(yaw.std()) == pytest.approx(0.7, rel=0.15)
    assert abs(float(torch.corrcoef(torch.stack([yaw, draw.z[:, 0]]))[0, 1])) < 0.25


@pytest.mark.parametrize("kind", ["pigan", "stylegan2"])
def test_a_picture_depends_on_its_number_alone(kind: str, tiny_pigan: Any) -> None:
    samples = Samples(tiny_pigan() if kind == "pigan" else stylegan2(), STAGE)
    together = samples.pictures([3, 4, 5])
    assert together.shape == (3, 3, 8, 8) and together.dtype == torch.uint8
    again = samples.pictures([5])[0].int() - together[2].int()
    assert again.abs().max() <= 1  # a batch is computed in another order
    assert not torch.equal(together[0], together[1])


def test_noise_is_drawn_anew_for_every_picture() -> None:
    generator = stylegan2()
    torch.nn.init.zeros_(generator.mapping_network.layers[-1].weight)  # type: ignore[union-attr]
    pictures = Samples(generator, STAGE).pictures([0, 1])
    assert not torch.equal(pictures[0], pictures[1])


def test_classes_are_drawn_as_the_data_have_them() -> None:
    generator, labels = stylegan2(label_dim=3), torch.tensor([2, 2, 0])
    drawn = Samples(generator, STAGE, labels=labels).draw(range(300)).label
    assert drawn is not None
    assert drawn.bincount(minlength=3)[1] == 0
    assert float((drawn == 2).float().mean()) == pytest.approx(2 / 3, abs=0.1)
    unknown = Samples(generator, STAGE).draw(range(300)).label
    assert unknown is not None and (unknown.bincount(minlength=3) > 70).all()


def test_classes_that_the_generator_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="class 3, and this StyleGAN2 knows classes 0 to 2"):
        Samples(stylegan2(label_dim=3), STAGE, labels=torch.tensor([3]))


def test_grey_pictures_get_three_channels() -> None:
    picture = Samples(stylegan2(img_channels=1), STAGE).pictures([0])
    assert picture.shape == (1, 3, 8, 8) and torch.equal(picture[:, 0], picture[:, 2])


def test_bytes_are_those_of_files(tiny_pigan: Any) -> None:
    samples = Samples(tiny_pigan(), STAGE)
    draw = samples.draw([7])
    image = samples.generator(draw.z, draw.cameras, samples.settings).image
    assert torch.equal(samples.pictures([7]).permute(0, 2, 3, 1), to_uint8(image))


def test_still_pictures_share_the_noise_that_was_redrawn(rng: torch.Generator) -> None:
    samples = Samples(stylegan2(), STAGE)
    draw = samples.draw([0])
    w = samples.generator.mapping(draw.z)
    first = samples.still(w, draw.cameras)
    assert torch.equal(first, samples.still(w, draw.cameras))
    samples.redraw_noise(rng)
    assert not torch.equal(first, samples.still(w, draw.cameras))


def test_only_a_generator_with_an_input_plane_moves(tiny_pigan: Any) -> None:
    plane = StyleGAN3(**FLAT, num_layers=4, margin_size=2).eval()
    for generator in (plane, tiny_pigan()):
        samples = Samples(generator, STAGE)
        w = generator.mapping(samples.draw([0]).z)
        if generator is plane:
            shift = torch.eye(3)
            shift[0, 2] = 0.25
            assert not torch.equal(samples.moved(w, shift), samples.moved(w, torch.eye(3)))
        else:
            with pytest.raises(ValueError, match="StyleGAN3 has and PiGAN has not"):
                samples.moved(w, torch.eye(3))

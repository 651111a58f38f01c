"""EpiGRAF's recipes are stages that can be trained, with the original's networks."""

import pytest
import torch

from curriculums import stage_at
from generators.epigraf import EpiGRAF
from inference.checkpoint import build_generator
from metrics.protocols import find_protocols
from recipes.epigraf import RECIPES
from recipes.toys import ToysEpiGRAF
from rendering.cameras import frustum_reach
from training.build import build_discriminator
from training.fakes import make_patch_law

CURRICULA = {name: recipe() for name, recipe in RECIPES.items()} | {"ToysEpiGRAF": ToysEpiGRAF}
every_curriculum = pytest.mark.parametrize("curriculum", CURRICULA.values(), ids=CURRICULA)


@every_curriculum
def test_networks_of_a_recipe_fit_each_other(curriculum: dict) -> None:
    stage = stage_at(curriculum, 0)
    with torch.device("meta"):
        generator, _ = build_generator(stage)
        discriminator, _ = build_discriminator(stage)
    assert isinstance(generator, EpiGRAF)
    assert discriminator.image_sizes == (stage.patch_size,)
    assert generator.label_dim == discriminator.label_dim == stage.label_dim
    assert discriminator.group_size(stage.batch_size) == 4
    law = make_patch_law(stage)
    assert law.min_scale * stage.img_size == stage.patch_size and law.max_scale == 1


@pytest.mark.parametrize("name", RECIPES)
def test_no_sample_of_a_recipe_leaves_the_cube(name: str) -> None:
    stage = stage_at(RECIPES[name](), 0)
    reach = frustum_reach(stage.fov, stage.ray_start, stage.ray_end, stage.radius)
    assert 0.98 * stage.generator_options["cube_scale"] < reach
    assert reach <= stage.generator_options["cube_scale"]


def test_the_original_has_so_many_weights() -> None:
    stage = stage_at(RECIPES["EpiGRAF_FFHQ"](), 0)
    with torch.device("meta"):
        generator, _ = build_generator(stage)
        discriminator, _ = build_discriminator(stage)
    assert isinstance(generator, EpiGRAF)
    assert generator.num_ws == 16
    assert generator.painter.blocks[-1].torgb.weight.shape == (96, 64, 1, 1)  # type: ignore[union-attr]
    widths = [b.conv0.weight.shape[0] for b in discriminator.blocks]  # type: ignore[union-attr]
    assert widths == [32, 64, 128, 256, 512, 512, 512]


@pytest.mark.parametrize("name", RECIPES)
def test_the_best_checkpoint_is_that_of_the_originals_metric(name: str) -> None:
    first, *_ = find_protocols(stage_at(RECIPES[name](), 0).eval_metrics)
    assert first.keys == ("fid2k_full",) and first.num_fakes == 2048
    assert first.max_reals is None and not first.higher_is_better


def test_what_depends_on_the_batch_counts_all_processes() -> None:
    one = RECIPES["EpiGRAF_Cats"](batch_size=64)
    eight = RECIPES["EpiGRAF_Cats"](batch_size=8, num_processes=8)
    assert eight[0]["batch_size"] == 8
    assert {**eight, 0: None} == {**one, 0: None}
    assert one["ema_kimg"] == 20 and one["nerf_noise_steps"] == 78_125

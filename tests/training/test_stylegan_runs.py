"""Runs with StyleGAN's keys: resumed to the bit, ended in kimg, labelled, begun from others."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import differences, run_files, run_main, tiny_curriculum, write_pictures

from curriculums import Curriculum, find_curriculum, images_at, stage_at, with_overrides
from generators.pigan import PiGAN
from inference.checkpoint import load_generator, read_file
from rendering.cameras import Cameras
from training.build import build_players, check_players
from training.distributed import World
from training.ema import ExponentialMovingAverage
from training.evaluate import measure
from training.trainer import END_OF_CURRICULUM, RunOptions, Trainer

CPU = World(0, 1, torch.device("cpu"))
SIZES = {"channel_base": 64, "channel_max": 8, "mapping_layers": 2}
KEYS = [
    "generator=StyleGAN2",
    f"generator_options={SIZES | {'w_dim': 8}}",
    "discriminator=StyleGAN2Discriminator",
    f"discriminator_options={SIZES}",
    "img_size=8",
    "pos_lambda=0",
    "z_lambda=0",
    "label_dim=3",
    "r1_interval=3",
    "pl_lambda=2",
    "pl_interval=2",
    "style_mixing=0.5",
    "blur_init_sigma=1",
    "blur_fade_kimg=0.05",
    "augment=ada",
    "ada_kimg=0.05",
    "ada_target=-1",
    "ema_kimg=0.02",
    "ema2_kimg=0.2",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    folder = write_pictures(tmp_path / "labelled")
    labels = [[f"{i:03d}.png", i % 3] for i in range(12)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


@pytest.fixture
def curriculum(labelled: Path) -> Curriculum:
    return tiny_curriculum(labelled, *KEYS)


def train(
    curriculum: Curriculum, output: Path, n_steps: int | None, load: Path | None = None, **more: Any
) -> tuple[Trainer, str]:
    trainer = Trainer(curriculum, RunOptions(output, load, n_steps=n_steps, **more), CPU, measure)
    return trainer, trainer.fit()


def test_twenty_steps_of_everything_equal_ten_and_a_resume_and_ten(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    train(curriculum, tmp_path / "whole", 20)
    train(curriculum, tmp_path / "half", 10)
    train(curriculum, tmp_path / "half", 20, load=tmp_path / "half")
    whole = run_files(tmp_path / "whole")
    assert differences(whole, run_files(tmp_path / "half")) == []
    kept = whole["trainer.pth"]
    assert kept["images"] == images_at(curriculum, 20) == 6 * 4 + 14 * 2
    assert kept["path_length_mean"] > 0
    assert kept["augmentation"]["p"] > 0  # no real is as bad as the target asks
    lines = [json.loads(x) for x in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert {"r1", "pl_penalty", "path_length", "augment_p", "kimg"} <= lines[-1].keys()


def test_a_run_ends_after_its_thousand_images(curriculum: Curriculum, tmp_path: Path) -> None:
    """Six steps of four and then two at a time: 24, 26, 28, 30."""
    trainer, reason = train({**curriculum, "total_kimg": 0.029}, tmp_path / "run", None)
    assert (trainer.state.step, trainer.state.images, reason) == (9, 30, END_OF_CURRICULUM)


def test_a_run_moved_to_a_step_has_seen_that_steps_images(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    train(curriculum, tmp_path / "run", 2)
    trainer, _ = train(curriculum, tmp_path / "run", 8, load=tmp_path / "run", set_step=7)
    assert trainer.state.images == 6 * 4 + 2 * 2


def test_a_half_life_does_not_depend_on_how_images_make_batches() -> None:
    kept = []
    for batch in (1, 4):
        generator = PiGAN(latent_dim=2, hidden_dim=4, num_layers=1, mapping_dim=4)
        for p in generator.parameters():
            torch.nn.init.zeros_(p)
        average = ExponentialMovingAverage(generator, 0.5, half_life_kimg=0.008)
        for p in generator.parameters():
            torch.nn.init.ones_(p)
        for seen in range(0, 16, batch):
            average.update(generator, batch, seen)
        kept.append(float(next(average.module.parameters()).flatten()[0]))
    assert kept == pytest.approx([0.75, 0.75])  # two half-lives


def test_a_young_half_life_is_a_share_of_the_images_seen() -> None:
    generator = PiGAN(latent_dim=2, hidden_dim=4, num_layers=1, mapping_dim=4)
    average = ExponentialMovingAverage(generator, 0.5, half_life_kimg=1.0, rampup=0.05)
    for p in generator.parameters():
        torch.nn.init.constant_(p, 2.0)
    average.update(generator, 10, 0)  # nothing seen: the average is the generator
    assert float(next(average.module.parameters()).flatten()[0]) == 2.0
    for p in generator.parameters():
        torch.nn.init.constant_(p, 3.0)
    average.update(generator, 10, 200)  # a half-life of 10 images
    assert float(next(average.module.parameters()).flatten()[0]) == pytest.approx(2.5)


def test_a_new_run_begins_with_the_networks_of_another(
    curriculum: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(curriculum, tmp_path / "old", 6)
    old = run_files(tmp_path / "old")
    for only in (False, True):
        options = RunOptions(tmp_path / "new", init_from=tmp_path / "old", generator_only=only)
        state = Trainer(curriculum, options, CPU).state
        assert (state.step, state.images) == (0, 0) and not state.players.optimizer_g.state
        for name, network in (
            ("generator.pth", state.players.generator),
            ("discriminator.pth", state.players.discriminator),
            ("ema.pth", state.emas["ema.pth"].module),
            ("ema2.pth", state.emas["ema2.pth"].module),
        ):
            same = not differences(dict(network.state_dict()), old[name]["state_dict"])
            assert same == (not only or name != "discriminator.pth")
    arguments = ["--curriculum", str(tmp_path / "c.json"), "--output_dir", str(tmp_path / "cli")]
    (tmp_path / "c.json").write_text(json.dumps(curriculum))
    more = ["--init_from", str(tmp_path / "old"), "--n_steps", "1", "--device", "cpu"]
    assert run_main("train.py", [*arguments, *more], monkeypatch) == 0
    stage = stage_at(read_file(tmp_path / "cli" / "generator.pth")["curriculum"], 0)
    assert (stage.ema_rampup, stage.blur_init_sigma, stage.ada_kimg) == (None, 0, 100)


def test_a_converted_generator_alone_can_be_begun_from(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    train(curriculum, tmp_path / "old", 2)
    for file in (tmp_path / "old").glob("*.pth"):
        if file.name != "generator.pth":
            file.unlink()
    options = RunOptions(tmp_path / "new", init_from=tmp_path / "old", generator_only=True)
    state = Trainer(curriculum, options, CPU).state
    average, own = state.emas["ema.pth"].module, state.players.generator
    assert not differences(dict(average.state_dict()), dict(own.state_dict()))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (["label_dim=5"], "label_dim is 5, but .* has 3 classes"),
        (
            ["label_dim=0", "generator_options.label_dim=3"],
            "label_dim is 0, but StyleGAN2 takes 3",
        ),
        (
            ["generator=PiGAN", "generator_options={}", "style_mixing=0"],
            "label_dim is 3, but PiGAN takes no classes",
        ),
        (["generator=PiGAN", "generator_options={}", "label_dim=0"], "style_mixing needs a style"),
        (["0.img_size=16"], "StyleGAN2 has pictures of 16 pixels, got 8 .stage 6"),
        (["generator_options.resolution=24"], "power of two"),
        (
            ["0.batch_size=6", "6.batch_size=6", "batch_split=1"],
            "batch_size 6 in 1 parts: .*4 or 8",
        ),
        (["augment_preset=bgx"], "unknown augmentation preset 'bgx'"),
        (["dataset_path=pictures"], "has no labels"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    curriculum: Curriculum,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    Path("c.json").write_text(json.dumps(curriculum))
    given = [x for change in changes for x in ("--set", change)]
    arguments = ["--curriculum", "c.json", "--output_dir", "run", "--device", "cpu", *given]
    assert run_main("train.py", arguments, monkeypatch) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert re.search(complaint, error), error
    assert not Path("run").exists()


def test_going_on_with_another_architecture_is_refused(
    curriculum: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(curriculum, tmp_path / "run", 1)
    before = run_files(tmp_path / "run")
    for flag in ("--load_dir", "--init_from"):
        given = ["--set", "generator=StyleGAN3", "--set", "generator_options={'mapping_layers': 2}"]
        given += ["--set", "style_mixing=0", "--set", "latent_dim=6", "--curriculum"]
        (tmp_path / "c.json").write_text(json.dumps(curriculum))
        where = tmp_path / ("run" if flag == "--load_dir" else "other")
        more = [str(tmp_path / "c.json"), flag, str(tmp_path / "run"), "--output_dir", str(where)]
        assert run_main("train.py", [*given, *more, "--device", "cpu"], monkeypatch) == 2
    assert not differences(before, run_files(tmp_path / "run"))
    assert not (tmp_path / "other").exists()


def test_a_ray_conditioned_run_begins_with_a_stock_networks_pictures(
    curriculum: Curriculum, labelled: Path, tmp_path: Path
) -> None:
    plain = with_overrides(curriculum, ["label_dim=0"])
    train(plain, tmp_path / "old", 3)
    (labelled / "dataset.json").write_text(json.dumps(
        {"camera_angles": [[f"{i:03d}.png", [1.5 + i / 20, 1.5, 0]] for i in range(12)]}
    ))  # fmt: skip
    rays = with_overrides(plain, ["generator=RayConditionedStyleGAN2", "sample_dist=dataset"])
    options = RunOptions(tmp_path / "new", init_from=tmp_path / "old", generator_only=True)
    trainer = Trainer(rays, options, CPU)
    stock, _ = load_generator(tmp_path / "old", ema=None)
    z, cameras = torch.randn(2, 6), Cameras.from_angles(torch.tensor([1.0, 2.0]), 1.5, 30.0)
    settings = trainer.stage.eval_settings()
    own = trainer.state.players.generator.eval()
    with torch.no_grad():
        wanted = stock.synthesis(stock.mapping(z), cameras, settings).image
        found = own.synthesis(own.mapping(z), cameras, settings).image
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    trainer.train_step()


# -- curricula that are functions


def test_defaults_follow_from_the_size_and_the_batch_of_all_processes() -> None:
    stage = stage_at(find_curriculum("StyleGAN2", ["img_size=512", "batch_size=4"], 8), 0)
    assert (stage.img_size, stage.batch_size) == (512, 4)
    assert stage.r1_lambda == pytest.approx(0.0002 * 512**2 / 32)
    assert (stage.ema_kimg, stage.gen_lr, stage.disc_lr) == (10, 0.002, 0.002)
    assert (stage.pl_lambda, stage.pl_interval, stage.style_mixing) == (2, 4, 0.9)
    assert (stage.r1_interval, stage.total_kimg, stage.augment) == (16, 25_000, "ada")
    assert (stage.betas, stage.grad_clip) == ((0.0, 0.99), None)


@pytest.mark.parametrize(("size", "gamma"), [(128, 0.5), (256, 2), (512, 8), (1024, 32)])
def test_stylegan3s_penalty_is_the_published_rule(size: int, gamma: float) -> None:
    for name in ("StyleGAN3T", "StyleGAN3R"):
        stage = stage_at(find_curriculum(name, [f"img_size={size}", "batch_size=32"]), 0)
        assert stage.r1_lambda == pytest.approx(gamma)
        assert (stage.gen_lr, stage.style_mixing, stage.pl_lambda) == (0.0025, 0, 0)
        beta = 0.5 ** (32 / 20_000)
        assert stage.generator_options["magnitude_ema_beta"] == pytest.approx(beta)


def test_stylegan3r_begins_blurred() -> None:
    stage = stage_at(find_curriculum("StyleGAN3R", ["batch_size=16"], 4), 0)
    assert (stage.blur_init_sigma, stage.blur_fade_kimg) == (10, 400)
    assert stage.generator_options["channel_max"] == 1024


@pytest.mark.parametrize("name", ["StyleGAN2", "StyleGAN3T", "StyleGAN3R"])
def test_a_derived_curriculum_makes_both_networks(name: str) -> None:
    small = ["generator_options.channel_base=128", "generator_options.channel_max=8"]
    small += ["discriminator_options={'channel_base': 128, 'channel_max': 8}"]
    curriculum = with_overrides(find_curriculum(name, ["img_size=32"]), ["img_size=32", *small])
    players, _ = build_players(stage_at(curriculum, 0), 0, CPU, torch.Generator())
    check_players(curriculum, players)
    assert players.generator.resolution == 32


def test_a_size_that_is_none_is_refused() -> None:
    for text in ("big", "0", "2.5", "True"):
        with pytest.raises(ValueError, match="img_size must be a positive whole number"):
            find_curriculum("StyleGAN2", [f"img_size={text}"])


def test_a_conditional_run_can_be_looked_at(curriculum: Curriculum, tmp_path: Path) -> None:
    train(curriculum, tmp_path / "run", 2, sample_interval=1)
    generator, _ = load_generator(tmp_path / "run")
    assert generator.label_dim == 3
    assert (tmp_path / "run" / "samples" / "000002_fixed_ema.png").exists()

"""Runs under the projected discriminator: resumed to the bit, saved without its backbone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_workers import spawn, train_projected
from safetensors.torch import save_file
from tiny_runs import differences, run_files, run_main, tiny_curriculum, write_pictures

from curriculums import CURRICULA, Curriculum, find_curriculum, stage_at, with_overrides
from discriminators import efficientnet
from discriminators.efficientnet import load_backbone
from discriminators.projected import ProjectedDiscriminator
from inference.checkpoint import read_file
from training import diffaugment
from training.build import build_discriminator, build_players, check_players
from training.distributed import World
from training.losses import generator_loss
from training.trainer import RunOptions, Trainer

NAMES = ("FastGAN", "FastGANLite", "ProjectedStyleGAN2", "ProjectedPiGAN")
TOYS = ("ToysFastGANLite", "ToysProjectedPiGAN")
CPU = World(0, 1, torch.device("cpu"))
SIZES = {"input_size": 64, "head_size": 64, "head_width": 8, "num_discs": 2, "channels": 4}
KEYS = [
    "generator=FastGAN",
    f"generator_options={ {'width': 2} }",
    "discriminator=ProjectedDiscriminator",
    f"discriminator_options={SIZES}",
    "backbone_weights=random",
    "img_size=32",
    "pos_lambda=0",
    "z_lambda=0",
    "r1_lambda=0",
    "adversarial_loss=hinge",
    "diffaugment=color,translation,cutout",
    "batch_split=1",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def curriculum(tmp_path: Path) -> Curriculum:
    folder = write_pictures(tmp_path / "pictures")
    labels = [[f"{i:03d}.png", i % 3] for i in range(12)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return tiny_curriculum(folder, *KEYS)


def train(curriculum: Curriculum, output: Path, n_steps: int, load: Path | None = None) -> Trainer:
    trainer = Trainer(curriculum, RunOptions(output, load, n_steps=n_steps), CPU)
    trainer.fit()
    return trainer


def first_discriminator(curriculum: Curriculum) -> ProjectedDiscriminator:
    """The discriminator that a run begins with."""
    players, _ = build_players(stage_at(curriculum, 0), 0, CPU, torch.Generator())
    assert isinstance(players.discriminator, ProjectedDiscriminator)
    return players.discriminator


def test_a_resumed_run_is_the_uninterrupted_one_and_saves_no_backbone(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    curriculum["label_dim"] = 3
    train(curriculum, tmp_path / "whole", 4)
    train(curriculum, tmp_path / "half", 2)
    train(curriculum, tmp_path / "half", 4, tmp_path / "half")
    assert not differences(run_files(tmp_path / "whole"), run_files(tmp_path / "half"))
    state = read_file(tmp_path / "whole" / "discriminator.pth")["state_dict"]
    assert state and not any("backbone" in name for name in state)


def test_of_two_processes_each_has_its_features_and_heads_alone_are_exchanged(
    curriculum: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    spawn(train_projected, curriculum, tmp_path)
    ours, theirs = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    trained = sum(p.numel() for p in ours["heads"])
    frozen = sum(b.numel() for b in ours["features"].values())
    assert ours["sent"].count(trained) == ours["sent"].count(ours["generator"]) == 2
    assert max(ours["sent"]) == max(trained, ours["generator"]) < frozen
    fresh = dict(first_discriminator(curriculum).feature_network.named_buffers())
    for rank in (ours, theirs):
        assert not any(rank["modes"])
        assert differences(rank["features"], fresh) == []
    assert differences(ours["heads"], theirs["heads"]) == []
    state = read_file(tmp_path / "run" / "discriminator.pth")["state_dict"]
    assert state and not any("backbone" in name for name in state)


def test_a_file_of_backbone_weights_is_used(curriculum: Curriculum, tmp_path: Path) -> None:
    weights = {name: value + 0.5 for name, value in load_backbone("random").state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    curriculum["backbone_weights"] = str(tmp_path / "weights.safetensors")
    discriminator, _ = build_discriminator(stage_at(curriculum, 0))
    assert isinstance(discriminator, ProjectedDiscriminator)
    stem = discriminator.feature_network.backbone.conv_stem.weight
    assert torch.equal(stem, weights["conv_stem.weight"])


@pytest.mark.parametrize("label_dim", [0, 3])
@pytest.mark.parametrize("name", ["FastGAN", "FastGANLite", "StyleGAN2"])
def test_every_generator_of_pictures_learns_from_what_features_see(
    name: str, label_dim: int, curriculum: Curriculum, tmp_path: Path
) -> None:
    sizes = {"channel_base": 64, "channel_max": 8, "mapping_layers": 2, "w_dim": 6}
    options = sizes if name == "StyleGAN2" else {"width": 2}
    curriculum |= {"generator": name, "generator_options": options, "label_dim": label_dim}
    trainer = Trainer(curriculum, RunOptions(tmp_path / "run"), CPU)
    generator = trainer.state.players.generator
    before = {name: p.clone() for name, p in generator.named_parameters()}
    trainer.train_step()
    trainer.state.data.close()
    still = {name for name, p in generator.named_parameters() if torch.equal(p, before[name])}
    assert not still


def as_command(curriculum: Curriculum, folder: Path) -> list[str]:
    """train.py's arguments for a curriculum, and a run that is not there yet."""
    file = folder / "curriculum.json"
    file.write_text(json.dumps(curriculum))
    return ["--curriculum", str(file), "--output_dir", str(folder / "run"), "--n_steps", "1"]


def test_the_flag_wins_over_the_curriculum_and_the_run_remembers_the_file(
    curriculum: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {name: value + 0.5 for name, value in load_backbone("random").state_dict().items()}
    file = tmp_path / "weights.safetensors"
    save_file(weights, file)
    read: list[Path] = []
    original = efficientnet.read
    monkeypatch.setattr(efficientnet, "read", lambda path: read.append(path) or original(path))
    words = [*as_command(curriculum, tmp_path), "--eval_freq", "0", "--device", "cpu"]
    assert run_main("train.py", [*words, "--backbone_weights", str(file)], monkeypatch) == 0
    assert set(read) == {file}
    record = read_file(tmp_path / "run" / "discriminator.pth")
    assert record["arguments"]["backbone_weights"] == str(file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backbone_weights", "OTHER"], "holds another network than tf_efficientnet_lite0"),
        (["--backbone_weights", "nowhere.pth"], "no such file: nowhere.pth; bring model.safet"),
        (["--set", "label_dim=5"], "label_dim is 5, but"),
        (["--set", "discriminator_options.input_size=72"], "multiple of 32 pixels"),
        (["--set", "discriminator_options.head_size=1024"], "raise input_size, or lower head_size"),
        (["--set", "img_size=16"], "FastGAN makes pictures of (32, 64"),
    ],
)
def test_what_cannot_be_judged_is_one_line_before_anything_is_written(
    words: list[str],
    message: str,
    curriculum: Curriculum,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "other.pth")
    words = [str(tmp_path / "other.pth") if word == "OTHER" else word for word in words]
    assert run_main("train.py", [*as_command(curriculum, tmp_path), *words], monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1] and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_what_is_changed_in_pictures_follows_from_the_runs_seed(
    curriculum: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, drawn = diffaugment.draw, []

    def recorded(*arguments: Any) -> list[list[torch.Tensor]]:
        drawn.append(draw(*arguments))
        return drawn[-1]

    monkeypatch.setattr(diffaugment, "draw", recorded)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))  # which has nothing to say here
        trainer = Trainer(curriculum, RunOptions(tmp_path / "run", seed=seed), CPU)
        trainer.train_step()
        trainer.state.data.close()
        found.append(list(drawn))
        drawn.clear()
    first, again, other = found
    assert len(first) == 3  # fakes and reals for the discriminator, fakes for the generator
    assert differences(first, again) == []
    assert differences(first, other) and differences(first[:1], first[1:2])


def test_classes_without_labels_are_refused(tmp_path: Path, curriculum: Curriculum) -> None:
    curriculum["label_dim"] = 3
    curriculum["dataset_path"] = str(write_pictures(tmp_path / "plain"))
    with pytest.raises(ValueError, match="label_dim is 3, but .* has no labels"):
        Trainer(curriculum, RunOptions(tmp_path / "run"), CPU)


def test_top_k_ranks_pictures_by_their_mean_logit() -> None:
    logits = torch.tensor([[0.0, 9.0], [2.0, 2.0], [5.0, -9.0], [6.0, 7.0]])
    loss = generator_loss(logits, 0.5, "hinge")
    assert loss == -(0 + 9 + 6 + 7) / 4
    assert generator_loss(logits, 1.0, "hinge") == -logits.mean()


SMALL = {  # as published, but for the sizes that cost memory
    **dict.fromkeys(("FastGAN", "FastGANLite"), "width=8"),
    "ProjectedStyleGAN2": "channel_base=1024",
    "ProjectedPiGAN": "hidden_dim=16",
}


@pytest.mark.parametrize("name", [*NAMES, *TOYS])
def test_curricula_fit_their_networks(name: str) -> None:
    small: list[str] = []
    if name in SMALL:
        small = ["backbone_weights=random", f"generator_options.{SMALL[name]}"]
    curriculum = with_overrides(find_curriculum(name), small)
    stage = stage_at(curriculum, 0)
    players, _ = build_players(stage, 0, CPU, torch.Generator(), torch.Generator())
    check_players(curriculum, players)


def test_curricula_have_the_originals_values() -> None:
    expected: dict[str, dict[str, Any]] = {
        "FastGAN": {"gen_lr": 2e-4, "disc_lr": 2e-4 * 16 / 17, "latent_dim": 256},
        "FastGANLite": {"gen_lr": 2e-4, "disc_lr": 2e-4 * 16 / 17, "latent_dim": 256},
        "ProjectedStyleGAN2": {"gen_lr": 2e-3, "disc_lr": 2e-3 * 16 / 17, "latent_dim": 64},
    }
    for name, values in expected.items():
        stage = stage_at(CURRICULA[name], 0)
        assert {key: getattr(stage, key) for key in values} == values
        assert (stage.adversarial_loss, stage.betas) == ("hinge", (0.0, 0.99))
        assert stage.diffaugment == ("color", "translation", "cutout")
        assert (stage.r1_lambda, stage.pl_lambda, stage.style_mixing) == (0, 0, 0)
        assert (stage.total_kimg, stage.ema_kimg) == (25_000, 20)


@pytest.mark.parametrize(("size", "patch"), [(64, None), (256, 64)])
def test_a_fields_large_pictures_are_judged_by_windows(size: int, patch: int | None) -> None:
    curriculum = find_curriculum("ProjectedPiGAN", [f"img_size={size}", "batch_size=2"])
    stage = stage_at(curriculum, 0)
    assert (stage.img_size, stage.batch_size, stage.patch_size) == (size, 2, patch)
    assert (stage.generator, stage.r1_lambda, stage.adversarial_loss) == ("PiGAN", 0, "hinge")


def test_a_field_learns_from_what_features_see_of_its_windows(tmp_path: Path) -> None:
    changes = [
        f"dataset_path={str(write_pictures(tmp_path / 'pictures', size=128))!r}",
        "backbone_weights=random",
        f"discriminator_options={SIZES}",
        "generator_options={'hidden_dim': 8, 'num_layers': 2, 'mapping_dim': 8}",
        "num_steps=3",
        "sample_images=2",
    ]
    sizes = ["img_size=128", "batch_size=2"]
    curriculum = with_overrides(find_curriculum("ProjectedPiGAN", sizes), [*sizes, *changes])
    trainer = Trainer(curriculum, RunOptions(tmp_path / "run"), CPU)
    before = [p.clone() for p in trainer.state.players.generator.parameters()]
    trainer.train_step()
    moved = trainer.state.players.generator.parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    trainer.state.data.close()


def test_of_toys_fields_and_pictures_have_the_same_features() -> None:
    flat, turning = (stage_at(CURRICULA[name], 0) for name in TOYS)
    assert flat.discriminator_options == turning.discriminator_options
    assert (flat.backbone_weights, turning.backbone_weights) == ("random", "random")
    own = stage_at(CURRICULA["Toys"], 0)
    assert turning.generator_options == own.generator_options
    assert (turning.r1_lambda, turning.adversarial_loss) == (0, "hinge")

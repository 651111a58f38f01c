"""The script that turns a checkpoint of the original into a run's directory."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interop
from convert_checkpoint import main
from discriminators import DISCRIMINATORS
from generators.pigan import PiGAN
from inference.checkpoint import checkpoint_step, load_generator, read_file


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *map(str, arguments)])
        main()

    return call


@pytest.fixture
def folder(
    tmp_path: Path,
    originals: Callable[..., Any],
    save: Callable[..., Path],
    fill: Callable[..., Any],
) -> Path:
    """A checkpoint of the original with a date's prefix: generator, one average, discriminator."""
    weights = interop.export("pigan", "generator", PiGAN(latent_dim=6, hidden_dim=8))
    root = originals("generators.generators.ImplicitGenerator3d")()
    root.siren = originals("siren.siren.SPATIALSIRENBASELINE")()
    fill(root, weights)
    root.z_dim, root.step = 6, 1234
    average = originals("torch_ema.ema.ExponentialMovingAverage", object)()
    average.decay, average.num_updates, average.collected_params = 0.999, 1234, []
    average.shadow_params = [value + 0.01 for value in weights.values()]
    small = DISCRIMINATORS["CCSDiscriminator"](max_size=16, base=64, max_channels=12)
    judge = originals("discriminators.sgdiscriminators.CCSDiscriminator")()
    fill(judge, interop.export("pigan", "discriminator", small))
    directory = tmp_path / "generators"  # a name that misled the original's tools
    directory.mkdir()
    for name, content in {"generator": root, "ema": average, "discriminator": judge}.items():
        save(content, directory / f"03--10:20--{name}.pth")
    return directory


def exported(path: Path, ema: str | None) -> dict[str, Tensor]:
    return interop.export("pigan", "generator", load_generator(path, ema=ema)[0])


def test_a_converted_run_has_the_originals_weights_averages_and_step(
    folder: Path, run: Callable[..., None], tmp_path: Path
) -> None:
    target = tmp_path / "run"
    run(folder / "03--10:20--generator.pth", "--curriculum", "CelebA", "--output_dir", target)
    assert sorted(f.name for f in target.iterdir()) == [
        "discriminator.pth",
        "ema.pth",
        "generator.pth",
    ]
    raw, averaged = exported(target, None), exported(target, "ema.pth")
    assert all(torch.equal(averaged[key], raw[key] + 0.01) for key in raw)
    assert checkpoint_step(target) == 1234
    ema = read_file(target / "ema.pth")
    assert (ema["decay"], ema["num_updates"]) == (0.999, 1234)
    generator, curriculum = load_generator(target)
    assert generator.w_avg.abs().max() > 0
    assert curriculum["generator_options"] == {"hidden_dim": 8} and curriculum["latent_dim"] == 6
    judge = read_file(target / "discriminator.pth")
    rebuilt = DISCRIMINATORS[judge["class"]](**judge["arguments"])
    rebuilt.load_state_dict(judge["state_dict"])
    assert rebuilt.image_sizes == (2, 4, 8, 16)
    assert curriculum["discriminator"] == "CCSDiscriminator"


def test_without_an_average_the_generators_own_weights_stand_in(
    folder: Path, run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone.pth"
    alone.write_bytes((folder / "03--10:20--generator.pth").read_bytes())
    run(alone, "--curriculum", "CelebA", "--output_dir", tmp_path / "run")
    assert "the generator's own weights" in capsys.readouterr().out
    raw, averaged = (exported(tmp_path / "run", ema) for ema in (None, "ema.pth"))
    assert all(torch.equal(averaged[key], raw[key]) for key in raw)


def test_another_run_is_never_written_over(
    folder: Path, run: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "generator.pth").write_text("precious")
    path = folder / "03--10:20--generator.pth"
    with pytest.raises(ValueError, match="already holds a run"):
        run(path, "--curriculum", "CelebA", "--output_dir", tmp_path / "run")
    assert (tmp_path / "run" / "generator.pth").read_text() == "precious"


def test_files_that_are_no_generator_are_refused_and_nothing_is_written(
    folder: Path, run: Callable[..., None], tmp_path: Path
) -> None:
    for name in ("ema", "discriminator"):
        path = folder / f"03--10:20--{name}.pth"
        with pytest.raises(ValueError, match="holds no"):
            run(path, "--curriculum", "CelebA", "--output_dir", tmp_path / "run")
    with pytest.raises(ValueError, match="no such file"):
        run(tmp_path, "--curriculum", "CelebA", "--output_dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()

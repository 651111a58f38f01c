"""eval_metrics.py end to end, with feature networks of a few numbers."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from random_weights import write_noise
from tiny_networks import features_of, put_in_place
from tiny_runs import run_main, tiny_curriculum, write_pictures

from metrics.distances import Moments, frechet_distance
from training.distributed import World
from training.pictures import FilePictures
from training.trainer import RunOptions, Trainer

ALL = "fid,kid,is,pr,ppl,swd,fid50k_full,kid50k_full,pr50k3_full,ppl2_wend,is50k"
KEYS = {"fid", "kid", "is", "precision", "recall", "ppl", "swd", "fid50k_full", "kid50k_full",
        "pr50k3_full_precision", "pr50k3_full_recall", "ppl2_wend", "is50k_mean"}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures real/ and fake/, where nothing is cached or downloaded."""
    put_in_place(monkeypatch)
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_noise(Path("real"), 14, seed=1, size=16, tint=40)
    write_noise(Path("fake"), 12, seed=0, size=16)
    return tmp_path


@pytest.fixture
def run(place: Path) -> Path:
    """A generator of 16 pixels after no training, and its pictures."""
    curriculum = tiny_curriculum(
        write_pictures(place / "pictures"), "0.img_size=16", "clamp_mode=softplus"
    )
    options = RunOptions(place / "run", n_steps=1, eval_freq=0)
    Trainer(curriculum, options, World(0, 1, torch.device("cpu"))).fit()
    return place / "run"


def measured(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    options = [*arguments, "--json", "numbers.json", "--device", "cpu"]
    assert run_main("eval_metrics.py", options, monkeypatch) == 0
    return json.loads(Path("numbers.json").read_text())


def between(place: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    folders = ("--generated_image_dir", "fake", "--real_image_dir", "real")
    return measured(monkeypatch, *folders, *arguments)


def test_two_folders_have_the_distance_of_their_features(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = between(place, monkeypatch, "--metrics", "fid,kid,is,pr,swd,fid2k_full")
    moments = []
    for name in ("fake", "real"):
        pictures, kept = FilePictures(name), Moments()
        kept.add(features_of(pictures.batch(range(len(pictures)))))
        moments.append(kept)
    assert numbers["fid"] == pytest.approx(frechet_distance(*moments), rel=1e-6)
    population = frechet_distance(*moments, population=True)
    assert numbers["fid2k_full"] == pytest.approx(population, rel=1e-6)
    assert "12 images" in numbers["protocol"] and "16 px" in numbers["protocol"]
    assert numbers["swd"] > 0 and 0 <= numbers["precision"] <= 1


def test_folders_zips_and_batches_of_any_size_agree(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = between(place, monkeypatch, "--metrics", "fid,kid,is,pr")
    with zipfile.ZipFile("real.zip", "w") as archive:
        for file in sorted(Path("real").iterdir()):
            archive.write(file, file.name)
    zipped = between(place, monkeypatch, "--metrics", "fid,kid,is,pr", "--real_image_dir",
                     "real.zip", "--batch_size", "5")  # fmt: skip
    for key in ("fid", "kid", "is", "precision", "recall"):
        assert zipped[key] == pytest.approx(first[key], rel=1e-4)


def test_a_generator_is_measured_by_every_metric(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (str(run), "--metrics", ALL, "--num_images", "12", "--image_size", "16")
    numbers = measured(monkeypatch, *arguments)
    assert KEYS <= set(numbers)
    assert all(isinstance(numbers[key], float) for key in KEYS)
    assert numbers["ppl"] == numbers["ppl2_wend"] > 0  # one protocol under two names
    assert "fid50k_full" in capsys.readouterr().out
    again = measured(monkeypatch, *arguments, "--real_image_dir", "real")
    assert again["is"] == numbers["is"] and again["fid"] != numbers["fid"]
    other = measured(monkeypatch, *arguments, "--seed", "5")
    assert other["fid"] != numbers["fid"]


def test_several_checkpoints_make_a_table_with_the_best_marked(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (str(run), str(run / "generator.pth"), "--metrics", "is,swd", "--num_images", "12")
    results = measured(monkeypatch, *arguments, "--ema", "none")["results"]
    assert len(results) == 2 and results[0]["swd"] == results[1]["swd"]
    out = capsys.readouterr().out
    assert out.count("*") == 6 and "(step 1)" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--metrics", "fjd"], "unknown metric 'fjd'"),
        (["--metrics", "ppl"], "ppl needs a generator"),
        (["--metrics", "eqr50k"], "eqr50k needs a generator"),
        (["--backend", "pytorch-fid"], "pytorch-fid computes FID alone, not kid, is"),
        (["--real_image_dir", "empty"], "nothing there is an image"),
        (["--real_image_dir", "nowhere"], "nothing there is an image"),
        (["--real_image_dir", "odd"], "differ in size: 000.png has 16x16 pixels, 900.png 8x8"),
        (["--real_image_dir", "small"], "the real pictures have 8x8 pixels, the generated ones"),
        (["--real_image_dir", "single"], "fid needs at least 2 real pictures, got 1"),
        (["--generated_image_dir", "single"], "fid needs at least 2 generated pictures, got 1"),
        (["--real_image_dir", "broken"], "cannot read '000.png' of 'broken'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str],
    complaint: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("empty").mkdir()
    write_noise(Path("odd"), 3, seed=0, size=16)
    Image.new("RGB", (8, 8)).save("odd/900.png")
    write_noise(Path("small"), 3, seed=0, size=8)
    write_noise(Path("single"), 1, seed=0, size=16)
    Path("broken").mkdir()
    Path("broken/000.png").write_bytes(b"no picture")
    folders = ["--generated_image_dir", "fake", "--real_image_dir", "real", "--device", "cpu"]
    assert run_main("eval_metrics.py", [*folders, *arguments], monkeypatch) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and complaint in lines[0]


def test_sizes_that_differ_and_missing_reals_are_explained(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, complaint in (
        ([str(run), "--image_size", "8", "--real_image_dir", "real"], "give --image_size"),
        ([str(run), "--metrics", "eqr50k"], "StyleGAN3 has and PiGAN has not"),
        (["--generated_image_dir", "fake"], "give the real pictures"),
    ):
        code = run_main("eval_metrics.py", [*arguments, "--device", "cpu"], monkeypatch)
        assert code == 2 and complaint in capsys.readouterr().err

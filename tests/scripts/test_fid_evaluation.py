"""fid_evaluation.py writes what training sees."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import run_main, write_pictures

from datasets import open_dataset


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return write_pictures(tmp_path / "pictures", count=5)


def write(pictures: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    options = ["--dataset_path", str(pictures), "--img_size", "8", *arguments]
    return run_main("fid_evaluation.py", options, monkeypatch)


def test_the_pictures_are_those_of_training_to_the_bit(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write(pictures, monkeypatch, "--dataset", "CelebA") == 0
    files = sorted(Path("EvalImages/CelebA_real_images_8").iterdir())
    assert [f.name for f in files] == [f"{i:05d}.png" for i in range(5)]
    dataset = open_dataset("CelebA", pictures, 8)
    images = dataset.batch(torch.arange(5)).images  # in [-1, 1], steps of 2/255
    for file, image in zip(files, images, strict=True):
        pixels = np.asarray(Image.open(file)).astype(float)
        assert np.allclose(pixels, (image.permute(1, 2, 0) + 1) * 127.5, atol=1e-3)


def test_a_subset_is_always_the_same(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        assert write(pictures, monkeypatch, "--num_imgs", "3", "--output_dir", folder) == 0
    a, b = ([f.read_bytes() for f in sorted(Path(x).iterdir())] for x in "ab")
    assert a == b and len(a) == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--output_dir", "pictures"], "pictures is not empty"),
     (["--dataset", "CelebB"], "did you mean 'CelebA'"),
     (["--dataset_path", "nowhere"], "nothing there is an image")],
)  # fmt: skip
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str],
    complaint: str,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert write(pictures, monkeypatch, *arguments) == 2
    message = capsys.readouterr().err
    assert complaint in message and message.startswith("error: ") and message.count("\n") == 1

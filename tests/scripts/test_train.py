"""train.py from the command line: real photographs, resuming, and mistakes told in one line."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_runs import TINY, run_main, tiny_curriculum, write_pictures

from inference.checkpoint import read_file

SMALL = [
    "--set", "generator_options={'hidden_dim': 8, 'num_layers': 2, 'mapping_dim': 8}",
    "--set", "discriminator_options={'base': 64, 'max_channels': 8, 'max_size': 64}",
    "--set", "0.batch_size=4", "--set", "0.img_size=16", "--set", "0.num_steps=4",
    "--set", "sample_images=2", "--set", "latent_dim=6",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def write_photographs(folder: Path) -> Path:
    """JPEGs and PNGs of mixed sizes and modes, cut from scikit-image's sample photographs."""
    from skimage import data

    folder.mkdir()
    for i, (source, mode, ending) in enumerate(
        [(data.astronaut(), "RGB", "jpg"), (data.coffee(), "RGB", "png"),
         (data.chelsea(), "RGBA", "png"), (data.camera(), "L", "jpg"),
         (data.coffee(), "P", "png"), (data.chelsea(), "CMYK", "jpg")]
    ):  # fmt: skip
        picture = Image.fromarray(source)
        for k in range(3):
            side = 180 + 37 * k + 11 * i
            crop = picture.crop((20 * k, 15 * k, 20 * k + side, 15 * k + side - 30))
            crop.convert(mode).save(folder / f"photo {i}-{k}.{ending}")
    return folder


def test_real_photographs_train_through_the_celeba_curriculum_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = write_photographs(tmp_path / "my photographs")
    (photographs / "photo broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    run = tmp_path / "run"
    first = ["--curriculum", "CelebA", "--dataset_path", f"{photographs}/*.*", "--n_steps", "2"]
    assert run_main("train.py", [*first, "--output_dir", str(run), *SMALL], monkeypatch) == 0
    again = ["--load_dir", str(run), "--output_dir", str(run), "--n_steps", "4"]
    assert run_main("train.py", again, monkeypatch) == 0
    data = read_file(run / "generator.pth")
    assert data["step"] == 4
    assert data["curriculum"]["fov"] == 12  # the run carried its curriculum
    assert len(list((run / "samples").glob("000004_*.png"))) == 5
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(line["step"] <= 4 for line in lines)
    assert "step 2 to 4" in capsys.readouterr().out


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


def write_curriculum(tmp_path: Path, pictures: Path, *changes: str) -> str:
    file = tmp_path / "tiny.json"
    file.write_text(json.dumps(tiny_curriculum(pictures, *changes)))
    return str(file)


def mistakes(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    """Command lines that cannot work, and what the message must say."""
    corrupt = tmp_path / "corrupt"
    corrupt.mkdir()
    (corrupt / "a.png").write_bytes(b"not a picture")
    empty = tmp_path / "empty"
    empty.mkdir()
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for name in ("generator.pth", "trainer.pth"):
        torch.save({"format": 1, "step": 0, "module": torch.nn.Linear(1, 1)}, hostile / name)
    tiny = write_curriculum(tmp_path, tmp_path / "pictures")
    return {
        "curriculum": (["--curriculum", "CelebQ"], "did you mean 'CelebA'"),
        "key": (["--curriculum", tiny, "--set", "gen_rl=1"], "did you mean 'gen_lr'"),
        "size": (
            ["--curriculum", tiny, "--set", "6.img_size=96"],
            "power of two, got 96 (stage 6)",
        ),
        "no data": (["--curriculum", "CelebA"], "--dataset_path"),
        "no match": (["--curriculum", "CelebA", "--dataset_path", f"{tmp_path}/x*.jpg"], "x*.jpg"),
        "corrupt": (["--curriculum", tiny, "--dataset_path", str(corrupt)], "corrupt"),
        "empty load_dir": (["--curriculum", tiny, "--load_dir", str(empty)], "no such checkpoint"),
        "pickled": (["--load_dir", str(hostile)], "pickled objects"),
        "head": (["--curriculum", tiny, "--set", "discriminator=StridedDiscriminator"], "z_lambda"),
        "large": (["--curriculum", tiny, "--set", "img_size=64"], "has pictures of"),
        "option": (["--curriculum", tiny, "--set", "generator_options.hiden_dim=4"], "hidden_dim"),
        "data option": (["--curriculum", tiny, "--set", "dataset_options.miror=True"], "mirror"),
        "device": (["--curriculum", tiny, "--device", "cuda"], "not available"),
    }


@pytest.mark.parametrize(
    "name",
    ["curriculum", "key", "size", "no data", "no match", "corrupt", "empty load_dir", "pickled",
     "head", "large", "option", "data option", "device"],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2_and_writes_nothing(
    name: str, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments, expected = mistakes(tmp_path)[name]
    run = tmp_path / "run"
    code = run_main("train.py", [*arguments, "--output_dir", str(run)], monkeypatch)
    error = capsys.readouterr().err
    assert code == 2
    assert expected in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not run.exists()


def test_another_architecture_is_refused_and_nothing_is_overwritten(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, tiny = tmp_path / "run", write_curriculum(tmp_path, pictures)
    base = ["--curriculum", tiny, "--output_dir", str(run)]
    assert run_main("train.py", [*base, "--n_steps", "1"], monkeypatch) == 0
    before = {f.name: f.read_bytes() for f in run.glob("*.pth")}
    for extra, message in (
        (["--load_dir", str(run), "--set", "generator_options.hidden_dim=16"], "architecture"),
        (["--load_dir", str(run), "--set", "discriminator=ProgressiveEncoderDiscriminator"],
         "architecture"),
        ([], "already holds a run"),
    ):  # fmt: skip
        capsys.readouterr()
        assert run_main("train.py", [*base, *extra], monkeypatch) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert {f.name: f.read_bytes() for f in run.glob("*.pth")} == before


def test_set_step_moves_a_loaded_run_along_the_curriculum(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tiny = tmp_path / "run", write_curriculum(tmp_path, pictures)
    base = ["--curriculum", tiny, "--output_dir", str(run)]
    assert run_main("train.py", [*base, "--n_steps", "1"], monkeypatch) == 0
    moved = [*base, "--load_dir", str(run), "--set_step", "7", "--n_steps", "8"]
    assert run_main("train.py", moved, monkeypatch) == 0
    assert read_file(run / "generator.pth")["step"] == 8
    assert "000008_fixed.png" in {f.name for f in (run / "samples").iterdir()}
    with Image.open(run / "samples/000008_fixed.png") as grid:
        assert grid.height == 16  # the second stage's size


def test_epochs_end_a_run(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, tiny = tmp_path / "run", write_curriculum(tmp_path, pictures)
    arguments = ["--curriculum", tiny, "--output_dir", str(run), "--n_epochs", "1"]
    assert run_main("train.py", arguments, monkeypatch) == 0
    assert read_file(run / "generator.pth")["step"] == 12 // TINY[0]["batch_size"]

"""docs/make_pictures.py runs the project's scripts and keeps what they make."""

from pathlib import Path

import pytest
from films import read_film
from PIL import Image
from tiny_runs import run_main, write_run

SCRIPT = "docs/make_pictures.py"


@pytest.mark.parametrize(
    ("picture", "name", "size"),
    [
        ("views", "demo_views.png", (2 * 5 * 128, 4 * 128)),
        ("turnaround", "demo_turnaround.png", (12 * 64, 8 * 64)),
        ("layers", "demo_layers.png", (8 * 128, 3 * 128)),
    ],
)
@pytest.mark.slow
def test_pictures_are_made_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: str, name: str,
    size: tuple[int, int],
) -> None:  # fmt: skip
    run, out = write_run(tmp_path / "run"), tmp_path / "out"
    words = [str(run), "--output_dir", str(out), "--only", picture]
    assert run_main(SCRIPT, words, monkeypatch) == 0
    (made,) = out.iterdir()
    with Image.open(made) as image:
        assert (made.name, image.size) == (name, size)


@pytest.mark.slow
def test_the_gif_is_made_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "out"
    words = [str(run), "--output_dir", str(out), "--only", "turn", "--gif_frames", "2"]
    assert run_main(SCRIPT, words, monkeypatch) == 0
    assert read_film(out / "demo_turn.gif").shape == (2, 96, 4 * 96, 3)


def test_a_scripts_complaint_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "out")]
    assert run_main(SCRIPT, words, monkeypatch) == 2
    assert "error: no such checkpoint file" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()

"""--proposal, which the scripts that render share, through two of them."""

from pathlib import Path

import numpy as np
import pytest
from films import read_film
from PIL import Image
from tiny_runs import run_main, write_flat_run, write_run

VIEWS, FILM = "render_multiview_images.py", "render_video.py"
SMOOTH = "generator_options={'hidden_dim': 8, 'num_layers': 2, 'mapping_dim': 8, 'box_side': 2.0}"
COMMON = ["--seed", "0", "--image_size", "16", "--device", "cpu", "--output_dir"]


def test_few_samples_make_the_same_views_and_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, pictures = write_run(tmp_path / "run", SMOOTH), {}
    for name, words in (("full", ["--ray_step_multiplier", "6"]), ("few", ["--proposal", "16"])):
        folder = tmp_path / name
        more = [*words, "--depth", "--opacity"]
        assert run_main(VIEWS, [str(run), *COMMON, str(folder), *more], monkeypatch) == 0
        with Image.open(folder / "grid_0.png") as image:
            pictures[name] = np.asarray(image).astype(int)
    assert pictures["full"].std() > 10
    assert np.square(pictures["few"] - pictures["full"]).mean() < 255**2 / 10**3.5
    assert not np.array_equal(pictures["few"], pictures["full"])
    words = ["--proposal", "4", "--num_frames", "2", "--format", "png"]
    assert run_main(FILM, [str(run), *COMMON, str(tmp_path / "film"), *words], monkeypatch) == 0
    (film,) = (tmp_path / "film").iterdir()
    assert read_film(film).shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--proposal", "4", "--exact"], "--exact forbids"),
        (["--proposal", "4", "--ray_step_multiplier", "3"], "takes the place of"),
        (["--proposal", "0"], "whole number above 0"),
    ],
)
def test_contradictions_are_refused(
    words: list[str],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = write_run(tmp_path / "run")
    assert run_main(VIEWS, [str(run), *COMMON, str(tmp_path / "out"), *words], monkeypatch) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_2d_generator_has_no_samples_to_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_flat_run(tmp_path / "flat")
    words = [str(run), *COMMON, str(tmp_path / "out"), "--proposal", "4"]
    assert run_main(VIEWS, words, monkeypatch) == 2
    assert "--proposal: a 2D generator" in capsys.readouterr().err

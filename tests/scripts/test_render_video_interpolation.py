"""render_video_interpolation.py from the command line, on tiny generators."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from films import film_facts, read_film
from tiny_runs import run_main, write_flat_run, write_run

SCRIPT = "render_video_interpolation.py"
SIZE = 8
Film = Callable[..., np.ndarray]
STILL = ["--trajectory", "points", "--yaws", "0"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Film:
    """Runs a script; returns the frames of the film."""

    def call(path: Path, *words: str, script: str = SCRIPT, size: int = SIZE) -> np.ndarray:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        common = ["--output_dir", str(folder), "--format", "png", "--device", "cpu"]
        words = (str(path), "--image_size", str(size), *common, *words)
        assert run_main(script, list(words), monkeypatch) == 0
        assert str(folder) in capsys.readouterr().out
        (made,) = folder.iterdir()
        return read_film(made)

    return call


def test_the_camera_runs_its_path_from_each_seed_to_the_next(run: Path, film: Film) -> None:
    made = film(run, "--seeds", "0-2", "--num_frames", "4")
    assert made.shape == (12, SIZE, SIZE, 3)
    fixed = film(run, "--seed", "1", "--num_frames", "4", script="render_video.py")
    assert np.abs(made[4].astype(int) - fixed[0]).max() <= 1
    assert np.abs(made[7].astype(int) - made[8]).max() <= 1, "a stretch begins where one ended"
    assert np.abs(made[0].astype(int) - made[-1]).max() <= 1, "the loop is closed"


def test_the_orbit_swings_unless_told_not_to(run: Path, film: Film) -> None:
    words = ["--seed", "1", "--num_frames", "3", "--trajectory", "orbit"]
    fixed = film(run, *words, script="render_video.py").astype(int)
    level = film(run, *words, "--wobble", "0")
    assert np.abs(level - fixed).max() <= 1
    assert np.abs(film(run, *words) - fixed).max() > 3


@pytest.mark.parametrize("kind", ["linear", "cubic", "tiled"])
def test_w_frames_make_a_loop_without_a_seam(run: Path, film: Film, kind: str) -> None:
    words = ["--seeds", "0-2", "--w_frames", "3", "--interpolation", kind]
    made = film(run, *words, *STILL)
    assert len(made) == 9
    for seed in range(3):
        alone = film(run, "--seed", str(seed), *STILL, script="render_video.py")[0]
        assert np.abs(made[3 * seed].astype(int) - alone).max() <= 1
    assert len({frame.tobytes() for frame in made}) == 9, "no frame is shown twice"
    turning = film(run, *words, "--trajectory", "orbit")
    assert not np.array_equal(turning[0], turning[-1])


def test_the_two_kinds_differ_between_the_seeds(run: Path, film: Film) -> None:
    words = ["--seeds", "0-2", "--w_frames", "2", *STILL]
    linear, cubic = film(run, *words), film(run, *words, "--interpolation", "cubic")
    assert np.array_equal(linear[::2], cubic[::2]) and not np.array_equal(linear[1], cubic[1])


def test_cells_of_a_grid_have_their_own_share_of_the_seeds(run: Path, film: Film) -> None:
    words = ["--w_frames", "2", *STILL]
    grid = film(run, "--seeds", "0-3", "--grid", "2x1", *words)
    assert grid.shape == (4, SIZE, 2 * SIZE, 3)
    assert np.array_equal(grid[:, :, :SIZE], film(run, "--seeds", "0-1", *words))
    assert np.array_equal(grid[:, :, SIZE:], film(run, "--seeds", "2-3", *words))


def test_layers_stand_side_by_side(run: Path, film: Film) -> None:
    made = film(run, "--seeds", "0-1", "--w_frames", "2", "--depth", "--normals")
    assert made.shape == (4, SIZE, 3 * SIZE, 3)


@pytest.mark.parametrize("generator", ["StyleGAN2", "StyleGAN3"])
def test_a_2d_generator_goes_from_picture_to_picture(
    tmp_path: Path, film: Film, generator: str
) -> None:
    run = write_flat_run(tmp_path / "run", generator=generator)
    made = film(run, "--seeds", "0-2", "--w_frames", "2", size=16)
    assert len({frame.tobytes() for frame in made}) == 6


def test_the_film_is_an_mp4_by_default(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(run), "--seeds", "0-1", "--w_frames", "2", "--image_size", "16"]
    assert run_main(SCRIPT, [*words, "--output_dir", str(tmp_path / "out")], monkeypatch) == 0
    assert "h264" in film_facts(tmp_path / "out" / "interp.mp4")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "no such checkpoint file"),
        (["RUN", "--seeds", "one"], "seeds are numbers"),
        (["RUN", "--image_size", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "--w_frames", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "--w_frames", "3", "--num_frames", "4"], "leave out --num_frames"),
        (["RUN", "--interpolation", "quintic"], "invalid choice: 'quintic'"),
        (["RUN", "--seeds", "0-2", "--grid", "2x1"], "must be a multiple of that, got 3"),
        (["RUN", "--trajectory", "wigle"], "did you mean 'wiggle'?"),
        (["RUN", "--trajectory", "line", "--zoom", "3"], "trajectory line has no option 'zoom'"),
        (["RUN", "--output_dir", "FILE"], "FILE"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_code_2(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("in the way")
    words = [word.replace("RUN", str(run)) for word in arguments]
    common = ["--image_size", "8", "--output_dir", "out"]
    assert run_main(SCRIPT, [words[0], *common, *words[1:]], monkeypatch) == 2
    told = capsys.readouterr().err
    assert complaint in told and "Traceback" not in told
    assert len([line for line in told.splitlines() if "error: " in line]) == 1
    assert not (tmp_path / "out").exists()


def test_help_is_documentation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(SCRIPT, ["--help"], monkeypatch) == 0
    told = capsys.readouterr().out
    for word in ("python render_video_interpolation.py", "--w_frames", "cubic", "seam", "--grid"):
        assert word in told

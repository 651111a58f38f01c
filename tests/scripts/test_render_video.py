"""render_video.py from the command line, on a tiny generator that has seen nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from films import film_size, read_film
from PIL import Image
from tiny_runs import run_main, write_flat_run, write_run

SCRIPT = "render_video.py"
SIZE = 8
Films = dict[str, np.ndarray]
Film = Callable[..., Films]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Film:
    """Runs the script; returns the frames of every film by its name."""

    def call(path: Path, *words: str, format: str = "png") -> Films:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        common = ["--output_dir", str(folder), "--format", format, "--device", "cpu"]
        size = [] if "--image_size" in words else ["--image_size", str(SIZE)]
        assert run_main(SCRIPT, [str(path), *common, *size, *words], monkeypatch) == 0
        assert str(folder) in capsys.readouterr().out
        return {made.stem: read_film(made) for made in folder.iterdir()}

    return call


def test_a_film_per_seed_of_the_paths_length(run: Path, film: Film) -> None:
    films = film(run, "--seeds", "3", "0-1", "--num_frames", "4")
    assert set(films) == {"3", "0", "1"}
    assert all(f.shape == (4, SIZE, SIZE, 3) for f in films.values())
    assert len({f.tobytes() for f in films.values()}) == 3
    assert not np.array_equal(films["0"][0], films["0"][1])
    assert np.abs(films["0"][0].astype(int) - films["0"][-1]).max() <= 1, "the path is closed"


@pytest.mark.parametrize("format", ["mp4", "gif"])
def test_films_are_written_in_every_format(run: Path, film: Film, format: str) -> None:
    words = ["--seed", "0", "--num_frames", "3", "--image_size", "16"]
    exact = film(run, *words)["0"].astype(int)
    coded = film(run, *words, format=format)["0"]
    assert coded.shape == exact.shape
    assert np.abs(coded - exact).mean() < 16


def test_seed_7_is_one_face_alone_in_a_batch_in_a_grid_and_in_a_film(
    run: Path, film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ["--trajectory", "points", "--yaws", "0", "0.4", "--pitch", "1.5"]
    first = film(run, "--seed", "7", *path)["7"][0]
    assert np.array_equal(film(run, "--seeds", "5-8", *path)["7"][0], first)
    grid = film(run, "--seeds", "5-8", "--grid", "2x2", *path)["grid"][0]
    assert np.array_equal(grid[SIZE:, :SIZE], first)
    for seeds in (["7"], ["6-8"]):
        words = ["--seeds", *seeds, "--yaws", "0", "--image_size", str(SIZE)]
        out = ["--output_dir", str(tmp_path / "imgs"), "--device", "cpu"]
        assert run_main("render_multiview_images.py", [str(run), *words, *out], monkeypatch) == 0
        with Image.open(tmp_path / "imgs" / "grid_7.png") as image:
            still = np.asarray(image).astype(int)
        assert np.abs(still - first).max() <= 1  # the pose law's middle, in single precision


def test_grids_take_all_seeds_and_fill_up_with_white(run: Path, film: Film) -> None:
    words = ["--seeds", "0-2", "--grid", "2x1", "--num_frames", "2"]
    films = film(run, *words)
    assert set(films) == {"grid_0", "grid_1"}
    alone = film(run, "--seeds", "0-2", "--num_frames", "2")
    assert np.array_equal(films["grid_0"], np.concatenate([alone["0"], alone["1"]], axis=2))
    assert np.array_equal(films["grid_1"][:, :, :SIZE], alone["2"])
    assert (films["grid_1"][:, :, SIZE:] == 255).all()


def test_layers_stand_side_by_side_or_alone(run: Path, film: Film) -> None:
    words = ["--seed", "0", "--num_frames", "2"]
    plain = film(run, *words)["0"]
    wide = film(run, *words, "--depth", "--normals", "--opacity")["0"]
    assert wide.shape == (2, SIZE, 4 * SIZE, 3)
    assert np.array_equal(wide[:, :, :SIZE], plain)
    depth, opacity = wide[:, :, SIZE : 2 * SIZE], wide[:, :, 3 * SIZE :]
    for grey in (depth, opacity):
        assert (grey == grey[..., :1]).all() and grey.std() > 10
    only = film(run, *words, "--only", "opacity", "depth")["0"]
    assert np.array_equal(only, np.concatenate([opacity, depth], axis=2))
    assert np.array_equal(film(run, *words, "--depth_map")["0"], wide[:, :, : 2 * SIZE])


def test_what_is_asked_for_reaches_the_pictures(run: Path, film: Film) -> None:
    words = ["--seed", "0", "--num_frames", "2"]
    plain = film(run, *words)["0"]
    for change in (
        ["--psi", "1"],
        ["--lock_view_dependence"],
        ["--ray_step_multiplier", "5"],
        ["--trajectory", "orbit"],
        ["--pitch", "1"],
        ["--fov", "30"],
        ["--ema", "none"],
    ):
        assert not np.array_equal(film(run, *words, *change)["0"], plain), change
    chunked = film(run, *words, "--max_batch_size", "50")["0"]
    assert np.abs(chunked.astype(int) - plain).max() <= 1


def test_a_latent_file_takes_the_place_of_seeds(run: Path, film: Film, tmp_path: Path) -> None:
    from inference.checkpoint import load_generator
    from inference.latents import named_styles, save_latents

    generator, _ = load_generator(run)
    ((_, w),) = named_styles(generator, [4], psi=0.7)
    save_latents(tmp_path / "face.npz", w)
    words = ["--num_frames", "2"]
    films = film(run, *words, "--latent", str(tmp_path / "face.npz"), "--psi", "0.1")
    assert np.array_equal(films["face"], film(run, *words, "--seed", "4")["4"])


def test_a_2d_generator_is_filmed_at_its_own_size(
    tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = write_flat_run(tmp_path / "flat")
    made = film(flat, "--seed", "0", "--num_frames", "2", "--image_size", "16")["0"]
    assert made.shape == (2, 16, 16, 3) and np.array_equal(made[0], made[1])
    words = [str(flat), "--seed", "0", "--depth", "--output_dir", str(tmp_path / "out")]
    assert run_main(SCRIPT, words, monkeypatch) == 2
    assert "depth needs a radiance generator" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


def test_an_odd_picture_still_makes_a_film(run: Path, tmp_path: Path, film: Film) -> None:
    film(run, "--seed", "0", "--num_frames", "2", "--image_size", "9", format="mp4")
    (made,) = tmp_path.glob("out*/0.mp4")
    assert film_size(made) == (10, 10)


def test_help_is_documentation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(SCRIPT, ["--help"], monkeypatch) == 0
    told = capsys.readouterr().out
    for word in ("python render_video.py", "front_circle", "--grid", "--latent", "radians", "crf"):
        assert word in told


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere/generator.pth"], "no such checkpoint file"),
        (["RUN", "--seeds", "x"], "seeds are numbers"),
        (["RUN", "--image_size", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "--num_frames", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "--trajectory", "orbti"], "did you mean 'orbit'?"),
        (["RUN", "--trajectory", "orbit", "--zoom", "3"], "trajectory orbit has no option 'zoom'"),
        (["RUN", "--grid", "4"], "a grid is columns x rows"),
        (["RUN", "--grid", "0x2"], "a grid is columns x rows"),
        (["RUN", "--format", "avi"], "invalid choice: 'avi'"),
        (["RUN", "--batch_size", "2"], "invalid choice: 2"),
        (["RUN", "--fps", "0"], "must be a number above 0"),
        (["RUN", "--only", "depths"], "invalid choice: 'depths'"),
        (["RUN", "--only", "depth", "--normals"], "leave out --normals"),
        (["RUN", "--latent", "nothing.npz"], "nothing.npz"),
        (["RUN", "--class", "1"], "this generator has no classes"),
        (["RUN", "--noise_mode", "none"], "--noise_mode: a PiGAN cannot do that"),
        (["RUN", "--rotate", "10"], "--rotate: a PiGAN cannot do that"),
        (["RUN", "--translate", "1"], "must be two numbers X,Y"),
        (["RUN", "--truncation_cutoff", "1"], "cutoff needs a style per layer"),
        (["RUN", "--psi", "nan"], "--psi must be finite"),
        (["RUN", "--device", "abacus"], "is not available"),
        (["RUN", "--output_dir", "FILE"], "FILE"),
        (["RUN", "--output_dir", "FILE", "--format", "png"], "FILE"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_code_2(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("in the way")
    words = [word.replace("RUN", str(run)) for word in arguments]
    common = ["--image_size", "8", "--num_frames", "1", "--output_dir", "out"]
    assert run_main(SCRIPT, [words[0], *common, *words[1:]], monkeypatch) == 2
    told = capsys.readouterr().err
    assert complaint in told and "Traceback" not in told
    assert len([line for line in told.splitlines() if "error: " in line]) == 1
    assert not list((tmp_path / "out").glob("*"))

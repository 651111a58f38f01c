"""visualize.py from the command line: every name, with every camera path that it can have."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from films import read_film
from PIL import Image
from tiny_runs import run_main, write_flat_run, write_run

from inference.checkpoint import load_generator
from inference.latents import named_styles
from rendering.field import raw_density
from rendering.grid import voxel_lattice

SCRIPT = "visualize.py"
SIZE = 8
Files = dict[str, np.ndarray]
Show = Callable[..., Files]
PATHS = {"points": 3, "front_circle": 4, "line": 4, "wiggle": 4}  # with their frames here
each_path = pytest.mark.parametrize("path", PATHS)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Show:
    """Runs the script; returns pictures, films and volumes by name."""

    def call(name: str, path: Path, *words: str, size: int = SIZE) -> Files:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        common = ["--output_dir", str(folder), "--format", "png", "--image_size", str(size)]
        assert run_main(SCRIPT, [name, str(path), *common, *words], monkeypatch) == 0
        assert name in capsys.readouterr().out
        found: Files = {}
        for file in folder.iterdir():
            if file.suffix == ".npy":
                found[file.name] = np.load(file)
            elif file.suffix == ".png":
                with Image.open(file) as image:
                    found[file.name] = np.asarray(image)
            else:
                found[file.name] = read_film(file)
        return found

    return call


def along(path: str) -> list[str]:
    return ["--trajectory", path, "--num_frames", str(PATHS[path])]


@each_path
def test_a_front_grid_has_one_large_picture_over_small_ones(
    run: Path, show: Show, path: str
) -> None:
    made = show("front_grid", run, "--seeds", "0-1", *along(path))
    others = PATHS[path] - 1
    small = -(-SIZE // others)
    assert set(made) == {"front_grid_0.png", "front_grid_1.png"}
    assert made["front_grid_0.png"].shape == (small * others + small, small * others, 3)


def test_a_front_grid_shows_the_pictures_of_the_row(run: Path, show: Show) -> None:
    seed = ["--seed", "0"]
    grid = show("front_grid", run, *seed)["front_grid_0.png"]
    row = show("minigrid", run, *seed, size=SIZE)["minigrid_0.png"]
    assert row.shape == (SIZE, 3 * SIZE, 3)
    assert np.array_equal(grid[:SIZE, :SIZE], row[:, :SIZE]), "two small ones are as wide as one"
    alone = show("front_grid", run, *seed, "--yaws", "0")["front_grid_0.png"]
    assert np.array_equal(alone, row[:, :SIZE])


@each_path
def test_a_minigrid_is_a_row_of_all_cameras(run: Path, show: Show, path: str) -> None:
    made = show("minigrid", run, "--seeds", "0-1", *along(path))
    rows = [made["minigrid_0.png"], made["minigrid_1.png"]]
    assert rows[0].shape == (SIZE, PATHS[path] * SIZE, 3)
    assert np.array_equal(made["minigrid.png"], np.concatenate(rows))


@each_path
def test_films_follow_the_path(run: Path, show: Show, path: str) -> None:
    films = show("video", run, "--seeds", "0-1", *along(path))
    assert {n: f.shape for n, f in films.items()} == {
        seed: (PATHS[path], SIZE, SIZE, 3) for seed in ("0", "1")
    }
    grid = show("video_grid", run, "--seeds", "0-1", *along(path))["video_grid"]
    assert grid.shape == (PATHS[path], SIZE, 4 * SIZE, 3)
    assert np.array_equal(grid[:, :, :SIZE], films["0"])
    row = show("minigrid", run, "--seed", "0", *along(path))["minigrid_0.png"]
    assert np.array_equal(np.concatenate(films["0"], axis=1), row)


@each_path
def test_interpolations_begin_and_end_with_their_seeds(run: Path, show: Show, path: str) -> None:
    films = show("video", run, "--seeds", "0-3", *along(path))
    moving = show("interp_video", run, "--seeds", "0-3", *along(path))
    assert set(moving) == {"interp_0_1", "interp_2_3"}
    assert np.array_equal(moving["interp_2_3"][0], films["2"][0])
    assert np.array_equal(moving["interp_2_3"][-1], films["3"][-1])
    steps = ["--num_interp_steps", "3"]
    grid = show("interp_video_grid", run, "--seeds", "0-3", *steps, *along(path))["interp_2_3"]
    assert grid.shape == (PATHS[path], SIZE, 3 * SIZE, 3)
    assert np.array_equal(grid[:, :, :SIZE], films["2"])
    assert np.array_equal(grid[:, :, -SIZE:], films["3"])


def test_an_interpolation_is_a_row_of_steps_per_pair(run: Path, show: Show) -> None:
    made = show("interp", run, "--seeds", "0-3")["interp.png"]
    assert made.shape == (2 * SIZE, 6 * SIZE, 3)
    steps = made.reshape(2, SIZE, 6, SIZE, 3).transpose(0, 2, 1, 3, 4).reshape(12, -1)
    assert len({step.tobytes() for step in steps}) == 12


def test_densities_are_those_of_the_field_with_axes_x_y_z(run: Path, show: Show) -> None:
    words = ["--voxel_resolution", "5", "--cube_size", "0.4"]
    made = show("density", run, "--seed", "2", *words)
    assert set(made) == {"density_2.npy", "density_2.png"}
    generator, _ = load_generator(run)
    ((_, w),) = named_styles(generator, [2], psi=0.7)
    field = generator.field(w)  # type: ignore[attr-defined]
    expected = raw_density(field, voxel_lattice(5, 0.4)[None]).reshape(5, 5, 5).numpy()
    assert np.abs(made["density_2.npy"] - expected).max() < 1e-4
    assert np.ptp(expected) > 1
    steps = show("interp_density", run, "--seeds", "2-3", *words, "--num_interp_steps", "2")
    assert np.array_equal(steps["density_interp_2_3_0.npy"], made["density_2.npy"])
    assert len(steps) == 4


def test_without_a_background_there_is_white(tmp_path: Path, show: Show) -> None:
    changes = ["white_back=False", "hierarchical_sample=False"]
    black = write_run(tmp_path / "black", *changes)
    filled = write_run(tmp_path / "filled", *changes, "eval_last_back=True")
    dark, back = (
        show("bg_nobg", path, "--seed", "0")["bg_nobg_0.png"].astype(int)
        for path in (black, filled)
    )
    assert dark.shape == (SIZE, 2 * SIZE, 3)
    assert (dark[:, SIZE:] >= dark[:, :SIZE]).all() and dark[:, SIZE:].mean() > dark.mean() + 5
    assert np.array_equal(dark[:, SIZE:], back[:, SIZE:])
    assert not np.array_equal(dark[:, :SIZE], back[:, :SIZE])


@pytest.mark.parametrize("background", ["plane", "sphere"])
def test_a_background_of_its_own_gives_way_to_white(
    tmp_path: Path, show: Show, background: str
) -> None:
    options = {
        **{"w_dim": 8, "channel_base": 64, "channel_max": 12, "plane_resolution": 8},
        **{"feature_dim": 4, "decoder_width": 8, "cube_scale": 0.4, "density_shift": -200.0},
        **{"background": background, "background_channel_base": 64, "background_steps": 4},
    }
    changes = ["generator='EpiGRAF'", f"generator_options={options!r}", "clamp_mode='softplus'"]
    run = write_run(tmp_path / "run", *changes, "white_back=False")
    pair = show("bg_nobg", run, "--seed", "0")["bg_nobg_0.png"]
    assert (pair[:, SIZE:] == 255).all(), "so thin that there is only the background"
    assert pair[:, :SIZE].std() > 1


@pytest.mark.parametrize("name", ["front_grid", "video", "interp", "interp_video"])
def test_a_2d_generator_is_shown_too(tmp_path: Path, show: Show, name: str) -> None:
    words = ["--seeds", "0-1", "--num_frames", "3"]
    assert show(name, write_flat_run(tmp_path / "run"), *words, size=16)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["minigird", "RUN"], "unknown name 'minigird', did you mean 'minigrid'?"),
        (["video", "nowhere"], "no such checkpoint file"),
        (["interp", "RUN", "--seeds", "0-2"], "interp needs pairs of seeds, got 3"),
        (["density", "RUN", "--voxel_resolution", "1"], "--voxel_resolution must be at least 2"),
        (["density", "RUN", "--cube_size", "0"], "must be a length above 0"),
        (["density", "FLAT", "--image_size", "16"], "density needs a radiance generator"),
        (["bg_nobg", "FLAT", "--image_size", "16"], "bg_nobg needs a radiance generator"),
        (["video", "RUN", "--trajectory", "line", "--zoom", "1"], "has no option 'zoom'"),
        (["video", "RUN", "--image_size", "0"], "must be a whole number above 0"),
        (["video", "RUN", "--output_dir", "FILE"], "FILE"),
        (["density", "RUN", "--voxel_resolution", "2", "--output_dir", "FILE"], "FILE"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_code_2(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("in the way")
    flat = write_flat_run(tmp_path / "flat")
    words = [w.replace("RUN", str(run)).replace("FLAT", str(flat)) for w in arguments]
    common = ["--image_size", "8", "--num_frames", "3", "--output_dir", "out"]
    assert run_main(SCRIPT, [*words[:2], *common, *words[2:]], monkeypatch) == 2
    told = capsys.readouterr().err
    assert complaint in told and "Traceback" not in told
    assert len([line for line in told.splitlines() if "error: " in line]) == 1
    assert not (tmp_path / "out").exists()

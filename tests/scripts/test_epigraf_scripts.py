"""Every script of the project on a run of tri-planes, with the flags that pi-GAN's runs take."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from films import read_film
from PIL import Image
from tiny_runs import run_main, write_pictures, write_run

import visualize
from inference.latents import load_cameras, load_latents
from rendering.trajectories import TRAJECTORIES

SIZE = 16
PLANES = {
    **{"plane_resolution": 8, "feature_dim": 4, "channel_base": 64, "channel_max": 12},
    **{"w_dim": 8, "decoder_width": 8, "cube_scale": 0.4, "density_gain": 50.0},
}
CHANGES = ("generator='EpiGRAF'", f"generator_options={PLANES!r}", f"0.img_size={SIZE}")
Call = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    data = write_pictures(tmp_path / "pictures", size=SIZE)
    return write_run(tmp_path / "run", *CHANGES, f"dataset_path={str(data)!r}", "fov=50")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a script that writes to --output_dir; returns that folder."""
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))

    def call(script: str, *words: object) -> Path:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        arguments = [*map(str, words), "--output_dir", str(folder)]
        assert run_main(script, arguments, monkeypatch) == 0
        return folder

    return call


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_its_shape_is_a_mesh_with_colours(run: Path, call: Call) -> None:
    flags = ["--voxel_resolution", 20, "--format", "ply", "obj", "glb", "mrc", "--preview"]
    made = call("extract_shapes.py", run, "--seed", 1, *flags, "--image_size", 16)
    assert {f.name for f in made.iterdir()} == {
        f"1.{k}" for k in ("ply", "obj", "glb", "mrc", "png")
    }
    mesh = trimesh.load(made / "1.ply", force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh) and len(mesh.faces) > 50
    assert picture(made / "1.png").std() > 5


def test_a_picture_is_inverted_and_its_style_shown_again(run: Path, call: Call) -> None:
    size = ["--image_size", SIZE]
    front = call("render_multiview_images.py", run, "--seed", 3, "--yaws", 0, *size)
    flags = ["--steps", 6, "--style_space", "free", "--no_video", "--view_size", SIZE]
    fit = call("inverse_render.py", run, front / "grid_3.png", *size, *flags)
    style = load_latents(fit / "latent.npz")
    assert style.shape[1:] == (4, 8) and load_cameras(fit / "latent.npz") is not None
    again = call("render_multiview_images.py", run, "--latent", fit / "latent.npz",
                 "--yaws", 0, "--ray_step_multiplier", 2, *size)  # fmt: skip
    shown, fitted = picture(again / "grid_latent.png"), picture(fit / "views.png")
    assert np.abs(shown[:SIZE, :SIZE] - fitted[:, :SIZE]).max() <= 2


@pytest.mark.parametrize("trajectory", list(TRAJECTORIES))
def test_it_is_filmed_along_every_path(run: Path, call: Call, trajectory: str) -> None:
    flags = ["--trajectory", trajectory, "--image_size", SIZE, "--format", "png"]
    flags += [] if trajectory == "points" else ["--num_frames", 3]
    film = read_film(call("render_video.py", run, "--seed", 0, *flags) / "0")
    assert film.shape == (3, SIZE, SIZE, 3)
    assert np.abs(np.diff(film.astype(int), axis=0)).max() > 5


@pytest.mark.parametrize("name", visualize.NAMES)
def test_every_visualisation_shows_it(run: Path, call: Call, name: str) -> None:
    flags = ["--seeds", "0-1", "--image_size", SIZE, "--format", "png"]
    if "density" in name:
        flags += ["--voxel_resolution", 6]
    made = list(call("visualize.py", name, run, *flags, "--num_frames", 3).iterdir())
    assert made
    for path in made:
        if path.suffix == ".npy":
            assert np.load(path).shape == (6, 6, 6) and np.load(path).std() > 0
        else:
            shown = read_film(path) if path.is_dir() else picture(path)
            assert shown.std() > 1


def test_it_is_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    swd = ["--metrics", "swd", "--num_images", "4", "--device", "cpu"]
    assert run_main("eval_metrics.py", [str(run), *swd], monkeypatch) == 0
    assert "swd" in capsys.readouterr().out
    geometry = ["--num_images", "2", "--views", "2", "--no_dataset", "--device", "cpu"]
    assert run_main("eval_geometry.py", [str(run), *geometry], monkeypatch) == 0
    assert "view_consistency" in capsys.readouterr().out
    spectrum = tmp_path / "spectrum.npz"
    words = ["calc", "--source", str(run), "--num", "2", "--mean", "128", "--std", "60"]
    words += ["--dest", str(spectrum), "--device", "cpu"]
    assert run_main("avg_spectra.py", words, monkeypatch) == 0
    assert np.isfinite(np.load(spectrum)["spectrum"]).all()

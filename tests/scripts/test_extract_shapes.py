"""extract_shapes.py from the command line, on a tiny generator that has seen nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from tiny_runs import run_main, write_flat_run, write_run
from trimesh.visual import ColorVisuals

from generators.pigan import PiGAN
from inference.checkpoint import load_generator
from inference.latents import save_latents
from inference.views import seeded_latents
from rendering.field import raw_density
from rendering.grid import voxel_lattice

SCRIPT = "extract_shapes.py"
CUBE = ["--voxel_resolution", "12", "--cube_size", "0.4"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def extract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Runs a script; returns the folder that it wrote to."""

    def call(path: Path, *arguments: str, script: str = SCRIPT) -> Path:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        words = [str(path), "--output_dir", str(folder), *arguments, "--device", "cpu"]
        assert run_main(script, words, monkeypatch) == 0
        assert str(folder) in capsys.readouterr().out
        return folder

    return call


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def read(file: Path) -> trimesh.Trimesh:
    mesh = trimesh.load(file, force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


def test_a_mesh_per_seed_in_every_format_and_a_preview(run: Path, extract: Any) -> None:
    formats = ["--format", "ply", "obj", "glb", "--preview", "--image_size", "16"]
    folder = extract(run, "--seeds", "0", "2", "--voxel_resolution", "20", *formats)
    assert names(folder) == {f"{s}.{kind}" for s in (0, 2) for kind in ("ply", "obj", "glb", "png")}
    meshes = [read(folder / f"0.{kind}") for kind in ("ply", "obj", "glb")]
    assert len({len(mesh.faces) for mesh in meshes}) == 1 and len(meshes[0].faces) > 50
    with Image.open(folder / "0.png") as picture:
        assert picture.size == (5 * 16, 2 * 16)
        assert np.asarray(picture).std() > 5


def test_the_older_name_does_the_same(run: Path, extract: Any) -> None:
    words = ["--seed", "1", *CUBE]
    new, old = extract(run, *words), extract(run, *words, script="shape_extraction.py")
    assert (new / "1.ply").read_bytes() == (old / "1.ply").read_bytes()


def test_a_seed_is_the_same_shape_alone_and_among_others(run: Path, extract: Any) -> None:
    alone, among = extract(run, "--seeds", "7", *CUBE), extract(run, "--seeds", "5-8", *CUBE)
    assert names(among) == {"5.ply", "6.ply", "7.ply", "8.ply"}
    assert (alone / "7.ply").read_bytes() == (among / "7.ply").read_bytes()
    assert (alone / "7.ply").read_bytes() != (among / "5.ply").read_bytes()


def test_16_bit_products_search_and_colour_but_leave_the_surface_where_it_is(
    run: Path, extract: Any
) -> None:
    words = ["--seed", "1", *CUBE]
    full, half = (extract(run, *words, *more) for more in ([], ["--precision", "bf16"]))
    one, other = read(full / "1.ply"), read(half / "1.ply")
    assert np.array_equal(one.vertices, other.vertices) and np.array_equal(one.faces, other.faces)
    visuals = [mesh.visual for mesh in (one, other)]
    colours = [v.vertex_colors.astype(int) for v in visuals if isinstance(v, ColorVisuals)]
    assert 0 < np.abs(colours[0] - colours[1]).max() <= 8  # the option has an effect


def test_a_latent_file_stands_in_for_the_seed_that_it_came_from(
    run: Path, tmp_path: Path, extract: Any
) -> None:
    generator, _ = load_generator(run)
    w = generator.mapping(seeded_latents([4], generator.latent_dim), psi=0.5)
    save_latents(tmp_path / "four.npz", w)
    seed = extract(run, "--seed", "4", *CUBE)
    file = extract(run, "--latent", str(tmp_path / "four.npz"), "--psi", "0.1", *CUBE)
    assert (seed / "4.ply").read_bytes() == (file / "four.ply").read_bytes()


@pytest.mark.parametrize("sheared", [False, True])
def test_an_mrc_holds_the_density_of_every_voxel(run: Path, extract: Any, sheared: bool) -> None:
    flag = ["--compat_lattice"] if sheared else []
    folder = extract(run, "--seed", "4", *CUBE, "--format", "mrc", *flag)
    assert names(folder) == {"4.mrc"}
    generator, _ = load_generator(run)
    assert isinstance(generator, PiGAN)
    w = generator.mapping(seeded_latents([4], generator.latent_dim), psi=0.5)
    points = voxel_lattice(12, 0.4, compat_shear=sheared)
    expected = raw_density(generator.field(w), points[None]).flatten()
    stored = np.frombuffer((folder / "4.mrc").read_bytes(), "<f4", offset=1024)
    np.testing.assert_allclose(stored, expected, rtol=1e-4, atol=1e-4)


def test_pieces_and_psi_reach_the_extraction(
    run: Path, extract: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.shapes.VISIBILITY_CAMERAS", 3)

    def faces(*arguments: str) -> int:
        folder = extract(run, "--seed", "0", *CUBE, *arguments)
        return len(read(folder / "0.ply").faces)

    whole = faces("--keep", "all")
    assert faces("--keep", "largest") == faces("--keep", "1") <= faces("--keep", "0.5") <= whole
    assert faces("--psi", "1") != whole
    level = ["--level", "0.2"]
    assert 0 < faces("--visible_only", "--keep", "all", *level) < faces("--keep", "all", *level)


def test_help_reads_as_documentation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(SCRIPT, ["--help"], monkeypatch) == 0
    text = capsys.readouterr().out
    assert "python extract_shapes.py runs/toys --seeds 0-3" in text
    for flag in ("--voxel_resolution", "--cube_size", "--level", "--visible_only", "--latent"):
        assert flag in text


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere/generator.pth"], "no such checkpoint file"),
        (["RUN", "--seeds", "x"], "seeds are numbers"),
        (["RUN", "--voxel_resolution", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "--voxel_resolution", "1"], "voxel_resolution must be at least 2, got 1"),
        (["RUN", "--image_size", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "--cube_size", "0"], "must be a length above 0, got '0'"),
        (["RUN", "--cube_size", "inf"], "must be a length above 0, got 'inf'"),
        (["RUN", "--level", "high"], "must be a number or 'auto', got 'high'"),
        (["RUN", "--level", "nan"], "must be a number or 'auto', got 'nan'"),
        (["RUN", "--keep", "-3"], "--keep"),
        (["RUN", "--keep", "some"], "a number of pieces or a share below 1, got 'some'"),
        (["RUN", "--format", "stl"], "invalid choice: 'stl'"),
        (["RUN", "--compat_lattice"], "--compat_lattice is for .mrc files"),
        (["RUN", "--format", "mrc", "--preview"], "--preview shows a mesh"),
        (["RUN", "--latent", "none.npz"], "none.npz"),
        (["RUN", "--latent", "text.npz"], "text.npz is not a latent file"),
        (["RUN", "--class", "1"], "--class: this generator has no classes"),
        (["RUN", "--truncation_cutoff", "2"], "has one for all layers"),
        (["RUN", "--ema", "ema9.pth"], "no such checkpoint file"),
        (["FLAT"], "holds a 2D generator, StyleGAN2: no shapes"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_code_2(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str,
) -> None:  # fmt: skip
    (tmp_path / "text.npz").write_text("hello")
    flat = tmp_path / "flat"
    if arguments[0] == "FLAT":
        write_flat_run(flat)
    monkeypatch.chdir(tmp_path)
    words = [word.replace("RUN", str(run)).replace("FLAT", str(flat)) for word in arguments]
    out = ["--output_dir", str(tmp_path / "out")]
    assert run_main(SCRIPT, [words[0], *out, *words[1:]], monkeypatch) == 2
    told = capsys.readouterr().err
    assert complaint in told and "Traceback" not in told
    assert len([line for line in told.splitlines() if "error: " in line]) == 1
    assert not (tmp_path / "out").exists()


def test_a_level_out_of_range_is_told_with_the_range(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(run), "--seed", "0", *CUBE, "--level", "1e6", "--output_dir", str(tmp_path)]
    assert run_main(SCRIPT, words, monkeypatch) == 2
    told = capsys.readouterr().err
    assert "level 1e+06 has no surface: the density goes from " in told
    assert told.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    words = [str(run), "--seeds", "0", *CUBE, "--output_dir", str(tmp_path / "file")]
    assert run_main(SCRIPT, words, monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: ")

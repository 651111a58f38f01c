"""render_multiview_images.py from the command line, on a tiny generator that has seen nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, run_main, write_flat_run, write_run

from curriculums import stage_at, with_overrides
from generators.stylegan3 import input_transform
from inference.checkpoint import load_generator, read_file, save_files
from inference.latents import save_latents
from inference.media import to_uint8
from inference.scene import Scene
from inference.views import seeded_latents
from rendering.settings import RenderSettings

SCRIPT = "render_multiview_images.py"
SIZE = 8


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def render(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Runs the script; returns the pictures by name."""

    def call(path: Path, *arguments: str, size: int = SIZE) -> dict[str, np.ndarray]:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        words = [str(path), "--output_dir", str(folder), "--image_size", str(size), *arguments]
        assert run_main(SCRIPT, [*words, "--device", "cpu"], monkeypatch) == 0
        assert str(folder) in capsys.readouterr().out
        pictures = {}
        for file in folder.iterdir():
            with Image.open(file) as image:
                assert image.mode == "RGB"
                pictures[file.name] = np.asarray(image)
        return pictures

    return call


def views(strip: np.ndarray, rows: int = 1) -> np.ndarray:
    """The pictures of a strip: (rows, columns, SIZE, SIZE, 3)."""
    height, width, _ = strip.shape
    assert height == rows * SIZE
    return strip.reshape(rows, SIZE, width // SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4)


# -- what is written


def test_a_strip_per_seed_and_an_overview_of_all(run: Path, render: Any) -> None:
    pictures = render(run, "--seeds", "3", "0-1")
    assert set(pictures) == {"grid_3.png", "grid_0.png", "grid_1.png", "overview.png"}
    strips = [pictures[f"grid_{seed}.png"] for seed in (3, 0, 1)]
    assert all(s.shape == (SIZE, 5 * SIZE, 3) for s in strips)
    assert np.array_equal(pictures["overview.png"], np.concatenate(strips))
    assert len({s.tobytes() for s in strips}) == 3
    seen = views(strips[0])[0]
    assert len({v.tobytes() for v in seen}) == 5, "the views differ"


def test_a_file_and_its_directory_are_the_same(run: Path, render: Any) -> None:
    first, second = render(run, "--seed", "4"), render(run / "generator.pth", "--seeds", "4")
    assert np.array_equal(first["grid_4.png"], second["grid_4.png"])


def test_a_seed_does_not_depend_on_the_others_nor_on_chance(run: Path, render: Any) -> None:
    alone = render(run, "--seeds", "7")["grid_7.png"]
    torch.manual_seed(12345)
    assert np.array_equal(render(run, "--seeds", "5-8")["grid_7.png"], alone)


def test_what_is_asked_for_reaches_the_renderer(
    run: Path, render: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[RenderSettings] = []
    original = Scene.look

    def watch(self: Scene, camera: Any, settings: RenderSettings) -> Any:
        used.append(settings)
        return original(self, camera, settings)

    monkeypatch.setattr(Scene, "look", watch)
    render(run, "--seeds", "0", "--yaws", "0")
    render(run, "--seeds", "0", "--yaws", "0", "--max_batch_size", "70",
           "--ray_step_multiplier", "3", "--lock_view_dependence", size=4)  # fmt: skip
    default = stage_at(TINY, 3).eval_settings(
        resolution=SIZE, num_steps=2 * 4, max_batch_size=2_400_000
    )
    assert not default.jitter and default.noise_std == 0
    special = {"num_steps": 12, "max_batch_size": 70, "lock_view_dependence": True}
    assert used == [default, dataclasses.replace(default, resolution=4, **special)]


def test_depth_does_not_depend_on_how_the_background_is_filled(tmp_path: Path, render: Any) -> None:
    changes = ["white_back=False", "hierarchical_sample=False"]
    filled = write_run(tmp_path / "a", *changes, "eval_last_back=True")
    black = write_run(tmp_path / "b", *changes)
    strips = [
        render(r, "--seeds", "0", "--depth")["grid_0.png"].astype(int) for r in (filled, black)
    ]
    assert np.abs(strips[0] - strips[1])[:SIZE].max() > 10  # colours do
    assert np.abs(strips[0] - strips[1])[SIZE:].max() <= 1


def test_chunks_of_points_change_nothing(run: Path, render: Any) -> None:
    whole = render(run, "--seeds", "0")["grid_0.png"].astype(int)
    chunked = render(run, "--seeds", "0", "--max_batch_size", "50")["grid_0.png"].astype(int)
    assert np.abs(whole - chunked).max() <= 1


def test_without_psi_everybody_is_the_average(run: Path, render: Any) -> None:
    pictures = render(run, "--seeds", "0-2", "--psi", "0")
    strips = [pictures[f"grid_{seed}.png"] for seed in range(3)]
    assert np.array_equal(strips[0], strips[1]) and np.array_equal(strips[0], strips[2])
    far = render(run, "--seeds", "0", "--psi", "1")["grid_0.png"]
    near = render(run, "--seeds", "0")["grid_0.png"]
    assert not np.array_equal(far, near) and not np.array_equal(strips[0], near)


def test_pitches_are_rows_and_yaws_columns(run: Path, render: Any) -> None:
    angles = ["--pitches", "-0.4", "0", "--yaws", "-1", "0", "1"]
    grid = views(render(run, "--seeds", "0", *angles)["grid_0.png"], rows=2)
    assert grid.shape[:2] == (2, 3)
    front = render(run, "--seeds", "0", "--yaws", "0")["grid_0.png"]
    assert np.array_equal(grid[1, 1], front)
    assert len({v.tobytes() for v in grid.reshape(6, -1)}) == 6


def test_a_turnaround_goes_all_the_way_round(run: Path, render: Any) -> None:
    turn = views(render(run, "--seeds", "0", "--turnaround", "4")["grid_0.png"])[0]
    angles = [str(k * np.pi / 2) for k in range(4)]
    same = views(render(run, "--seeds", "0", "--yaws", *angles)["grid_0.png"])[0]
    assert turn.shape[0] == 4 and np.array_equal(turn, same)


def test_rows_of_depth_and_opacity_follow_the_colours(run: Path, render: Any) -> None:
    plain = render(run, "--seeds", "0", "--pitches", "0", "0.3")["grid_0.png"]
    rows = render(run, "--seeds", "0", "--pitches", "0", "0.3", "--depth", "--opacity")
    grid = views(rows["grid_0.png"], rows=6)
    assert np.array_equal(grid[:2], views(plain, rows=2))
    depth, opacity = grid[2:4], grid[4:6]
    for grey in (depth, opacity):
        assert (grey == grey[..., :1]).all() and grey.std() > 10
    assert (depth <= opacity).all(), "nearness counts as far as there is anything"
    only = views(render(run, "--seeds", "0", "--opacity")["grid_0.png"], rows=2)
    assert np.array_equal(only[1], opacity[0])


def test_colours_are_those_of_the_front_when_view_dependence_is_locked(
    tmp_path: Path, render: Any
) -> None:
    free = render(write_run(tmp_path / "a"), "--seeds", "0", "--depth")["grid_0.png"]
    locked = render(write_run(tmp_path / "a"), "--seeds", "0", "--depth", "--lock_view_dependence")[
        "grid_0.png"
    ]
    colours, depth = slice(0, SIZE), slice(SIZE, 2 * SIZE)
    assert not np.array_equal(free[colours], locked[colours])
    assert np.array_equal(free[depth], locked[depth])
    blind = write_run(tmp_path / "b", "generator_options.view_direction=False")
    one = render(blind, "--seeds", "0")["grid_0.png"]
    other = render(blind, "--seeds", "0", "--lock_view_dependence")["grid_0.png"]
    assert np.array_equal(one, other)


def test_the_average_is_shown_unless_the_raw_weights_are_asked_for(run: Path, render: Any) -> None:
    default = render(run, "--seeds", "0")["grid_0.png"]
    average = render(run, "--seeds", "0", "--ema", "ema.pth")["grid_0.png"]
    raw = render(run, "--seeds", "0", "--ema", "none")["grid_0.png"]
    assert np.array_equal(default, average) and not np.array_equal(default, raw)


def test_the_stage_is_that_of_the_stored_step(tmp_path: Path, render: Any) -> None:
    """Past step 6 the curriculum sees farther; past its end as well."""
    changes = ["6.ray_end=1.1", "6.fov=70"]
    early = render(write_run(tmp_path / "a", *changes, step=3), "--seeds", "0")["grid_0.png"]
    late = render(write_run(tmp_path / "b", *changes, step=6), "--seeds", "0")["grid_0.png"]
    done = render(write_run(tmp_path / "c", *changes, step=999), "--seeds", "0")["grid_0.png"]
    assert not np.array_equal(early, late) and np.array_equal(late, done)


def test_another_curriculum_brings_its_own_cameras(tmp_path: Path, run: Path, render: Any) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps(with_overrides(TINY, ["h_mean=2.5"])))
    own = render(run, "--seeds", "0", "--yaws", "1.0")["grid_0.png"]
    other = render(run, "--seeds", "0", "--yaws", "0", "--curriculum", str(file))["grid_0.png"]
    assert np.array_equal(own, other)  # 1.5 + 1 = 2.5


def test_colours_are_not_stretched(tmp_path: Path, render: Any) -> None:
    """An opaque figure of one grey stays the grey that it is."""
    run = write_run(tmp_path / "run")
    files = {name: read_file(run / name) for name in ("generator.pth", "ema.pth")}
    for data in files.values():
        weights = data["state_dict"]
        weights["siren.color_layer_linear.0.weight"].zero_()
        weights["siren.color_layer_linear.0.bias"].fill_(-1.0)
        weights["siren.final_layer.weight"].zero_()
        weights["siren.final_layer.bias"].fill_(1e4)
    save_files(run, files)
    grey = round(255 / (1 + np.e))
    assert (render(run, "--seeds", "0")["grid_0.png"] == grey).all()


def test_normals_come_between_depth_and_opacity(run: Path, render: Any) -> None:
    rows = render(run, "--seeds", "0", "--depth", "--normals", "--opacity")["grid_0.png"]
    grid = views(rows, rows=4)
    only = views(render(run, "--seeds", "0", "--only", "normals")["grid_0.png"])
    assert np.array_equal(grid[2], only[0])
    assert not (grid[2] == grid[2][..., :1]).all(), "normals are coloured"


def test_a_latent_file_takes_the_place_of_seeds(run: Path, render: Any, tmp_path: Path) -> None:
    generator, _ = load_generator(run)
    styles = generator.mapping(seeded_latents([3, 4], generator.latent_dim), psi=0.7)
    save_latents(tmp_path / "faces.npz", styles)
    fitted = render(run, "--latent", str(tmp_path / "faces.npz"), "--psi", "0")
    seeded = render(run, "--seeds", "3-4")
    assert set(fitted) == {"grid_faces_0.png", "grid_faces_1.png", "overview.png"}
    assert np.array_equal(fitted["overview.png"], seeded["overview.png"])


# -- 2D generators

FLAT = 16


def flat_picture(run: Path, seed: int, psi: float = 0.7, **options: Any) -> np.ndarray:
    """What the generator itself makes of a seed."""
    generator, curriculum = load_generator(run)
    z = seeded_latents([seed], generator.latent_dim)
    label = torch.eye(generator.label_dim)[[1]] if generator.label_dim else None
    cutoff = options.pop("cutoff", None)
    w = generator.mapping(z, label, psi=psi, cutoff=cutoff)
    settings = stage_at(curriculum, 3).eval_settings(resolution=FLAT)
    camera: Any = None
    return to_uint8(generator.synthesis(w, camera, settings, **options).image)[0].numpy()


def test_seeds_of_a_2d_generator_make_a_square(tmp_path: Path, render: Any) -> None:
    run = write_flat_run(tmp_path / "run")
    made = render(run, "--seeds", "0-3", size=FLAT)
    assert made["overview.png"].shape == (2 * FLAT, 2 * FLAT, 3)
    for seed in range(4):
        assert np.array_equal(made[f"grid_{seed}.png"], flat_picture(run, seed))
    row = render(run, "--seeds", "0-3", "--columns", "4", size=FLAT)["overview.png"]
    assert np.array_equal(row, np.concatenate([made[f"grid_{s}.png"] for s in range(4)], axis=1))


def test_a_2d_generator_shows_its_own_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = write_flat_run(tmp_path / "run"), tmp_path / "out"
    words = [str(run), "--seed", "0", "--output_dir", str(out)]
    assert run_main(SCRIPT, words, monkeypatch) == 0
    with Image.open(out / "grid_0.png") as image:
        assert image.size == (FLAT, FLAT)
    assert run_main(SCRIPT, [*words, "--image_size", "8"], monkeypatch) == 2
    assert "pictures have 16 pixels a side" in capsys.readouterr().err


def test_styles_are_truncated_up_to_the_cutoff(tmp_path: Path, render: Any) -> None:
    run = write_flat_run(tmp_path / "run")
    made = render(run, "--seed", "1", "--psi", "0.2", "--truncation_cutoff", "2", size=FLAT)
    assert np.array_equal(made["grid_1.png"], flat_picture(run, 1, psi=0.2, cutoff=2))
    assert not np.array_equal(made["grid_1.png"], flat_picture(run, 1, psi=0.2))


def test_noise_is_each_layers_own_or_drawn_by_seed_or_none(tmp_path: Path, render: Any) -> None:
    run = write_flat_run(tmp_path / "run")
    files = {name: read_file(run / name) for name in ("generator.pth", "ema.pth")}
    for data in files.values():
        for key, weight in data["state_dict"].items():
            if key.endswith("noise_strength"):  # 0 before training
                weight.fill_(0.5)
    save_files(run, files)
    made = {
        mode: render(run, "--seeds", "0-1", "--noise_mode", mode, size=FLAT)
        for mode in ("const", "random", "none")
    }
    assert np.array_equal(made["const"]["grid_0.png"], flat_picture(run, 0, noise_mode="const"))
    assert np.array_equal(made["none"]["grid_0.png"], flat_picture(run, 0, noise_mode="none"))
    seen = [made[mode]["grid_1.png"] for mode in made]
    assert len({p.tobytes() for p in seen}) == 3
    alone = render(run, "--seed", "1", "--noise_mode", "random", size=FLAT)["grid_1.png"]
    assert np.array_equal(alone, made["random"]["grid_1.png"]), "chance has the seed, too"


def test_a_seed_has_its_own_class_unless_one_is_asked_for(
    tmp_path: Path, render: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_flat_run(tmp_path / "run", "generator_options.label_dim=3")
    one = render(run, "--seed", "0", "--class", "1", size=FLAT)["grid_0.png"]
    assert np.array_equal(one, flat_picture(run, 0))
    assert not np.array_equal(
        render(run, "--seed", "0", "--class", "2", size=FLAT)["grid_0.png"], one
    )
    own = render(run, "--seeds", "3-5", size=FLAT)
    assert np.array_equal(own["grid_4.png"], flat_picture(run, 4)), "4 is 1 of three classes"
    assert not np.array_equal(own["grid_3.png"], flat_picture(run, 3))
    for wrong in ("3", "-1"):
        assert run_main(SCRIPT, [str(run), "--seed", "0", "--class", wrong], monkeypatch) == 2
        assert f"--class: must be one of 0 to 2, got {wrong}" in capsys.readouterr().err


def test_stylegan3_pictures_are_moved(
    tmp_path: Path, render: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_flat_run(tmp_path / "run", generator="StyleGAN3")
    words = ["--seed", "0", "--translate=-0.25,0.5", "--rotate", "30"]
    moved = render(run, *words, size=FLAT)["grid_0.png"]
    transform = input_transform((-0.25, 0.5), 30)
    assert np.array_equal(moved, flat_picture(run, 0, transform=transform))
    assert not np.array_equal(moved, flat_picture(run, 0))
    assert run_main(SCRIPT, [str(run), "--noise_mode", "none"], monkeypatch) == 2
    assert "--noise_mode: a StyleGAN3 cannot do that" in capsys.readouterr().err


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere/generator.pth"], "no such checkpoint file"),
        (["nowhere"], "no such checkpoint file"),
        (["RUN", "--seeds", "x"], "seeds are numbers"),
        (["RUN", "--seeds", "-1"], "--seeds"),
        (["RUN", "--seeds", "3-1"], "seeds are numbers"),
        (["RUN", "--image_size", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "--turnaround", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "--max_batch_size", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "--ema", "ema9.pth"], "no such checkpoint file"),
        (["RUN", "--curriculum", "Celeba"], "did you mean 'CelebA'?"),
        (["RUN", "--device", "abacus"], "is not available"),
        (["RUN/text.pth"], "text.pth is damaged or not a checkpoint"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_code_2(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str,
) -> None:  # fmt: skip
    (run / "text.pth").write_text("hello")
    monkeypatch.chdir(tmp_path)
    words = [word.replace("RUN", str(run)) for word in arguments]
    out = ["--output_dir", str(tmp_path / "out")]
    assert run_main(SCRIPT, [words[0], "--image_size", "8", *out, *words[1:]], monkeypatch) == 2
    told = capsys.readouterr().err
    assert complaint in told and "Traceback" not in told
    assert len([line for line in told.splitlines() if "error: " in line]) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    words = [str(run), "--image_size", "8", "--seeds", "0", "--output_dir", str(tmp_path / "file")]
    assert run_main(SCRIPT, words, monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: ")

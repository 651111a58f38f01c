"""inverse_render.py from the command line, on tiny generators and pictures that they made."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, run_main

from curriculums import Curriculum, stage_at, with_overrides
from inference.checkpoint import build_generator, load_generator, network_state, save_files
from inference.inversion import FLAT_PRIOR, average_style, coordinates, principal_directions
from inference.inversion_options import expand_prior
from inference.latents import load_cameras, load_latents, named_styles
from inference.media import save_png, to_uint8
from inference.views import seeded_latents
from rendering.cameras import Cameras
from rendering.settings import RenderSettings

SCRIPT = "inverse_render.py"
SIZE = 12
OPTIONS = {"hidden_dim": 16, "num_layers": 2, "mapping_dim": 8, "box_side": 1.5,
           "density_gain": 60.0, "bound_radius": 0.25}  # fmt: skip
FIELD: Curriculum = {**TINY, "generator_options": OPTIONS, "hierarchical_sample": False, "fov": 25}
FLAT: Curriculum = with_overrides(
    {**TINY, "generator": "StyleGAN2"},
    [
        "generator_options={'resolution': 8, 'w_dim': 8, 'channel_base': 64, 'channel_max': 8,"
        " 'mapping_layers': 2}"
    ],
)

TURNING: Curriculum = {**FLAT, "generator": "RayConditionedStyleGAN2", "fov": 25}


def write_run(directory: Path, curriculum: Curriculum, step: int = 3) -> Path:
    """A run's directory of a generator that has seen nothing, but can be told from all sides."""
    torch.manual_seed(3)
    generator, record = build_generator(stage_at(curriculum, 0))
    with torch.no_grad():
        if record["class"] == "PiGAN":
            generator.get_parameter("siren.final_layer.bias").add_(0.5)
            generator.get_parameter("siren.color_layer_linear.0.weight").mul_(8)
            generator.get_parameter("mapping_network.network.6.weight").mul_(2)
        else:
            generator.w_avg.copy_(generator.mapping(torch.randn(100, generator.latent_dim)).mean(0))
            for name, parameter in generator.named_parameters():
                if name.endswith("torgb.weight"):  # colours that a picture can hold
                    parameter.mul_(0.2)
    generator.update_w_avg()
    state = network_state(generator, record, step)
    save_files(directory, {"generator.pth": {**state, "curriculum": curriculum}, "ema.pth": state})
    return directory


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", FIELD)


def settings_of(run: Path, size: int = SIZE) -> RenderSettings:
    stage = stage_at(load_generator(run)[1], 3)
    return stage.eval_settings(resolution=size, num_steps=2 * stage.num_steps)


@torch.no_grad()
def show(run: Path, w: torch.Tensor, camera: Cameras, size: int = SIZE) -> torch.Tensor:
    generator, _ = load_generator(run)
    return generator.synthesis(w, camera, settings_of(run, size)).image


def a_style(run: Path) -> torch.Tensor:
    """A style one spread from the average, along the widest direction."""
    generator, _ = load_generator(run)
    return average_style(generator) + principal_directions(generator)[:1]


@pytest.fixture
def picture(run: Path, tmp_path: Path) -> Path:
    """What camera 0.3 beside the front sees."""
    camera = Cameras.from_angles(1.8, 1.5, 25.0)
    save_png(tmp_path / "known.png", to_uint8(show(run, a_style(run), camera))[0])
    return tmp_path / "known.png"


@pytest.fixture
def invert(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs the script; returns the folder that it wrote."""

    def call(run: Path, picture: Path, *arguments: str) -> Path:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        words = [str(run), str(picture), "--output_dir", str(folder), "--device", "cpu"]
        assert run_main(SCRIPT, [*words, *arguments], monkeypatch) == 0
        return folder

    return call


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(float)


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(one - other).mean(), 1e-9)))


# -- what is written


def test_a_picture_of_a_known_style_and_camera_is_found_again(
    run: Path, picture: Path, invert: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = invert(run, picture, "--image_size", str(SIZE), "--yaw", "0.3", "--steps", "150",
                    "--view_size", str(SIZE), "--num_frames", "3")  # fmt: skip
    assert {f.name for f in folder.iterdir()} == {
        "gt.png", "0100.png", "views.png", "latent.npz", "reconstructed.mp4",
    }  # fmt: skip
    target, views = pixels(picture), pixels(folder / "views.png")
    assert np.array_equal(pixels(folder / "gt.png"), target)
    assert views.shape == (SIZE, 8 * SIZE, 3)
    assert decibels(views[:, :SIZE], target) > 30
    average = to_uint8(show(run, average_style(load_generator(run)[0]),
                            Cameras.from_angles(1.8, 1.5, 25.0)))[0].numpy()  # fmt: skip
    assert decibels(average, target) < 25, "there was something to find"
    for column, yaw in ((1, -0.7), (3, -0.3), (7, 0.7)):
        camera = Cameras.from_angles(1.8 + yaw, 1.5, 25.0)
        known = to_uint8(show(run, a_style(run), camera))[0].numpy()
        assert decibels(views[:, column * SIZE : (column + 1) * SIZE], known) > 28
    with np.load(folder / "latent.npz") as archive:
        assert float(archive["psnr"]) > 30
    assert f"PSNR {float(np.load(folder / 'latent.npz')['psnr']):.2f} dB" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", [21, 22, 23])
def test_defaults_find_any_style_from_the_average_one(
    run: Path, invert: Any, tmp_path: Path, seed: int
) -> None:
    """With the documented steps: 30 dB of a random style from a known camera of a full turn."""
    generator, _ = load_generator(run)
    w = generator.mapping(seeded_latents([seed], generator.latent_dim), psi=0.8).detach()
    yaw, pitch = 1.5 + 2.0 * (seed - 21), 1.2 + 0.2 * (seed - 21)  # the pose law's middle is 1.5
    camera = Cameras.from_angles(yaw, pitch, 25.0)
    save_png(tmp_path / "known.png", to_uint8(show(run, w, camera))[0])
    folder = invert(run, tmp_path / "known.png", "--image_size", str(SIZE), "--no_video",
                    "--yaw", str(yaw - 1.5), "--pitch", str(pitch - 1.5))  # fmt: skip
    target = pixels(tmp_path / "known.png")
    average = to_uint8(show(run, average_style(generator), camera))[0].numpy()
    fitted, at = load_latents(folder / "latent.npz"), load_cameras(folder / "latent.npz")
    assert at is not None
    gained = decibels(to_uint8(show(run, fitted, at))[0].numpy(), target)
    assert gained > max(30, decibels(average, target) + 6)
    for turn in (1.6, 3.1, 4.7):
        aside = Cameras.from_angles(yaw + turn, pitch, 25.0)
        known, found, mean = (
            to_uint8(show(run, style, aside))[0].numpy().astype(float)
            for style in (w, fitted, average_style(generator))
        )
        assert decibels(found, known) > decibels(mean, known) + 3


def test_the_latent_file_shows_the_same_in_place_of_seeds(
    run: Path, picture: Path, invert: Any
) -> None:
    folder = invert(run, picture, "--image_size", str(SIZE), "--steps", "2", "--yaw", "0.3",
                    "--view_size", str(SIZE), "--no_video")  # fmt: skip
    generator, _ = load_generator(run)
    ((name, w),) = named_styles(generator, [0], latent=folder / "latent.npz")
    camera = load_cameras(folder / "latent.npz")
    assert name == "latent" and camera is not None
    assert camera.yaw_pitch[0].tolist() == pytest.approx([1.8, 1.5])
    assert float(camera.fov) == 25
    again = to_uint8(show(run, w, camera))[0].numpy()
    assert np.array_equal(again, pixels(folder / "views.png")[:, :SIZE])
    assert "reconstructed.mp4" not in {f.name for f in folder.iterdir()}


def test_a_fit_goes_on_from_a_latent_file_and_its_camera(
    run: Path, picture: Path, invert: Any
) -> None:
    common = ["--image_size", str(SIZE), "--no_video"]
    first = invert(run, picture, *common, "--steps", "60", "--yaw", "0.3")
    more = invert(run, picture, *common, "--steps", "1", "--lr", "0",
                  "--latent", str(first / "latent.npz"))  # fmt: skip
    torch.testing.assert_close(
        load_latents(more / "latent.npz"), load_latents(first / "latent.npz")
    )
    one, other = load_cameras(first / "latent.npz"), load_cameras(more / "latent.npz")
    assert one is not None and other is not None
    torch.testing.assert_close(one.cam2world, other.cam2world)


def test_pictures_of_any_size_lose_what_is_outside_their_central_square(
    run: Path, invert: Any, tmp_path: Path
) -> None:
    wide = np.full((24, 60, 3), 200, np.uint8)
    wide[:, 18:42] = np.arange(24, dtype=np.uint8)[:, None, None] * 10
    Image.fromarray(wide).save(tmp_path / "wide.jpg", quality=95)
    few = ["--steps", "1", "--no_video", "--view_size", "4"]
    folder = invert(run, tmp_path / "wide.jpg", "--image_size", "6", *few)
    square = pixels(folder / "gt.png")
    assert square.shape == (6, 6, 3)
    wanted = wide[:, 18:42].reshape(6, 4, 24, 3).mean((1, 2))
    assert np.abs(square.mean(1) - wanted).max() < 8


def test_tuning_saves_a_generator_that_shows_the_picture(
    run: Path, picture: Path, invert: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mirrored = picture.with_name("mirrored.png")
    Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    folder = invert(run, mirrored, "--edit", "--yaw", "0.3", "--image_size", str(SIZE),
                    "--steps", "5", "--pivotal_steps", "40", "--pivotal_lr", "2e-3",
                    "--no_video", "--progress_interval", "40")  # fmt: skip
    with np.load(folder / "latent.npz") as archive:
        before, after = float(archive["psnr"]), float(archive["tuned_psnr"])
    assert after > before + 5
    assert {"tuned_0040.png", "tuned"} <= {f.name for f in folder.iterdir()}
    w, camera = load_latents(folder / "latent.npz"), load_cameras(folder / "latent.npz")
    assert camera is not None and float(camera.yaw_pitch[0, 0]) == pytest.approx(1.8)
    shown = to_uint8(show(folder / "tuned", w, camera))[0].numpy()
    assert decibels(shown, pixels(mirrored)) == pytest.approx(after, abs=0.3)
    assert load_generator(folder / "tuned")[1] == load_generator(run)[1]
    assert f"{after:.2f} dB" in capsys.readouterr().out


def test_a_flat_generator_fits_styles_and_nothing_else(tmp_path: Path, invert: Any) -> None:
    run = write_run(tmp_path / "flat", FLAT)
    camera = Cameras.from_angles(1.5, 1.5, 25.0)
    save_png(tmp_path / "known.png", to_uint8(show(run, a_style(run), camera, 8))[0])
    folder = invert(run, tmp_path / "known.png", "--steps", "100")
    assert {f.name for f in folder.iterdir()} == {"gt.png", "0100.png", "views.png", "latent.npz"}
    views = pixels(folder / "views.png")
    assert views.shape == (8, 8, 3)
    assert decibels(views, pixels(tmp_path / "known.png")) > 30
    assert load_cameras(folder / "latent.npz") is None


def test_the_pose_is_fitted_when_asked_for(run: Path, picture: Path, invert: Any) -> None:
    folder = invert(run, picture, "--image_size", str(SIZE), "--steps", "200", "--fit_pose",
                    "--yaw", "0.2", "--no_video", "--noise", "0.05")  # fmt: skip
    camera = load_cameras(folder / "latent.npz")
    assert camera is not None
    assert (camera.yaw_pitch[0] - torch.tensor([1.8, 1.5])).abs().max() < 0.06


def test_only_generators_without_geometry_have_a_prior_unless_it_is_asked_for() -> None:
    solid, turning = (
        build_generator(stage_at(FIELD, 0))[0],
        build_generator(stage_at(TURNING, 0))[0],
    )
    for generator, given, space, expected in (
        (solid, None, "principal", 0.0),
        (turning, None, "principal", FLAT_PRIOR),
        (turning, 0.0, "principal", 0.0),
        (solid, 0.2, "principal", 0.2),
        (turning, None, "free", None),
    ):
        args = argparse.Namespace(style_space=space, prior=given)
        expand_prior(args, generator)
        assert args.prior == expected


def test_a_picture_is_edited_by_a_generator_without_geometry(tmp_path: Path, invert: Any) -> None:
    run = write_run(tmp_path / "turning", TURNING)
    camera = Cameras.from_angles(1.8, 1.5, 25.0)
    generator, _ = load_generator(run)
    w = generator.mapping(seeded_latents([5], generator.latent_dim), psi=0.8).detach()
    save_png(tmp_path / "known.png", to_uint8(show(run, w, camera, 8))[0])
    common = ["--steps", "20", "--edit", "--pivotal_steps", "40", "--no_video", "--yaw", "0.3"]
    near = invert(run, tmp_path / "known.png", *common)
    far = invert(run, tmp_path / "known.png", *common, "--prior", "0")
    directions = principal_directions(generator)
    spread = [
        coordinates(load_latents(f / "latent.npz") - average_style(generator), directions)
        for f in (near, far)
    ]
    assert spread[0].square().mean() < 0.7 * spread[1].square().mean()
    with np.load(near / "latent.npz") as archive:
        assert float(archive["tuned_psnr"]) > float(archive["psnr"]) + 1


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["RUN", "nowhere.png"], "No such file or directory: 'nowhere.png'"),
        (["RUN", "text.png"], "text.png is not a picture that can be read"),
        (["RUN", "."], "Is a directory"),
        (["nowhere", "known.png"], "no such checkpoint file"),
        (["RUN", "known.png", "--steps", "0"], "must be a whole number above 0, got '0'"),
        (["RUN", "known.png", "--image_size", "0"], "must be a whole number above 0"),
        (["RUN", "known.png", "--lr", "-1"], "must not be negative, got '-1'"),
        (["RUN", "known.png", "--prior", "-1"], "must not be negative, got '-1'"),
        (["RUN", "known.png", "--prior", "1", "--style_space", "free"], "have no coordinates"),
        (["RUN", "known.png", "--yaw", "nan"], "must be a finite number, got 'nan'"),
        (["RUN", "known.png", "--fov", "180"], "must be between 0 and 180 degrees"),
        (["RUN", "known.png", "--latent", "nowhere.npz"], "No such file"),
        (["RUN", "known.png", "--latent", "known.png"], "known.png is not a latent file"),
        (["RUN", "known.png", "--latent", "other.npz"], "other.npz is from another generator"),
        (["RUN", "known.png", "--curriculum", "Celeba"], "did you mean 'CelebA'?"),
        (["FLAT", "known.png", "--fit_pose"], "--fit_pose: a StyleGAN2 is blind to cameras"),
        (["FLAT", "known.png", "--yaw", "0"], "--yaw: a StyleGAN2 is blind to cameras"),
        (["FLAT", "known.png", "--edit"], "--edit: a StyleGAN2 is blind to cameras"),
        (["FLAT", "known.png", "--image_size", "16"], "pictures have 8 pixels a side"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_code_2(
    run: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str,
) -> None:  # fmt: skip
    flat = write_run(tmp_path / "flat", FLAT) if "FLAT" in arguments else run
    (tmp_path / "text.png").write_text("hello")
    np.savez(tmp_path / "other.npz", w=np.ones((1, 3)))
    monkeypatch.chdir(tmp_path)
    names = {"RUN": str(run), "FLAT": str(flat)}
    words = [names.get(word, word) for word in arguments]
    assert run_main(SCRIPT, [*words, "--output_dir", "out"], monkeypatch) == 2
    told = capsys.readouterr().err
    assert complaint in told and "Traceback" not in told
    assert len([line for line in told.splitlines() if "error: " in line]) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_before_any_work(
    run: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("in the way")
    words = [str(run), str(picture), "--output_dir", str(tmp_path / "file"), "--steps", "100000"]
    assert run_main(SCRIPT, words, monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_help_is_documentation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(SCRIPT, ["--help"], monkeypatch) == 0
    told = capsys.readouterr().out
    for flag in (
        "--image_size",
        "--num_frames",
        "--max_batch_size",
        "--seed",
        "--edit",
        "--latent",
    ):
        assert flag in told
    assert "latent.npz" in told and "reconstructed.mp4" in told

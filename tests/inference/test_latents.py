"""Styles of seeds, and styles kept in files."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from generators.epigraf import EpiGRAF
from generators.pigan import PiGAN
from inference.latents import (
    add_latents,
    load_cameras,
    load_latents,
    named_styles,
    save_latents,
)
from inference.views import seeded_latents
from rendering.cameras import Cameras

Build = Callable[..., PiGAN]


def test_styles_of_seeds_are_truncated_and_named_by_them(tiny_pigan: Build) -> None:
    generator = tiny_pigan()
    styles = named_styles(generator, [4, 11], psi=0.3)
    expected = generator.mapping(seeded_latents([4, 11], 6), psi=0.3)
    assert [name for name, _ in styles] == ["4", "11"]
    for i, (_, w) in enumerate(styles):
        torch.testing.assert_close(w, expected[i : i + 1])
        assert not w.requires_grad
    uniform = named_styles(generator, [4], z_dist="uniform")[0][1]
    expected = generator.mapping(seeded_latents([4], 6, "uniform"))
    torch.testing.assert_close(uniform, expected)


def test_a_file_is_what_was_saved(tmp_path: Path, tiny_pigan: Build) -> None:
    generator = tiny_pigan()
    w = torch.randn(3, *generator.w_avg.shape)
    cameras = Cameras.from_angles(torch.tensor([0.1, 7.0, -2.0]), 1.2, 30.0, 1.5)
    path = tmp_path / "folder" / "faces.npz"
    save_latents(path, w, cameras, {"psnr": 31.5, "loss": "mse"})
    assert torch.equal(load_latents(path), w)
    loaded = load_cameras(path)
    assert loaded is not None
    torch.testing.assert_close(loaded.cam2world, cameras.cam2world)
    torch.testing.assert_close(loaded.yaw_pitch, cameras.yaw_pitch)
    assert torch.equal(loaded.fov, cameras.fov)
    with np.load(path) as archive:
        assert float(archive["psnr"]) == 31.5 and str(archive["loss"]) == "mse"
    styles = named_styles(generator, [0, 1], latent=path, psi=0.1)
    assert [name for name, _ in styles] == ["faces_0", "faces_1", "faces_2"]
    assert torch.equal(torch.cat([style for _, style in styles]), w), "psi leaves them alone"


def test_a_single_style_has_the_files_name(tmp_path: Path, tiny_pigan: Build) -> None:
    generator = tiny_pigan()
    path = tmp_path / "face.npz"
    save_latents(path, generator.w_avg[None])
    ((name, w),) = named_styles(generator, [], latent=path)
    assert name == "face" and torch.equal(w, generator.w_avg[None])
    assert load_cameras(path) is None


def test_a_name_without_suffix_stays_as_it_is(tmp_path: Path) -> None:
    save_latents(tmp_path / "face", torch.ones(1, 2))
    assert [f.name for f in tmp_path.iterdir()] == ["face"]
    assert torch.equal(load_latents(tmp_path / "face"), torch.ones(1, 2))


def test_styles_of_another_generator_are_refused(tmp_path: Path, tiny_pigan: Build) -> None:
    path = tmp_path / "face.npz"
    save_latents(path, torch.zeros(1, 17))
    with pytest.raises(ValueError, match=r"from another generator: its styles have shape \(17,\)"):
        named_styles(tiny_pigan(), [0], latent=path)


def write(path: Path, **arrays: np.ndarray) -> None:
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]


def test_what_is_no_latent_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"x\.npz is not a latent file"):
        load_latents(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.npz is not a latent file"):
        load_latents(path)
    with open(path, "wb") as stream:
        np.save(stream, np.ones(3))
    with pytest.raises(ValueError, match=r"x\.npz is not a latent file"):
        load_latents(path)
    write(path, v=np.ones((1, 2)))
    with pytest.raises(ValueError, match="it has no 'w'"):
        load_latents(path)
    for bad in (np.ones(3), np.ones((1, 3), int), np.ones((0, 3)), np.array([["a"]])):
        write(path, w=bad)
        with pytest.raises(ValueError, match="'w' must be floating"):
            load_latents(path)
    write(path, w=np.full((1, 2), np.nan))
    with pytest.raises(ValueError, match="not finite"):
        load_latents(path)
    write(path, w=np.ones((1, 2)), yaw=np.zeros(1))
    with pytest.raises(ValueError, match="a yaw but no fov"):
        load_cameras(path)
    with pytest.raises(ValueError, match="is a directory"):
        load_latents(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_latents(tmp_path / "y.npz")


def test_pickled_objects_are_never_run(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write(path, w=np.array([[{"a": 1}]], dtype=object))
    with pytest.raises(ValueError, match="not a latent file"):
        load_latents(path)


def test_a_camera_for_each_style_and_a_name_for_each_fact(tmp_path: Path) -> None:
    cameras = Cameras.from_angles(math.pi, 1.0, 30.0)
    with pytest.raises(ValueError, match="a camera per style, got 2 and 1"):
        save_latents(tmp_path / "x.npz", torch.zeros(2, 3), cameras)
    with pytest.raises(ValueError, match="'w' is taken"):
        save_latents(tmp_path / "x.npz", torch.zeros(1, 3), None, {"w": 1.0})


def test_the_command_line_takes_seeds_or_a_file() -> None:
    parser = argparse.ArgumentParser()
    add_latents(parser)
    assert parser.parse_args([]).latent is None
    args = parser.parse_args(["--seeds", "3", "5-6", "--latent", "a.npz"])
    assert args.latent == Path("a.npz") and args.seeds == [[3], [5, 6]]


def test_classes_are_truncated_towards_their_own_average_where_a_generator_says_so() -> None:
    generator = EpiGRAF(
        latent_dim=4,
        label_dim=3,
        w_dim=8,
        plane_resolution=8,
        feature_dim=2,
        channel_base=32,
        channel_max=4,
        pose_conditioning=True,
    )
    with generator.tracking():
        generator.style(torch.randn(8, 4), torch.arange(8) % 3)
    camera = Cameras.from_angles(torch.tensor([0.3]), 1.2, 30.0)
    z = seeded_latents([5, 6], 4)
    rng = torch.Generator().manual_seed(0)
    many = torch.randn(256, 4, generator=rng)
    own = generator.style(many, torch.full((256,), 2), Cameras.cat([camera] * 256)).mean(0)
    for psi, cutoff in ((0.0, None), (0.3, None), (0.3, 2)):
        found = named_styles(generator, [5, 6], psi=psi, cutoff=cutoff, label=2, camera=camera)
        w = generator.style(z, torch.tensor([2, 2]), Cameras.cat([camera] * 2))
        expected = own + psi * (w - own)
        if cutoff is not None:
            expected = torch.cat([expected[:, :cutoff], w[:, cutoff:]], dim=1)
        torch.testing.assert_close(torch.cat([style for _, style in found]), expected)
    assert (own - generator.w_avg).abs().max() > 1e-3, "another average would have been seen"
    generator.truncates_by_class = False
    ((_, plain),) = named_styles(generator, [5], psi=0.0, label=2, camera=camera)
    assert torch.equal(plain[0], generator.w_avg)

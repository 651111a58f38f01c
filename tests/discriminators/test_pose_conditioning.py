"""Discriminators that judge pictures together with their cameras."""

from pathlib import Path

import pytest
import torch
from tiny_runs import run_main, tiny_curriculum, write_pictures

import interop
from discriminators import DISCRIMINATORS
from discriminators.pyramid import PyramidDiscriminator
from rendering.cameras import Cameras
from toys.dataset import write_toys

NAMES = [name for name in DISCRIMINATORS if issubclass(DISCRIMINATORS[name], PyramidDiscriminator)]
SMALL = {"base": 64, "max_channels": 8, "max_size": 16}
CONDITIONED = "discriminator_options.pose_conditioning=True"


@pytest.mark.parametrize("name", NAMES)
def test_judgements_depend_on_the_camera_and_not_on_whole_turns(name: str) -> None:
    discriminator = DISCRIMINATORS[name](**SMALL, pose_conditioning=True)
    images, yaw = torch.randn(2, 3, 16, 16), torch.tensor([0.3, 1.2])
    here = discriminator(images, cameras=Cameras.from_angles(yaw, 1.3, 50.0)).logits
    turned = discriminator(images, cameras=Cameras.from_angles(yaw + 6.2831853, 1.3, 50.0)).logits
    there = discriminator(images, cameras=Cameras.from_angles(yaw + 1, 1.3, 50.0)).logits
    torch.testing.assert_close(here, turned, rtol=1e-4, atol=1e-5)
    assert (here - there).abs().min() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_unconditioned_judgements_do_not_look_at_cameras(name: str) -> None:
    discriminator = DISCRIMINATORS[name](**SMALL)
    images, cameras = torch.randn(2, 3, 16, 16), Cameras.from_angles(torch.rand(2), 1.3, 50.0)
    with_cameras = discriminator(images, cameras=cameras).logits
    torch.testing.assert_close(with_cameras, discriminator(images).logits, rtol=0, atol=0)


def test_cameras_are_needed_and_the_original_has_no_such_thing() -> None:
    discriminator = DISCRIMINATORS["ProgressiveDiscriminator"](**SMALL, pose_conditioning=True)
    with pytest.raises(ValueError, match="needs the pictures' cameras"):
        discriminator(torch.randn(2, 3, 16, 16))
    with pytest.raises(ValueError, match="pose_conditioning"):
        interop.export("pigan", "discriminator", discriminator)


def test_training_needs_camera_angles_and_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    write_toys(tmp_path / "toys.zip", 6, 8)
    for source, code in ((write_pictures(tmp_path / "pictures"), 2), (tmp_path / "toys.zip", 0)):
        curriculum = tiny_curriculum(source, CONDITIONED, "dataset_options={}")
        file, run = tmp_path / f"{code}.json", tmp_path / f"run{code}"
        file.write_text(json.dumps(curriculum))
        arguments = ["--curriculum", str(file), "--output_dir", str(run), "--n_steps", "2"]
        assert run_main("train.py", [*arguments, "--device", "cpu"], monkeypatch) == code
        assert run.exists() == (code == 0)
    assert "needs camera angles or labels, and" in capsys.readouterr().err

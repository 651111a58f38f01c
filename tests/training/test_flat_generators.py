"""A 2D generator trains through the same steps: what a run of StyleGAN2 needs from the trainer."""

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import run_main, tiny_curriculum, write_pictures

from inference.checkpoint import load_generator, read_file


def test_stylegan2_trains_and_its_average_style_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    curriculum = tiny_curriculum(
        write_pictures(tmp_path / "pictures"),
        "generator=StyleGAN2",
        "generator_options={'resolution': 16, 'w_dim': 8, 'channel_base': 128, 'channel_max': 8}",
        "discriminator=StyleGAN2Discriminator",
        "discriminator_options={'resolution': 16, 'channel_base': 128, 'channel_max': 8}",
        "img_size=16",
        "pos_lambda=0",
        "z_lambda=0",
        "batch_split=1",
    )
    file, run = tmp_path / "flat.json", tmp_path / "run"
    file.write_text(json.dumps(curriculum))
    arguments = ["--curriculum", str(file), "--output_dir", str(run), "--device", "cpu"]
    assert run_main("train.py", [*arguments, "--n_steps", "2"], monkeypatch) == 0
    assert read_file(run / "generator.pth")["step"] == 2
    generator, _ = load_generator(run)
    raw, _ = load_generator(run, ema=None)
    assert generator.w_avg.abs().sum() > 0
    torch.testing.assert_close(generator.w_avg, raw.w_avg, rtol=0, atol=0)
    show = [
        str(run),
        "--seeds",
        "0-1",
        "--output_dir",
        str(tmp_path / "imgs"),
        "--image_size",
        "16",
    ]
    assert run_main("render_multiview_images.py", show, monkeypatch) == 0
    assert run_main("render_multiview_images.py", [*show, "--depth"], monkeypatch) == 2

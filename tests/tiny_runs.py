"""Training runs that take a second: a curriculum, pictures, and whole runs compared bit for bit."""

import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curriculums import Curriculum, stage_at, with_overrides
from inference.checkpoint import build_generator, network_state, save_files

ROOT = Path(__file__).parents[1]

TINY: Curriculum = {
    0: {"batch_size": 4, "num_steps": 4, "img_size": 8, "gen_lr": 1e-3, "disc_lr": 1e-3},
    6: {"batch_size": 2, "num_steps": 4, "img_size": 16, "gen_lr": 5e-4, "disc_lr": 1e-3},
    40: {},
    "fov": 40,
    "ray_start": 0.6,
    "ray_end": 1.4,
    "fade_steps": 5,
    "sample_dist": "gaussian",
    "h_mean": 1.5,
    "h_stddev": 0.3,
    "v_mean": 1.5,
    "v_stddev": 0.15,
    "latent_dim": 6,
    "r1_lambda": 1,
    "grad_clip": 5,
    "pos_lambda": 1,
    "z_lambda": 0.5,
    "topk_interval": 3,
    "topk_v": 0.6,
    "batch_split": 2,
    "nerf_noise_steps": 30,
    "generator": "PiGAN",
    "model": "SpatialSiren",
    "generator_options": {"hidden_dim": 8, "num_layers": 2, "mapping_dim": 8},
    "discriminator": "CCSEncoderDiscriminator",
    "discriminator_options": {"base": 64, "max_channels": 8, "max_size": 32},
    "dataset": "ImageFolder",
    "dataset_options": {"mirror": True},
    "white_back": True,
    "sample_images": 2,
    "eval_images": 4,
}


def tiny_curriculum(pictures: Path, *changes: str) -> Curriculum:
    """TINY on a folder of pictures, with `--set` style changes."""
    return with_overrides(TINY, [f"dataset_path={str(pictures)!r}", *changes])


def write_pictures(folder: Path, count: int = 12, size: int = 20) -> Path:
    """Smooth coloured pictures, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, size)
    for i in range(count):
        picture = np.stack([ramp[None] * np.ones((size, 1)), np.full((size, size), 20 * i),
                            255 - ramp[:, None] * np.ones((1, size))], axis=-1)  # fmt: skip
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i:03d}.png")
    return folder


def write_run(directory: Path, *changes: str, step: int = 3, curriculum: Curriculum = TINY) -> Path:
    """A run's directory; the average in ema.pth has other weights than the generator."""
    curriculum = with_overrides(curriculum, list(changes))
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        generator, record = build_generator(stage_at(curriculum, 0))
        with torch.no_grad():  # so that there is something to be seen
            for name, weight in generator.named_parameters():
                if name == "siren.final_layer.weight":
                    weight.mul_(100)
        generator.update_w_avg()
        states.append(network_state(generator, record, step))
    save_files(
        directory,
        {"generator.pth": {**states[0], "curriculum": curriculum}, "ema.pth": states[1]},
    )
    return directory


def write_flat_run(directory: Path, *changes: str, generator: str = "StyleGAN2") -> Path:
    """A run's directory of a 2D generator of 16 pixels."""
    options = {"resolution": 16, "channel_base": 128, "channel_max": 12, "mapping_layers": 2,
               "w_dim": 8, **({"num_layers": 4} if generator == "StyleGAN3" else {})}  # fmt: skip
    flat = [f"generator={generator!r}", f"generator_options={options!r}", "0.img_size=16"]
    return write_run(directory, *flat, *changes)


def run_files(directory: Path) -> dict[str, Any]:
    """The content of every checkpoint file of a run."""
    return {f.name: torch.load(f, weights_only=True) for f in sorted(directory.glob("*.pth"))}


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two nested pieces of plain data and tensors are not the same, to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return [] if same else [where]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        odd = [f"{where}/{key}" for key in a.keys() ^ b.keys()]
        return odd + [
            d for k in a.keys() & b.keys() for d in differences(a[k], b[k], f"{where}/{k}")
        ]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [where]
        return [d for i in range(len(a)) for d in differences(a[i], b[i], f"{where}/{i}")]
    return [] if a == b else [where]


def run_main(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a script as `python script arguments` would, in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0

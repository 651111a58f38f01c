"""Every registered generator through the rendering scripts, which know none of them by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import read_film
from tiny_plugins import every_generator
from tiny_runs import run_main, write_run

from generators import GENERATORS
from generators.base import RadianceGenerator

SIZE = 8


@every_generator
def test_a_generator_is_filmed_and_interpolated(
    name: str, options: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dict(options or {})
    latent_dim = options.pop("latent_dim", 6)
    model = options.pop("model", "SpatialSiren")
    size = options.get("resolution", SIZE)
    radiance = issubclass(GENERATORS[name], RadianceGenerator)
    changes = {"generator": name, "generator_options": options, "latent_dim": latent_dim}
    words = [f"{key}={value!r}" for key, value in changes.items()]
    run = write_run(tmp_path / "run", *words, f"model={model!r}", f"0.img_size={size}")
    flags = ["--image_size", str(size), "--format", "png", "--output_dir", str(tmp_path / "out")]
    flags += ["--class", "1"] if options.get("label_dim") else []
    flags += ["--depth", "--normals", "--opacity"] if radiance else []
    still = [*flags, "--trajectory", "points", "--yaws", "0"]
    assert run_main("render_video.py", [str(run), "--seed", "1", *still], monkeypatch) == 0
    film = read_film(tmp_path / "out" / "1")
    assert film.shape == (1, size, (4 if radiance else 1) * size, 3)
    words = [str(run), "--seeds", "0-1", "--w_frames", "2", *still]
    assert run_main("render_video_interpolation.py", words, monkeypatch) == 0
    loop = read_film(tmp_path / "out" / "interp")
    assert np.abs(loop[2].astype(int) - film[0])[:, :size].max() <= 1

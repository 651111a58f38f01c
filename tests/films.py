"""Reading films back, by ffmpeg itself: imageio's reader leaves pipes open."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image


def read_film(path: Path) -> np.ndarray:
    """The frames (n, height, width, 3) of a film or of a folder of PNGs."""
    if path.is_dir():
        frames = []
        for file in sorted(path.iterdir()):
            with Image.open(file) as image:
                frames.append(np.asarray(image))
        return np.stack(frames)
    height, width = film_size(path)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"],
        capture_output=True,
        check=True,
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def film_facts(path: Path) -> str:
    """What ffmpeg says about a film's stream."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    told = subprocess.run(command, capture_output=True, text=True).stderr
    return next(line.strip() for line in told.splitlines() if "Video:" in line)


def film_size(path: Path) -> tuple[int, int]:
    """Height and width of a film."""
    found = re.search(r", (\d+)x(\d+)", film_facts(path))
    assert found
    return int(found[2]), int(found[1])

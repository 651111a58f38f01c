"""Transforms of the data set tool: windows of pictures, resized onto canvases of one size.

    None                 the whole picture, resized; its aspect is not kept
    center-crop          the largest centred square
    center-crop-wide     the central rows, letterboxed: as the official StyleGAN tool cuts them,
                         which keeps the aspect only of pictures that are as wide as the target
    center-letterbox     the largest centred window of the target's aspect, letterboxed

Letterboxed pictures are W x H in the middle of W x W, black above and below. Resizing is Pillow's
Lanczos filter. Camera labels (`rendering.camera_labels`) follow: their intrinsics are those of the
window.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

TRANSFORMS = ("center-crop", "center-crop-wide", "center-letterbox")
DISTORTION = 0.01  # a change of aspect beyond this is reported


class Window(NamedTuple):
    """The part of a picture, in units of its sides, that the canvas shows; it may reach beyond."""

    left: float
    top: float
    width: float
    height: float


WHOLE = Window(0, 0, 1, 1)


@dataclass(frozen=True)
class Picture:
    """A picture on its canvas, or why there is none."""

    pixels: Image.Image | None
    window: Window = WHOLE
    distorted: bool = False
    skipped: str = ""


def check_target(transform: str | None, target: tuple[int, int]) -> None:
    """Refuse a width and height that a transform cannot fill a square with."""
    if transform is not None and transform not in TRANSFORMS:
        raise ValueError(f"transform must be one of {TRANSFORMS}, got {transform!r}")
    width, height = target
    text = f"resolution {width}x{height}"
    if min(target) < 1:
        raise ValueError(f"{text}: both sides must be at least 1")
    if transform in (None, "center-crop") and width != height:
        raise ValueError(
            f"{text}: pictures must be square; give {height}x{height}, or the transform "
            "'center-letterbox' for pictures with black bars"
        )
    if height > width:
        raise ValueError(f"{text}: letterboxed pictures must be wider than high")


def transformed(image: Image.Image, transform: str | None, target: tuple[int, int]) -> Picture:
    """Put the transform's window of an RGB picture onto a canvas; `target` is width, height."""
    (width, height), (w, h) = image.size, target
    letterboxed = transform in ("center-crop-wide", "center-letterbox")
    cut = _cut(transform, image.size, target)
    if letterboxed and (cut[0] < w or cut[1] < h):
        return Picture(None, skipped=f"smaller than {w}x{h} after {transform}")
    left, top = (width - cut[0]) // 2, (height - cut[1]) // 2
    pixels = image
    if (cut, target) != (image.size, image.size):
        pixels = image.crop((left, top, left + cut[0], top + cut[1]))
        pixels = pixels.resize(target, Image.Resampling.LANCZOS)
    above = 0
    if letterboxed:
        canvas, above = Image.new("RGB", (w, w)), (w - h) // 2
        canvas.paste(pixels, (0, above))
        pixels = canvas
    row = cut[1] / h  # source pixels per pixel of the canvas
    shown = Window(
        left / width,
        (top - above * row) / height,
        cut[0] / width,
        pixels.size[1] * row / height,
    )
    return Picture(pixels, shown, abs(cut[0] * h / (cut[1] * w) - 1) > DISTORTION)


def _cut(transform: str | None, size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the centred part that is kept."""
    (width, height), (w, h) = size, target
    if transform is None:
        return size
    if transform == "center-crop":
        return min(size), min(size)
    if transform == "center-crop-wide":
        return width, round(w * height / width)
    scale = min(width / w, height / h)
    return round(w * scale), round(h * scale)


def windowed_label(label: np.ndarray, window: Window) -> np.ndarray:
    """A camera label of 25 numbers, with the intrinsics of a window of its picture."""
    intrinsics = label[16:].astype(np.float64).reshape(3, 3)
    to_window = np.array(
        [
            [1 / window.width, 0, -window.left / window.width],
            [0, 1 / window.height, -window.top / window.height],
            [0, 0, 1],
        ]
    )
    return np.concatenate([label[:16], (to_window @ intrinsics).ravel()])

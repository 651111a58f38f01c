"""Pictures on disk: fixed colour ranges, grids and strips."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ops.shapes import Float, UInt8


def quantize(
    images: Float[Tensor, "batch channels height width"],
) -> UInt8[Tensor, "batch channels height width"]:
    """Pictures in [-1, 1] as bytes, -1 black and 1 white whatever the picture's own range."""
    pixels = (images.float() * 0.5 + 0.5) * 255 + 0.5
    return pixels.clamp(0, 255).floor().to(torch.uint8)


def to_uint8(
    images: Float[Tensor, "batch channels height width"],
) -> UInt8[Tensor, "batch height width channels"]:
    """Pictures in [-1, 1] as bytes in the layout of files, on the CPU."""
    return quantize(images).permute(0, 2, 3, 1).cpu()


def tile(
    images: UInt8[Tensor, "batch height width channels"], columns: int
) -> UInt8[Tensor, "grid_height grid_width channels"]:
    """Lay pictures out row by row; an unfinished last row is filled with white."""
    batch, height, width, channels = images.shape
    rows = -(-batch // columns)
    grid = images.new_full((rows * columns, height, width, channels), 255)
    grid[:batch] = images
    grid = grid.reshape(rows, columns, height, width, channels)
    return grid.transpose(1, 2).reshape(rows * height, columns * width, channels)


def resize(
    pixels: UInt8[Tensor, "height width 3"], width: int
) -> UInt8[Tensor, "new_height new_width 3"]:
    """Bring a picture to a width, with its shape kept, by Lanczos' filter."""
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    image = Image.fromarray(pixels.numpy()).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image))


def save_png(path: Path, pixels: UInt8[Tensor, "height width channels"]) -> None:
    """Write one picture; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = pixels.numpy()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(path)


def depth_image(
    depth: Float[Tensor, "batch height width"],
    opacity: Float[Tensor, "batch height width"],
    near: float,
    far: float,
    *,
    last_back: bool = False,
) -> Float[Tensor, "batch 1 height width"]:
    """Depth as a picture in [-1, 1]: `near` white, `far` and emptiness black.

    The renderer's depth sums weight x distance, so the same sum of nearness needs no division: the
    weights sum to `opacity`, or with `last_back` to 1, the rest of it lying at the far end.
    """
    weights = torch.ones_like(opacity) if last_back else opacity
    nearness = ((far * weights - depth) / (far - near)).clamp(0, 1)
    return (2 * nearness - 1)[:, None]

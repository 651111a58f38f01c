"""Sets of pictures to be measured: files as they are, or a data set's training pictures.

A set is numbered from 0; `identity` changes whenever its pixels may, so that what was computed of
it can be kept.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from datasets import ImageDataset, decode_image
from image_files import find_images, read_annotations
from inference.media import quantize
from ops.shapes import UInt8


class Pictures(Protocol):
    """A numbered set of pictures of one size."""

    identity: str
    size: tuple[int, int]  # width and height in pixels
    labels: Tensor | None

    def __len__(self) -> int: ...

    def batch(self, numbers: Sequence[int]) -> UInt8[Tensor, "batch 3 height width"]:
        """Pictures by number, on the CPU."""
        ...


class FilePictures:
    """The pictures of a folder, a glob or a zip, at their own size, in the order of their names."""

    def __init__(self, path: str | Path) -> None:
        self._files = find_images(str(path))
        self._names = self._files.names
        stamps = json.dumps(self._files.stamps(self._names))
        self.identity = hashlib.sha256(stamps.encode()).hexdigest()[:32]
        labels = read_annotations(self._files).labels
        self.labels = None if labels is None else torch.from_numpy(labels)
        height, width = self._read(self._names[0]).shape[:2]
        self.size = (width, height)

    def __len__(self) -> int:
        return len(self._names)

    def batch(self, numbers: Sequence[int]) -> UInt8[Tensor, "batch 3 height width"]:
        """Pictures by number; ValueError where one has another size than the first."""
        arrays = []
        for number in numbers:
            array = self._read(self._names[number])
            height, width = array.shape[:2]
            if (width, height) != self.size:
                raise ValueError(
                    f"the pictures of {self._files.path!r} differ in size: {self._names[0]} has "
                    f"{self.size[0]}x{self.size[1]} pixels, {self._names[number]} {width}x{height}"
                )
            arrays.append(array)
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()

    def _read(self, name: str) -> np.ndarray:
        try:
            return np.array(decode_image(self._files.read(name)))
        except Exception as error:  # decoders raise whatever they like over a damaged file
            raise ValueError(f"cannot read {name!r} of {self._files.path!r}: {error}") from error


class DatasetPictures:
    """A data set's pictures as training sees them, never flipped."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset
        self.identity, self.labels = dataset.identity, dataset.labels
        self.size = (dataset.img_size, dataset.img_size)

    def __len__(self) -> int:
        return len(self._dataset)

    def batch(self, numbers: Sequence[int]) -> UInt8[Tensor, "batch 3 height width"]:
        """Pictures by number."""
        return quantize(self._dataset.batch(torch.tensor(numbers)).images)

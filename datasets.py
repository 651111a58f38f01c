"""Image data sets: picture files in, normalised batches with cameras and labels out.

Each recipe of `DATASETS` turns a picture of any size and mode into img_size x img_size RGB. That is
done once: the pixels are kept as a memory-mapped file of 8-bit values in the cache folder
(PERIGAN_CACHE, else ~/.cache/perigan; safe to delete), keyed by what identifies the files.

Resizing is antialiased (Lanczos); `nearest` gives the original pi-GAN's nearest neighbour, aliasing
included, which it applied to CelebA after flipping; here a flipped picture is always the exact
mirror image. Transparency is laid over white.

Cameras and classes come from a dataset.json (see `image_files`); angles are those of
`rendering.cameras`. Flipping a picture mirrors its camera at the vertical plane of `frontal_yaw`
(dataset.json's, else pi/2; 0 for data whose frontal cameras have yaw 0) and reverses its roll.
"""

import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from image_cache import cached, checksum, record_type
from image_files import ImageFiles, find_images, in_threads, read_annotations, some
from ops.registry import Registry
from ops.shapes import Bool, Float, Int
from rendering.camera_labels import check_camera_labels, mirror_labels
from rendering.empirical_poses import (
    FRONTAL_YAW,
    EmpiricalPoses,
    PoseReport,
    check_angles,
    check_labels,
)

logger = logging.getLogger("perigan")

CACHE_VERSION = 1  # raise when decoding or a recipe changes its numbers


@dataclass(frozen=True)
class ImageBatch:
    """Pictures in [-1, 1] with what is known of each.

    `camera_angles` are yaw, pitch, roll; `labels` class numbers; `camera_labels` cam2world and
    intrinsics (`rendering.camera_labels`).
    """

    images: Float[Tensor, "batch 3 height width"]
    camera_angles: Float[Tensor, "batch 3"] | None = None
    labels: Int[Tensor, " batch"] | None = None
    camera_labels: Float[Tensor, "batch 25"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "ImageBatch":
        """Move to a device."""
        return self._each(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "ImageBatch":
        """Copy into page-locked memory, from which a GPU copies while the CPU goes on."""
        return self._each(lambda t: t.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ImageBatch":
        known = (self.camera_angles, self.labels, self.camera_labels)
        rest = (None if values is None else change(values) for values in known)
        return ImageBatch(change(self.images), *rest)


class ImageDataset:
    """Decoded square pictures and what is known about them.

    `skipped` names the files that could not be read; `identity` changes whenever the pixels may.
    With `xflip`, picture N + i is the mirror image of picture i, and the length is 2 N; the
    attributes `camera_angles`, `labels` and `camera_labels` are of the first N.
    """

    def __init__(
        self,
        images: np.ndarray,  # (files, img_size, img_size, 3), uint8
        *,
        rows: np.ndarray | None = None,  # which of them belong to the data set; None: all
        camera_angles: Tensor | None = None,  # (N, 3): yaw, pitch, roll of those that belong
        labels: Tensor | None = None,  # (N,), int64, from 0
        num_classes: int | None = None,  # None: one more than the largest label
        camera_labels: Tensor | None = None,  # (N, 25): cam2world and intrinsics
        mirror: float = 0.0,  # probability that training flips a picture left to right
        xflip: bool = False,  # append the mirror image of every picture
        frontal_yaw: float = FRONTAL_YAW,  # yaw of the cameras in the plane of symmetry
        up: str = "y",  # the axis of the camera labels' world that points upwards
        identity: str = "",
        skipped: tuple[str, ...] = (),
    ) -> None:
        self._images = images
        self._rows = np.arange(len(images)) if rows is None else rows
        self.img_size: int = images.shape[1]
        self.camera_angles, self.labels, self.camera_labels = camera_angles, labels, camera_labels
        self.mirror, self.xflip, self.frontal_yaw, self.up = mirror, xflip, frontal_yaw, up
        self.identity, self.skipped = identity, skipped
        if num_classes is None:
            num_classes = 0 if labels is None else int(labels.max()) + 1
        self.num_classes: int = num_classes  # 0 without labels

    def __len__(self) -> int:
        return len(self._rows) * (2 if self.xflip else 1)

    def batch(
        self, indices: Int[Tensor, " batch"], flip: Bool[Tensor, " batch"] | None = None
    ) -> ImageBatch:
        """Pictures `indices`, on the CPU; those where `flip` is set left to right."""
        if self.xflip:
            copies = indices >= len(self._rows)
            flip = copies if flip is None else copies ^ flip
            indices = indices % len(self._rows)
        pixels = torch.from_numpy(self._images[self._rows[indices.numpy()]]).permute(0, 3, 1, 2)
        if flip is not None:
            pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
        images = pixels.to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1
        labels = None if self.labels is None else self.labels[indices]
        return ImageBatch(images, *self._cameras(indices, flip, labels))

    def _cameras(
        self, indices: Tensor, flip: Tensor | None, labels: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Angles, classes and camera labels of a batch, those of flipped pictures mirrored."""
        angles = None if self.camera_angles is None else self.camera_angles[indices]
        matrices = None if self.camera_labels is None else self.camera_labels[indices]
        if flip is not None and angles is not None:
            yaw, pitch, roll = angles.unbind(1)
            mirrored = torch.stack([2 * self.frontal_yaw - yaw, pitch, -roll], dim=1)
            angles = torch.where(flip[:, None], mirrored, angles)
        if flip is not None and matrices is not None:
            mirrored = mirror_labels(matrices, self.frontal_yaw, self.up)
            matrices = torch.where(flip[:, None], mirrored, matrices)
        return angles, labels, matrices

    def poses(self, fov: float | None = None, radius: float = 1.0) -> EmpiricalPoses:
        """The pictures' cameras as a distribution to draw from.

        `camera_angles` need a field of view (degrees) and a distance; camera labels, which are
        taken where there are no angles, know theirs. Raises ValueError where there are neither.
        """
        chance = 0.5 if self.xflip else self.mirror
        options = {"mirror": chance, "frontal_yaw": self.frontal_yaw}
        if self.camera_angles is not None:
            if fov is None:
                raise ValueError("poses of camera_angles need a fov, in degrees")
            return EmpiricalPoses.from_angles(self.camera_angles, fov, radius, **options)
        if self.camera_labels is not None:
            return EmpiricalPoses.from_labels(self.camera_labels, **options, up=self.up)
        raise ValueError(
            "drawing cameras from the data set needs camera_angles, or camera labels of 25 "
            "numbers, in its dataset.json, which has neither; draw them from a law "
            '(sample_dist "gaussian" or "uniform") or add them'
        )

    def check_cameras(self) -> PoseReport | None:
        """How the cameras are distributed and what is wrong about it; None without cameras."""
        if self.camera_angles is not None:
            return check_angles(self.camera_angles, self.frontal_yaw)
        if self.camera_labels is not None:
            return check_labels(self.camera_labels, self.frontal_yaw, self.up)
        return None


# ---- recipes


def resize(image: Image.Image, img_size: int, nearest: bool) -> Image.Image:
    """Resize to a square, whatever the aspect."""
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    return image.resize((img_size, img_size), how)


def center_crop(image: Image.Image, img_size: int, nearest: bool) -> Image.Image:
    """Cut out the largest centred square and resize it."""
    (width, height), side = image.size, min(image.size)
    left, top = (width - side) // 2, (height - side) // 2
    return resize(image.crop((left, top, left + side, top + side)), img_size, nearest)


def celeba_crop(image: Image.Image, img_size: int, nearest: bool) -> Image.Image:
    """Shorter side to 320, then the central 256 x 256, then resize."""
    shorter = min(image.size)
    width, height = (320 * side // shorter for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 256) / 2), round((height - 256) / 2)
    image = image.crop((left, top, left + 256, top + 256))
    if not nearest:
        return resize(image, img_size, nearest)
    # the original resizes a tensor here, which picks other pixels than an image's resize does
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return Image.fromarray(interpolate(pixels, img_size)[0].permute(1, 2, 0).numpy())


def make_toys(num: int, img_size: int, seed: int, cache_dir: Path) -> Path:
    """Draw the embedded data set, or find it drawn."""
    from toys.dataset import toys_zip

    try:
        return toys_zip(num, img_size, seed, cache_dir)
    except OSError as error:
        logger.warning("cannot keep Toys in %s (%s): using a temporary folder", cache_dir, error)
        return toys_zip(num, img_size, seed, Path(tempfile.mkdtemp(prefix="perigan-")))


@dataclass(frozen=True)
class Recipe:
    """How the pictures of one data set are prepared."""

    prepare: Callable[[Image.Image, int, bool], Image.Image]  # (RGB, img_size, nearest) -> square
    mirror: bool = False  # whether they are flipped at random unless the caller decides
    make: Callable[[int, int, int, Path], Path] | None = None  # draws them where no path is given


DATASETS: Registry[Recipe] = Registry("dataset")
DATASETS.register("CelebA")(Recipe(celeba_crop, mirror=True))
DATASETS.register("Cats", "CATS")(Recipe(resize, mirror=True))
DATASETS.register("Carla", "CARLA")(Recipe(resize))
DATASETS.register("ImageFolder")(Recipe(center_crop))
DATASETS.register("Toys")(Recipe(center_crop, make=make_toys))


# ---- opening


def open_dataset(
    name: str,
    path: str | Path,
    img_size: int,
    *,
    nearest: bool = False,  # resize as the original does, aliasing and all
    mirror: bool | None = None,  # flip at random; None: what the recipe says
    xflip: bool = False,  # in place of that, append the mirror image of every picture
    max_images: int | None = None,  # a random subset of so many files, always the same
    cache_dir: Path | str | None = None,  # None: PERIGAN_CACHE, else ~/.cache/perigan
    num_workers: int = 0,  # threads that decode; 0: the calling one
    progress: bool = True,  # show a progress bar while decoding
    frontal_yaw: float | None = None,  # of flipped pictures; None: dataset.json's, else pi/2
    toys_num: int = 4000,  # pictures that "Toys" draws where `path` is empty
    toys_seed: int = 0,
) -> ImageDataset:
    """Open the pictures of a folder (with its subfolders), a glob (with **) or a zip.

    `name` is a recipe of DATASETS. Files that cannot be decoded are named in a warning and left
    out. Raises ValueError if there is no path, nothing matches, nothing can be decoded, or
    dataset.json is wrong.
    """
    recipe = DATASETS[name]
    for option, value in (("img_size", img_size), ("max_images", max_images)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    if mirror and xflip:
        raise ValueError("mirror and xflip exclude each other: random flips, or a copy of each")
    cache_dir = Path(cache_dir or _default_cache_dir())
    if not str(path) and recipe.make is not None:
        path = recipe.make(toys_num, img_size, toys_seed, cache_dir)
    if not str(path):
        raise ValueError("dataset_path is empty: give --dataset_path, a glob, a folder or a zip")
    files = find_images(str(path))
    notes = read_annotations(files)
    if notes.camera_labels is not None:
        labels = torch.from_numpy(notes.camera_labels)
        check_camera_labels(labels, files.names, f"{notes.where}: labels")
    chosen = _subset(len(files.names), max_images)
    names = [files.names[i] for i in chosen]
    key = [CACHE_VERSION, DATASETS.canonical(name), img_size, nearest, files.stamps(names)]
    identity = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    label, quiet = f"reading {name} at {img_size}x{img_size}", not progress
    work = partial(_decode_record, files, recipe, img_size, nearest)
    records = cached(
        cache_dir / "images" / f"{identity}.u8",
        len(names),
        record_type(img_size),
        lambda: iter(tqdm(in_threads(work, names, num_workers), label, len(names), disable=quiet)),
    )
    rows = np.flatnonzero(records["readable"])
    skipped = _report_skipped(str(path), names, records["readable"])
    front = notes.camera.get("frontal_yaw", FRONTAL_YAW)
    dataset = ImageDataset(
        records["image"],
        rows=rows,
        camera_angles=_pick(notes.camera_angles, chosen[rows]),
        labels=_pick(notes.labels, chosen[rows]),
        num_classes=notes.num_classes,
        camera_labels=_pick(notes.camera_labels, chosen[rows]),
        mirror=0.5 if not xflip and (recipe.mirror if mirror is None else mirror) else 0.0,
        xflip=xflip,
        frontal_yaw=front if frontal_yaw is None else frontal_yaw,
        up=notes.camera.get("up", "y"),
        identity=identity,
        skipped=skipped,
    )
    _report_cameras(notes.where, dataset)
    return dataset


def _default_cache_dir() -> Path:
    given = os.environ.get("PERIGAN_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "perigan"


def _subset(count: int, largest: int | None) -> np.ndarray:
    """Which files to use, ascending."""
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[:largest])


def _pick(values: np.ndarray | None, kept: np.ndarray) -> Tensor | None:
    return None if values is None else torch.from_numpy(values[kept])


def _report_skipped(path: str, names: list[str], readable: np.ndarray) -> tuple[str, ...]:
    skipped = tuple(n for n, good in zip(names, readable, strict=True) if not good)
    message = f"{len(skipped)} of the {len(names)} images of {path!r} cannot be read"
    if len(skipped) == len(names):
        raise ValueError(f"{message}: {some(skipped)}")
    if skipped:
        logger.warning("%s and are left out: %s", message, some(skipped))
    return skipped


def _report_cameras(where: str, dataset: ImageDataset) -> None:
    report = dataset.check_cameras()
    for problem in report.problems if report is not None else ():
        logger.warning("%s: %s", where, problem)


# ---- decoding


def decode_image(data: bytes) -> Image.Image:
    """Read a picture of any format and mode: 8-bit RGB, upright, transparency over white."""
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode == "I" or image.mode.startswith("I;"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit pixels have no defined white")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating point pixels have no defined white")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _decode_record(
    files: ImageFiles, recipe: Recipe, img_size: int, nearest: bool, name: str
) -> np.void:
    record = np.zeros(1, record_type(img_size))[0]
    try:
        record["image"] = recipe.prepare(decode_image(files.read(name)), img_size, nearest)
        record["readable"] = True
    except Exception as error:  # decoders raise whatever they like over a damaged file
        if isinstance(error, OSError) and error.errno is not None:  # but this is not its fault
            raise ValueError(f"cannot read {name!r} of {files.path!r}: {error}") from error
        logger.warning("skipping %s: %s", name, error)
    record["checksum"] = checksum(record)
    return record

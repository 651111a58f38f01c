"""Data sets in StyleGAN's format: equal, square RGB pictures and a `dataset.json`, zip or folder.

Pictures become `00000/img00000000.png` and so on, PNG without compression, in a zip that stores
them as they are, so that reading costs no decompression; `dataset.json` holds "labels" and
"camera_angles" as pairs [name, value], or null, and the source's "camera" and "classes". The output
appears when it is complete.

A mirrored copy, written after its original, is the exact mirror image, with the camera mirrored at
the vertical plane of `frontal_yaw`, as `datasets` does it.
"""

import io
import json
import math
import shutil
import uuid
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from dataset_cameras import CAMERAS, ORIGIN, Point, angles_from_labels, labels_from_angles, turned
from dataset_sources import mirror_yaw, open_source, source_annotations
from datasets import decode_image
from image_files import TABLE, Annotations, ImageFiles, in_threads, some
from image_windows import WHOLE, Window, check_target, transformed, windowed_label
from rendering.camera_labels import mirror_labels
from toys.dataset import new_file, zip_entry

TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass
class Report:
    """What was written and what was not."""

    size: int
    written: int = 0
    skipped: dict[str, str] = field(default_factory=dict)  # picture -> reason
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"wrote {self.written} pictures of {self.size}x{self.size}", *self.notes]
        for reason, count in Counter(self.skipped.values()).most_common():
            names = [name for name, why in self.skipped.items() if why == reason]
            lines.append(f"skipped {count}, {reason}: {some(names)}")
        return "\n".join(lines)


def write_dataset(
    source: str,
    output: Path,
    *,
    resolution: tuple[int, int] | None = None,  # width, height; None: as they are
    transform: str | None = None,  # one of image_windows.TRANSFORMS; None: resize
    max_images: int | None = None,  # the first so many
    labels: str = "table",  # "table": from dataset.json or list, "folders": by top folder, "none"
    mirror: bool = False,  # write every picture also flipped
    frontal_yaw: float | None = None,  # for mirroring; None: what dataset.json says
    add_yaw: float = 0.0,  # to every camera angle, radians; -pi/2 takes pi-GAN's to EpiGRAF's
    cameras: str = "keep",  # their form in dataset.json: as it is, "angles", or "labels"
    pivot: Point = ORIGIN,  # what labelled cameras look at, for "angles"
    num_workers: int = 0,  # threads; 0: the calling one
    progress: bool = True,
) -> Report:
    """Convert the pictures of a folder, glob, zip or list.

    Raises ValueError for what concerns the whole set: nothing to read, sizes that differ, wrong
    annotations. A picture that cannot be used is left out and named in the report.
    """
    files, listed = open_source(source)
    notes, extra, remarks = source_annotations(files, listed, labels)
    _check_options(resolution, transform, max_images, cameras, notes)
    if add_yaw:
        notes = turned(notes, add_yaw)
        extra = extra | ({"camera": notes.camera} if notes.camera else {})
    yaw = mirror_yaw(notes, frontal_yaw) if mirror else None
    names = files.names[:max_images]
    if len(names) < len(files.names):
        left = len(files.names) - len(names)
        remarks.append(f"left out {left} of {len(files.names)} pictures (max_images)")
    target = resolution or _common_size(files, names, num_workers)
    report = Report(target[0], notes=remarks)
    work = partial(_prepare, files, transform, target, mirror)
    with _new_output(output) as save:
        made = in_threads(work, list(range(len(names))), num_workers, ahead=4)
        quiet = None if progress else True  # None: shown on a terminal
        pictures = tqdm(made, "converting", len(names), unit="img", disable=quiet)
        entries = _write_pictures(pictures, save, report, transform or "resizing")
        if not entries:
            raise ValueError(f"{source}: nothing is left to write. {report}")
        table = _table(notes, entries, yaw) | _kept(extra, entries, report)
        sources = [files.names[entry.place] for entry in entries]
        table = _with_cameras(table, cameras, sources, notes, pivot)
        save(TABLE, json.dumps(table).encode())
    return report


def _check_options(
    resolution: tuple[int, int] | None,
    transform: str | None,
    max_images: int | None,
    cameras: str,
    notes: Annotations,
) -> None:
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}")
    if transform is not None and resolution is None:
        raise ValueError(f"transform {transform!r} needs a resolution")
    if resolution is not None:
        check_target(transform, resolution)
    if cameras not in CAMERAS:
        raise ValueError(f"cameras must be one of {CAMERAS}, got {cameras!r}")
    if cameras == "labels" and notes.labels is not None:
        raise ValueError(
            f"{notes.where} has classes for labels: cameras as labels would replace them"
        )


def _write_pictures(
    pictures: "Iterable[Prepared]", save: "Save", report: Report, transform: str
) -> "list[Entry]":
    """Save what there is of each, and report what there is not."""
    entries: list[Entry] = []
    distorted = []
    for made in pictures:
        if made.skipped:
            report.skipped[made.name] = made.skipped
        if made.distorted:
            distorted.append(made.name)
        for data, flipped in zip(made.files, (False, True), strict=False):
            name = f"{len(entries) // 1000:05d}/img{len(entries):08d}.png"
            save(name, data)
            entries.append(Entry(name, made.place, made.window, flipped))
    if distorted:
        changed = f"{transform} changed the aspect of {len(distorted)}: {some(distorted)}"
        report.notes.append(changed)
    report.written = len(entries)
    return entries


# ---- the table


class Entry(NamedTuple):
    """A picture of the output: its name, its place in the source, what it shows."""

    name: str
    place: int
    window: Window
    mirrored: bool


def _table(notes: Annotations, entries: list[Entry], yaw: float | None) -> dict[str, Any]:
    """The new dataset.json's values of the pictures."""
    index = np.array([entry.place for entry in entries])
    names = [entry.name for entry in entries]
    mirrored = np.array([entry.mirrored for entry in entries])
    table: dict[str, Any] = {"labels": None, "camera_angles": None}
    if notes.labels is not None:
        kept = notes.labels[index]
        if kept.max() + 1 < notes.num_classes:  # vectors say how many classes there are
            kept = np.eye(notes.num_classes)[kept]
        table["labels"] = _pairs(names, kept)
    elif notes.camera_labels is not None:
        windows = [entry.window for entry in entries]
        kept = np.stack(
            [windowed_label(notes.camera_labels[i], w) for i, w in zip(index, windows, strict=True)]
        )
        if yaw is not None:
            flipped = mirror_labels(
                torch.from_numpy(kept), yaw, notes.camera.get("up", "y")
            ).numpy()
            kept = np.where(mirrored[:, None], flipped, kept)
        table["labels"] = _pairs(names, kept)
    if notes.camera_angles is not None:
        angles = notes.camera_angles[index].astype(np.float64)
        if yaw is not None:
            flipped = np.remainder(2 * yaw - angles[:, 0] + math.pi, 2 * math.pi) - math.pi
            flipped = np.stack([flipped, angles[:, 1], -angles[:, 2]], axis=1)
            angles = np.where(mirrored[:, None], flipped, angles)
        table["camera_angles"] = _pairs(names, angles)
    return table


def _pairs(names: list[str], values: np.ndarray) -> list[list[Any]]:
    return [[name, value] for name, value in zip(names, values.tolist(), strict=True)]


def _with_cameras(
    table: dict[str, Any],
    form: str,
    sources: list[str],
    notes: Annotations,
    pivot: Point,
) -> dict[str, Any]:
    """The table with cameras in the form that is asked for; `sources` name them in errors."""
    camera = {**table.get("camera", {})}
    if form == "angles" and notes.camera_labels is not None:
        names, labels = zip(*table["labels"], strict=True)
        up = camera.pop("up", "y")
        angles, shared = angles_from_labels(np.array(labels), sources, notes.where, pivot, up)
        pairs = _pairs(list(names), angles)
        return table | {"labels": None, "camera_angles": pairs, "camera": camera | shared}
    if form == "labels" and notes.camera_angles is not None:
        names, angles = zip(*table["camera_angles"], strict=True)
        labels = labels_from_angles(np.array(angles), camera, notes.where)
        camera = {key: value for key, value in camera.items() if key not in ("fov", "radius")}
        pairs = _pairs(list(names), labels)
        return table | {"labels": pairs, "camera_angles": None, "camera": camera}
    return table


def _kept(extra: dict[str, Any], entries: list[Entry], report: Report) -> dict[str, Any]:
    """Keys about the whole set, without a field of view that holds no longer."""
    camera = extra.get("camera")
    cropped = any(entry.window != WHOLE for entry in entries)
    if not cropped or not isinstance(camera, dict) or "fov" not in camera:
        return extra
    report.notes.append(f"dropped camera.fov of {TABLE}: pictures were cut")
    return extra | {"camera": {k: v for k, v in camera.items() if k != "fov"}}


# ---- pictures


class Prepared(NamedTuple):
    """What a thread makes of a source picture."""

    name: str
    place: int
    files: list[bytes]  # PNG, also flipped if asked for; empty if skipped
    window: Window
    distorted: bool
    skipped: str


def _prepare(
    files: ImageFiles, transform: str | None, target: tuple[int, int], mirror: bool, index: int
) -> Prepared:
    name = files.names[index]
    try:
        image = decode_image(files.read(name))
    except Exception as error:  # decoders raise whatever they like over a damaged file
        return Prepared(name, index, [], WHOLE, False, _unreadable(files, name, error))
    done = transformed(image, transform, target)
    pictures = [] if done.pixels is None else [done.pixels]
    if mirror:
        pictures += [ImageOps.mirror(picture) for picture in pictures]
    encoded = [_png(picture) for picture in pictures]
    return Prepared(name, index, encoded, done.window, done.distorted, done.skipped)


def _unreadable(files: ImageFiles, name: str, error: Exception) -> str:
    """Why a picture is skipped; an error of the disk ends the work."""
    if isinstance(error, OSError) and error.errno is not None:
        raise ValueError(f"cannot read {name!r} of {files.path!r}: {error}") from error
    return "not readable (" + type(error).__name__ + ")"


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def _common_size(files: ImageFiles, names: list[str], num_workers: int) -> tuple[int, int]:
    """The size of all readable pictures, from their headers; it must be one, and square."""

    def size_of(name: str) -> tuple[int, int] | None:
        try:
            with Image.open(io.BytesIO(files.read(name))) as image:
                turned = image.getexif().get(0x0112) in TURNED
                return image.size[::-1] if turned else image.size
        except Exception as error:
            _unreadable(files, name, error)  # named when the pictures themselves are read
            return None

    sizes = dict(zip(names, in_threads(size_of, names, num_workers, ahead=4), strict=True))
    counts = Counter(size for size in sizes.values() if size is not None)
    if not counts:
        raise ValueError(f"{files.path}: none of the {len(names)} pictures can be read")
    if len(counts) > 1:
        parts = [
            f"{count} of {size[0]}x{size[1]} ({some([n for n in names if sizes[n] == size])})"
            for size, count in counts.most_common(4)
        ]
        raise ValueError(
            f"{files.path}: pictures have {len(counts)} sizes: {'; '.join(parts)}; give a "
            "resolution to resize them to"
        )
    (width, height), _ = counts.most_common(1)[0]
    if width != height:
        side = min(width, height)
        raise ValueError(
            f"{files.path}: pictures are {width}x{height}, and must be square: give resolution "
            f"{side}x{side} with transform 'center-crop'"
        )
    return width, height


# ---- outputs

Save = Callable[[str, bytes], None]


@contextmanager
def _new_output(path: Path) -> Iterator[Save]:
    """A function that writes files into a new zip or folder, which appears when all is well."""
    if path.suffix.lower() == ".zip":
        with new_file(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            yield lambda name, data: archive.writestr(zip_entry(name), data)
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"output {str(path)!r} is there and not empty; give a new folder or a zip")
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"

    def save(name: str, data: bytes) -> None:
        target = temporary / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    try:
        temporary.mkdir(parents=True)
        yield save
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""Where the pictures of a data set lie, and what its dataset.json says about them.

Pictures come from a folder with its subfolders, a glob or a zip; their names are paths relative to
its root, sorted. Hidden files and names without a picture's extension are passed over.

A `dataset.json` among them may hold "camera_angles" (name -> [yaw, pitch, roll], radians) and
"labels" (name -> label), as dictionaries or lists of pairs. Names count from its own folder or from
the root, with or without the name of the zip or folder in front, with or without extension (the
formats of EpiGRAF and StyleGAN). Every picture needs an entry, and every entry a picture; only a
glob may leave pictures out.

All labels of a table are of one kind: class numbers from 0, one-hot vectors of classes, or the 25
numbers of a camera (EG3D's format, see `rendering.camera_labels`). "camera" may hold "frontal_yaw",
the yaw from which figures are seen in the face, and "up", the world's axis that points upwards.
Other keys are not looked at.
"""

import glob
import json
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
from PIL import Image

TABLE = "dataset.json"
CAMERA_NUMBERS = 25  # of a label that describes a camera: cam2world 4 x 4, intrinsics 3 x 3
UP_AXES = ("y", "z")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageFiles:
    """The pictures of a folder, a glob or a zip."""

    path: str  # what the user gave, for messages
    root: str  # the folder that names are relative to, or the zip
    names: list[str]  # sorted
    tables: list[str]  # names of the dataset.json files
    read: Callable[[str], bytes]  # the bytes of a file, from any thread
    partial: bool  # a glob, which may leave out pictures that dataset.json knows
    others: list[str]  # files passed over: neither picture nor dataset.json, nor hidden

    def stamps(self, names: list[str]) -> list[list[object]]:
        """What changes when the files do: resolved path, size and time, each picture's name."""
        root = os.path.realpath(self.root)
        if os.path.isdir(root):
            found = [(n, os.stat(os.path.join(root, n))) for n in names]
            return [[root], *([n, s.st_size, s.st_mtime_ns] for n, s in found)]
        status = os.stat(root)
        return [[root, status.st_size, status.st_mtime_ns], [*names]]


@dataclass(frozen=True)
class Annotations:
    """What dataset.json tells about each picture, in the order of the names."""

    camera_angles: np.ndarray | None = None  # (N, 3) yaw, pitch, roll in radians, float32
    labels: np.ndarray | None = None  # (N,) class numbers, int64
    num_classes: int = 0  # of the whole table; 0: no classes
    camera_labels: np.ndarray | None = None  # (N, 25) cam2world and intrinsics, float32
    camera: dict[str, Any] = field(default_factory=dict)  # "camera": what all pictures share
    where: str = ""  # the table, for messages


def find_images(path: str) -> ImageFiles:
    """List the pictures of a folder, a glob or a zip.

    Raises ValueError if there are none or the zip cannot be read.
    """
    expanded = os.path.expanduser(path)
    if os.path.isfile(expanded) and expanded.lower().endswith(".zip"):
        return _find_in_zip(path, expanded)
    whole = os.path.isdir(expanded)
    # a glob's root: the folder before the first wildcard
    root = expanded if whole else os.path.dirname(re.split(r"[*?\[]", expanded)[0])
    pattern = "**" if whole else expanded[len(root) :].lstrip(os.sep)
    found = sorted(set(glob.glob(pattern, root_dir=root or None, recursive=True)))
    files = [n for n in found if os.path.isfile(os.path.join(root, n))]
    names = [n for n in files if _is_image(n)]
    if not names:
        number = f"none of the {len(found)} entries" if found else "nothing"
        raise ValueError(f"dataset_path {path!r}: {number} there is an image file")
    tables = [n for n in files if os.path.basename(n) == TABLE] if whole else [TABLE]
    tables = [n for n in tables if os.path.isfile(os.path.join(root, n))]

    def read(name: str) -> bytes:
        with open(os.path.join(root, name), "rb") as file:
            return file.read()

    others = [n for n in files if not _is_image(n) and n not in tables]
    return ImageFiles(path, root or ".", names, tables, read, not whole, others)


def _find_in_zip(path: str, root: str) -> ImageFiles:
    try:
        archive = zipfile.ZipFile(root)
    except zipfile.BadZipFile as error:
        raise ValueError(f"dataset_path {path!r} is not a readable zip: {error}") from None
    files = [n for n in sorted(set(archive.namelist())) if not _is_hidden(n)]
    names = [n for n in files if _is_image(n)]
    if not names:
        raise ValueError(f"dataset_path {path!r} holds no image file")
    tables = [n for n in files if os.path.basename(n) == TABLE]
    others = [n for n in files if not _is_image(n) and n not in tables and n[-1] != "/"]
    return ImageFiles(path, root, names, tables, archive.read, False, others)


def in_threads(
    work: Callable[[Item], Result], items: list[Item], num_workers: int, ahead: int = 32
) -> Iterator[Result]:
    """Map in order, with threads (Pillow works without Python's lock), `ahead` items each."""
    if num_workers < 1:
        yield from map(work, items)
        return
    step = ahead * num_workers
    with ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, len(items), step):
            yield from pool.map(work, items[start : start + step])


@cache
def _image_extensions() -> frozenset[str]:
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(extension for extension, kind in known if kind in Image.OPEN)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _image_extensions()


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


# ---- dataset.json


def read_table(files: ImageFiles) -> tuple[str, dict[str, Any]]:
    """Name and content of the pictures' dataset.json, ("", {}) where there is none."""
    if not files.tables:
        return "", {}
    table = min(files.tables, key=_depth)
    rivals = [t for t in files.tables if _depth(t) == _depth(table)]
    if len(rivals) > 1:
        raise ValueError(f"{files.path}: which one counts, {rivals[0]} or {rivals[1]}?")
    where = f"{files.path}: {table}"
    try:
        content = json.loads(files.read(table))
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{where} must hold a dictionary, got {_short(content)}")
    return table, content


def read_annotations(files: ImageFiles) -> Annotations:
    """Read and check the pictures' dataset.json, if there is one.

    Raises ValueError naming the file and the entry that is wrong.
    """
    table, content = read_table(files)
    where = f"{files.path}: {table}"
    find = _name_finder(files, os.path.dirname(table))

    def values(key: str, check: Callable[[Any], Any]) -> list[Any] | None:
        entries = content.get(key)
        if entries is None:
            return None
        return _values(files, f"{where}: {key}", entries, find, check)

    angles, labels = values("camera_angles", _angles), values("labels", _label)
    notes = Annotations(camera=_camera(where, content), where=where if table else "")
    if angles is not None:
        notes = replace(notes, camera_angles=np.array(angles, np.float32))
    if labels is not None:
        notes = _with_labels(notes, files.names, labels)
    return notes


def _with_labels(notes: Annotations, names: list[str], labels: list[Any]) -> Annotations:
    """Add classes or cameras: what labels of one kind say."""
    where = f"{notes.where}: labels"
    sizes = [len(label) if isinstance(label, list) else 0 for label in labels]
    odd = next((i for i, size in enumerate(sizes) if size != sizes[0]), None)
    if odd is not None:
        kinds = [f"{n} numbers" if n else "a class number" for n in (sizes[0], sizes[odd])]
        raise ValueError(
            f"{where} of {names[0]!r} is {kinds[0]}, and that of {names[odd]!r} {kinds[1]}: all "
            "must be class numbers (integers), one-hot vectors of one length, or cameras of "
            f"{CAMERA_NUMBERS} numbers"
        )
    if not sizes[0]:
        return replace(notes, labels=np.array(labels, np.int64), num_classes=max(labels) + 1)
    vectors = np.array(labels, np.float64)
    one_hot = ((vectors == 0) | (vectors == 1)).all(1) & (vectors.sum(1) == 1)
    if one_hot.all():
        return replace(notes, labels=vectors.argmax(1), num_classes=sizes[0])
    if sizes[0] == CAMERA_NUMBERS:
        return replace(notes, camera_labels=vectors.astype(np.float32))
    raise ValueError(
        f"{where} of {names[int(one_hot.argmin())]!r} is {sizes[0]} numbers, which must be a "
        f"one-hot vector of classes or the {CAMERA_NUMBERS} numbers of a camera (cam2world 4 x 4, "
        "then normalised intrinsics 3 x 3, by rows)"
    )


def _camera(where: str, content: dict[str, Any]) -> dict[str, Any]:
    """What is said of all cameras, as far as it is known here."""
    camera = content.get("camera") or {}
    if not isinstance(camera, dict):
        raise ValueError(f"{where}: camera must be a dictionary, got {_short(camera)}")
    yaw, up = camera.get("frontal_yaw", 0.0), camera.get("up", "y")
    if not _is_number(yaw):
        raise ValueError(f"{where}: camera.frontal_yaw must be a number, got {_short(yaw)}")
    if up not in UP_AXES:
        raise ValueError(f"{where}: camera.up must be one of {UP_AXES}, got {_short(up)}")
    return camera


def _depth(name: str) -> int:
    return name.count("/")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _name_finder(files: ImageFiles, folder: str) -> Callable[[str], list[int]]:
    """A function from an entry's name to the pictures it may mean."""
    exact = {name: [i] for i, name in enumerate(files.names)}
    stems: dict[str, list[int]] = {}
    for i, name in enumerate(files.names):
        stems.setdefault(os.path.splitext(name)[0], []).append(i)
    own = os.path.basename(os.path.realpath(files.root))
    prefixes = (f"{own}/", f"{os.path.splitext(own)[0]}/")

    def find(entry: str) -> list[int]:
        tries = [entry, f"{folder}/{entry}"] if folder else [entry]
        tries += [entry[len(p) :] for p in prefixes if entry.startswith(p)]
        for known, cut in ((exact, False), (stems, False), (stems, True)):
            for name in tries:
                found = known.get(os.path.splitext(name)[0] if cut else name)
                if found:
                    return found
        return []

    return find


def _values(
    files: ImageFiles,
    where: str,
    entries: Any,
    find: Callable[[str], list[int]],
    check: Callable[[Any], Any],
) -> list[Any]:
    """The checked value of every picture, from a dictionary or a list of pairs."""
    values: dict[int, Any] = {}
    pairs = list(entries.items()) if isinstance(entries, dict) else entries
    if not isinstance(pairs, list):
        raise ValueError(f"{where} must be a dictionary or a list, got {_short(entries)}")
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"{where} holds {_short(pair)} in place of a pair [name, value]")
        name, value = pair
        found = find(name)
        if not found and files.partial:
            continue
        if not found:
            numbers = f"{len(pairs)} entries, {len(files.names)} images"
            raise ValueError(f"{where} names {name!r}, and there is no such image ({numbers})")
        if len(found) > 1:
            both = f"{files.names[found[0]]} and {files.names[found[1]]}"
            raise ValueError(f"{where} names {name!r}, which may be {both}")
        if found[0] in values:
            raise ValueError(f"{where} has two entries for {files.names[found[0]]}")
        try:
            values[found[0]] = check(value)
        except ValueError as error:
            raise ValueError(f"{where} of {name!r} {error}, got {_short(value)}") from None
    missing = [name for i, name in enumerate(files.names) if i not in values]
    if missing:
        raise ValueError(
            f"{where} has {len(values)} entries for {len(files.names)} images; it lacks "
            f"{len(missing)} of the images: {some(missing)}; add them, or take these images away"
        )
    return [values[i] for i in range(len(files.names))]


def some(names: list[str] | tuple[str, ...]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def _angles(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
        raise ValueError("must be three finite numbers (yaw, pitch, roll)")
    if not -1e-4 <= value[1] <= math.pi + 1e-4:
        raise ValueError("must have a pitch between 0 and pi (radians from +y; pi/2 - elevation)")
    return value


def _label(value: Any) -> int | list[float]:
    if isinstance(value, list) and value and all(map(_is_number, value)):
        return value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ValueError("must be a class number (an integer from 0) or a list of finite numbers")
    return value

"""Where the pictures of a data set lie, and what its dataset.json says about them.

Pictures come from a folder with its subfolders, a glob or a zip; their names are paths relative to
its root, sorted. Hidden files and names without a picture's extension are passed over.

A `dataset.json` among them may hold "camera_angles" (name -> [yaw, pitch, roll], radians) and
"labels" (name -> class number), as dictionaries or lists of pairs. Names count from its own folder
or from the root, with or without the name of the zip or folder in front, with or without extension
(the formats of EpiGRAF and StyleGAN). Every picture needs an entry, and every entry a picture; only
a glob may leave pictures out.
"""

import glob
import json
import math
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

TABLE = "dataset.json"


@dataclass(frozen=True)
class ImageFiles:
    """The pictures of a folder, a glob or a zip."""

    path: str  # what the user gave, for messages
    root: str  # the folder that names are relative to, or the zip
    names: list[str]  # sorted
    tables: list[str]  # names of the dataset.json files
    read: Callable[[str], bytes]  # the bytes of a file, from any thread
    partial: bool  # a glob, which may leave out pictures that dataset.json knows

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

    camera_angles: np.ndarray | None  # (N, 3) yaw, pitch, roll in radians, float32
    labels: np.ndarray | None  # (N,) class numbers, int64


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
    files = sorted(set(glob.glob(pattern, root_dir=root or None, recursive=True)))
    names = [n for n in files if _is_image(n) and os.path.isfile(os.path.join(root, n))]
    if not names:
        number = f"none of the {len(files)} entries" if files else "nothing"
        raise ValueError(f"dataset_path {path!r}: {number} there is an image file")
    tables = [n for n in files if os.path.basename(n) == TABLE] if whole else [TABLE]
    tables = [n for n in tables if os.path.isfile(os.path.join(root, n))]

    def read(name: str) -> bytes:
        with open(os.path.join(root, name), "rb") as file:
            return file.read()

    return ImageFiles(path, root or ".", names, tables, read, partial=not whole)


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
    return ImageFiles(path, root, names, tables, archive.read, partial=False)


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


def read_annotations(files: ImageFiles) -> Annotations:
    """Read and check the pictures' dataset.json, if there is one.

    Raises ValueError naming the file and the entry that is wrong.
    """
    if not files.tables:
        return Annotations(None, None)
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
    find = _name_finder(files, os.path.dirname(table))

    def column(key: str, check: Callable[[Any], Any], dtype: type) -> np.ndarray | None:
        entries = content.get(key)
        if entries is None:
            return None
        return np.array(_values(files, f"{where}: {key}", entries, find, check), dtype)

    return Annotations(
        column("camera_angles", _angles, np.float32), column("labels", _label, np.int64)
    )


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
            raise ValueError(f"{where} names {name!r}, and there is no such image")
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
        raise ValueError(f"{where} lacks {len(missing)} of the images: {some(missing)}")
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
        raise ValueError("must have a pitch between 0 and pi (radians)")
    return value


def _label(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ValueError("must be a class number: an integer from 0")
    return value

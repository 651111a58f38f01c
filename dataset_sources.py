"""Sources of the data set tool: which pictures to read, and what is known about them.

Folders, globs and zips are those of `image_files`; a list is a .txt file of paths, one per line,
relative to its folder, each followed by a tab and a class number, or none of them. Labels come from
the source's dataset.json or list, or are the names of the top folders, numbered in sorted order.
"""

import math
import os
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from image_files import (
    TABLE,
    Annotations,
    ImageFiles,
    find_images,
    read_annotations,
    read_table,
    some,
)
from rendering.camera_labels import check_camera_labels

LABELS = ("table", "folders", "none")
KEPT = ("camera", "classes")  # keys of dataset.json about the whole set


def open_source(path: str) -> tuple[ImageFiles, list[int] | None]:
    """The pictures of a folder, glob, zip or list, and the class numbers of a list."""
    expanded = os.path.expanduser(path)
    if _is_lmdb(expanded):
        raise ValueError(
            f"{path!r} is an LMDB, which is not read any more: write its pictures into a folder "
            "(LSUN: `python data.py export LMDB --out_dir FOLDER` of github.com/fyu/lsun), and "
            "give that"
        )
    lower = expanded.lower()
    if os.path.isfile(expanded) and lower.endswith((".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z")):
        raise ValueError(
            f"{path!r} is an archive of a kind that is not read: unpack it, and give the folder "
            "with the pictures (or a zip of it)"
        )
    if os.path.isfile(expanded) and lower.endswith(".txt"):
        return _open_list(path, expanded)
    return find_images(path), None


def _is_lmdb(path: str) -> bool:
    known = path.rstrip(os.sep).lower().endswith(("_lmdb", ".lmdb", ".mdb"))
    return known or os.path.isfile(os.path.join(path, "data.mdb"))


def _open_list(path: str, expanded: str) -> tuple[ImageFiles, list[int] | None]:
    with open(expanded, encoding="utf-8") as file:
        lines = [line.rstrip("\r\n") for line in file if line.strip()]
    names = [line.split("\t")[0].strip() for line in lines]
    marks = [line.split("\t")[1].strip() for line in lines if "\t" in line]
    root = os.path.dirname(expanded) or "."
    lost = [n for n in names if not os.path.isfile(os.path.join(root, n))]
    if not names or lost:
        what = f"{len(lost)} of its {len(names)} files do not exist: {some(lost)}"
        raise ValueError(f"list {path!r}: " + (what if names else "holds no path"))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"list {path!r} names {len(twice)} files twice: {some(twice)}")
    if marks and len(marks) != len(names):
        raise ValueError(f"list {path!r} has {len(marks)} classes for {len(names)} pictures")
    if odd := [mark for mark in marks if not mark.isdecimal()]:
        raise ValueError(f"list {path!r}: classes must be numbers from 0, got {some(odd)}")

    def read(name: str) -> bytes:
        with open(os.path.join(root, name), "rb") as file:
            return file.read()

    files = ImageFiles(path, root, names, [], read, partial=False, others=[])
    return files, [int(mark) for mark in marks] or None


# ---- annotations


def source_annotations(
    files: ImageFiles, listed: list[int] | None, labels: str
) -> tuple[Annotations, dict[str, Any], list[str]]:
    """What is known of the pictures and of the whole set, and remarks about what is dropped."""
    if labels not in LABELS:
        raise ValueError(f"labels must be one of {LABELS}, got {labels!r}")
    notes = read_annotations(files)
    extra = read_table(files)[1]
    remarks = []
    if files.others:
        remarks.append(f"no pictures, passed over: {len(files.others)} ({some(files.others)})")
    if dropped := sorted(set(extra) - {"labels", "camera_angles", *KEPT}):
        remarks.append(f"dropped keys of {TABLE}: {', '.join(dropped)}")
    extra = {key: extra[key] for key in KEPT if key in extra}
    if listed is not None:
        notes = replace(notes, labels=np.array(listed), num_classes=max(listed) + 1)
    if labels == "table":
        if notes.camera_labels is not None:
            values = torch.from_numpy(notes.camera_labels)
            check_camera_labels(values, files.names, f"{notes.where}: labels")
        return notes, extra, remarks
    if notes.labels is not None or notes.camera_labels is not None:
        remarks.append(f"dropped the labels of the source (labels: {labels})")
    notes = replace(notes, labels=None, num_classes=0, camera_labels=None)
    extra.pop("classes", None)
    if labels == "folders":
        folders = [name.split("/")[0] if "/" in name else "" for name in files.names]
        if "" in folders:
            stray = [n for n, folder in zip(files.names, folders, strict=True) if not folder]
            raise ValueError(f"{files.path}: {len(stray)} pictures lie in no folder: {some(stray)}")
        classes = sorted(set(folders))
        numbers = np.array([classes.index(folder) for folder in folders])
        notes = replace(notes, labels=numbers, num_classes=len(classes))
        extra["classes"] = classes
    return notes, extra, remarks


def mirror_yaw(notes: Annotations, given: float | None) -> float | None:
    """The yaw that mirrored cameras keep; None where there are none."""
    given = notes.camera.get("frontal_yaw") if given is None else given
    if given is not None:
        return float(given)
    if notes.camera_angles is not None:
        yaw = notes.camera_angles[:, 0].astype(np.float64)
        middle = math.atan2(np.sin(yaw).mean(), np.cos(yaw).mean())
        raise ValueError(
            f"{notes.where}: mirroring cameras needs frontal_yaw, the yaw from which figures are "
            f"seen in the face: 0 (EpiGRAF) or 1.5708 (pi-GAN); the mean yaw is {middle:.3f}"
        )
    return math.pi / 2  # the camera labels' convention

"""Cameras of dataset.json from one form into the other, and what a data set holds, in words.

"angles" are yaw, pitch, roll per picture (`camera_angles`), with one field of view and distance for
all, under "camera"; "labels" are 25 numbers per picture (`rendering.camera_labels`). Either says
what the other does only if cameras look at one point from one distance with one field of view; what
is not so is refused.
"""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from image_files import Annotations, ImageFiles
from rendering.camera_labels import (
    EXACT,
    cameras_from_labels,
    labels_from_cameras,
    orbit_angles,
)
from rendering.cameras import Cameras
from rendering.empirical_poses import FRONTAL_YAW, PoseReport, check_angles, check_labels

CAMERAS = ("keep", "angles", "labels")
Point = tuple[float, float, float]
ORIGIN = (0.0, 0.0, 0.0)


def angles_from_labels(
    labels: np.ndarray,  # (N, 25)
    names: list[str],
    where: str,
    pivot: Point = ORIGIN,  # what all cameras look at
    up: str = "y",
) -> tuple[np.ndarray, dict[str, float]]:
    """Yaw, pitch, roll of every camera, and the "fov" and "radius" that they share."""
    cameras = cameras_from_labels(torch.from_numpy(labels), names, where)
    orbit = orbit_angles(cameras, pivot=pivot, up=up, names=names, where=where)
    shared = {}
    for key, values in (("fov", orbit.fov), ("radius", orbit.radius)):
        low, high = float(values.min()), float(values.max())
        if high - low > EXACT * high:
            nearest, farthest = names[int(values.argmin())], names[int(values.argmax())]
            raise ValueError(
                f"{where}: cameras have no common {key}, but {low:.4g} ({nearest}) to {high:.4g} "
                f"({farthest}); angles cannot say that, keep the labels"
            )
        shared[key] = float(values.double().mean())
    return orbit.angles.numpy(), shared


def labels_from_angles(
    angles: np.ndarray,  # (N, 3)
    camera: dict[str, Any],  # with "fov" and "radius"
    where: str,
) -> np.ndarray:
    """The 25 numbers of every camera."""
    missing = [key for key in ("fov", "radius") if not isinstance(camera.get(key), (int, float))]
    if missing:
        raise ValueError(
            f"{where}: camera labels need camera.{' and camera.'.join(missing)} of dataset.json: "
            'add "camera": {"fov": degrees, "radius": distance}'
        )
    yaw, pitch, roll = torch.from_numpy(angles).double().unbind(1)
    cameras = Cameras.from_angles(yaw, pitch, camera["fov"], camera["radius"], roll)
    return labels_from_cameras(cameras).numpy()


def turned(notes: Annotations, yaw: float) -> Annotations:
    """Cameras whose yaw is greater by `yaw`, the front along with them: another convention's."""
    if notes.camera_angles is None:
        raise ValueError(f"{notes.where or 'the source'} has no camera_angles to add yaw to")
    angles = notes.camera_angles.astype(np.float64)
    angles[:, 0] = np.remainder(angles[:, 0] + yaw + math.pi, 2 * math.pi) - math.pi
    camera = dict(notes.camera)
    if "frontal_yaw" in camera:
        camera["frontal_yaw"] = math.remainder(camera["frontal_yaw"] + yaw, 2 * math.pi)
    return replace(notes, camera_angles=angles, camera=camera)


def report_cameras(notes: Annotations, frontal_yaw: float | None = None) -> PoseReport | None:
    """How the cameras of a data set are distributed; None where there are none."""
    front = notes.camera.get("frontal_yaw", FRONTAL_YAW) if frontal_yaw is None else frontal_yaw
    if notes.camera_angles is not None:
        return check_angles(torch.from_numpy(notes.camera_angles), front)
    if notes.camera_labels is not None:
        labels = torch.from_numpy(notes.camera_labels)
        return check_labels(labels, front, notes.camera.get("up", "y"))
    return None


def describe(files: ImageFiles, notes: Annotations, frontal_yaw: float | None = None) -> str:
    """Pictures, classes and cameras of a source, and what is wrong about the cameras."""
    lines = [f"{len(files.names)} pictures, {len(files.others)} other files"]
    if notes.labels is not None:
        counts = Counter(notes.labels.tolist())
        rare, common = counts.most_common()[-1], counts.most_common()[0]
        lines.append(
            f"{notes.num_classes} classes, {notes.num_classes - len(counts)} of them empty; "
            f"class {rare[0]} has {rare[1]} pictures, class {common[0]} has {common[1]}"
        )
    else:
        lines.append("no classes")
    report = report_cameras(notes, frontal_yaw)
    lines.append("no cameras" if report is None else str(report))
    return "\n".join(lines)

"""Camera labels of 25 numbers (EG3D's `dataset.json`), our cameras, and angles.

A label is cam2world, 4 x 4, then the intrinsics [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], both by
rows. In a label's camera frame +x is right, +y down and +z forward (OpenCV); in ours (see
`rendering.cameras`) +y is up and -z forward, so the second and third column of the rotation change
sign. Intrinsics are in units of the picture's width and height: with the principal point at 0.5 and
fx = fy = f, the field of view is 2 arctan(1 / (2 f)). The world is not touched: +y is up for faces
(FFHQ, AFHQ), +z for some others (SRN cars); `up` says so where angles are concerned.

Nothing is approximated: what one of the three forms cannot say of a camera is refused, with the
numbers and what to do.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from ops.shapes import Float
from rendering.cameras import Cameras

LABEL_SIZE = 25
ROTATION_TOLERANCE = 1e-3  # of every entry of R^T R
EXACT = 1e-3  # relative; labels are stored with few digits
FOCAL_RANGE = (0.05, 50.0)  # picture widths: fields of view of 169 and 1.1 degrees
AXES = ("y", "z")

Refuse = Callable[[Tensor, str], None]


class OrbitAngles(NamedTuple):
    """Where cameras stand that look at a common point, `pivot`."""

    angles: Float[Tensor, "batch 3"]  # yaw, pitch, roll in radians, as in `rendering.cameras`
    radius: Float[Tensor, " batch"]  # distance from the pivot
    fov: Float[Tensor, " batch"]  # degrees


def check_camera_labels(
    labels: Float[Tensor, "batch 25"],
    names: Sequence[str] | None = None,
    where: str = "camera labels",
) -> None:
    """Refuse labels that describe no right-handed pinhole camera.

    Raises ValueError naming the file (`where`), the picture, what is wrong, and how to mend it.
    """

    def refuse(wrong: Tensor, text: str) -> None:
        if wrong.any():
            _refuse(wrong, names, where, text)

    values = labels.double()
    finite = values.isfinite().all(1)
    refuse(~finite, "must be finite numbers")
    cam2world, intrinsics = _split(values)
    rotation = cam2world[:, :3, :3]
    lengths = rotation.norm(dim=1)
    gram = rotation.transpose(1, 2) @ rotation
    error = (gram - torch.eye(3).to(gram)).abs().amax((1, 2))
    size = f"R^T R differs from the identity by up to {float(error.max()):.3g}"
    orthogonal = (gram - torch.diag_embed(lengths**2)).abs().amax((1, 2)) <= ROTATION_TOLERANCE
    scaled = (error > ROTATION_TOLERANCE) & orthogonal & (lengths > 0.01).all(1)
    refuse(scaled, f"its rotation is scaled ({size}): divide each of its columns by its length")
    refuse(
        error > ROTATION_TOLERANCE,
        f"its rotation is not orthonormal ({size}): the first 16 numbers must be cam2world by "
        "rows, without scale or shear",
    )
    refuse(
        torch.linalg.det(rotation) < 0,
        "its rotation is left-handed (determinant -1): negate the column of the axis that points "
        "the wrong way; it must be x right, y down, z forward",
    )
    bottom = (cam2world[:, 3] - torch.tensor([0.0, 0, 0, 1]).to(values)).abs().amax(1)
    refuse(bottom > EXACT, "the fourth row of cam2world must be 0 0 0 1: is the matrix transposed?")
    _check_intrinsics(intrinsics, refuse)


def cameras_from_labels(
    labels: Float[Tensor, "batch 25"],
    names: Sequence[str] | None = None,
    where: str = "camera labels",
) -> Cameras:
    """Our cameras of the labels, exactly; the world's axes stay the label's.

    Raises ValueError where `check_camera_labels` does, and for what `Cameras` cannot say: fx other
    than fy, skew, a principal point off the centre.
    """
    check_camera_labels(labels, names, where)
    _, intrinsics = _split(labels)
    focal, skew = intrinsics[:, 0, 0], intrinsics[:, 0, 1]
    reason = "a camera with one field of view cannot say that; cut and resize the pictures so that"
    unequal = (intrinsics[:, 1, 1] - focal).abs() > EXACT * focal
    if unequal.any():
        _refuse(unequal, names, where, f"fx differs from fy: {reason} pixels are square")
    if (skewed := skew.abs() > EXACT * focal).any():
        _refuse(skewed, names, where, f"its intrinsics have skew: {reason} there is none")
    off = (intrinsics[:, :2, 2] - 0.5).abs().amax(1) > EXACT
    if off.any():
        text = f"its principal point is not (0.5, 0.5): {reason} it is their centre"
        _refuse(off, names, where, text)
    return raw_cameras(labels)


def raw_cameras(labels: Float[Tensor, "batch 25"]) -> Cameras:
    """Our cameras of the labels, unchecked: all that the intrinsics give is fx."""
    cam2world, intrinsics = _split(labels)
    return Cameras(_turn_axes(cam2world), torch.rad2deg(2 * torch.atan(0.5 / intrinsics[:, 0, 0])))


def labels_from_cameras(cameras: Cameras) -> Float[Tensor, "batch 25"]:
    """Labels of our cameras, exactly."""
    focal = 0.5 / torch.tan(torch.deg2rad(cameras.fov) / 2)
    intrinsics = torch.eye(3, device=focal.device, dtype=focal.dtype).repeat(len(focal), 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2] = 0.5
    return torch.cat([_turn_axes(cameras.cam2world).flatten(1), intrinsics.flatten(1)], dim=1)


def orbit_angles(
    cameras: Cameras,
    *,
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0),  # what they look at, in their world
    up: str = "y",  # the axis of their world that points upwards
    names: Sequence[str] | None = None,
    where: str = "cameras",
) -> OrbitAngles:
    """Yaw, pitch, roll and distance from which cameras look at `pivot`, the inverse of
    `cameras_from_orbit`.

    Raises ValueError for cameras that do not look at it, or that stand on the vertical through it,
    where yaw and roll cannot be told apart.
    """
    center = torch.tensor(pivot, dtype=torch.float64).to(cameras.origin.device)
    offset, back = cameras.origin.double() - center, cameras.cam2world[:, :3, 2].double()
    radius = offset.norm(dim=1)
    if (missed := ((back - offset / radius[:, None]).norm(dim=1) <= EXACT).logical_not()).any():
        _refuse(missed, names, where, f"it does not look at {_point(pivot)}: {_advice(cameras)}")
    angles = orientation_angles(cameras, up)
    if (poles := angles[:, 1].sin() < EXACT).any():
        text = "it looks straight up or down, where yaw and roll cannot be told apart"
        _refuse(poles, names, where, text)
    return OrbitAngles(angles, radius.to(angles.dtype), cameras.fov)


def orientation_angles(cameras: Cameras, up: str = "y") -> Float[Tensor, "batch 3"]:
    """Yaw, pitch and roll in radians of the directions in which cameras look, wherever they stand.

    At the poles, yaw and roll are one of many pairs that describe the same camera.
    """
    rotation = _to_y_up(up).to(cameras.origin.device) @ cameras.cam2world[:, :3, :3].double()
    right, _, back = rotation.unbind(2)
    pitch = torch.atan2(back[:, [0, 2]].norm(dim=1), back[:, 1])
    yaw = torch.atan2(back[:, 2], back[:, 0])
    level = Cameras.from_angles(yaw, pitch, 60.0).cam2world[:, :3]
    roll = torch.atan2((right * level[..., 1]).sum(1), (right * level[..., 0]).sum(1))
    return torch.stack([yaw, pitch, roll], 1).to(cameras.cam2world.dtype)


def cameras_from_orbit(
    orbit: OrbitAngles,
    *,
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: str = "y",
) -> Cameras:
    """Cameras that look at `pivot` of a world whose axis `up` points upwards."""
    yaw, pitch, roll = orbit.angles.unbind(1)
    cameras = Cameras.from_angles(yaw, pitch, orbit.fov, orbit.radius, roll)
    cam2world = cameras.cam2world.clone()
    cam2world[:, :3] = _to_y_up(up).T.to(cam2world) @ cam2world[:, :3]
    cam2world[:, :3, 3] += torch.tensor(pivot, dtype=torch.float64).to(cam2world)
    # remembered angles are those of a position about the origin of a world whose y is up
    angles = cameras.angles if up == "y" and not any(pivot) else None
    return replace(cameras, cam2world=cam2world, angles=angles)


def look_at(
    origin: Float[Tensor, "batch 3"],
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.0),
    fov: Tensor | float = 30.0,
    *,
    up: str = "y",
) -> Cameras:
    """Level cameras that stand at `origin` and look at `pivot`; EG3D's face data do so at
    (0, 0, 0.2) from a sphere around the world's origin.
    """
    offset = (origin - torch.tensor(pivot).to(origin)) @ _to_y_up(up).to(origin).T
    x, y, z = offset.unbind(1)
    yaw, pitch = torch.atan2(z, x), torch.atan2(torch.hypot(x, z), y)
    fov = torch.as_tensor(fov).to(origin).expand(len(origin))
    angles = torch.stack([yaw, pitch, torch.zeros_like(yaw)], 1)
    return cameras_from_orbit(OrbitAngles(angles, offset.norm(dim=1), fov), pivot=pivot, up=up)


def fov_of_published(degrees: float) -> float:
    """Our field of view, of the picture's side, of one that EG3D's scripts are given.

    Theirs is that of the diagonal, with 1.414 and 3.14159 for sqrt(2) and pi: 18.837 is a focal
    length of 4.263, and a field of view of 13.38 degrees.
    """
    focal = 1 / (math.tan(degrees * 3.14159 / 360) * 1.414)
    return math.degrees(2 * math.atan(0.5 / focal))


def mirror_labels(
    labels: Float[Tensor, "batch 25"],
    frontal_yaw: float = math.pi / 2,  # yaw of the cameras in the plane of symmetry
    up: str = "y",
) -> Float[Tensor, "batch 25"]:
    """Labels of the pictures flipped left to right.

    The world is mirrored at the vertical plane through the origin that holds `frontal_yaw`, the
    camera at its own plane x = 0.
    """
    cam2world, intrinsics = _split(labels)
    across = (
        torch.tensor([-math.sin(frontal_yaw), 0.0, math.cos(frontal_yaw)]) @ _to_y_up(up).float()
    )
    world = torch.eye(4)
    world[:3, :3] -= 2 * torch.outer(across, across)
    own = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    cam2world = world.to(cam2world) @ cam2world @ own.to(cam2world)
    intrinsics = intrinsics.clone()
    intrinsics[:, 0, 1] *= -1
    intrinsics[:, 0, 2] = 1 - intrinsics[:, 0, 2]
    return torch.cat([cam2world.flatten(1), intrinsics.flatten(1)], dim=1)


def nearest_point(cameras: Cameras) -> tuple[Float[Tensor, " 3"], float]:
    """The point nearest to all optical axes (least squares), and the largest distance to one."""
    origin, axis = cameras.origin.double(), cameras.cam2world[:, :3, 2].double()
    across = torch.eye(3).to(axis) - axis[:, :, None] * axis[:, None, :]
    point = torch.linalg.pinv(across.sum(0)) @ (across @ origin[..., None]).sum(0)[:, 0]
    away = (across @ (point - origin)[..., None])[..., 0].norm(dim=1)
    return point.to(cameras.cam2world.dtype), float(away.max())


# ---- helpers


def _split(labels: Tensor) -> tuple[Tensor, Tensor]:
    return labels[:, :16].reshape(-1, 4, 4), labels[:, 16:].reshape(-1, 3, 3)


def _turn_axes(cam2world: Tensor) -> Tensor:
    """From the label's camera frame to ours, and back."""
    x, yz, w = cam2world.split([1, 2, 1], dim=-1)
    return torch.cat([x, -yz, w], dim=-1)


def _to_y_up(up: str) -> Tensor:
    """The rotation that makes the world's `up` its +y: about +x."""
    if up not in AXES:
        raise ValueError(f"up must be one of {AXES}, got {up!r}")
    rows = (
        [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]] if up == "y" else [[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]
    )
    return torch.tensor(rows, dtype=torch.float64)


def _check_intrinsics(intrinsics: Tensor, refuse: Refuse) -> None:
    focal, center = intrinsics[:, [0, 1], [0, 1]], intrinsics[:, :2, 2]
    fixed = intrinsics[:, [1, 2, 2, 2], [0, 0, 1, 2]] - torch.tensor([0.0, 0, 0, 1]).to(intrinsics)
    refuse(
        fixed.abs().amax(1) > EXACT,
        "the last 9 numbers must be intrinsics by rows: fx skew cx, 0 fy cy, 0 0 1",
    )
    refuse((focal <= 0).any(1), "its focal lengths must be positive")
    pixels = "divide fx, skew, cx by the picture's width and fy, cy by its height in pixels"
    refuse(
        ((focal < FOCAL_RANGE[0]) | (focal > FOCAL_RANGE[1])).any(1),
        f"its focal lengths are beyond {FOCAL_RANGE} picture widths: {pixels}",
    )
    refuse(
        ((center < 0) | (center > 1)).any(1),
        f"its principal point lies outside the picture (0..1): {pixels}",
    )


def _advice(cameras: Cameras) -> str:
    if len(cameras) < 2:
        return "give the pivot that it looks at"
    point, away = nearest_point(cameras)
    return (
        f"the optical axes of all {len(cameras)} pass within {round(away, 6):g} of "
        f"{_point(point.tolist())}; give that as the pivot if this is near enough to 0"
    )


def _point(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{round(v, 4) + 0.0:g}" for v in values) + ")"


def _refuse(wrong: Tensor, names: Sequence[str] | None, where: str, text: str) -> NoReturn:
    first = int(wrong.nonzero()[0])
    name = f"number {first}" if names is None else repr(names[first])
    count = int(wrong.sum())
    others = f" (and {count - 1} more of {len(wrong)})" if count > 1 else ""
    raise ValueError(f"{where}: camera of {name}: {text}{others}")


def turntable_angles(rotations: Float[Tensor, "batch 3 3"]) -> Float[Tensor, "batch 3"]:
    """(yaw, pitch, roll) by which EpiGRAF's authors label renders of z-up scenes (Megascans).

    The rotation, cam2world, is turned about x by the pitch, then about y by the roll, then about z
    by the yaw: a camera that looks at the origin from above the ground has a pitch of at least 0.
    """
    yaw = torch.atan2(rotations[:, 1, 0], rotations[:, 0, 0])
    pitch = torch.atan2(rotations[:, 2, 1], rotations[:, 2, 2])
    roll = torch.atan2(-rotations[:, 2, 0], rotations[:, 2, 1:].norm(dim=1))
    return torch.stack([yaw, pitch, roll], dim=1)

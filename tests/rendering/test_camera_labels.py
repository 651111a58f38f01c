"""Camera labels of 25 numbers against cameras, angles, and what they may not be."""

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from rendering.camera_labels import (
    OrbitAngles,
    cameras_from_labels,
    cameras_from_orbit,
    check_camera_labels,
    fov_of_published,
    labels_from_cameras,
    look_at,
    mirror_labels,
    nearest_point,
    orbit_angles,
)
from rendering.cameras import Cameras

PIVOT = (0.1, -0.3, 0.2)


def orbit(count: int = 6, seed: int = 0) -> OrbitAngles:
    """Random cameras around a point, rolled too."""
    unit = torch.rand(count, 5, dtype=torch.float64, generator=torch.manual_seed(seed))
    yaw, pitch, roll = 6 * unit[:, 0] - 3, 0.2 + 2.7 * unit[:, 1], 4 * unit[:, 2] - 2
    return OrbitAngles(torch.stack([yaw, pitch, roll], 1), 1 + unit[:, 3], 10 + 60 * unit[:, 4])


def face_label(**changes: float) -> Tensor:
    """A frontal face camera as EG3D's data have it, with entries changed by place."""
    numbers = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1]
    numbers += [4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    for place, value in changes.items():
        numbers[int(place[1:])] = value
    return torch.tensor([numbers], dtype=torch.float64)


def projected(label: Tensor, points: Tensor) -> Tensor:
    """Where a label shows world points: (x, y) from the top left, in picture sides."""
    cam2world = label[:16].reshape(4, 4)
    own = (points - cam2world[:3, 3]) @ cam2world[:3, :3]
    pixels = own @ label[16:].reshape(3, 3).T
    return pixels[:, :2] / pixels[:, 2:]


# ---- cameras


def test_the_frontal_face_camera_is_our_frontal_camera():
    camera = cameras_from_labels(face_label())
    ours = Cameras.from_angles(torch.tensor(math.pi / 2).double(), math.pi / 2, 1.0, radius=2.7)
    torch.testing.assert_close(camera.cam2world, ours.cam2world, atol=1e-6, rtol=0)
    expected = math.degrees(2 * math.atan(0.5 / 4.2647))
    assert float(camera.fov) == pytest.approx(expected)


def test_rays_meet_the_points_that_the_label_projects_onto_their_pixels():
    label = labels_from_cameras(cameras_from_orbit(orbit(1), pivot=PIVOT))[0]
    camera = cameras_from_labels(label[None])
    origins, directions = camera.rays(3, 5)
    places = projected(label, (origins + 1.3 * directions)[0])
    x, y = torch.linspace(0, 1, 5).double(), torch.linspace(0, 1, 3).double()
    expected = torch.stack([x.expand(3, 5), y[:, None].expand(3, 5)], -1).reshape(-1, 2)
    torch.testing.assert_close(places, expected, atol=1e-9, rtol=0)


def test_labels_and_cameras_turn_into_each_other_exactly():
    cameras = cameras_from_orbit(orbit())
    labels = labels_from_cameras(cameras)
    again = cameras_from_labels(labels)
    torch.testing.assert_close(again.cam2world, cameras.cam2world, rtol=0, atol=0)
    torch.testing.assert_close(again.fov, cameras.fov)
    torch.testing.assert_close(labels_from_cameras(again), labels)


# ---- angles


@pytest.mark.parametrize("up", ["y", "z"])
@pytest.mark.parametrize("pivot", [(0.0, 0.0, 0.0), PIVOT])
def test_angles_come_back_from_labels(up, pivot):
    given = orbit()
    labels = labels_from_cameras(cameras_from_orbit(given, pivot=pivot, up=up))
    found = orbit_angles(cameras_from_labels(labels), pivot=pivot, up=up)
    for a, b in zip(found, given, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_single_precision_labels_give_angles_to_single_precision():
    given = orbit()
    labels = labels_from_cameras(cameras_from_orbit(given)).float()
    found = orbit_angles(cameras_from_labels(labels))
    assert found.angles.dtype == torch.float32
    torch.testing.assert_close(found.angles, given.angles.float(), atol=1e-5, rtol=0)


def test_up_is_the_axis_that_a_level_camera_s_picture_shows_upright():
    for up, axis in (("y", [0.0, 1, 0]), ("z", [0.0, 0, 1])):
        level = OrbitAngles(orbit().angles * torch.tensor([1.0, 1, 0]), *orbit()[1:])
        labels = labels_from_cameras(cameras_from_orbit(level, pivot=PIVOT, up=up))
        points = torch.tensor([PIVOT, (torch.tensor(PIVOT) + 0.1 * torch.tensor(axis)).tolist()])
        for label in labels:
            (x0, y0), (x1, y1) = projected(label, points.double())
            assert float(x1 - x0) == pytest.approx(0, abs=1e-6) and y1 < y0


def test_the_angles_of_a_camera_about_the_origin_are_remembered():
    cameras = cameras_from_orbit(orbit())
    torch.testing.assert_close(cameras.yaw_pitch, orbit().angles[:, :2])
    moved = cameras_from_orbit(orbit(), pivot=PIVOT)
    assert moved.angles is None


def test_a_camera_that_looks_elsewhere_is_refused_with_the_point_that_they_look_at():
    cameras = cameras_from_orbit(orbit(), pivot=(0.0, 0.0, 0.2))
    message = r"labels.json: camera of 'b': it does not look at (0, 0, 0): .* of all 2 pass within"
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")) as refusal:
        orbit_angles(cameras[:2], names=["b", "c"], where="labels.json")
    assert "of (0, 0, 0.2); give that as the pivot" in str(refusal.value)
    with pytest.raises(ValueError, match="give the pivot that it looks at"):
        orbit_angles(cameras[0])


def test_a_camera_that_looks_away_is_refused():
    label = face_label()
    label[:, [0, 2, 4, 6, 8, 10]] *= -1
    check_camera_labels(label)
    with pytest.raises(ValueError, match="does not look at"):
        orbit_angles(cameras_from_labels(label))


def test_a_camera_at_a_pole_has_no_yaw():
    above = Cameras.from_angles(torch.tensor([0.3]), 0.0, 30.0)
    with pytest.raises(ValueError, match="straight up or down"):
        orbit_angles(above)


def test_an_unknown_axis_is_refused():
    with pytest.raises(ValueError, match="up must be one of .*got 'x'"):
        orbit_angles(cameras_from_orbit(orbit()), up="x")


def test_the_nearest_point_to_all_axes_is_the_common_one():
    point, away = nearest_point(cameras_from_orbit(orbit(), pivot=PIVOT))
    assert point.tolist() == pytest.approx(PIVOT, abs=1e-9) and away < 1e-9
    parallel = Cameras(torch.eye(4).double().repeat(2, 1, 1), torch.ones(2))
    parallel.cam2world[0, 0, 3], parallel.cam2world[1, 0, 3] = 1, -1
    point, away = nearest_point(parallel)
    assert point.tolist() == pytest.approx([0, 0, 0], abs=1e-9) and away == pytest.approx(1)


@pytest.mark.parametrize(("up", "axis"), [("y", 1), ("z", 2)])
def test_cameras_that_look_at_a_point_stand_where_they_should_and_are_level(up, axis):
    origin = torch.randn(6, 3, dtype=torch.float64, generator=torch.manual_seed(3))
    cameras = look_at(origin, PIVOT, 25.0, up=up)
    torch.testing.assert_close(cameras.origin, origin)
    toward = torch.nn.functional.normalize(torch.tensor(PIVOT).double() - origin, dim=1)
    torch.testing.assert_close(-cameras.cam2world[:, :3, 2], toward, atol=1e-6, rtol=0)
    assert cameras.cam2world[:, axis, 0].abs().max() < 1e-6  # right is level
    assert (cameras.cam2world[:, axis, 1] > 0).all() and (cameras.fov == 25).all()


def test_a_published_field_of_view_is_that_of_the_diagonal():
    fov = fov_of_published(18.837)
    assert 0.5 / math.tan(math.radians(fov) / 2) == pytest.approx(4.2634, abs=1e-4)
    diagonal = math.degrees(2 * math.atan(math.sqrt(0.5) / 4.2647))
    assert diagonal == pytest.approx(18.837, abs=1e-2)


# ---- mirroring


@pytest.mark.parametrize(("frontal", "up"), [(math.pi / 2, "y"), (0.0, "y"), (0.7, "z")])
def test_a_mirrored_label_shows_mirrored_points_mirrored(frontal, up):
    label = labels_from_cameras(cameras_from_orbit(orbit(1), pivot=PIVOT, up=up))
    label[:, [17, 18, 20]] += torch.tensor([0.2, 0.1, 0.3])  # skew, cx, fy
    points = torch.randn(5, 3, dtype=torch.float64, generator=torch.manual_seed(1)) * 0.1
    plane = Cameras.from_angles(torch.tensor(frontal), math.pi / 2, 60.0)
    seen = cameras_from_orbit(
        OrbitAngles(torch.tensor([[frontal, math.pi / 2, 0.0]]), torch.ones(1), plane.fov), up=up
    )
    across = seen.cam2world[0, :3, 0].double()  # the frontal camera's right
    mirrored = points - 2 * (points @ across)[:, None] * across
    before, after = (
        projected(label[0], points),
        projected(mirror_labels(label, frontal, up)[0], mirrored),
    )
    torch.testing.assert_close(
        after, torch.stack([1 - before[:, 0], before[:, 1]], 1), atol=1e-5, rtol=1e-5
    )
    check_camera_labels(mirror_labels(label, frontal, up))


def test_mirroring_labels_is_mirroring_angles():
    given = orbit()
    labels = mirror_labels(labels_from_cameras(cameras_from_orbit(given)))
    yaw, pitch, roll = given.angles.unbind(1)
    found = orbit_angles(cameras_from_labels(labels)).angles
    expected = torch.stack([math.pi - yaw, pitch, -roll], 1)
    difference = (found - expected + math.pi).remainder(2 * math.pi) - math.pi
    assert difference.abs().max() < 1e-5
    torch.testing.assert_close(
        mirror_labels(labels), labels_from_cameras(cameras_from_orbit(given))
    )


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_3": math.nan}, "must be finite numbers"),
        ({"_0": 0.9}, "is scaled (R^T R differs from the identity by up to 0.19)"),
        ({"_0": 2, "_5": -2, "_10": -2}, "is scaled (R^T R differs from the identity by up to 3)"),
        ({"_1": 0.3}, "without scale or shear"),
        ({"_10": 1}, "left-handed (determinant -1): negate the column"),
        ({"_0": 0, "_5": 0, "_10": 0}, "not orthonormal"),
        ({"_11": 0, "_14": 2.7}, "fourth row of cam2world must be 0 0 0 1: is the matrix transp"),
        ({"_15": 0}, "fourth row of cam2world must be 0 0 0 1"),
        ({"_16": 1015.0, "_20": 1015.0}, "beyond (0.05, 50.0) picture widths: divide fx, skew, cx"),
        ({"_16": -4.26}, "focal lengths must be positive"),
        ({"_18": 256.0}, "principal point lies outside the picture (0..1): divide fx"),
        ({"_24": 0}, "last 9 numbers must be intrinsics by rows: fx skew cx, 0 fy cy, 0 0 1"),
        ({"_19": 0.2}, "last 9 numbers must be intrinsics by rows"),
    ],
)
def test_a_label_that_is_no_camera_is_refused_by_name(changes, message):
    labels = torch.cat([face_label(), face_label(**changes), face_label(**changes)])
    with pytest.raises(ValueError) as refusal:
        check_camera_labels(labels, ["a.png", "b.png", "c.png"], "faces.zip: dataset.json")
    text = str(refusal.value)
    assert text.startswith("faces.zip: dataset.json: camera of 'b.png': ") and message in text
    assert text.endswith("(and 1 more of 3)")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_20": 4.3}, "fx differs from fy"),
        ({"_17": 0.1}, "intrinsics have skew"),
        ({"_18": 0.52}, "principal point is not (0.5, 0.5)"),
    ],
)
def test_what_our_cameras_cannot_say_is_refused_only_where_it_is_asked_of_them(changes, message):
    check_camera_labels(face_label(**changes))
    with pytest.raises(ValueError, match=re.escape(message)):
        cameras_from_labels(face_label(**changes))


def test_labels_that_are_rounded_to_four_digits_pass():
    labels = labels_from_cameras(cameras_from_orbit(orbit(50)))
    rounded = torch.from_numpy(np.round(labels.numpy(), 4))
    check_camera_labels(rounded)
    exact, read = orbit(50).angles, orbit_angles(cameras_from_labels(rounded)).angles
    assert (exact - read).abs().max() < 1e-2

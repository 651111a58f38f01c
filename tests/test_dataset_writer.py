"""Converting data sets: pictures, labels and cameras that come out as they went in."""

import io
import json
import math
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset_writer import Report, write_dataset
from datasets import ImageDataset, open_dataset
from image_files import find_images, read_annotations
from image_windows import Window, check_target, transformed, windowed_label
from rendering.camera_labels import (
    OrbitAngles,
    cameras_from_labels,
    cameras_from_orbit,
    labels_from_cameras,
)
from rendering.cameras import Cameras


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def make_source(path: Path, count: int = 4, width: int = 8, height: int = 8, **table) -> Path:
    """A folder of noise pictures a/0.png, b/1.png, a/2.png ... and a table."""
    for i in range(count):
        file = path / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise(width, height, i).save(file)
    if table:
        (path / "dataset.json").write_text(json.dumps(table))
    return path


def name_of(i: int) -> str:
    return f"{'ab'[i % 2]}/{i}.png"


ORDER = [0, 2, 1, 3]  # of make_source's four pictures, sorted by name


def convert(source: Path | str, output: Path, **options) -> Report:
    return write_dataset(str(source), output, progress=False, **options)


def pictures(path: Path) -> list[np.ndarray]:
    files = find_images(str(path))
    return [np.asarray(Image.open(io.BytesIO(files.read(n)))) for n in files.names]


def table_of(path: Path) -> dict:
    return json.loads(find_images(str(path)).read("dataset.json"))


def opened(path: Path, img_size: int = 8) -> ImageDataset:
    return open_dataset("ImageFolder", path, img_size, progress=False)


# ---- pictures


@pytest.mark.parametrize("output", ["new/out.zip", "new/out"])
@pytest.mark.parametrize("workers", [0, 3])
def test_equal_square_pictures_are_kept_bit_for_bit(tmp_path, output, workers):
    report = convert(make_source(tmp_path / "in"), tmp_path / output, num_workers=workers)
    expected = [np.asarray(noise(8, 8, i)) for i in ORDER]
    np.testing.assert_array_equal(pictures(tmp_path / output), expected)
    assert find_images(str(tmp_path / output)).names == [f"00000/img{i:08d}.png" for i in range(4)]
    assert table_of(tmp_path / output) == {"labels": None, "camera_angles": None}
    assert (report.written, report.size, report.skipped, report.notes) == (4, 8, {}, [])
    assert [p.name for p in (tmp_path / "new").iterdir()] == [Path(output).name]


def test_the_zip_stores_png_files_that_are_not_compressed_either(tmp_path):
    convert(make_source(tmp_path / "in"), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert {e.compress_type for e in archive.infolist()} == {zipfile.ZIP_STORED}
        assert all(e.file_size > 8 * 8 * 3 for e in archive.infolist()[:-1])
        image = Image.open(io.BytesIO(archive.read("00000/img00000003.png")))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (8, 8))


def test_the_same_source_gives_the_same_bytes(tmp_path):
    source = make_source(tmp_path / "in")
    for name, workers in (("1.zip", 0), ("2.zip", 2)):
        convert(source, tmp_path / name, resolution=(4, 4), num_workers=workers)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_a_thousand_pictures_share_a_folder(tmp_path):
    noise(1, 1).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for i in range(501):
            archive.write(tmp_path / "a.png", f"{i}.png")
    convert(tmp_path / "in.zip", tmp_path / "out.zip", mirror=True)
    names = find_images(str(tmp_path / "out.zip")).names
    assert names[999:1001] == ["00000/img00000999.png", "00001/img00001000.png"]


def test_a_centre_crop_keeps_the_middle(tmp_path):
    image = noise(12, 8)
    done = transformed(image, "center-crop", (8, 8))
    np.testing.assert_array_equal(np.asarray(done.pixels), np.asarray(image)[:, 2:10])
    assert not done.distorted


@pytest.mark.parametrize(("size", "shown"), [((16, 20), 12), ((16, 12), 12), ((32, 12), 12)])
def test_a_letterbox_shows_the_central_window_of_the_target_s_aspect(size, shown):
    image = noise(*size)
    done = transformed(image, "center-letterbox", (16, 12))
    left, top = (size[0] - 16) // 2, (size[1] - shown) // 2
    pixels = np.asarray(done.pixels)
    assert pixels.shape == (16, 16, 3) and not pixels[:2].any() and not pixels[-2:].any()
    expected = np.asarray(image)[top : top + shown, left : left + 16]
    np.testing.assert_array_equal(pixels[2:-2], expected)
    assert not done.distorted


def test_the_wide_crop_tells_when_it_changes_the_aspect(tmp_path):
    assert not transformed(noise(32, 32), "center-crop-wide", (32, 32)).distorted
    assert transformed(noise(32, 24), "center-crop-wide", (16, 12)).distorted
    report = convert(
        make_source(tmp_path / "in", 2, 32, 24),
        tmp_path / "out.zip",
        resolution=(16, 12),
        transform="center-crop-wide",
    )
    assert report.notes == ["center-crop-wide changed the aspect of 2: a/0.png, b/1.png"]


@pytest.mark.parametrize("transform", ["center-crop-wide", "center-letterbox"])
def test_letterboxes_leave_out_what_they_would_enlarge(transform):
    for size in ((15, 20), (40, 11)):
        done = transformed(noise(*size), transform, (16, 12))
        assert done.pixels is None and f"smaller than 16x12 after {transform}" in done.skipped


def test_what_is_not_used_is_told_with_the_reason(tmp_path):
    source = make_source(tmp_path / "in")
    (source / "readme.md").write_text("")
    (source / "a/9.png").write_bytes(b"no picture")
    noise(4, 4).save(source / "b/tiny.png")
    report = convert(
        source, tmp_path / "o.zip", resolution=(8, 6), transform="center-letterbox", max_images=5
    )
    assert report.skipped == {"a/9.png": "not readable (UnidentifiedImageError)"}
    assert report.notes[:2] == [
        "no pictures, passed over: 1 (readme.md)",
        "left out 1 of 6 pictures (max_images)",
    ]
    report = convert(source, tmp_path / "o.zip", resolution=(8, 6), transform="center-letterbox")
    assert report.skipped["b/tiny.png"] == "smaller than 8x6 after center-letterbox"
    assert report.written == len(opened(tmp_path / "o.zip")) == 4
    assert "skipped 1, smaller than 8x6 after center-letterbox: b/tiny.png" in str(report)


def test_pictures_lying_on_their_side_count_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(6, 8).save(tmp_path / "a.png")
    noise(8, 6).save(tmp_path / "b.png", exif=exif)
    with pytest.raises(ValueError, match="pictures are 6x8, and must be square: .* 6x6 with"):
        convert(tmp_path, tmp_path / "out.zip")


# ---- labels and cameras

LABELS = {name_of(i): i for i in range(4)}
ANGLES = {name_of(i): [0.3 * i - 0.4, 1.2 + 0.1 * i, 0.05 * i] for i in range(4)}


def test_labels_and_angles_go_along_and_are_read_back(tmp_path):
    source = make_source(tmp_path / "in", labels=LABELS, camera_angles=ANGLES)
    convert(source, tmp_path / "out.zip", resolution=(4, 4))
    before = read_annotations(find_images(str(source)))
    data = opened(tmp_path / "out.zip", 4)
    assert data.labels is not None and data.camera_angles is not None
    np.testing.assert_array_equal(data.labels, ORDER)
    np.testing.assert_array_equal(data.camera_angles, before.camera_angles)
    table = table_of(tmp_path / "out.zip")
    assert table["labels"][1] == ["00000/img00000001.png", 2]
    assert [len(pair) for pair in table["camera_angles"]] == [2] * 4


def test_the_number_of_classes_survives_when_the_last_one_is_absent(tmp_path):
    vectors = {name: np.eye(6)[i].tolist() for name, i in LABELS.items()}
    convert(make_source(tmp_path / "in", labels=vectors), tmp_path / "out.zip")
    notes = read_annotations(find_images(str(tmp_path / "out.zip")))
    assert notes.num_classes == 6
    np.testing.assert_array_equal(notes.labels, ORDER)


def test_folders_can_be_the_classes(tmp_path):
    report = convert(
        make_source(tmp_path / "in", labels=LABELS), tmp_path / "out.zip", labels="folders"
    )
    np.testing.assert_array_equal(opened(tmp_path / "out.zip").labels, [0, 0, 1, 1])
    assert table_of(tmp_path / "out.zip")["classes"] == ["a", "b"]
    assert report.notes == ["dropped the labels of the source (labels: folders)"]


def test_a_list_gives_pictures_in_its_order_with_its_classes(tmp_path):
    make_source(tmp_path / "in")
    (tmp_path / "list.txt").write_text("in/b/3.png\t1\nin/a/0.png\t0\n\n")
    convert(tmp_path / "list.txt", tmp_path / "out.zip")
    data = opened(tmp_path / "out.zip")
    np.testing.assert_array_equal(data.labels, [1, 0])
    np.testing.assert_array_equal(pictures(tmp_path / "out.zip")[0], noise(8, 8, 3))


def test_a_mirrored_copy_follows_its_original_as_the_reader_would_flip_it(tmp_path):
    source = make_source(
        tmp_path / "in", labels=LABELS, camera_angles=ANGLES, camera={"frontal_yaw": 0.0, "fov": 9}
    )
    report = convert(source, tmp_path / "out.zip", mirror=True)
    assert report.written == 8
    both = opened(tmp_path / "out.zip").batch(torch.arange(8))
    plain = open_dataset("ImageFolder", source, 8, progress=False, frontal_yaw=0.0)
    flipped = plain.batch(torch.arange(4), torch.ones(4, dtype=torch.bool))
    assert torch.equal(both.images[1::2], flipped.images)
    assert both.labels is not None and both.camera_angles is not None
    assert torch.equal(both.labels[::2], both.labels[1::2])
    torch.testing.assert_close(both.camera_angles[1::2], flipped.camera_angles)
    assert table_of(tmp_path / "out.zip")["camera"] == {"frontal_yaw": 0.0, "fov": 9}


def test_mirroring_cameras_of_unknown_front_is_refused_with_their_mean(tmp_path):
    source = make_source(tmp_path / "in", camera_angles=ANGLES)
    with pytest.raises(ValueError, match=r"needs frontal_yaw.* the mean yaw is 0.05"):
        convert(source, tmp_path / "out.zip", mirror=True)
    convert(source, tmp_path / "out.zip", mirror=True, frontal_yaw=0.0)


def camera_labels(count: int = 4) -> torch.Tensor:
    yaw = torch.linspace(1.2, 1.9, count, dtype=torch.float64)
    cameras = Cameras.from_angles(yaw, torch.full_like(yaw, 1.3), 30.0, radius=2.7)
    return labels_from_cameras(cameras)


def test_camera_labels_go_along_and_are_mirrored(tmp_path):
    values = {name_of(i): row for i, row in enumerate(camera_labels().tolist())}
    convert(make_source(tmp_path / "in", labels=values), tmp_path / "out.zip", mirror=True)
    notes = read_annotations(find_images(str(tmp_path / "out.zip")))
    assert notes.camera_labels is not None
    labels = torch.from_numpy(notes.camera_labels)
    torch.testing.assert_close(labels[::2], camera_labels()[ORDER].float())
    yaw, mirrored = cameras_from_labels(labels).yaw_pitch[:, 0].reshape(4, 2).T
    torch.testing.assert_close(mirrored, math.pi - yaw)


def test_intrinsics_follow_the_window(tmp_path):
    label = np.concatenate([np.eye(4).ravel(), [1.5, 0.1, 0.4, 0, 2, 0.6, 0, 0, 1]])
    point = np.array([0.1, -0.05, 1.0])  # in the camera's frame
    size = np.array([20, 12])
    window = transformed(noise(20, 12), "center-letterbox", (8, 6)).window
    before = (label[16:].reshape(3, 3) @ point)[:2] * size  # pixels of the source
    after = (windowed_label(label, window)[16:].reshape(3, 3) @ point)[:2] * 8
    cut = np.array([16, 12])
    np.testing.assert_allclose(after, (before - [2, 0]) / cut * [8, 6] + [0, 1])


def test_a_field_of_view_is_dropped_when_pictures_are_cut(tmp_path):
    camera = {"fov": 12.0, "frontal_yaw": 0.0}
    source = make_source(tmp_path / "in", 2, 12, 8, camera=camera, toys={"seed": 1})
    report = convert(source, tmp_path / "o.zip", resolution=(4, 4), transform="center-crop")
    assert table_of(tmp_path / "o.zip")["camera"] == {"frontal_yaw": 0.0}
    assert report.notes == [
        "dropped keys of dataset.json: toys",
        "dropped camera.fov of dataset.json: pictures were cut",
    ]


def test_the_whole_window_is_exact():
    assert transformed(noise(6, 4), None, (4, 4)).window == Window(0, 0, 1, 1)


# ---- cameras from one form into the other


def test_camera_labels_become_angles_and_come_back(tmp_path):
    values = {name_of(i): row for i, row in enumerate(camera_labels().tolist())}
    source = make_source(tmp_path / "in", labels=values)
    convert(source, tmp_path / "angles.zip", cameras="angles", mirror=True)
    table = table_of(tmp_path / "angles.zip")
    assert table["labels"] is None
    assert table["camera"] == {"fov": pytest.approx(30), "radius": pytest.approx(2.7)}
    expected = torch.linspace(1.2, 1.9, 4)[ORDER]
    angles = opened(tmp_path / "angles.zip").camera_angles
    assert angles is not None
    torch.testing.assert_close(angles[::2, 0], expected)
    torch.testing.assert_close(angles[1::2, 0], math.pi - expected)
    torch.testing.assert_close(angles[:, 1:], torch.tensor([[1.3, 0.0]]).expand(8, 2))
    convert(tmp_path / "angles.zip", tmp_path / "labels.zip", cameras="labels")
    convert(source, tmp_path / "direct.zip", mirror=True)
    again, direct = (opened(tmp_path / n).camera_labels for n in ("labels.zip", "direct.zip"))
    torch.testing.assert_close(again, direct, atol=1e-5, rtol=1e-5)
    assert table_of(tmp_path / "labels.zip")["camera"] == {}


def test_cameras_of_a_world_whose_z_is_up_become_angles_about_their_pivot(tmp_path):
    angles = torch.tensor([[0.3, 1.2, 0.1], [-2.0, 0.9, 0.0]] * 2)
    orbit = OrbitAngles(angles, torch.full((4,), 1.3), torch.full((4,), 20.0))
    labels = labels_from_cameras(cameras_from_orbit(orbit, pivot=(0.1, 0.0, 0.2), up="z"))
    values = {name_of(i): row for i, row in enumerate(labels.tolist())}
    source = make_source(tmp_path / "in", labels=values, camera={"up": "z"})
    with pytest.raises(ValueError, match=r"'a/0.png': it does not look at .0, 0, 0.:"):
        convert(source, tmp_path / "out.zip", cameras="angles")
    assert not (tmp_path / "out.zip").exists()
    convert(source, tmp_path / "out.zip", cameras="angles", pivot=(0.1, 0.0, 0.2))
    found = opened(tmp_path / "out.zip").camera_angles
    torch.testing.assert_close(found, angles[ORDER], atol=1e-5, rtol=0)
    assert "up" not in table_of(tmp_path / "out.zip")["camera"]


def test_cameras_can_be_turned_to_another_front(tmp_path):
    angles = {name: [yaw + math.pi / 2, pitch, roll] for name, (yaw, pitch, roll) in ANGLES.items()}
    angles[name_of(0)][0] -= 2 * math.pi
    source = make_source(tmp_path / "in", camera_angles=angles, camera={"frontal_yaw": math.pi / 2})
    convert(source, tmp_path / "out.zip", add_yaw=-math.pi / 2, mirror=True)
    data = opened(tmp_path / "out.zip")
    assert data.camera_angles is not None and data.frontal_yaw == 0
    expected = torch.tensor([ANGLES[name_of(i)] for i in ORDER])
    torch.testing.assert_close(data.camera_angles[::2], expected)
    torch.testing.assert_close(data.camera_angles[1::2, 0], -expected[:, 0])
    with pytest.raises(ValueError, match="the source has no camera_angles to add yaw to"):
        convert(make_source(tmp_path / "plain"), tmp_path / "o.zip", add_yaw=1.0)


def test_what_the_other_form_cannot_say_is_refused(tmp_path):
    labels = camera_labels()
    labels[1, [3, 7, 11]] *= 1.1
    values = {name_of(i): row for i, row in enumerate(labels.tolist())}
    source = make_source(tmp_path / "far", labels=values)
    with pytest.raises(ValueError, match=r"no common radius, but 2.7 .* to 2.97 .b/1.png.; angles"):
        convert(source, tmp_path / "out.zip", cameras="angles")
    source = make_source(tmp_path / "in", camera_angles=ANGLES, camera={"fov": 12})
    with pytest.raises(ValueError, match='need camera.radius of dataset.json: add "camera": '):
        convert(source, tmp_path / "out.zip", cameras="labels")
    source = make_source(tmp_path / "both", camera_angles=ANGLES, labels=LABELS)
    with pytest.raises(ValueError, match="has classes for labels"):
        convert(source, tmp_path / "out.zip", cameras="labels")
    with pytest.raises(ValueError, match="cameras must be one of .*got 'poses'"):
        convert(source, tmp_path / "out.zip", cameras="poses")


# ---- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "sizes: 4 of 8x8 (a/0.png, a/2.png, b/1.png, ...); 1 of 9x9 (b/odd.png); give a reso"),
        ({"transform": "center-crop"}, "transform 'center-crop' needs a resolution"),
        ({"resolution": (8, 4)}, "resolution 8x4: pictures must be square; give 4x4, or the"),
        ({"resolution": (0, 0)}, "both sides must be at least 1"),
        ({"resolution": (4, 8), "transform": "center-letterbox"}, "must be wider than high"),
        ({"resolution": (8, 8), "transform": "crop"}, "transform must be one of ('center-crop'"),
        ({"resolution": (8, 8), "max_images": 0}, "max_images must be at least 1, got 0"),
        ({"resolution": (8, 8), "labels": "file"}, "labels must be one of ('table', 'folders'"),
        (
            {"resolution": (99, 99), "transform": "center-letterbox"},
            "nothing is left to write. wrote 0 pictures of 99x99 skipped 5, smaller than 99x99",
        ),
    ],
)
def test_what_concerns_the_whole_set_is_refused_and_nothing_is_left(tmp_path, options, message):
    source = make_source(tmp_path / "in")
    noise(9, 9).save(source / "b/odd.png")
    for output in ("out.zip", "out"):
        with pytest.raises(ValueError) as refusal:
            convert(source, tmp_path / output, **options)
        assert message in " ".join(str(refusal.value).split())
    assert {p.name for p in tmp_path.iterdir()} == {"in"}


def test_a_wrong_table_is_refused(tmp_path):
    labels = {name: i for name, i in LABELS.items() if i != 3}
    with pytest.raises(ValueError, match="labels has 3 entries for 4 images; it lacks 1 .*b/3.png"):
        convert(make_source(tmp_path / "in", labels=labels), tmp_path / "out.zip")
    values = {name_of(i): row for i, row in enumerate((2 * camera_labels()).tolist())}
    with pytest.raises(ValueError, match=r"dataset.json: labels: camera of 'a/0.png'.*scaled"):
        convert(make_source(tmp_path / "in", labels=values), tmp_path / "out.zip")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    source = make_source(tmp_path / "in")
    with pytest.raises(ValueError, match="in' is there and not empty; give a new folder or a zip"):
        convert(source, source)
    (tmp_path / "out").mkdir()
    convert(source, tmp_path / "out")
    assert len(opened(tmp_path / "out")) == 4


def test_databases_and_archives_say_what_to_do(tmp_path):
    (tmp_path / "church_lmdb").mkdir()
    (tmp_path / "db").mkdir()
    (tmp_path / "db/data.mdb").touch()
    (tmp_path / "cifar.tar.gz").touch()
    for name, message in {
        "church_lmdb": "is an LMDB, .* write its pictures into a folder",
        "db": "is an LMDB",
        "cifar.tar.gz": "is an archive of a kind that is not read: unpack it",
    }.items():
        with pytest.raises(ValueError, match=message):
            convert(tmp_path / name, tmp_path / "out.zip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no path"),
        ("a/0.png\na/7.png\n", "1 of its 2 files do not exist: a/7.png"),
        ("a/0.png\na/0.png\n", "names 1 files twice: a/0.png"),
        ("a/0.png\t1\nb/1.png\n", "has 1 classes for 2 pictures"),
        ("a/0.png\tcat\n", "classes must be numbers from 0, got cat"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path, text, message):
    source = make_source(tmp_path / "in")
    (source / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(source / "list.txt", tmp_path / "out.zip")


def test_a_square_target_suits_every_transform():
    for transform in (None, "center-crop", "center-crop-wide", "center-letterbox"):
        check_target(transform, (8, 8))

"""Decoding, preparing, caching and batching of pictures, on real files."""

import importlib.util
import json
import logging
import math
import os
import subprocess
import sys
import threading
import types
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import datasets
import image_cache
from datasets import DATASETS, ImageBatch, ImageDataset, decode_image, open_dataset
from rendering.camera_labels import labels_from_cameras
from rendering.cameras import Cameras

SIZE = 8


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """Every test caches in a folder of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PERIGAN_CACHE", str(folder))
    return folder


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> Image.Image:
    """A picture that no two pixels of are alike."""
    shape = (height, width, channels)[: 3 if channels > 1 else 2]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def folder_of(path: Path, count: int, width: int = SIZE, height: int = SIZE) -> Path:
    """A folder of `count` different PNG files, 00.png and so on."""
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise(width, height, seed=i).save(path / f"{i:02}.png")
    return path


def load(path: Path | str, name: str = "ImageFolder", **options) -> ImageDataset:
    return open_dataset(name, path, SIZE, progress=False, **options)


def pixels(dataset: ImageDataset) -> np.ndarray:
    """All pictures as 8-bit values, (N, H, W, 3)."""
    images = dataset.batch(torch.arange(len(dataset))).images
    values = (images.permute(0, 2, 3, 1).numpy() + 1) * 127.5
    np.testing.assert_allclose(values, values.round(), atol=1e-4)
    return values.round().astype(np.uint8)


def decoded(image: Image.Image, path: Path, **options) -> np.ndarray:
    """What is read back of a picture that is saved under a name."""
    image.save(path, **options)
    result = decode_image(path.read_bytes())
    assert result.mode == "RGB"
    return np.asarray(result)


# ---- decoding


def test_lossless_rgb_is_read_exactly(tmp_path):
    image = noise(7, 5)
    for name, options in {"a.png": {}, "a.webp": {"lossless": True}, "a.bmp": {}}.items():
        np.testing.assert_array_equal(decoded(image, tmp_path / name, **options), image)


def test_half_transparent_red_becomes_pink_over_white(tmp_path):
    red = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    assert (decoded(red, tmp_path / "a.png") == (255, 127, 127)).all()
    assert (decoded(red, tmp_path / "a.webp", lossless=True) == (255, 127, 127)).all()


def test_transparency_of_every_kind_shows_white(tmp_path):
    clear = Image.new("RGBA", (1, 1), (9, 9, 9, 0))
    grey = Image.new("LA", (1, 1), (0, 51))
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 255, 10, 20, 30])
    palette.putdata([0, 1])
    assert (decoded(clear, tmp_path / "clear.png") == 255).all()
    assert (decoded(grey, tmp_path / "grey.png") == 204).all()
    shown = decoded(palette, tmp_path / "palette.png", transparency=0)
    np.testing.assert_array_equal(shown, [[[255, 255, 255], [10, 20, 30]]])
    shown = decoded(
        Image.new("RGB", (1, 1), (1, 2, 3)), tmp_path / "key.png", transparency=(1, 2, 3)
    )
    assert (shown == 255).all()


def test_grey_palette_and_bilevel_pictures_become_rgb(tmp_path):
    grey = noise(4, 3, channels=1)
    shown = decoded(grey, tmp_path / "grey.png")
    np.testing.assert_array_equal(shown, np.asarray(grey)[..., None].repeat(3, axis=2))
    few = Image.new("P", (2, 1))
    few.putpalette([200, 100, 50, 10, 20, 30])
    few.putdata([0, 1])
    shown = decoded(few, tmp_path / "palette.png")
    np.testing.assert_array_equal(shown, [[[200, 100, 50], [10, 20, 30]]])
    assert (decoded(Image.new("1", (1, 1), 1), tmp_path / "bit.png") == 255).all()


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, extension):
    values = np.array([[0, 128, 129, 257, 32768, 65278, 65535]], np.uint16)
    shown = decoded(Image.fromarray(values), tmp_path / f"deep.{extension}")
    np.testing.assert_array_equal(shown[0, :, 0], [0, 0, 1, 1, 128, 254, 255])


def test_cmyk_becomes_rgb(tmp_path):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    shown = decoded(cyan, tmp_path / "cyan.jpg", quality=100).astype(int)
    assert np.abs(shown - (0, 255, 255)).max() <= 2


def test_a_photograph_lying_on_its_side_is_set_upright(tmp_path):
    image = noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to show
    shown = decoded(image, tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(shown, np.rot90(np.asarray(image), k=-1))


def test_pixels_without_a_defined_white_are_refused(tmp_path):
    for values in (np.zeros((2, 2), np.float32), np.full((2, 2), 70_000, np.int32)):
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(ValueError, match="no defined white"):
            decode_image((tmp_path / "a.tif").read_bytes())


# ---- recipes

TO_TENSOR = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
NEAREST = transforms.InterpolationMode.NEAREST
ORIGINAL = {
    "CelebA": lambda size: [
        transforms.Resize(320),
        transforms.CenterCrop(256),
        *TO_TENSOR,
        transforms.Resize((size, size), interpolation=NEAREST),
    ],
    "Cats": lambda size: [transforms.Resize((size, size), interpolation=NEAREST), *TO_TENSOR],
    "Carla": lambda size: [transforms.Resize((size, size), interpolation=NEAREST), *TO_TENSOR],
}


@pytest.mark.parametrize("name", ORIGINAL)
@pytest.mark.parametrize("shape", [(178, 218), (300, 200), (321, 333)])
@pytest.mark.parametrize("size", [16, 48, 64])
def test_nearest_reproduces_the_original_transforms(tmp_path, name, shape, size):
    image = noise(*shape)
    image.save(tmp_path / "a.png")
    dataset = open_dataset(name, tmp_path / "*.png", size, nearest=True, progress=False)
    expected = transforms.Compose(ORIGINAL[name](size))(image)
    torch.testing.assert_close(dataset.batch(torch.tensor([0])).images[0], expected)


def test_celeba_keeps_the_middle_of_320_by_391():
    # a white line survives where the original's 256 x 256 crop keeps it
    image = Image.new("RGB", (320, 391))
    image.paste("white", (32, 0, 33, 391))
    image.paste("white", (0, 68, 320, 69))
    shown = np.asarray(DATASETS["CelebA"].prepare(image, 256, False))
    assert (shown[0] == 255).all() and (shown[:, 0] == 255).all()
    assert shown[1:, 1:].max() == 0
    assert DATASETS["CelebA"].prepare(noise(178, 218), 256, False).size == (256, 256)


def test_default_resizing_is_lanczos_and_does_not_alias(tmp_path):
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    stripes.save(tmp_path / "stripes.png")
    smooth, aliased = load(tmp_path), load(tmp_path, nearest=True)
    assert np.abs(pixels(smooth).astype(int) - 128).max() <= 16
    assert set(np.unique(pixels(aliased))) <= {0, 255}
    expected = stripes.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(pixels(smooth)[0], expected)


def test_an_image_folder_is_cropped_to_the_middle_square(tmp_path):
    image = noise(20, SIZE)
    image.save(tmp_path / "wide.png")
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "tall.png")
    tall, wide = pixels(load(tmp_path))
    np.testing.assert_array_equal(wide, np.asarray(image)[:, 6:14])
    np.testing.assert_array_equal(tall, np.rot90(wide))


def test_recipes_flip_as_the_original_does_unless_told(tmp_path):
    folder = folder_of(tmp_path / "data", 1)
    mirror = {name: load(folder, name).mirror for name in DATASETS}
    assert mirror == {"CelebA": 0.5, "Cats": 0.5, "Carla": 0, "ImageFolder": 0, "Toys": 0}
    assert load(folder, "Carla", mirror=True).mirror == 0.5
    assert load(folder, "CelebA", mirror=False).mirror == 0


# ---- batches


def test_a_batch_holds_the_asked_pictures_in_order_and_range(tmp_path):
    image = Image.new("RGB", (SIZE, SIZE), (0, 255, 51))
    folder = folder_of(tmp_path / "data", 3)
    image.save(folder / "03.png")
    dataset = load(folder)
    batch = dataset.batch(torch.tensor([3, 1, 3]))
    assert batch.images.shape == (3, 3, SIZE, SIZE) and batch.images.dtype == torch.float32
    assert batch.images.is_contiguous() and len(batch) == 3
    assert (batch.images[0, 0] == -1).all() and (batch.images[2, 1] == 1).all()
    torch.testing.assert_close(batch.images[0, 2], torch.full((SIZE, SIZE), -0.6))
    expected = torch.from_numpy(np.array(noise(SIZE, SIZE, seed=1))).permute(2, 0, 1)
    torch.testing.assert_close(batch.images[1], expected / 127.5 - 1)
    assert batch.camera_angles is None and batch.labels is None and dataset.num_classes == 0


def test_only_the_flipped_pictures_are_mirrored(tmp_path):
    dataset = load(folder_of(tmp_path / "data", 2))
    plain = dataset.batch(torch.arange(2)).images
    batch = dataset.batch(torch.arange(2), torch.tensor([True, False]))
    torch.testing.assert_close(batch.images[0], plain[0].flip(2), rtol=0, atol=0)
    torch.testing.assert_close(batch.images[1], plain[1], rtol=0, atol=0)


@pytest.mark.parametrize(("frontal", "mirror"), [(math.pi / 2, (-1, 1, 1)), (0.0, (1, 1, -1))])
def test_a_mirrored_picture_s_camera_is_the_mirror_image(frontal, mirror):
    angles = torch.tensor([[0.3, 1.2, 0.4], [2.0, 2.1, -0.2]])
    dataset = ImageDataset(
        np.zeros((2, 4, 4, 3), np.uint8), camera_angles=angles, frontal_yaw=frontal
    )
    plain = dataset.batch(torch.arange(2), torch.tensor([False, False])).camera_angles
    flipped = dataset.batch(torch.arange(2), torch.tensor([True, True])).camera_angles
    assert plain is not None and flipped is not None
    torch.testing.assert_close(plain, angles)
    # the rays of the mirrored camera, read right to left, are the mirrored rays
    rays = [Cameras.from_angles(a[:, 0], a[:, 1], 40.0, 1.5, a[:, 2]) for a in (plain, flipped)]
    (origin, direction), (mirrored_origin, mirrored_direction) = (c.rays(3, 3) for c in rays)
    reflect = torch.tensor(mirror, dtype=torch.float32)
    right_to_left = mirrored_direction.reshape(2, 3, 3, 3).flip(2).reshape(2, 9, 3)
    torch.testing.assert_close(mirrored_origin, origin * reflect)
    torch.testing.assert_close(right_to_left, direction * reflect)


# ---- labels, cameras, copies


def face_cameras(count: int = 3) -> Cameras:
    """Cameras on both sides of the front, looking at the origin."""
    yaw = math.pi / 2 + torch.linspace(-0.4, 0.5, count)
    return Cameras.from_angles(yaw, torch.linspace(1.3, 1.7, count), 13.0, 2.7)


def labelled_folder(path: Path, **table) -> Path:
    """A folder of three pictures with a table, whose values are in the order of the pictures."""
    folder_of(path, 3)
    names = [f"{i:02}.png" for i in range(3)]
    for key in {"labels", "camera_angles"} & set(table):
        table[key] = list(zip(names, table[key], strict=True))
    (path / "dataset.json").write_text(json.dumps(table))
    return path


def test_classes_reach_the_batch_and_their_number_the_caller(tmp_path):
    vectors = np.eye(5)[[3, 0, 1]].tolist()
    for name, labels, number in (("a", [3, 0, 1], 4), ("b", vectors, 5)):
        dataset = load(labelled_folder(tmp_path / name, labels=labels))
        assert dataset.num_classes == number
        batch = dataset.batch(torch.tensor([1, 0, 2]))
        assert batch.labels is not None and batch.labels.tolist() == [0, 3, 1]
    assert load(tmp_path / "a", max_images=1).num_classes == 4
    assert load(folder_of(tmp_path / "c", 1)).num_classes == 0


def test_camera_labels_reach_the_batch_and_are_mirrored_with_the_picture(tmp_path):
    cameras = face_cameras()
    labels = labels_from_cameras(cameras)
    dataset = load(labelled_folder(tmp_path / "data", labels=labels.tolist()))
    assert dataset.labels is None and dataset.num_classes == 0
    batch = dataset.batch(torch.tensor([2, 0]), torch.tensor([True, False]))
    assert batch.camera_labels is not None
    torch.testing.assert_close(batch.camera_labels[1], labels[0])
    yaw, pitch = cameras.yaw_pitch[2]
    flipped = Cameras.from_angles(math.pi - yaw, pitch, 13.0, 2.7)
    torch.testing.assert_close(batch.camera_labels[:1], labels_from_cameras(flipped))


def test_the_front_and_the_upward_axis_come_from_the_table_unless_they_are_given(tmp_path):
    angles = [[0.1, 1.5, 0], [-0.1, 1.6, 0], [0.02, 1.5, 0]]
    camera = {"frontal_yaw": 0.25, "up": "z"}
    path = labelled_folder(tmp_path / "data", camera_angles=angles, camera=camera)
    dataset = load(path)
    assert (dataset.frontal_yaw, dataset.up) == (0.25, "z")
    assert load(path, frontal_yaw=0.0).frontal_yaw == 0
    batch = dataset.batch(torch.tensor([0]), torch.tensor([True]))
    assert batch.camera_angles is not None
    assert batch.camera_angles[0].tolist() == pytest.approx([0.4, 1.5, 0])


def test_xflip_appends_the_mirror_image_of_every_picture(tmp_path):
    angles = [[0.1, 1.5, 0.3], [-0.1, 1.6, 0], [0.02, 1.5, 0]]
    table = {"camera_angles": angles, "labels": [1, 0, 2], "camera": {"frontal_yaw": 0.0}}
    path = labelled_folder(tmp_path / "data", **table)
    plain, double = load(path), load(path, "Cats", xflip=True)
    assert (len(plain), len(double), double.mirror) == (3, 6, 0.0)
    every = torch.arange(3)
    originals, copies = double.batch(every), double.batch(every + 3)
    expected = plain.batch(every, torch.ones(3, dtype=torch.bool))
    assert torch.equal(originals.images, plain.batch(every).images)
    for name in ("images", "camera_angles", "labels"):
        assert torch.equal(getattr(copies, name), getattr(expected, name))
    again = double.batch(torch.tensor([4]), torch.tensor([True]))
    assert torch.equal(again.images, originals.images[1:2])


def test_random_flips_and_copies_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="mirror and xflip exclude each other"):
        load(folder_of(tmp_path / "data", 1), mirror=True, xflip=True)


def test_a_camera_label_that_is_none_is_refused_with_file_and_picture(tmp_path):
    labels = labels_from_cameras(face_cameras())
    labels[1, [2, 6, 10]] *= -1
    path = labelled_folder(tmp_path / "data", labels=labels.tolist())
    with pytest.raises(ValueError, match=r"data: dataset.json: labels: camera of '01.png'.*left-h"):
        load(path)


def test_odd_cameras_are_reported_on_opening_and_never_refused(tmp_path, caplog):
    angles = [[0.1, 1.5, 0], [-0.1, 1.6, 0], [0.02, 1.5, 0]]
    path = labelled_folder(tmp_path / "data", camera_angles=angles)
    dataset = load(path)
    (message,) = [r.getMessage() for r in caplog.records]
    assert message.startswith(f"{path}: dataset.json: camera_angles: the mean yaw is 0.007, and")
    assert "set frontal_yaw to 0" in message
    caplog.clear()
    report = load(path, frontal_yaw=0.0).check_cameras()
    assert report is not None and not report.problems and not caplog.records
    assert dataset.check_cameras() != report
    assert load(folder_of(tmp_path / "plain", 1)).check_cameras() is None


def test_the_cameras_of_the_data_can_be_drawn(tmp_path):
    cameras = face_cameras()
    labels = labels_from_cameras(cameras)
    angles = [[*pair, 0.0] for pair in cameras.yaw_pitch.tolist()]
    for key, values, options in (
        ("labels", labels.tolist(), {}),
        ("camera_angles", angles, {"fov": 13.0, "radius": 2.7}),
    ):
        dataset = load(labelled_folder(tmp_path / key, **{key: values}), mirror=False)
        poses = dataset.poses(**options)
        drawn = poses.sample(20, torch.Generator().manual_seed(0))
        near = torch.cdist(drawn.origin, cameras.origin)
        assert near.amin(1).max() < 1e-5 and len(near.argmin(1).unique()) == 3
        torch.testing.assert_close(drawn.fov, torch.full((20,), 13.0))
        assert load(tmp_path / key, mirror=True).poses(**options).mirror == 0.5
        assert load(tmp_path / key, xflip=True).poses(**options).mirror == 0.5


def test_drawing_cameras_that_the_data_lack_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs camera_angles, or camera labels of 25"):
        load(folder_of(tmp_path / "data", 1)).poses(13.0)
    path = labelled_folder(tmp_path / "angles", camera_angles=[[1.5, 1.5, 0]] * 3)
    with pytest.raises(ValueError, match="need a fov"):
        load(path).poses()


def test_a_batch_moves_as_a_whole():
    batch = ImageBatch(
        torch.zeros(2, 3, 4, 4), torch.ones(2, 3), torch.tensor([1, 2]), torch.zeros(2, 25)
    )
    moved = batch.to("meta")
    fields = (moved.images, moved.camera_angles, moved.labels, moved.camera_labels)
    assert all(f is not None and f.is_meta for f in fields)
    assert ImageBatch(torch.zeros(2, 3, 4, 4)).to("cpu").labels is None


# ---- whole folders


def mixed_folder(folder: Path) -> Path:
    """Pictures of many modes and odd names, one of them cut short and one no picture."""
    (folder / "sub dir").mkdir(parents=True)
    noise(30, 20).save(folder / "a photo.jpg")
    noise(20, 30, channels=1).save(folder / "größe 漢字.png")
    noise(20, 20, channels=4).save(folder / "sub dir" / "alpha.webp")
    noise(20, 20).convert("P").save(folder / "palette.gif")
    noise(20, 20).convert("CMYK").save(folder / "print.jpeg")
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(folder / "deep.png")
    noise(64, 64).save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "cut short.jpg").write_bytes(data[: len(data) // 2])
    (folder / "no picture.png").write_bytes(b"hello")
    return folder


READABLE = 7
DAMAGED = ("cut short.jpg", "no picture.png")


@pytest.mark.parametrize("num_workers", [0, 3])
def test_damaged_files_are_named_counted_and_left_out(tmp_path, caplog, num_workers):
    dataset = load(mixed_folder(tmp_path / "data"), num_workers=num_workers)
    assert len(dataset) == READABLE and dataset.skipped == DAMAGED
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert sum("cut short.jpg" in w and "truncated" in w for w in warnings) == 1
    assert "2 of the 9 images" in warnings[-1] and "no picture.png" in warnings[-1]
    shown = pixels(dataset)
    names = ["a photo.jpg", "deep.png", "größe 漢字.png", "palette.gif", "print.jpeg"]
    for i, name in enumerate([*names, "sub dir/alpha.webp", "whole.jpg"]):
        image = decode_image((tmp_path / "data" / name).read_bytes())
        expected = DATASETS["ImageFolder"].prepare(image, SIZE, False)
        np.testing.assert_array_equal(shown[i], expected, err_msg=name)


def test_folder_glob_and_zip_hold_the_same_pictures(tmp_path):
    folder = mixed_folder(tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder))
    opened = [load(path) for path in (folder, f"{folder}/**", tmp_path / "data.zip")]
    for dataset in opened:
        assert dataset.skipped == DAMAGED
        np.testing.assert_array_equal(pixels(dataset), pixels(opened[0]))


def test_a_damaged_member_of_a_zip_is_left_out(tmp_path):
    folder = folder_of(tmp_path / "data", 2)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    stored = bytearray((tmp_path / "data.zip").read_bytes())
    stored[stored.index(b"IDAT") + 20] ^= 255  # of 00.png: its CRC no longer fits
    (tmp_path / "data.zip").write_bytes(stored)
    dataset = load(tmp_path / "data.zip")
    assert dataset.skipped == ("00.png",) and len(dataset) == 1


def test_cameras_and_labels_stay_with_their_pictures(tmp_path):
    folder = folder_of(tmp_path / "data", 4)
    (folder / "01.png").write_bytes(b"hello")
    angles = {f"{i:02}.png": [0.1 * i, 1.0, 0.0] for i in range(4)}
    labels = {f"{i:02}.png": 3 - i for i in range(4)}
    (folder / "dataset.json").write_text(json.dumps({"camera_angles": angles, "labels": labels}))
    dataset = load(folder)
    batch = dataset.batch(torch.tensor([2, 1, 0]))
    assert batch.labels is not None and batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [0, 1, 3] and dataset.num_classes == 4
    expected = torch.tensor([[0.3, 1, 0], [0.2, 1, 0], [0.0, 1, 0]])
    torch.testing.assert_close(batch.camera_angles, expected)


def test_max_images_takes_a_fixed_random_subset(tmp_path):
    folder = folder_of(tmp_path / "data", 20)
    labels = {f"{i:02}.png": i for i in range(20)}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    some, again = load(folder, max_images=6), load(folder, max_images=6)
    assert some.labels is not None and again.labels is not None
    chosen = some.labels.tolist()
    assert len(some) == 6 and chosen == again.labels.tolist() == sorted(set(chosen))
    assert chosen != list(range(6))
    np.testing.assert_array_equal(pixels(some), pixels(load(folder))[chosen])
    assert len(load(folder, max_images=100)) == 20


# ---- refusals


def test_bad_requests_are_refused(tmp_path):
    folder = folder_of(tmp_path / "data", 1)
    with pytest.raises(ValueError, match="dataset_path is empty: give --dataset_path"):
        load("", "CelebA")
    with pytest.raises(ValueError, match="unknown dataset 'celebA', did you mean 'CelebA'"):
        load(folder, "celebA")
    with pytest.raises(ValueError, match="img_size must be at least 1, got 0"):
        open_dataset("Cats", folder, 0)
    with pytest.raises(ValueError, match="max_images must be at least 1, got 0"):
        load(folder, max_images=0)
    with pytest.raises(ValueError, match=r"'/nowhere/\*\.jpg'"):
        load("/nowhere/*.jpg")


def test_no_readable_picture_at_all_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"hello")
    (tmp_path / "b.png").write_bytes(b"")
    for _ in range(2):  # with and without a cache
        with pytest.raises(ValueError, match=r"2 of the 2 images .* cannot be read: a.png, b.png"):
            load(tmp_path)


def test_a_failing_disk_is_not_taken_for_a_damaged_picture(tmp_path, monkeypatch, own_cache):
    folder = folder_of(tmp_path / "data", 2)

    def fail(data: bytes) -> Image.Image:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(datasets, "decode_image", fail)
    with pytest.raises(ValueError, match="cannot read '00.png' of .*: .*Permission denied"):
        load(folder)
    assert not list(own_cache.rglob("*.u8")) and not list(own_cache.rglob("*.tmp"))


# ---- the cache


@pytest.fixture
def decodings(monkeypatch) -> list[int]:
    """One entry for every picture decoded in this test."""
    calls: list[int] = []

    def counted(data: bytes) -> Image.Image:
        calls.append(len(data))
        return decode_image(data)

    monkeypatch.setattr(datasets, "decode_image", counted)
    return calls


def test_a_second_opening_decodes_nothing(tmp_path, decodings, caplog):
    folder = mixed_folder(tmp_path / "data")
    first = load(folder)
    assert len(decodings) == 9
    caplog.clear()
    second = load(folder)
    assert len(decodings) == 9
    assert second.identity == first.identity and second.skipped == DAMAGED
    assert "2 of the 9 images" in caplog.text
    np.testing.assert_array_equal(pixels(second), pixels(first))


def test_whatever_changes_the_pixels_changes_the_identity(tmp_path, decodings):
    folder = folder_of(tmp_path / "data", 3, 20, 12)
    identities = [
        load(folder).identity,
        load(folder, nearest=True).identity,
        load(folder, "Carla").identity,
        open_dataset("Carla", folder, 4, progress=False).identity,
        load(folder, max_images=2).identity,
    ]
    noise(20, 12, seed=9).save(folder / "01.png")
    changed = load(folder)
    np.testing.assert_array_equal(
        pixels(changed)[1], DATASETS["ImageFolder"].prepare(noise(20, 12, seed=9), SIZE, False)
    )
    noise(20, 12, seed=10).save(folder / "03.png")
    more = load(folder)
    (folder / "03.png").rename(folder / "04.png")
    identities += [changed.identity, more.identity, load(folder).identity]
    assert len(set(identities)) == len(identities)
    assert load(folder, mirror=True).identity == identities[-1]  # flips are drawn later
    assert len(decodings) == 3 + 3 + 3 + 3 + 2 + 3 + 4 + 4


@pytest.mark.parametrize("damage", ["half", "zeros", "first", "last", "longer", "empty"])
def test_a_damaged_cache_is_made_anew(tmp_path, own_cache, decodings, damage, caplog):
    folder = folder_of(tmp_path / "data", 5)
    before = pixels(load(folder))
    (file,) = own_cache.rglob("*.u8")
    data = bytearray(file.read_bytes())
    if damage in ("first", "last"):  # one bit of the first or last picture
        data[6 if damage == "first" else -1] ^= 1
    changed = {
        "half": data[: len(data) // 2],
        "zeros": bytes(len(data)),
        "first": data,
        "last": data,
        "longer": data + b"x",
        "empty": b"",
    }
    file.write_bytes(changed[damage])
    np.testing.assert_array_equal(pixels(load(folder)), before)
    assert len(decodings) == 10 and "damaged" in caplog.text
    load(folder)
    assert len(decodings) == 10


def test_an_interrupted_decoding_leaves_no_cache(tmp_path, own_cache, monkeypatch):
    folder = folder_of(tmp_path / "data", 3)

    def interrupted(data: bytes) -> Image.Image:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "decode_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(folder)
    assert not list(own_cache.rglob("*.u8")) and not list(own_cache.rglob("*.tmp"))


def test_what_a_killed_process_left_is_cleared_away(tmp_path, own_cache):
    folder = folder_of(tmp_path / "data", 1)
    identity = load(folder).identity
    (file,) = own_cache.rglob("*.u8")
    file.rename(file.with_name(f"{identity}.abc.tmp"))
    assert len(load(folder)) == 1
    assert [f.name for f in own_cache.rglob("*.*") if f.suffix != ".lock"] == [f"{identity}.u8"]


def fail_with_full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("trouble", ["no folder", "little space", "write fails"])
def test_without_a_place_for_the_cache_pictures_stay_in_memory(
    tmp_path, monkeypatch, caplog, own_cache, trouble
):
    folder = folder_of(tmp_path / "data", 3)
    (folder / "bad.png").write_bytes(b"hello")
    if trouble == "no folder":
        own_cache.write_text("a file is in the way")
    elif trouble == "little space":
        usage = types.SimpleNamespace(free=10)
        monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: usage)
    else:
        monkeypatch.setattr(image_cache.os, "fsync", fail_with_full_disk)
    dataset = load(folder)
    np.testing.assert_array_equal(pixels(dataset)[2], noise(SIZE, SIZE, seed=2))
    assert dataset.skipped == ("bad.png",)
    assert "keeping them in memory" in caplog.text and str(own_cache) in caplog.text
    assert not list(own_cache.rglob("*.u8")) and not list(own_cache.rglob("*.tmp"))


def test_a_cache_that_cannot_be_written_is_still_read(tmp_path, monkeypatch, decodings):
    folder = folder_of(tmp_path / "data", 3)
    load(folder)
    monkeypatch.setattr(Path, "mkdir", fail_with_full_disk)
    monkeypatch.setattr(image_cache, "_lock", fail_with_full_disk)
    assert len(load(folder)) == 3 and len(decodings) == 3


def test_the_cache_folder_can_be_given(tmp_path, own_cache, monkeypatch):
    folder = folder_of(tmp_path / "data", 1)
    load(folder, cache_dir=tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").rglob("*.u8")) and not own_cache.exists()
    monkeypatch.delenv("PERIGAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    load(folder)
    assert list((tmp_path / "home" / ".cache" / "perigan").rglob("*.u8"))


def test_one_of_several_at_once_decodes_for_all(tmp_path, decodings):
    folder = folder_of(tmp_path / "data", 12, 64, 64)
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(pixels(load(folder)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len(decodings) == 12
    for result in results:
        np.testing.assert_array_equal(result, results[0])


RACER = """
import pathlib, sys, time, zlib
import torch
from datasets import open_dataset
here, name = pathlib.Path(sys.argv[1]), sys.argv[2]
(here / name).touch()
while len(list(here.glob("racer*"))) < 3:
    time.sleep(0.001)
dataset = open_dataset("ImageFolder", here / "data", 8, progress=False)
print(zlib.crc32(dataset.batch(torch.arange(len(dataset))).images.numpy().tobytes()))
"""


@pytest.mark.slow
def test_several_processes_at_once_see_the_same_pictures(tmp_path):
    folder = folder_of(tmp_path / "data", 30, 64, 64)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), f"racer{i}"],
            cwd=Path(datasets.__file__).parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    results = [int(process.communicate(timeout=120)[0]) for process in processes]
    dataset = load(folder)
    assert results == [zlib.crc32(dataset.batch(torch.arange(30)).images.numpy().tobytes())] * 3


# ---- Toys


def test_toys_are_drawn_where_no_path_is_given(tmp_path, own_cache, monkeypatch):
    asked: list[tuple] = []

    def toys_zip(num: int, img_size: int, seed: int = 0, cache_dir: Path | None = None) -> Path:
        asked.append((num, img_size, seed, cache_dir))
        folder = folder_of(tmp_path / "toys", num)
        angles = [[f"{i:02}.png", [0.5, 1.0, 0.0]] for i in range(num)]
        with zipfile.ZipFile(tmp_path / "toys.zip", "w") as archive:
            for file in folder.iterdir():
                archive.write(file, file.name)
            archive.writestr("dataset.json", json.dumps({"camera_angles": angles}))
        return tmp_path / "toys.zip"

    stub = types.ModuleType("toys.dataset")
    stub.toys_zip = toys_zip  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "toys.dataset", stub)
    dataset = load("", "Toys", toys_num=3, toys_seed=7)
    assert asked == [(3, SIZE, 7, own_cache)] and len(dataset) == 3
    np.testing.assert_array_equal(pixels(dataset)[1], noise(SIZE, SIZE, seed=1))
    assert dataset.camera_angles is not None and dataset.camera_angles.shape == (3, 3)
    assert len(load(folder_of(tmp_path / "own", 2), "Toys")) == 2 and len(asked) == 1


def test_toys_that_cannot_be_kept_are_drawn_in_a_temporary_folder(tmp_path, monkeypatch, caplog):
    def toys_zip(num: int, img_size: int, seed: int, cache_dir: Path) -> Path:
        if cache_dir == Path(os.environ["PERIGAN_CACHE"]):
            fail_with_full_disk()
        assert cache_dir.is_dir()
        return folder_of(tmp_path / "toys", num)

    stub = types.ModuleType("toys.dataset")
    stub.toys_zip = toys_zip  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "toys.dataset", stub)
    monkeypatch.setattr(datasets.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    assert len(load("", "Toys", toys_num=2)) == 2
    assert "cannot keep Toys" in caplog.text


@pytest.mark.skipif(importlib.util.find_spec("toys.dataset") is None, reason="not written yet")
def test_real_toys_come_with_cameras_and_white_corners():
    dataset = open_dataset("Toys", "", 16, toys_num=4, progress=False)
    batch = dataset.batch(torch.arange(4))
    assert len(dataset) == 4 and batch.camera_angles is not None
    assert batch.images.std() > 0.05
    assert (batch.images[..., 0, 0] > 0.95).all()

"""The zip of toys: its format, and that it is the same file whenever it is made."""

import io
import json
import math
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import open_dataset
from rendering.cameras import Cameras
from toys import dataset as toy_dataset
from toys.dataset import POSES, camera_angles, toy_cameras, toys_zip, write_toys
from toys.render import render_figures
from toys.scenes import Figures


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few pictures fill several batches."""
    monkeypatch.setattr(toy_dataset, "MAX_BATCH", 2)


@pytest.fixture
def made(tmp_path: Path, small_batches: None) -> Callable[..., Path]:
    """Makes a data set of three 8 x 8 pictures, or with other arguments."""

    def make(name: str = "toys.zip", num: int = 3, img_size: int = 8, **options) -> Path:
        write_toys(tmp_path / name, num, img_size, **options)
        return tmp_path / name

    return make


def read(path: Path) -> tuple[list[np.ndarray], dict]:
    """Pictures and dataset.json of a zip."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith(".png")]
        pictures = [np.array(Image.open(io.BytesIO(archive.read(n)))) for n in names]
        return pictures, json.loads(archive.read("dataset.json"))


# ---- format


def test_the_zip_holds_stored_square_rgb_pngs_and_a_table(made: Callable[..., Path]) -> None:
    with zipfile.ZipFile(made()) as archive:
        entries = archive.infolist()
        assert [e.filename for e in entries] == [
            "00000/img00000000.png",
            "00000/img00000001.png",
            "00000/img00000002.png",
            "dataset.json",
        ]
        assert {e.compress_type for e in entries} == {zipfile.ZIP_STORED}
        assert {e.date_time for e in entries} == {(1980, 1, 1, 0, 0, 0)}
        image = Image.open(io.BytesIO(archive.read(entries[0])))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (8, 8))


def test_a_thousand_pictures_share_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def blank(num: int, *_: object):
        yield from [b""] * num

    monkeypatch.setattr(toy_dataset, "_pictures", blank)
    write_toys(tmp_path / "toys.zip", 1001, 8)
    with zipfile.ZipFile(tmp_path / "toys.zip") as archive:
        assert archive.namelist()[999:1001] == ["00000/img00000999.png", "00001/img00001000.png"]


def test_the_table_names_the_camera_of_every_picture(made: Callable[..., Path]) -> None:
    _, table = read(made(seed=5))
    assert table["labels"] is None
    names = [name for name, _ in table["camera_angles"]]
    assert names == [f"00000/img{i:08d}.png" for i in range(3)]
    angles = torch.tensor([angles for _, angles in table["camera_angles"]], dtype=torch.float64)
    assert torch.equal(angles[:, :2], camera_angles(5, range(3)))
    assert (angles[:, 2] == 0).all()
    assert table["camera"] == {"fov": 50.0, "radius": 1.0, "frontal_yaw": math.pi / 2}
    assert table["toys"] == {"version": toy_dataset.VERSION, "seed": 5}


def test_the_table_and_the_seed_bring_back_a_picture_with_its_geometry(
    made: Callable[..., Path],
) -> None:
    pictures, table = read(made(seed=3, img_size=12))
    yaw, pitch, roll = table["camera_angles"][2][1]
    camera = Cameras.from_angles(
        yaw, pitch, table["camera"]["fov"], table["camera"]["radius"], roll
    )
    figure = Figures.sample(table["toys"]["seed"], [2])
    again = render_figures(figure, camera, 12)
    levels = 127.5 * (again.image[0].permute(1, 2, 0) + 1)
    assert (levels - torch.from_numpy(pictures[2])).abs().max() < 1
    assert (pictures[2] == 255).all(axis=2).mean() > 0.3


def test_datasets_reads_pictures_and_cameras_as_they_were_made(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    path = made(seed=1)
    dataset = open_dataset("Toys", path, 8, cache_dir=tmp_path / "cache", progress=False)
    batch = dataset.batch(torch.arange(3))
    assert batch.camera_angles is not None and batch.labels is None
    cameras = toy_cameras(1, range(3))
    assert torch.allclose(batch.camera_angles[:, :2], cameras.yaw_pitch)
    rendered = render_figures(Figures.sample(1, range(3)), cameras, 8).image
    assert (rendered - batch.images).abs().max() < 1 / 127


# ---- reproducibility


def test_the_same_seed_gives_the_same_bytes(made: Callable[..., Path]) -> None:
    one, again = made("one.zip", seed=2), made("again.zip", seed=2)
    assert one.read_bytes() == again.read_bytes()


def test_another_seed_gives_other_pictures_and_poses(made: Callable[..., Path]) -> None:
    (first, table), (second, other) = read(made("a.zip", seed=0)), read(made("b.zip", seed=1))
    assert all((a != b).any() for a, b in zip(first, second, strict=True))
    assert table["camera_angles"] != other["camera_angles"]


def test_a_longer_set_begins_with_the_shorter(made: Callable[..., Path]) -> None:
    short, table = read(made("short.zip", 3))
    long, longer = read(made("long.zip", 6))
    assert all((a == b).all() for a, b in zip(short, long, strict=False))
    assert longer["camera_angles"][:3] == table["camera_angles"]


def test_threads_change_nothing(made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = made("alone.zip", 6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    assert made("threads.zip", 6).read_bytes() == alone.read_bytes()


def test_torch_keeps_its_number_of_threads(made: Callable[..., Path]) -> None:
    before = torch.get_num_threads()
    made()
    with ThreadPoolExecutor(1) as pool:  # a new thread takes over the process's setting
        assert pool.submit(torch.get_num_threads).result() == before
    assert torch.get_num_threads() == before


# ---- poses


def test_poses_cover_the_circle_and_the_upper_views_evenly() -> None:
    yaw, pitch = camera_angles(0, range(2000)).unbind(1)
    for values, low, high in ((yaw, -180, 180), (pitch, 60, 90)):
        share = (torch.rad2deg(values).sort().values - low) / (high - low)
        expected = (torch.arange(2000) + 0.5) / 2000
        assert (share - expected).abs().max() < 1.95 / 2000**0.5  # Kolmogorov, 0.1 %


def test_yaws_are_wrapped_and_stay_the_same_view() -> None:
    around = replace(POSES, h_mean=9.0, h_stddev=0.5)
    yaw = camera_angles(0, range(50), around)[:, 0]
    assert (yaw.abs() <= math.pi).all()
    assert ((yaw - 9).cos() >= math.cos(0.5)).all()
    assert (yaw < 0).any() and (yaw > 0).any()


@pytest.mark.parametrize(
    ("poses", "message"),
    [(replace(POSES, kind="gaussian"), "kind 'uniform'"), (replace(POSES, fov=0.0), "fov")],
)
def test_poses_that_toys_do_not_have_are_refused(poses, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        camera_angles(0, [0], poses)


# ---- files


def test_a_failure_leaves_the_old_file_and_no_other(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made()
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(toy_dataset, "render_figures", fail)
    with pytest.raises(OSError, match="disk is full"):
        made(seed=1)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_not_replaced(made: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        made("folder")
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize(
    ("num", "img_size", "seed", "message"),
    [
        (0, 8, 0, "num must be at least 1, got 0"),
        (1, 3, 0, "img_size must be at least 4, got 3"),
        (1, 8, -1, "seed must be in"),
    ],
)
def test_impossible_sizes_are_refused(
    num: int, img_size: int, seed: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write_toys(tmp_path / "toys.zip", num, img_size, seed)
    assert not any(tmp_path.iterdir())


# ---- cache


def test_toys_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toys_zip(2, 8, seed=4, cache_dir=tmp_path / "cache")
    assert len(read(path)[0]) == 2

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(toy_dataset, "write_toys", refuse)
    assert toys_zip(2, 8, seed=4, cache_dir=tmp_path / "cache") == path


def test_every_choice_has_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_dataset, "write_toys", lambda *_, **__: None)
    choices = [(2, 8, 0), (3, 8, 0), (2, 16, 0), (2, 8, 1)]
    names = {toys_zip(*choice, cache_dir=tmp_path).name for choice in choices}
    monkeypatch.setattr(toy_dataset, "VERSION", toy_dataset.VERSION + 1)
    names.add(toys_zip(2, 8, 0, cache_dir=tmp_path).name)
    assert len(names) == 5


def test_the_environment_says_where_the_cache_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_dataset, "write_toys", lambda *_, **__: None)
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "here"))
    assert toys_zip(2, 8).parent == tmp_path / "here"
    monkeypatch.delenv("PERIGAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert toys_zip(2, 8).parent == tmp_path / ".cache" / "perigan"


def test_two_may_ask_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: toys_zip(3, 8, cache_dir=tmp_path), range(2)))
    assert paths[0] == paths[1]
    assert list(tmp_path.iterdir()) == paths[:1]
    assert len(read(paths[0])[0]) == 3


# ---- speed


@pytest.mark.slow
def test_two_thousand_small_pictures_take_well_under_a_minute_on_two_cores(tmp_path: Path) -> None:
    start = time.process_time()  # of all threads: other programs on the machine do not count
    write_toys(tmp_path / "toys.zip", 2000, 32)
    assert (time.process_time() - start) / 2 < 30

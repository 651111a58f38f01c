"""The embedded data set: a zip of snow figures, one picture each, with exact cameras.

Image i shows figure i from pose i; both depend on (seed, i) alone, so that a longer data set begins
with the shorter one, and the same seed gives the same bytes. Pictures lie in the zip as
`00000/img00000000.png`; `dataset.json` holds

    labels          null (StyleGAN's format, without classes)
    camera_angles   [name, [yaw, pitch, roll]] per picture (EpiGRAF's format): radians, angles of
                    `rendering.cameras`, the yaw wrapped to -pi..pi
    camera          what all cameras share: `fov` in degrees, `radius`, and `frontal_yaw`, from
                    which figures are seen in the face
    toys            `version` and `seed`: `Figures.sample(seed, [i])` is figure i
"""

import errno
import io
import itertools
import json
import math
import os
import uuid
import zipfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ops.shapes import Float
from rendering.cameras import Cameras
from rendering.settings import PoseLaw
from toys.draws import uniforms
from toys.render import RAYS_AT_ONCE, render_figures
from toys.scenes import Figures

VERSION = 1  # raise it with every change that alters a picture: caches are keyed by it
SAMPLES = 3  # per pixel and side
MAX_BATCH = 32
FRONTAL_YAW = math.pi / 2
POSES = PoseLaw(
    "uniform",
    h_mean=FRONTAL_YAW,
    h_stddev=math.pi,
    v_mean=math.radians(75),
    v_stddev=math.radians(15),
    fov=50.0,
    radius=1.0,
)


def toys_zip(
    num: int,
    img_size: int,
    seed: int = 0,
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
) -> Path:
    """Path of the data set in the cache, made on first use.

    The cache is `cache_dir`, else the environment's PERIGAN_CACHE, else ~/.cache/perigan. Two
    processes may ask at once: each makes the whole file under a name of its own, and puts it in
    place in one step.
    """
    if cache_dir is None:
        given = os.environ.get("PERIGAN_CACHE")
        cache_dir = Path(given).expanduser() if given else Path.home() / ".cache" / "perigan"
    path = Path(cache_dir) / f"toys_v{VERSION}_{num}x{img_size}_seed{seed}.zip"
    if not path.is_file():
        write_toys(path, num, img_size, seed, device=device)
    return path


def write_toys(
    output: Path,
    num: int,
    img_size: int,
    seed: int = 0,
    *,
    poses: PoseLaw = POSES,
    device: torch.device | str = "cpu",
) -> None:
    """Render `num` pictures of `img_size` squared pixels into the zip `output`.

    The file appears when it is complete, in place of an older one.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}")
    if img_size < 4:
        raise ValueError(f"img_size must be at least 4, got {img_size}")
    names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(num)]
    angles = camera_angles(seed, range(num), poses).tolist()
    description = {
        "labels": None,
        "camera_angles": [
            [name, [yaw, pitch, 0.0]] for name, (yaw, pitch) in zip(names, angles, strict=True)
        ],
        "camera": {"fov": poses.fov, "radius": poses.radius, "frontal_yaw": FRONTAL_YAW},
        "toys": {"version": VERSION, "seed": seed},
    }
    with (
        new_file(output) as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive,
        closing(_pictures(num, img_size, seed, poses, device)) as pictures,
    ):
        for name in tqdm(names, "toys", unit="img", disable=None):
            archive.writestr(zip_entry(name), next(pictures))
        archive.writestr(zip_entry("dataset.json"), json.dumps(description))


def camera_angles(
    seed: int, indices: Sequence[int], poses: PoseLaw = POSES
) -> Float[Tensor, "batch 2"]:
    """Yaw and pitch of the pictures, in double precision, as `dataset.json` has them."""
    if poses.kind != "uniform":
        raise ValueError(f"toys are seen from poses of kind 'uniform', got {poses.kind!r}")
    if not 0 < poses.fov < 180:
        raise ValueError(f"fov must be between 0 and 180 degrees, got {poses.fov}")
    yaw, pitch = (2 * uniforms(seed, indices, 2, "pose") - 1).unbind(1)
    yaw = poses.h_mean + poses.h_stddev * yaw
    yaw = (yaw + math.pi).remainder(2 * math.pi) - math.pi
    pitch = (poses.v_mean + poses.v_stddev * pitch).clamp(0, math.pi)
    return torch.stack([yaw, pitch], dim=1)


def toy_cameras(seed: int, indices: Sequence[int], poses: PoseLaw = POSES) -> Cameras:
    """The cameras that the pictures `indices` are taken with."""
    yaw, pitch = camera_angles(seed, indices, poses).float().unbind(1)
    return Cameras.from_angles(yaw, pitch, poses.fov, poses.radius)


def _pictures(
    num: int, img_size: int, seed: int, poses: PoseLaw, device: torch.device | str
) -> Generator[bytes, None, None]:
    """PNG files in order, made by as many threads as torch would use within one operation.

    A thread works on pictures of its own: waiting for each other after every operation, threads
    lose much where other programs run. Batches are always whole and cut at the same places, so that
    a picture has been through the very same arithmetic however many follow it.
    """
    batch = min(MAX_BATCH, max(1, RAYS_AT_ONCE // (img_size * SAMPLES) ** 2))

    def render(first: int) -> list[bytes]:
        indices = range(first, first + batch)
        figures = Figures.sample(seed, indices).to(device)
        cameras = toy_cameras(seed, indices, poses).to(device)
        image = render_figures(figures, cameras, img_size, SAMPLES).image
        levels = (127.5 * (image + 1)).round().clamp(0, 255).to(torch.uint8)
        return [_png(pixels) for pixels in levels.permute(0, 2, 3, 1).cpu()]

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        made = itertools.chain.from_iterable(pool.map(render, range(0, num, batch)))
        yield from itertools.islice(made, num)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a new thread's setting becomes that of later ones


def _png(pixels: Tensor) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(stream, "PNG")
    return stream.getvalue()


def zip_entry(name: str) -> zipfile.ZipInfo:
    """A zip entry that tells nothing of when and where it was made."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # Unix
    entry.external_attr = 0o644 << 16
    return entry


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name when it is complete, and leaves nothing behind if it never is."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

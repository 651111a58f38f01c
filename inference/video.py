"""Moving pictures on disk: H.264 in mp4, GIF, or a folder of PNGs, one frame in memory at a time.

Frames are pulled from their maker and pushed into the encoder one by one (imageio-ffmpeg runs
ffmpeg as a process of its own), so that memory does not grow with a video's length. A film appears
under its name once it is complete.
"""

import os
import re
from collections.abc import Generator, Iterable
from pathlib import Path

import torch
from torch import Tensor

from inference.media import save_png
from ops.shapes import UInt8

FORMATS = ("mp4", "gif", "png")
CRF = 21  # H.264's constant rate factor: lower is better and larger; pi-GAN's value
# A palette for each frame: one for all frames would have to see them all first.
GIF_PALETTES = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=none"


def save_video(
    frames: Iterable[UInt8[Tensor, "height width 3"]],
    folder: Path,
    name: str,
    *,
    format: str = "mp4",
    fps: float = 25.0,
    crf: int = CRF,
) -> Path:
    """Write `frames`, which are all of one size, and return where: a file, or a folder of PNGs.

    H.264 with colours at half resolution (yuv420p, which every player shows) has even sides: an
    odd picture gets its last row or column twice. Raises OSError where it cannot be written.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    folder.mkdir(parents=True, exist_ok=True)
    if format == "png":
        return _save_sequence(frames, folder / name)
    target = folder / f"{name}.{format}"
    part = folder / f"{name}.part.{format}"
    try:
        part.write_bytes(b"")  # what cannot be written is noticed before any work
        _encode(frames, part, fps, crf)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _encode(frames: Iterable[Tensor], path: Path, fps: float, crf: int) -> None:
    encoder: Generator[None, object, None] | None = None
    sent = 0
    try:
        for frame in frames:
            if path.suffix == ".mp4":
                frame = _even(frame)
            if encoder is None:
                encoder = _start(path, frame, fps, crf)
            try:
                encoder.send(frame.contiguous().numpy())
                sent += 1
            except OSError as error:
                raise OSError(f"ffmpeg cannot write {path}") from error
    finally:
        if encoder is not None:
            encoder.close()
    if encoder is None:
        raise ValueError(f"a video needs frames, {path} has none")
    if (found := _count(path)) != sent:  # a full disk, mostly: ffmpeg's end says nothing
        raise OSError(f"ffmpeg could not write {path}: {found} of {sent} frames are there")


def _count(path: Path) -> int:
    """Frames in a film, 0 if it is none."""
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.count_frames_and_secs(str(path))[0] or 0
    except RuntimeError:
        return 0


def _start(path: Path, frame: Tensor, fps: float, crf: int) -> Generator[None, object, None]:
    """An encoder process that waits for its first frame."""
    import imageio_ffmpeg

    mp4 = path.suffix == ".mp4"
    encoder = imageio_ffmpeg.write_frames(
        str(path),
        (frame.shape[1], frame.shape[0]),
        fps=fps,  # pyright: ignore[reportArgumentType]
        codec="libx264" if mp4 else "gif",
        pix_fmt_out="yuv420p" if mp4 else "pal8",
        macro_block_size=1,  # never scale
        quality=None,  # pyright: ignore[reportArgumentType]
        ffmpeg_log_level="error",
        output_params=["-crf", str(crf)] if mp4 else ["-filter_complex", GIF_PALETTES],
    )
    encoder.send(None)
    return encoder


def _even(frame: Tensor) -> Tensor:
    """Repeat the last row and column of a frame whose sides are odd."""
    height, width, _ = frame.shape
    if height % 2:
        frame = torch.cat([frame, frame[-1:]])
    if width % 2:
        frame = torch.cat([frame, frame[:, -1:]], dim=1)
    return frame


def _save_sequence(frames: Iterable[Tensor], folder: Path) -> Path:
    """Write 0000.png, 0001.png ...; those of an earlier, longer film go."""
    count = 0
    for frame in frames:
        save_png(folder / f"{count:04d}.png", frame)
        count += 1
    if not count:
        raise ValueError(f"a video needs frames, {folder} has none")
    for file in folder.iterdir():
        if re.fullmatch(r"\d{4,}\.png", file.name) and int(file.stem) >= count:
            file.unlink()
    return folder

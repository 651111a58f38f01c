"""Films on disk: every frame, in order, and never more than one of them in memory."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from films import film_facts, read_film
from torch import Tensor

from inference.video import FORMATS, save_video


def ramp(count: int, height: int = 16, width: int = 24) -> Iterator[Tensor]:
    """Frames whose brightness rises by 20."""
    for i in range(count):
        yield torch.full((height, width, 3), 20 * i, dtype=torch.uint8)


@pytest.mark.parametrize("format", FORMATS)
def test_every_frame_is_there_in_order(tmp_path: Path, format: str) -> None:
    made = save_video(ramp(9), tmp_path / "new", "7", format=format, fps=10)
    frames = read_film(made)
    assert made == tmp_path / "new" / ("7" if format == "png" else f"7.{format}")
    assert format != "png" or (made / "0008.png").exists()
    assert frames.shape == (9, 16, 24, 3)
    tolerance = 0 if format == "png" else 3
    assert np.abs(frames[:, 8, 12].astype(int) - 20 * np.arange(9)[:, None]).max() <= tolerance
    assert list((tmp_path / "new").iterdir()) == [made], "nothing is left over"


def test_mp4_is_h264_in_yuv420p_at_the_rate_asked_for(tmp_path: Path) -> None:
    facts = film_facts(save_video(ramp(5), tmp_path, "a", fps=30))
    assert "Video: h264" in facts and "yuv420p" in facts and "30 fps" in facts


def test_odd_sides_become_even_by_showing_the_last_row_and_column_twice(tmp_path: Path) -> None:
    video = read_film(save_video(ramp(3, 15, 23), tmp_path, "a"))
    assert video.shape == (3, 16, 24, 3)
    assert np.abs(video[2].astype(int) - 40).max() <= 3, "nothing dark at the border"
    gif = read_film(save_video(ramp(3, 15, 23), tmp_path, "a", format="gif"))
    assert gif.shape == (3, 15, 23, 3)


def test_lower_crf_is_better(tmp_path: Path) -> None:
    frames = [torch.randint(256, (32, 32, 3), dtype=torch.uint8) for _ in range(4)]
    sizes = [save_video(frames, tmp_path, str(c), crf=c).stat().st_size for c in (5, 45)]
    assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize("format", FORMATS)
def test_frames_stream_into_the_encoder(tmp_path: Path, format: str) -> None:
    """When the next frame is made, all but the last one are gone already."""
    made: list[weakref.ref[Tensor]] = []

    def frames() -> Iterator[Tensor]:
        for i in range(40):
            frame = torch.full((16, 16, 3), i, dtype=torch.uint8)
            made.append(weakref.ref(frame))
            yield frame
            del frame
            assert sum(ref() is not None for ref in made) <= 1

    save_video(frames(), tmp_path, "a", format=format)
    assert len(made) == 40


@pytest.mark.parametrize("format", FORMATS)
def test_frames_that_are_the_same_are_all_there(tmp_path: Path, format: str) -> None:
    frames = [torch.full((16, 16, 3), 90, dtype=torch.uint8)] * 7
    assert len(read_film(save_video(frames, tmp_path, "a", format=format, fps=12))) == 7


@pytest.mark.parametrize("format", ["mp4", "gif"])
def test_a_film_that_the_encoder_could_not_finish_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """As with a full disk: what is written is less than what was sent."""
    import imageio_ffmpeg

    original = imageio_ffmpeg.write_frames

    def deaf(path: str, *args: Any, **kwargs: Any) -> Iterator[None]:
        encoder = original(path, *args, **kwargs)
        encoder.send(None)
        encoder.send((yield))
        encoder.close()
        while True:
            yield

    monkeypatch.setattr(imageio_ffmpeg, "write_frames", deaf)
    with pytest.raises(OSError, match="1 of 5 frames are there"):
        save_video(ramp(5), tmp_path, "a", format=format)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_a_film_of_nothing_is_refused(tmp_path: Path, format: str) -> None:
    with pytest.raises(ValueError, match="a video needs frames"):
        save_video(iter(()), tmp_path, "a", format=format)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["mp4", "gif"])
def test_a_broken_off_film_leaves_the_old_one(tmp_path: Path, format: str) -> None:
    old = save_video(ramp(3), tmp_path, "a", format=format).read_bytes()

    def broken() -> Iterator[Tensor]:
        yield from ramp(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_video(broken(), tmp_path, "a", format=format)
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == old


def test_a_shorter_sequence_takes_the_place_of_a_longer_one(tmp_path: Path) -> None:
    folder = save_video(ramp(5), tmp_path, "a", format="png")
    (folder / "notes.png").write_bytes(b"mine")
    save_video(ramp(2), tmp_path, "a", format="png")
    assert {f.name for f in folder.iterdir()} == {"0000.png", "0001.png", "notes.png"}


def test_what_cannot_be_written_is_noticed_before_any_frame_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    frames = ramp(3)
    with pytest.raises(OSError):
        save_video(frames, tmp_path / "file", "a")
    (tmp_path / "a.part.mp4").mkdir()
    with pytest.raises(OSError):
        save_video(frames, tmp_path, "a")
    assert len(list(frames)) == 3
    with pytest.raises(ValueError, match="format must be one of mp4, gif, png, got 'avi'"):
        save_video(frames, tmp_path, "a", format="avi")

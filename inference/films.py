"""Films on the command line: where they go, in which format, alone or several in a grid."""

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from inference.video import CRF, FORMATS, save_video

T = TypeVar("T")


@dataclass(frozen=True)
class Grid:
    """Films side by side in one."""

    columns: int
    rows: int

    @property
    def cells(self) -> int:
        """Films in a grid."""
        return self.columns * self.rows

    def films(self, items: Sequence[T]) -> dict[str, Sequence[T]]:
        """Share out what is shown among as many grids as it takes, by their names."""
        parts = [items[i : i + self.cells] for i in range(0, len(items), self.cells)]
        if len(parts) == 1:
            return {"grid": parts[0]}
        return {f"grid_{i}": part for i, part in enumerate(parts)}


def add_film(parser: argparse.ArgumentParser) -> None:
    """Add --output_dir, --grid, and the encoder's flags."""
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("vids"), help="where films go (vids)")
    add("--grid", type=parse_grid, metavar="WxH",
        help="films of W x H seeds each; cells without one are white")  # fmt: skip
    add("--format", choices=FORMATS, default="mp4",
        help="mp4 (H.264), gif, or a folder of png frames (mp4)")  # fmt: skip
    add("--fps", type=_frame_rate, default=25.0, help="frames per second (25)")
    add("--crf", type=int, choices=range(52), default=CRF, metavar="0..51",
        help=f"H.264's quality: lower is better and larger ({CRF})")  # fmt: skip
    add("--batch_size", type=int, choices=[1], default=1, metavar="1",
        help="of the original's command lines; frames are computed one by one")  # fmt: skip


def save_film(frames: Iterable[Tensor], name: str, args: argparse.Namespace) -> Path:
    """Write a film as the flags of `add_film` say."""
    return save_video(frames, args.output_dir, name, format=args.format, fps=args.fps, crf=args.crf)


def parse_grid(text: str) -> Grid:
    """Columns and rows, as in 4x2."""
    columns, cross, rows = text.partition("x")
    if not (cross and columns.isdecimal() and rows.isdecimal() and int(columns) and int(rows)):
        raise argparse.ArgumentTypeError(f"a grid is columns x rows, as in 4x2, got {text!r}")
    return Grid(int(columns), int(rows))


def _frame_rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"must be a number above 0, at most 1000, got {text!r}")
    return value

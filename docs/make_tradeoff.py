"""Draw the same sides of several generators' scenes below each other: docs/trade_off.md's picture.

  python docs/make_tradeoff.py pi-GAN=runs/toys "Ray Conditioning=runs/raycond"

Every generator shows --seeds from --views sides all the way round, at the size of its training
pictures, and truncated alike; each pixel is then drawn as a square.

Writes docs/images/tradeoff_views.png.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
TITLE = 16  # pixels above a block
GAP = 6  # pixels around the blocks


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=_named, metavar="NAME=RUN", help="runs' directories, and titles")
    add("--output", type=Path, default=ROOT / "docs" / "images" / "tradeoff_views.png",
        help="the picture (docs/images/tradeoff_views.png)")  # fmt: skip
    add("--seeds", default="0-3", help="of each generator (0-3)")
    add("--views", default="8", help="sides of each seed (8)")
    add("--psi", default="0.8", help="truncation (0.8)")
    add("--image_size", type=int, default=32, help="pixels per side that are rendered (32)")
    add("--cell", type=int, default=64, help="pixels per side that a view is drawn with (64)")
    return parser.parse_args()


def photograph(run: Path, args: argparse.Namespace) -> Image.Image:
    """All seeds of a run, a row of views each, by the project's own script."""
    with tempfile.TemporaryDirectory() as work:
        words = ["--seeds", args.seeds, "--turnaround", args.views, "--psi", args.psi]
        words += ["--image_size", str(args.image_size), "--output_dir", work]
        script = ROOT / "render_multiview_images.py"
        done = subprocess.run([sys.executable, str(script), str(run), *words])
        if done.returncode:
            sys.exit(done.returncode)
        with Image.open(Path(work) / "overview.png") as image:
            block = image.convert("RGB")
    rows = block.height // args.image_size
    size = int(args.views) * args.cell, rows * args.cell
    return block.resize(size, Image.Resampling.NEAREST)


def compose(titles: list[str], blocks: list[Image.Image]) -> Image.Image:
    """The blocks below each other, each under its title."""
    width = max(block.width for block in blocks) + 2 * GAP
    height = sum(block.height + TITLE for block in blocks) + GAP
    page = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(page), 0
    for title, block in zip(titles, blocks, strict=True):
        draw.text((GAP, top + 2), title, fill="black")
        page.paste(block, (GAP, top + TITLE))
        top += TITLE + block.height
    return page


def main() -> None:
    """Render, arrange, save."""
    args = parse_args()
    titles, runs = zip(*args.runs, strict=True)
    page = compose(list(titles), [photograph(run, args) for run in runs])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    page.quantize(256).save(args.output, optimize=True)
    print(f"wrote {args.output}")


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"must be NAME=RUN, got {text!r}")
    return name, Path(path)


if __name__ == "__main__":
    main()

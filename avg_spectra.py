"""Average power spectra of pictures: what frequencies a generator puts too much or too little into.

  python avg_spectra.py stats --source data.zip
  python avg_spectra.py calc --source data.zip --dest real.npz --mean 112.7 --std 69.5
  python avg_spectra.py calc --source runs/faces --num 9999 --dest fake.npz --mean 112.7 --std 69.5
  python avg_spectra.py heatmap real.npz --save real.png
  python avg_spectra.py slices real.npz fake.npz --save slices.png

A source is a folder, glob or zip of square pictures of one size, or a generator: a generator.pth or
a run's directory, whose pictures --seed, --seed + 1 ... are taken. Mean and std are those of the
real pictures, which `stats` prints; use the same for real and generated ones. `heatmap` and
`slices` draw with matplotlib.
"""

import argparse
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from curriculums import stage_at
from datasets import decode_image
from image_files import find_images
from inference.checkpoint import checkpoint_step, load_generator
from inference.options import add_device, positive, run_script
from inference.samples import Samples
from metrics.spectra import AverageSpectrum, PixelStatistics, heatmap, slices
from ops.shapes import Float

LEVELS = range(-40, 21, 5)  # dB of the heatmap's contours


def parse_args() -> argparse.Namespace:
    """Read the command line; every subcommand sets `run`, the function that does its work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stats = commands.add_parser("stats", help="mean and standard deviation of all values")
    calc = commands.add_parser("calc", help="average a spectrum into an .npz")
    for command, run in ((stats, print_statistics), (calc, average)):
        command.set_defaults(run=run)
        add = command.add_argument
        add("--source", required=True, help="pictures (folder, glob, zip) or a generator")
        add(
            "--num",
            type=parse_num,
            metavar="N",
            help="pictures (default: all; needed of a generator)",
        )
        add("--seed", type=int, default=0, help="which of the pictures, if not all (0)")
        add_device(command)
    add = calc.add_argument
    add("--dest", type=Path, required=True, metavar="NPZ", help="file to write")
    add("--mean", type=float, required=True, help="of the real pictures' values, 0..255")
    add("--std", type=float, required=True, help="likewise")
    add("--beta", type=float, default=8.0, help="of the Kaiser window (8)")
    add("--interp", type=positive, default=4, help="frequencies per one of the picture's own (4)")
    for name, run, smooth, what in (
        ("heatmap", draw_heatmap, 1.25, "draw one spectrum in all directions"),
        ("slices", draw_slices, 0.0, "draw several along 0 and 45 degrees"),
    ):
        command = commands.add_parser(name, help=what)
        command.set_defaults(run=run)
        add = command.add_argument
        add("files", type=Path, metavar="NPZ", nargs=1 if name == "heatmap" else "+")
        add("--save", type=Path, metavar="FILE", help=f"picture (default: {name}.png beside it)")
        add("--dpi", type=positive, default=100, help="its dots per inch (100)")
        add("--smooth", type=float, default=smooth,
            help=f"blur, in the picture's own frequencies ({smooth:g})")  # fmt: skip
    return parser.parse_args()


def parse_num(text: str) -> int | None:
    """A number of pictures, or "all"."""
    return None if text == "all" else positive(text)


# ---- sources


def read_source(args: argparse.Namespace) -> Iterator[Float[Tensor, "1 3 height width"]]:
    """Pictures one by one, values in 0..255."""
    path = Path(args.source).expanduser()
    if path.suffix == ".pth" or (path / "generator.pth").is_file():
        yield from generated(path, args)
        return
    files = find_images(args.source)
    names = files.names
    if args.num is not None:
        if args.num > len(names):
            raise ValueError(f"{args.source} has {len(names)} pictures, --num asks for {args.num}")
        rng = torch.Generator().manual_seed(args.seed)
        chosen = torch.randperm(len(names), generator=rng)[: args.num].sort().values
        names = [names[i] for i in chosen]
    for name in tqdm(names, "pictures", disable=None):
        try:
            image = decode_image(files.read(name))
        except Exception as error:  # decoders raise whatever they like over a damaged file
            raise ValueError(f"cannot read {name!r} of {args.source}: {error}") from error
        yield torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


def generated(path: Path, args: argparse.Namespace) -> Iterator[Float[Tensor, "1 3 height width"]]:
    """A generator's pictures, each from its seed alone."""
    if args.num is None:
        raise ValueError("--num is needed of a generator: it has pictures without end")
    generator, curriculum = load_generator(path, args.device)
    stage = stage_at(curriculum, checkpoint_step(path))
    samples = Samples(generator, stage, seed=args.seed)
    for number in tqdm(range(args.num), "pictures", disable=None):
        yield samples.pictures([number], args.device).float()


# ---- commands


def print_statistics(args: argparse.Namespace) -> None:
    """Print mean and standard deviation, as `calc` takes them."""
    statistics = PixelStatistics()
    for image in read_source(args):
        statistics.add(image)
    mean, std = statistics.result()
    print(f"--mean={mean:g} --std={std:g}")


def average(args: argparse.Namespace) -> None:
    """Average the spectrum and write it with the pictures' size."""
    result = AverageSpectrum(mean=args.mean, std=args.std, beta=args.beta, interp=args.interp)
    for image in read_source(args):
        result.add(image.to(args.device))
    spectrum = result.result().cpu().numpy()
    args.dest.parent.mkdir(parents=True, exist_ok=True)
    with open(args.dest, "wb") as stream:  # numpy would add its suffix to a path that lacks it
        np.savez(stream, spectrum=spectrum, image_size=np.asarray(result.image_size))
    print(f"wrote {args.dest}")


def read_spectrum(path: Path) -> tuple[Float[Tensor, "padded padded"], int]:
    """A spectrum that `calc` wrote, and the size of its pictures."""
    try:
        with np.load(path, allow_pickle=False) as data:
            spectrum, size = torch.from_numpy(data["spectrum"]).double(), int(data["image_size"])
    except (KeyError, ValueError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a spectrum of avg_spectra.py calc: {error}") from error
    if spectrum.ndim != 2 or spectrum.shape[0] != spectrum.shape[1] or len(spectrum) < size > 0:
        raise ValueError(f"{path}: spectrum of shape {tuple(spectrum.shape)} for {size} pixels")
    return spectrum, size


def draw_heatmap(args: argparse.Namespace) -> None:
    """One spectrum in all directions, in dB, with contours."""
    check_smooth(args)
    path = args.files[0]
    spectrum, size = read_spectrum(path)
    picture = heatmap(spectrum, size, args.smooth).numpy()
    figure, axes = new_figure((6, 5), 1)
    ends = np.linspace(-0.5, 0.5, len(picture))
    low, high = LEVELS[0], LEVELS[-1]
    filled = axes[0].contourf(ends, ends, picture.clip(low, high), LEVELS, cmap="viridis")
    axes[0].contour(ends, ends, picture, LEVELS, colors="white", linewidths=0.3)
    axes[0].set(title=path.stem, xlabel="cycles per pixel, x", aspect="equal")
    axes[0].set(ylabel="cycles per pixel, y")
    figure.colorbar(filled, ax=axes[0], label="dB")
    save_figure(figure, args, path.with_name("heatmap.png"))


def draw_slices(args: argparse.Namespace) -> None:
    """Several spectra along the axis and along the diagonal."""
    check_smooth(args)
    spectra = [(path.stem, *read_spectrum(path)) for path in args.files]
    figure, axes = new_figure((10, 4), 2)
    for name, spectrum, size in spectra:
        for panel, values in zip(axes, slices(spectrum, size, args.smooth), strict=True):
            panel.plot(np.linspace(0, 0.5, len(values)), values.numpy(), label=name)
    for panel, angle in zip(axes, (0, 45), strict=True):
        panel.set(title=f"{angle} degrees", xlabel="cycles per pixel", ylabel="dB")
        panel.grid(alpha=0.3)
    axes[0].legend()
    save_figure(figure, args, args.files[0].with_name("slices.png"))


def check_smooth(args: argparse.Namespace) -> None:
    """Refuse a blur that is none."""
    if not args.smooth >= 0:
        raise ValueError(f"--smooth must not be negative, got {args.smooth}")


def new_figure(size: tuple[float, float], panels: int) -> tuple[Any, Sequence[Any]]:
    """A matplotlib figure that needs no display, with panels side by side."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("drawing spectra needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def save_figure(figure: Any, args: argparse.Namespace, default: Path) -> None:
    """Write the picture where the user wants it."""
    path = args.save or default
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=args.dpi)
    print(f"wrote {path}")


def main() -> None:
    """Run the subcommand."""
    args = parse_args()
    args.run(args)


if __name__ == "__main__":
    run_script(main)

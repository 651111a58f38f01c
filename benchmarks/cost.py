"""What a picture costs: seconds against resolution, samples per ray and batch, and a plot of it.

  PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/cost.py --plot docs/images/cost.png

pi-GAN with CelebA's field (8 + 1 layers of 256 channels), untrained, its density shifted until 57%
of its samples are empty, as in a trained one; `picture` is a generator's forward pass without
gradients, `teaching` a forward and a backward pass. The plain reference, ours, and on a CPU ours in
bf16 with its own compiled field take turns; on a CPU, seconds are those that the process computes.
Needs matplotlib for the plot; prints JSON.
"""

import argparse
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.reference import reference_render
from benchmarks.timing import interleave, report
from benchmarks.train_step import Work, leave_empty, make_work
from generators.pigan import PiGAN
from inference.options import add_device, positive

BASE = {"img_size": 16, "num_steps": 12, "batch_size": 1, "batch_split": 1}
AXES: dict[str, tuple[int, ...]] = {
    "img_size": (8, 16, 32, 64),
    "num_steps": (3, 6, 12, 24),
    "batch_size": (1, 2, 4, 8),
}
LABELS = {
    "img_size": "pixels per side",
    "num_steps": "samples per ray, coarse (as many fine ones)",
    "batch_size": "pictures at once",
}
COLOURS = {"reference": "tab:gray", "ours": "tab:blue", "ours in bf16, compiled": "tab:orange"}
Curve = dict[str, list[float]]  # name of a side and kind of work -> seconds, one per value


def sides_of(work: Work) -> dict[str, Callable[[], object]]:
    """Each side's picture, and the generator's part of a training step."""
    moment, draw = work.moment, work.draws[0]
    generator, plain = work.ours.generator, work.plain.generator
    assert isinstance(generator, PiGAN) and isinstance(plain, PiGAN)

    def ours() -> Tensor:
        return work.ours.fakes(draw, moment)

    def reference() -> Tensor:
        w = plain.mapping(draw.z)
        return reference_render(plain, w, draw.cameras, moment.settings, work.plain.rng)

    def picture(render: Callable[[], Tensor]) -> None:
        with torch.no_grad():
            render()

    def teach(render: Callable[[], Tensor], network: PiGAN) -> None:
        render().sum().backward()
        network.zero_grad()

    def compiled(run: Callable[[], None]) -> None:
        own, work.ours.dtype, generator.siren.compiled = work.ours.dtype, torch.bfloat16, True
        run()
        work.ours.dtype, generator.siren.compiled = own, False

    sides: dict[str, Callable[[], object]] = {
        "picture, reference": lambda: picture(reference),
        "picture, ours": lambda: picture(ours),
        "teaching, reference": lambda: teach(reference, plain),
        "teaching, ours": lambda: teach(ours, generator),
    }
    if draw.z.device.type == "cpu" and shutil.which(os.environ.get("CXX") or "g++"):
        sides["picture, ours in bf16, compiled"] = lambda: compiled(lambda: picture(ours))
        sides["teaching, ours in bf16, compiled"] = lambda: compiled(lambda: teach(ours, generator))
    return sides


def measure(axis: str, rounds: int, device: torch.device) -> Curve:
    """Seconds along one axis, the other two at their base."""
    curve: Curve = {}
    for value in AXES[axis]:
        work = make_work(device, {**BASE, "precision": "fp32", axis: value})
        leave_empty(work, 0.57)
        for name, seconds in interleave(sides_of(work), rounds, device).items():
            curve.setdefault(name, []).append(round(seconds, 4))
    return curve


def plot(curves: dict[str, Curve], file: Path) -> None:
    """A panel per axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(curves), figsize=(12, 4.6), sharey=True, layout="constrained"
    )
    for panel, (axis, curve) in zip(panels, curves.items(), strict=True):
        for name, seconds in curve.items():
            kind, side = name.split(", ", 1)
            colour = COLOURS[side]
            style = "-" if kind == "picture" else "--"
            panel.plot(AXES[axis], seconds, style, marker="o", color=colour, label=name)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(AXES[axis], [str(value) for value in AXES[axis]])
        panel.set_xlabel(LABELS[axis])
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds of one thread")
    panels[0].legend()
    others = (
        "the others: {img_size} pixels, {num_steps} + {num_steps} samples, {batch_size} picture"
    )
    figure.suptitle(f"pi-GAN at CelebA's settings; {others.format(**BASE)}")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, bbox_inches="tight")


def main() -> None:
    """Measure along all axes, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=3, help="timed turns of each side (3)")
    parser.add_argument("--plot", type=Path, help="where the plot goes")
    add_device(parser)
    args = parser.parse_args()
    device = torch.device(args.device)
    curves = {axis: measure(axis, args.rounds, device) for axis in AXES}
    for axis, curve in curves.items():
        report("cost", device, {"axis": axis, "values": AXES[axis], "base": BASE, "s": curve})
    if args.plot:
        plot(curves, args.plot)


if __name__ == "__main__":
    main()

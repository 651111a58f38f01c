"""Peak memory of a training step at the CelebA settings: ours against the plain reference.

  PYTHONPATH=. python benchmarks/memory.py --batch_size 1 --img_size 64

Each side takes its step (benchmarks/train_step.py) in a process of its own. Two numbers of each:
what autograd keeps of the generator's pictures until their backward pass, every storage counted
once and weights not at all, and how far the process's largest resident set during the step lies
above where it was before (on a GPU, the largest allocation above it). One line of JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.reference import reference_render
from benchmarks.timing import report
from benchmarks.train_step import Work, make_work, reference_step
from generators.pigan import PiGAN
from inference.options import add_device, positive

SIDES = ("ours", "reference")
PRECISIONS = ("fp32", "bf16", "fp16")
MB = 2**20


def fakes(work: Work, side: str) -> Tensor:
    """The generator's pictures of the first chunk, with gradients."""
    draw, moment = work.draws[0], work.moment
    if side == "ours":
        return work.ours.fakes(draw, moment)
    players, generator = work.plain, work.plain.generator
    assert isinstance(generator, PiGAN)
    with players.autocast():
        w = generator.mapping(draw.z)
        return reference_render(generator, w, draw.cameras, moment.settings, players.rng)


def kept(work: Work, side: str) -> int:
    """Bytes that wait for the backward pass of the generator's pictures."""
    players = work.ours if side == "ours" else work.plain
    weights = {p.untyped_storage().data_ptr() for p in players.generator.parameters()}
    storages: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fakes(work, side)
    return sum(storages.values())


def peak(step: Callable[[], object], device: torch.device) -> int:
    """By how many bytes a step raises the largest amount of memory in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    before = resident()
    step()
    return highest() - before


def highest() -> int:
    """The most bytes of this process that were ever in memory."""
    try:  # getrusage's number begins with that of the process which started this one
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident() -> int:
    """Bytes of this process that are in memory now; where that is not told, the most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return highest()
    return pages * resource.getpagesize()


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Both numbers of one side, in megabytes."""
    device = torch.device(args.device)
    changes = {"batch_size": args.batch_size, "batch_split": 1, "img_size": args.img_size,
               "precision": args.precision}  # fmt: skip
    work = make_work(device, changes)
    step = work.our_step if args.side == "ours" else lambda: reference_step(work)
    highest = peak(step, device)
    return {"peak_mb": highest / MB, "kept_mb": kept(work, args.side) / MB}


def main() -> None:
    """Measure each side in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--batch_size", type=positive, default=1, help="images per step (1)")
    add("--img_size", type=positive, default=64, help="pixels per side (64)")
    add("--precision", choices=PRECISIONS, default="fp32", help="of both sides (fp32)")
    add("--side", choices=SIDES, help="measure this one alone, in this process")
    add_device(parser)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)))
        return
    found: dict[str, dict[str, float]] = {}
    for side in SIDES:
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise SystemExit(f"{side}: {result.stderr}")
        found[side] = json.loads(result.stdout)
    line: dict[str, object] = {
        "batch_size": args.batch_size,
        "img_size": args.img_size,
        "precision": args.precision,
    }
    for kind in ("kept_mb", "peak_mb"):
        for side in SIDES:
            line[f"{side}_{kind}"] = round(found[side][kind], 1)
        line[f"{kind[:4]}_ratio"] = round(found["reference"][kind] / found["ours"][kind], 2)
    report("memory", torch.device(args.device), line)


if __name__ == "__main__":
    main()

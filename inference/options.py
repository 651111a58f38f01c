"""What the scripts' command lines share: seeds, one-line errors, devices."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

import torch

from stages import PRECISIONS

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": None, "auto": None}


def parse_seeds(text: str) -> list[int]:
    """A seed, or a range with both ends: "7" or "0-3"."""
    first, hyphen, last = text.partition("-")
    try:
        seeds = [int(first)] if not hyphen else list(range(int(first), int(last) + 1))
    except ValueError:
        seeds = []
    if not seeds or seeds[-1] >= 2**63:
        raise argparse.ArgumentTypeError(
            f"seeds are numbers below 2^63 or ranges like 0-3, got {text!r}"
        )
    return seeds


def add_seeds(parser: argparse.ArgumentParser, default: str = "0-2") -> None:
    """Add --seeds, a list of numbers and ranges, and its singular."""
    parser.add_argument(
        "--seeds",
        "--seed",
        type=parse_seeds,
        nargs="+",
        default=[parse_seeds(default)],
        metavar="SEED",
        help=f"latents to show: numbers and ranges, for instance 0-3 7 (default {default})",
    )


def flatten(seeds: Sequence[Sequence[int]]) -> list[int]:
    """Join what --seeds collected."""
    return [seed for part in seeds for seed in part]


def default_device() -> str:
    """The first GPU if there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def parse_device(text: str) -> str:
    """A device that torch has here."""
    try:
        torch.empty(0, device=torch.device(text))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"device {text!r} is not available: {reason}") from error
    return text


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument(
        "--device",
        type=parse_device,
        default=default_device(),
        help="where to compute: cpu, cuda, cuda:1 (default: the GPU if there is one)",
    )


def add_exact(parser: argparse.ArgumentParser) -> None:
    """Add --exact."""
    parser.add_argument(
        "--exact",
        action="store_true",
        help="evaluate empty space, too, which takes several times as long (the default leaves it "
        "out; pictures then differ by about a grey level, at 45 dB or more)",
    )


def add_proposal(parser: argparse.ArgumentParser) -> None:
    """Add --proposal."""
    parser.add_argument(
        "--proposal",
        type=positive,
        metavar="N",
        help="look at the field at no more than N places per ray, where a coarse grid of the "
        "density says that light is absorbed, in place of --ray_step_multiplier: several times "
        "faster; 8 are about as good as full rays, 4 a draft, 16 finer, if ray_start and ray_end "
        "are close around what is seen: the grid covers all that lies between them",
    )


def add_precision(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --precision, of `what`."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help=f"of {what}: fp32, or bf16 or fp16 inputs (auto: fp32)",
    )


def add_compile(parser: argparse.ArgumentParser) -> None:
    """Add --compile."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the field of a PiGAN for this CPU, which takes a second and a C++ compiler "
        "(g++, or what the environment's CXX names): faster, above all in bf16",
    )


def positive(text: str) -> int:
    """A whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return value


def run_script(main: Callable[[], None], also: tuple[type[Exception], ...] = ()) -> None:
    """Run a script's main; what the user can mend is one line and exit code 2, no traceback.

    That is every ValueError and OSError, and the kinds of error named in `also`.
    """
    logging.basicConfig(format="%(message)s")
    try:
        main()
    except (ValueError, OSError, *also) as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

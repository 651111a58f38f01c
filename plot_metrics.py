"""Draw what a run measured of itself over its training, and print where it ended.

python plot_metrics.py runs/toys                               # runs/toys/metrics.png
python plot_metrics.py runs/toys --keys swd view_consistency --output curves.png
"""

import argparse
from pathlib import Path

from inference.options import run_script
from inference.plots import PREFERRED, plot_metrics, read_metrics


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="the run's directory, or its metrics.jsonl")
    add("--keys", nargs="+", metavar="KEY",
        help=f"numbers to draw (default: those there are of {', '.join(PREFERRED)})")  # fmt: skip
    add("--output", type=Path, help="the picture (default: metrics.png in the run's directory)")
    return parser.parse_args()


def main() -> None:
    """Draw, and tell how each curve went."""
    args = parse_args()
    path = plot_metrics(args.run, args.keys, args.output)
    curves = read_metrics(args.run)
    keys = args.keys or [key for key in PREFERRED if key in curves] or sorted(curves)
    for key in keys:
        (first, began), (last, ended) = curves[key][0], curves[key][-1]
        print(f"{key}: {began:.4g} at step {first}, {ended:.4g} at step {last}")
    print(f"wrote {path}")


if __name__ == "__main__":
    run_script(main)

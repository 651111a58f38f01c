"""Copy the small parity cases into the checkout, so that a public clone can prove itself.

    python tests/parity/collect_cases.py ../shared/parity

A case comes along if a test reads its system and all its files together are small; the smallest
come first, until the whole collection is full. What was collected before is replaced.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from parity.support import roles_with_a_test  # noqa: E402

LARGEST_CASE = 300_000  # bytes
LARGEST_COLLECTION = 15_000_000  # bytes


def files_of(case: Path) -> list[Path]:
    """A case's JSON, its tensors, and the further files that it names."""
    spec = json.loads(case.read_text())
    config = spec.get("config", {}) if isinstance(spec, dict) else {}
    named = [case.parent / name for name in config.get("files", ())]
    tensors = [case.with_suffix(kind) for kind in (".safetensors", ".float64.safetensors")]
    return [case, *(file for file in tensors if file.exists()), *named]


def small_cases(source: Path) -> list[list[Path]]:
    """The files of every case that comes along."""
    systems = {system for system, _ in roles_with_a_test()}
    cases = []
    for path in sorted(source.rglob("*.json")):
        spec = json.loads(path.read_text())
        if isinstance(spec, dict) and spec.get("system") in systems:
            files = files_of(path)
            cases.append((sum(file.stat().st_size for file in files), files))
    cases.sort(key=lambda case: case[0])
    chosen, total = [], 0
    for size, files in cases:
        total += size
        if size <= LARGEST_CASE and total <= LARGEST_COLLECTION:
            chosen.append(files)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description="Copy the small parity cases into the checkout.")
    parser.add_argument("source", type=Path, help="folder with all cases")
    parser.add_argument("--output", type=Path, default=HERE / "cases", help="where to copy them")
    args = parser.parse_args()
    chosen = small_cases(args.source)
    if not chosen:
        parser.error(f"no small case of a tested system in {args.source}")
    shutil.rmtree(args.output, ignore_errors=True)
    for files in chosen:
        for file in files:
            target = args.output / file.relative_to(args.source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    size = sum(file.stat().st_size for files in chosen for file in files)
    print(f"{len(chosen)} cases, {size / 1e6:.1f} MB, in {args.output}")


if __name__ == "__main__":
    main()

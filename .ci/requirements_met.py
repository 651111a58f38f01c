"""Exit with 0 if this Python has everything that a requirements file asks for, else say what not.

    python .ci/requirements_met.py requirements.txt

A look at the installed packages' metadata: no network, a tenth of a second. Extras count too:
`imageio[ffmpeg]` also wants what imageio needs for ffmpeg.
"""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

try:
    from packaging.requirements import Requirement
except ModuleNotFoundError:  # nothing is installed yet: pytest would have brought it
    sys.exit("packaging is not installed")


def unmet(requirement: Requirement) -> Iterator[str]:
    """What `requirement` lacks here, in words."""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        yield f"{requirement.name} is not installed"
        return
    if not requirement.specifier.contains(found, prereleases=True):
        yield f"{requirement.name} {found} is not {requirement.specifier}"
    for line in metadata.requires(requirement.name) or []:
        needed = Requirement(line)
        marker = needed.marker
        if marker is not None and not marker.evaluate({"extra": ""}):
            if any(marker.evaluate({"extra": extra}) for extra in requirement.extras):
                yield from unmet(needed)


def main() -> None:
    """Check every line of the files given."""
    lines = [line for path in sys.argv[1:] for line in Path(path).read_text().splitlines()]
    wanted = [line.split("#")[0].strip() for line in lines]
    lacking = [why for line in wanted if line for why in unmet(Requirement(line))]
    if lacking:
        sys.exit("; ".join(lacking))


if __name__ == "__main__":
    main()

"""The project's own files agree with each other, and set-up knows what is missing."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]  # pytest brings it

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def required(text: str) -> list[str]:
    """The requirements in a file's text, without comments."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def test_requirements_are_those_of_the_project_then_of_its_tests(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    expected = project["dependencies"] + project["optional-dependencies"]["test"]
    assert required((ROOT / "requirements.txt").read_text(encoding="utf-8")) == expected


def test_an_install_takes_every_package_and_every_module_that_is_imported(
    pyproject: dict[str, Any],
) -> None:
    setuptools = pyproject["tool"]["setuptools"]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"}
    assert {
        name.removesuffix("*") for name in setuptools["packages"]["find"]["include"]
    } == packages
    layering = (ROOT / "tests" / "test_layering.py").read_text(encoding="utf-8")
    modules = {path.stem for path in ROOT.glob("*.py") if f'"{path.stem}": ' in layering}
    assert set(setuptools["py-modules"]) == modules


# -- .ci/requirements_met.py


def look_for(tmp_path: Path, *lines: str) -> str:
    """What set-up finds lacking; empty when everything is there."""
    file = tmp_path / "requirements.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    script = ROOT / ".ci" / "requirements_met.py"
    result = subprocess.run([sys.executable, script, file], capture_output=True, text=True)
    assert result.returncode == (1 if result.stderr else 0)
    return result.stderr.strip()


def test_set_up_is_not_repeated_when_everything_is_there(tmp_path: Path) -> None:
    assert look_for(tmp_path, "# a comment", "", "pytest>=1  # another", "torch>=2.6") == ""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("perigan-no-such-package>=1", "perigan-no-such-package is not installed"),
        ("pytest>=9999", f"pytest {metadata.version('pytest')} is not >=9999"),
    ],
)
def test_set_up_names_what_is_lacking(tmp_path: Path, line: str, complaint: str) -> None:
    assert look_for(tmp_path, "torch>=2.6", line) == complaint


def test_extras_are_looked_for_too(tmp_path: Path) -> None:
    extra = {"imageio-ffmpeg"} - {d.metadata["Name"].lower() for d in metadata.distributions()}
    assert look_for(tmp_path, "imageio[ffmpeg]>=2") == "; ".join(
        f"{name} is not installed" for name in extra
    )
    lacking = look_for(tmp_path, "torch[opt-einsum]>=2.6")
    try:
        metadata.version("opt-einsum")
    except metadata.PackageNotFoundError:
        assert lacking == "opt-einsum is not installed"
    else:
        assert lacking == ""

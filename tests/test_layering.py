"""Who may import whom: DESIGN's table, read against the import statements of every file.

A room is a package, or a module at the top of the tree that the table names; every other file
there is a script, which may import anything but a script.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from generators import GENERATORS

ROOT = Path(__file__).parents[1]

# room -> what it may import of the project: whole rooms, or single modules of one
TABLE: dict[str, set[str]] = {
    "ops": set(),
    "rendering": {"ops"},
    "siren": {"ops"},
    "generators": {"rendering", "siren", "ops"},
    "discriminators": {"ops", "rendering.cameras"},
    "metrics": set(),
    "toys": {"rendering"},
    "stages": {"rendering.settings", "ops.registry"},
    "recipes": set(),
    "curriculums": {"stages", "recipes", "rendering.settings", "ops.registry"},
    "image_files": set(),
    "image_cache": set(),
    "image_windows": set(),
    "datasets": {"image_cache", "image_files", "rendering", "ops", "toys"},
    "dataset_cameras": {"image_files", "rendering"},
    "dataset_sources": {"image_files", "rendering.camera_labels"},
    "dataset_writer": {
        "dataset_cameras",
        "dataset_sources",
        "datasets",
        "image_files",
        "image_windows",
        "rendering.camera_labels",
        "toys",
    },
    "inference": {"curriculums", "stages", "generators", "rendering"},
    "interop": {"generators", "discriminators", "siren", "ops"},
}
TABLE["training"] = set(TABLE)
TABLE["benchmarks"] = set(TABLE)
EVERYWHERE = {"ops.shapes"}  # annotations, which cost nothing

CORE = {"ops", "rendering", "siren", "generators", "discriminators", "training"}
CORE_LIBRARIES = {"torch", "torchvision", "numpy", "PIL", "tqdm"}
LIGHT = {"stages", "curriculums", "recipes"}  # no library at all: mistakes are reported at once
EXCEPTIONS = {
    ("ops/shapes.py", "jaxtyping"),
    ("rendering/surface.py", "skimage"),
    ("siren/kernels.py", "triton"),  # only where a GPU asks for it
    ("discriminators/efficientnet.py", "timm"),  # where weights are read or downloaded
    ("discriminators/efficientnet.py", "huggingface_hub"),
    ("discriminators/efficientnet.py", "safetensors"),
}

Sources = Mapping[str, str]  # path below the root -> text


def project() -> dict[str, str]:
    """Every source file but the tests'."""
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    paths = [
        *ROOT.glob("*.py"),
        *(p for room in sorted(rooms) for p in (ROOT / room).rglob("*.py")),
    ]
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in paths}


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, source: str, modules: set[str]) -> Iterator[str]:
    """Dotted names of the modules that a file imports, wherever in it the statement stands."""
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute here"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else node.module


def is_within(name: str, allowed: set[str]) -> bool:
    """Whether a module is one of the allowed, or lies in an allowed room."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in allowed for n in range(1, len(parts) + 1))


def arrows(sources: Sources) -> Iterator[tuple[str, str]]:
    """Each file with each module of the project that it imports."""
    modules = {module_of(path) for path in sources}
    ours = {name.split(".")[0] for name in modules}
    for path, source in sources.items():
        for name in imports(path, source, modules):
            if name.split(".")[0] in ours:
                yield path, name


def forbidden(sources: Sources) -> list[str]:
    """Arrows between rooms that the table does not have."""
    found = []
    for path, name in arrows(sources):
        room, target = module_of(path).split(".")[0], name.split(".")[0]
        if room == target:
            continue
        if target not in TABLE:
            found.append(f"{path} imports the script {name}")
        elif room in TABLE and not is_within(name, TABLE[room] | EVERYWHERE):
            found.append(f"{path} imports {name}; {room} may import {sorted(TABLE[room])}")
    return found


def heavy(sources: Sources) -> list[str]:
    """Libraries that a core package may not need."""
    modules = {module_of(path) for path in sources}
    ours = {name.split(".")[0] for name in modules}
    found = []
    for path, source in sources.items():
        room = module_of(path).split(".")[0]
        if room not in CORE | LIGHT:
            continue
        allowed = CORE_LIBRARIES if room in CORE else set()
        for name in imports(path, source, modules):
            library = name.split(".")[0]
            if library in ours | sys.stdlib_module_names | allowed:
                continue
            if (path, library) not in EXCEPTIONS:
                found.append(f"{path} imports {library}")
    return found


def cycle(graph: Mapping[str, set[str]]) -> list[str] | None:
    """A closed walk along the arrows, if there is one."""
    done: set[str] = set()

    def walk(node: str, trail: list[str]) -> list[str] | None:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return None
        for successor in sorted(graph.get(node, ())):
            if found := walk(successor, [*trail, node]):
                return found
        done.add(node)
        return None

    return next((found for node in sorted(graph) if (found := walk(node, []))), None)


def module_graph(sources: Sources) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for path, name in arrows(sources):
        graph.setdefault(module_of(path), set()).add(name)
    return graph


# -- the project


def test_rooms_import_only_what_the_table_allows() -> None:
    assert forbidden(project()) == []


def test_the_core_needs_only_its_few_libraries() -> None:
    assert heavy(project()) == []


def test_no_module_imports_itself_by_a_detour() -> None:
    assert cycle(module_graph(project())) is None


def test_the_table_itself_points_one_way() -> None:
    rooms = {room: {name.split(".")[0] for name in allowed} for room, allowed in TABLE.items()}
    assert cycle(rooms) is None


def test_every_room_of_the_table_is_read_and_every_package_has_a_row() -> None:
    rooms = {module_of(path).split(".")[0] for path in project()}
    assert set(TABLE) <= rooms
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(TABLE)


@pytest.mark.parametrize("module", sorted(LIGHT | {"rendering.settings"}))
def test_curricula_are_read_without_torch(module: str) -> None:
    program = f"import sys; sys.modules.update(torch=None, numpy=None); import {module}"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# -- nobody asks for a generator by its name


def choices_by_name(sources: Sources, names: set[str]) -> list[str]:
    """Where a condition compares with a plugin's name, or asks for a plugin's class."""
    found = []
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source, path)):
            words = {word for part in _asked(node) for word in _words(part)}
            found += [f"{path}: {word}" for word in sorted(words & names)]
    return found


def _asked(node: ast.AST) -> list[ast.expr]:
    """What a comparison, a `case` or an isinstance asks about."""
    match node:
        case ast.Compare():
            return [node.left, *node.comparators]
        case ast.MatchValue():
            return [node.value]
        case ast.MatchClass():
            return [node.cls]
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass")):
            return node.args[1:]
    return []


def _words(expression: ast.expr) -> Iterator[str]:
    """Names and texts in an expression."""
    for node in ast.walk(expression):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.Constant(value=str(word)):
                yield word


def generator_names() -> set[str]:
    """Every generator's name in curricula, its aliases, and its class."""
    names = {GENERATORS[key].__name__ for key in GENERATORS}
    return names.union(GENERATORS, *(GENERATORS.aliases(key) for key in GENERATORS))


def test_no_trainer_renderer_or_script_knows_a_generator_by_its_name() -> None:
    rooms = ("training", "rendering", "inference", "metrics")
    sources = {
        path: text
        for path, text in project().items()
        if path.split("/")[0] in rooms or "/" not in path
    }
    del sources["convert_checkpoint.py"]  # it reads the original pi-GAN's, as it says
    assert choices_by_name(sources, generator_names()) == []


# -- the test itself: what it must catch


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("if stage.generator == 'EpiGRAF': pass", True),
        ("x = 1 if stage.generator in ('StyleGAN2', 'StyleGAN3') else 2", True),
        ("while isinstance(g, PiGAN): pass", True),
        ("if isinstance(g, (RadianceGenerator, pigan.PiGAN)): pass", True),
        ("if type(g) is EpiGRAF: pass", True),
        ("match g.name:\n    case 'PiGAN': pass", True),
        ("match g:\n    case PiGAN(): pass", True),
        ("if isinstance(g, RadianceGenerator): pass", False),
        ("stage = {'generator': 'EpiGRAF'}", False),
    ],
)
def test_asking_for_a_generator_by_its_name_is_caught(source: str, caught: bool) -> None:
    assert bool(choices_by_name({"training/x.py": source}, generator_names())) == caught


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        (
            "siren/x.py",
            "from generators.base import Generator",
            "siren/x.py imports generators.base",
        ),
        ("siren/x.py", "def f():\n    import generators", "siren/x.py imports generators"),
        ("rendering/x.py", "from siren import film", "rendering/x.py imports siren.film"),
        ("discriminators/x.py", "import rendering.renderer", "imports rendering.renderer"),
        ("discriminators/x.py", "from rendering import renderer", "imports rendering.renderer"),
        ("curriculums.py", "import rendering.cameras", "curriculums.py imports rendering.cameras"),
        ("training/x.py", "import train", "training/x.py imports the script train"),
        ("render_video.py", "from train import main", "render_video.py imports the script train"),
        ("benchmarks/x.py", "import train", "benchmarks/x.py imports the script train"),
        ("training/x.py", "import benchmarks.timing", "training/x.py imports benchmarks.timing"),
    ],
)
def test_a_forbidden_arrow_is_caught(path: str, source: str, complaint: str) -> None:
    sources = {**project(), "train.py": "", path: source}
    (found,) = [f for f in forbidden(sources) if f.startswith(path)]
    assert complaint in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "discriminators/x.py",
            "from rendering.cameras import Patch\nfrom rendering import cameras",
        ),
        ("metrics/x.py", "from ops.shapes import Float"),
        ("curriculums.py", "from rendering.settings import RenderSettings"),
        ("training/x.py", "import inference.checkpoint, datasets, curriculums"),
        ("render_video.py", "import training.losses, metrics, siren.fields"),
    ],
)
def test_an_allowed_arrow_is_let_through(path: str, source: str) -> None:
    assert [f for f in forbidden({**project(), path: source}) if f.startswith(path)] == []


@pytest.mark.parametrize(
    ("path", "source", "caught"),
    [
        ("training/x.py", "import lpips", True),
        ("ops/x.py", "from jaxtyping import Float", True),
        ("generators/x.py", "def f():\n    import timm.models", True),
        ("stages.py", "import torch", True),
        ("ops/shapes.py", "from jaxtyping import Float", False),
        ("training/x.py", "import json, torchvision, PIL.Image\nfrom tqdm import tqdm", False),
        ("metrics/x.py", "import lpips", False),
    ],
)
def test_a_heavy_library_in_the_core_is_caught(path: str, source: str, caught: bool) -> None:
    assert bool(heavy({path: source})) == caught


def test_a_cycle_is_caught() -> None:
    sources = {
        "ops/a.py": "import ops.b",
        "ops/b.py": "from ops import c",
        "ops/c.py": "import ops.a",
    }
    assert cycle(module_graph(sources)) == ["ops.a", "ops.b", "ops.c", "ops.a"]
    del sources["ops/c.py"]
    assert cycle(module_graph(sources)) is None


def test_a_relative_import_is_caught() -> None:
    with pytest.raises(AssertionError, match="ops/a.py:1: imports are absolute"):
        forbidden({"ops/a.py": "from . import b"})

"""Reading the original pi-GAN's checkpoints, which are whole pickled modules, without running them.

A pickle may name any function of Python and have it called. Here the few classes that genuine
checkpoints name are replaced by inert records, tensors are read straight from the file's zip
container onto the CPU, and whatever else a file names is refused before it is touched.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

GENERATOR, EMA = "ImplicitGenerator3d", "ExponentialMovingAverage"
# every class whose instances genuine generators, discriminators and averages hold, by module
RECORDS = {
    "generators.generators": (GENERATOR,),
    "torch_ema.ema": (EMA,),
    "siren.siren": (
        *("TALLSIREN", "SPATIALSIRENBASELINE", "EmbeddingPiGAN128", "EmbeddingPiGAN256"),
        *("FiLMLayer", "CustomMappingNetwork", "UniformBoxWarp"),
    ),
    "discriminators.discriminators": (
        *("ProgressiveDiscriminator", "ProgressiveEncoderDiscriminator"),
        *("ResidualCoordConvBlock", "CoordConv", "AddCoords", "AdapterBlock"),
    ),
    "discriminators.sgdiscriminators": (
        *("StridedDiscriminator", "CCSDiscriminator", "CCSEncoderDiscriminator"),
        *("StridedResidualConvBlock", "ResidualCCBlock", "CoordConv", "AddCoords", "AdapterBlock"),
    ),
    "torch.nn.modules.container": ("ModuleList", "Sequential"),
    "torch.nn.modules.linear": ("Linear",),
    "torch.nn.modules.conv": ("Conv2d",),
    "torch.nn.modules.activation": ("LeakyReLU", "Sigmoid"),
    "torch": ("device", "FloatStorage"),
}
MOST_MODULES = 10_000  # far more than any genuine checkpoint holds


def read_original_checkpoint(
    path: str | Path, ema: str | Path | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and facts of a pickled generator or discriminator of the original.

    A directory stands for its generator.pth. `ema` is a pickled average, a path or a file's name in
    the same directory, whose weights replace the generator's own. Facts: `class`, and where they
    exist `field`, `z_dim`, `step`, `epoch`, `avg_frequencies`, `avg_phase_shifts`, and the
    average's `ema_decay` and `ema_num_updates`. ValueError for anything but a genuine checkpoint.
    """
    path = Path(path)
    path = path / "generator.pth" if path.is_dir() else path
    root = _read(path)
    weights = OrderedDict(_parameters(root, path))
    if not weights:
        raise ValueError(f"{path} holds no network: it is of class {_class_of(root)}")
    facts: dict[str, Any] = {"class": _class_of(root)}
    for name in ("z_dim", "step", "epoch", "avg_frequencies", "avg_phase_shifts"):
        value = root.__dict__.get(name)
        if isinstance(value, (int, _Array)):
            facts[name] = value.tensor if isinstance(value, _Array) else value
    if facts["class"] == GENERATOR:
        facts["field"] = _class_of(root.__dict__["_modules"].get("siren"))
    if ema is not None:
        ema_path = path.parent / ema
        averages, average_facts = read_original_ema(ema_path)
        weights = _replace_by_position(weights, averages, ema_path)
        facts.update(average_facts)
    return weights, facts


def read_original_ema(path: str | Path) -> tuple[list[Tensor], dict[str, Any]]:
    """The averaged weights, in the order of the generator's parameters, and `ema_*` facts."""
    path = Path(path)
    root = _read(path)
    content = root.__dict__ if isinstance(root, _Record) else {}
    averages = content.get("shadow_params")
    if _class_of(root) != EMA or not isinstance(averages, list):
        raise ValueError(f"{path} holds no moving average: it is of class {_class_of(root)}")
    if not all(isinstance(value, _Array) for value in averages):
        raise ValueError(f"{path} has averages that are not tensors")
    facts = {f"ema_{name}": content.get(name) for name in ("decay", "num_updates")}
    return [value.tensor for value in averages], facts


def _read(path: Path) -> Any:
    """Unpickle a file of the original into inert records and tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _CheckpointReader(archive).load()
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}") from None
    except zipfile.BadZipFile:
        raise ValueError(
            f"{path} is not a zip container: it is damaged, no checkpoint, "
            "or was written by PyTorch before 1.6"
        ) from None
    except Exception as error:  # a forged pickle can fail in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is not a checkpoint of the original pi-GAN: {reason}") from error


class _Record:
    """An object of a class that is never imported: its attributes and nothing else."""

    def __init__(self, *args: Any) -> None:
        self.args = args  # of torch.device: what it was made with

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Array:
    """A tensor or storage, out of the pickle's reach."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes a tensor's state")


class _CheckpointReader:
    """One file: its pickle, and the storages that the pickle refers to.

    Classes and functions handed to the pickle are made anew for every file, so that nothing that a
    forged one attaches to them outlives it.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"expected one data.pkl in the container, found {len(pickles)}")
        self._archive = archive
        self._root = pickles[0].removesuffix("data.pkl")
        self._storages: dict[str, _Array] = {}
        self._globals: dict[str, Any] = {
            f"{module}.{name}": type(name, (_Record,), {})
            for module, names in RECORDS.items()
            for name in names
        }
        self._globals |= {
            "collections.OrderedDict": OrderedDict,
            "__builtin__.set": set,
            "builtins.set": set,
            "torch._utils._rebuild_tensor_v2": lambda *args: self._rebuild_tensor(*args),
            "torch._utils._rebuild_parameter": lambda data, *_: data,
        }

    def load(self) -> Any:
        """The pickle's object."""
        with self._open("data.pkl") as stream:
            return _Unpickler(stream, self._globals, self._find_storage).load()

    def _open(self, name: str) -> IO[bytes]:
        info = self._archive.getinfo(self._root + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{info.filename} is compressed, which checkpoints never are")
        return self._archive.open(info)

    def _find_storage(self, identity: Any) -> _Array:
        """Numbers of the storage that a persistent id names, wherever they were saved from."""
        match identity:
            case ("storage", kind, str(key), str(), int(size)) if key.isdecimal():
                if kind is not self._globals["torch.FloatStorage"]:
                    raise ValueError("a storage that is not a torch.FloatStorage")
            case _:
                raise ValueError("a storage reference of unknown form")
        if key not in self._storages:
            with self._open(f"data/{key}") as stream:
                data = bytearray(stream.read())
            if len(data) != 4 * size:
                raise ValueError(f"storage {key} has {len(data)} bytes in place of {4 * size}")
            numbers = torch.frombuffer(data, dtype=torch.float32) if data else torch.empty(0)
            self._storages[key] = _Array(numbers)
        return self._storages[key]

    def _rebuild_tensor(
        self,
        storage: _Array,
        offset: int,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        requires_grad: bool = False,
        hooks: Any = None,
    ) -> _Array:
        """A view of a part of a storage."""
        size, stride = torch.Size(size), tuple(stride)
        if min((offset, *size, *stride)) < 0 or len(size) != len(stride):
            raise ValueError("a tensor of impossible shape")
        if math.prod(size) > storage.tensor.numel():  # by a stride of 0, which copies would fill
            raise ValueError("a tensor larger than its storage")
        return _Array(storage.tensor.as_strided(size, stride, offset))


class _Unpickler(pickle._Unpickler):
    """Resolves the names it was given and no others.

    Python's own unpickler: the one in C lets a forged file ask for memory without limit.
    """

    def __init__(
        self, stream: IO[bytes], names: dict[str, Any], find_storage: Callable[[Any], _Array]
    ) -> None:
        super().__init__(stream)
        self._names, self._find_storage = names, find_storage

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._names:
            raise ValueError(f"it names {full}, which no genuine checkpoint does")
        return self._names[full]

    def persistent_load(self, pid: Any) -> _Array:
        return self._find_storage(pid)


def _class_of(record: Any) -> str:
    return type(record).__name__


def _parameters(root: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and values of a recorded module's parameters, depth first as PyTorch orders them."""
    pending = [("", root)]
    seen: set[int] = set()
    while pending:
        prefix, module = pending.pop()
        content = module.__dict__ if isinstance(module, _Record) else {}
        own, children = content.get("_parameters"), content.get("_modules")
        if module is None or not isinstance(own, dict) or not isinstance(children, dict):
            continue
        seen.add(id(module))
        if len(pending) + len(children) > MOST_MODULES or any(
            id(child) in seen for child in children.values()
        ):
            raise ValueError(f"{path} nests its modules as no genuine checkpoint does")
        for name, value in own.items():
            if isinstance(value, _Array):
                yield f"{prefix}{name}", value.tensor
        pending += [(f"{prefix}{name}.", child) for name, child in reversed(children.items())]


def _replace_by_position(
    weights: dict[str, Tensor], averages: list[Tensor], path: Path
) -> dict[str, Tensor]:
    """The averages under the names of the parameters they were taken of."""
    if [w.shape for w in weights.values()] != [a.shape for a in averages]:
        raise ValueError(
            f"{path} averages another network: its {len(averages)} tensors do not fit the "
            f"generator's {len(weights)}"
        )
    return OrderedDict(zip(weights, averages, strict=True))

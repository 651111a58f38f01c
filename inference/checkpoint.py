"""The checkpoint format, and loading a generator from it.

Every file holds tensors and plain data, written by `torch.save` and read with `weights_only=True`.
A network's file says which class it is and with which arguments it was made, so that it is rebuilt
without any other knowledge; generator.pth also carries the curriculum.

A run's files belong together. `save_files` first writes all of them beside the old ones, then a
journal, then renames: a kill at any instant leaves either the old set or the new one, and
`recover` finishes what a kill interrupted.
"""

import json
import os
import pickle
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import nn

from curriculums import Curriculum
from generators import GENERATORS, Generator
from stages import Stage

FORMAT = 1
JOURNAL = "checkpoint.journal"
NEW = ".new"

Network = TypeVar("Network", bound=nn.Module)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message is for the user."""


def build_generator(stage: Stage) -> tuple[Generator, dict[str, Any]]:
    """Make the generator that a stage names, and the record that rebuilds it."""
    values = stage.network_values()
    arguments = GENERATORS.arguments(stage.generator, values, stage.generator_options)
    generator = construct(GENERATORS[stage.generator], arguments)
    return generator, {"class": GENERATORS.canonical(stage.generator), "arguments": arguments}


def construct(network: type[Network], arguments: Mapping[str, Any]) -> Network:
    """Make a network; arguments that it cannot be made with are a ValueError."""
    try:
        return network(**arguments)
    except (TypeError, RuntimeError, ArithmeticError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"cannot make a {network.__name__} of {arguments}: {reason}") from error


def network_state(module: nn.Module, record: Mapping[str, Any], step: int) -> dict[str, Any]:
    """What a network's file holds."""
    return {"format": FORMAT, **record, "step": step, "state_dict": module.state_dict()}


def load_generator(
    path: str | Path, device: str | torch.device = "cpu", ema: str | None = "ema.pth"
) -> tuple[Generator, Curriculum]:
    """Read a generator and its curriculum from a run's directory or its generator.pth.

    The weights are the exponential moving average in the file `ema` beside it; None takes the raw
    ones. The generator is in evaluation mode and its parameters need no gradient.
    """
    path = Path(path)
    file = path / "generator.pth" if path.is_dir() else path
    data = read_file(file)
    for key in ("class", "arguments", "state_dict", "curriculum"):
        if key not in data:
            raise CheckpointError(f"{file} is not a generator checkpoint: it has no {key!r}")
    try:
        generator = construct(GENERATORS[data["class"]], data["arguments"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file} names a generator that cannot be made: {error}") from error
    load_weights(generator, data["state_dict"], file)
    if ema is not None:
        ema_file = file.parent / ema
        average = read_file(ema_file)
        if "state_dict" not in average:
            raise CheckpointError(f"{ema_file} holds no weights")
        load_weights(generator, average["state_dict"], ema_file)
    generator.to(device).eval().requires_grad_(False)
    return generator, data["curriculum"]


def best_checkpoint(path: Path) -> Path:
    """Of a run's directory its best/, if measurements have chosen one; any other path as it is."""
    best = path / "best"
    return best if (best / "generator.pth").exists() else path


def checkpoint_step(path: str | Path) -> int:
    """Return the training step that a run's directory or generator.pth was saved at."""
    path = Path(path)
    return read_file(path / "generator.pth" if path.is_dir() else path)["step"]


def load_weights(module: nn.Module, state_dict: Mapping[str, Any], file: Path) -> None:
    """Load weights, or say in one line where they do not fit."""
    own = module.state_dict()
    missing, unexpected = own.keys() - state_dict.keys(), state_dict.keys() - own.keys()
    shapes = {k for k in own.keys() & state_dict.keys() if own[k].shape != state_dict[k].shape}
    if missing or unexpected or shapes:
        problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        listed = "; ".join(
            f"{len(keys)} {what} ({min(keys)})" for what, keys in problems.items() if keys
        )
        raise CheckpointError(f"{file} is from another architecture: weights {listed}")
    module.load_state_dict(state_dict)


def read_file(path: Path) -> dict[str, Any]:
    """Read one file of a checkpoint; nothing in it is ever executed."""
    try:
        with _open(path) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what no checkpoint of ours does
            data = torch.load(stream, map_location="cpu", weights_only=True)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CheckpointError(f"no such checkpoint file: {path}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of tensors and plain data: pickled objects, which could "
            "run code when loaded, are refused; convert_checkpoint.py reads checkpoints of the "
            "original pi-GAN"
        ) from error
    except Exception as error:  # the reader raises whatever it likes over a damaged file
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint ({type(error).__name__}: {reason})"
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a PeriGAN checkpoint of format {FORMAT}")
    return data


def _open(path: Path) -> BinaryIO:
    """Open a file of the newest complete set, whether or not a save is among its renames."""
    if path.with_name(JOURNAL).exists():
        with suppress(FileNotFoundError):  # it has its final name already
            return open(path.with_name(path.name + NEW), "rb")
    return open(path, "rb")


def save_files(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace a run's files by new ones, all or none.

    Raises OSError, and leaves the old set as it was, if the disk is full or cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    recover(directory)
    written: list[Path] = []
    try:
        for name, content in files.items():
            target = directory / (name + NEW)
            written.append(target)
            _write_synced(target, content)
        journal = directory / (JOURNAL + NEW)
        written.append(journal)
        journal.write_text(json.dumps(sorted(files)))
        _sync(journal)
        os.replace(journal, directory / JOURNAL)
    except BaseException:
        for file in (directory / JOURNAL, *written):  # the journal first: it speaks for the rest
            file.unlink(missing_ok=True)
        raise
    _sync(directory)
    recover(directory)


def recover(directory: Path) -> None:
    """Finish a save that was cut off after its journal was written; forget one cut off before."""
    journal = directory / JOURNAL
    if journal.exists():
        for name in json.loads(journal.read_text()):
            pending = directory / (name + NEW)
            if pending.exists():
                os.replace(pending, directory / name)
        _sync(directory)
        journal.unlink()
    for leftover in directory.glob("*" + NEW):
        leftover.unlink()


def _write_synced(path: Path, content: Mapping[str, Any]) -> None:
    try:
        with open(path, "wb") as stream:
            torch.save(dict(content), stream)
            stream.flush()
            os.fsync(stream.fileno())
    except RuntimeError as error:  # torch reports a failed write to its zip as RuntimeError
        raise OSError(f"cannot write {path}: {error}") from error


def _sync(path: Path) -> None:
    if os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

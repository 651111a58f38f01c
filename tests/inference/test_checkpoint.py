"""Checkpoints: all files of a save or none, whatever interrupts it; loading, and refusing to."""

import errno
import json
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY
from torch import nn

from curriculums import Curriculum, stage_at, with_overrides
from generators import Generator
from generators.pigan import PiGAN
from inference import checkpoint
from inference.checkpoint import (
    CheckpointError,
    build_generator,
    checkpoint_step,
    load_generator,
    load_weights,
    network_state,
    read_file,
    recover,
    save_files,
)

NAMES = ("generator.pth", "ema.pth", "trainer.pth")


class Killed(BaseException):
    """Stands for a process that is gone."""


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def files_of(step: int) -> dict[str, dict[str, Any]]:
    content = {"format": 1, "step": step, "state_dict": {"w": torch.full((2,), float(step))}}
    return {name: {**content, "name": name} for name in NAMES}


def steps_read(directory: Path) -> set[int | str]:
    """The steps that a reader finds in the files, without recovering anything."""
    found: set[int | str] = set()
    for name in NAMES:
        try:
            data = read_file(directory / name)
        except CheckpointError as error:
            assert "no such checkpoint file" in str(error)
            found.add("missing")
            continue
        assert data["name"] == name
        assert torch.equal(data["state_dict"]["w"], torch.full((2,), float(data["step"])))
        found.add(data["step"])
    return found


def listing(directory: Path) -> set[str]:
    return {p.name for p in directory.iterdir()}


# -- saving


def test_a_save_replaces_all_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    save_files(tmp_path / "run", files_of(1))
    save_files(tmp_path / "run", files_of(2))
    assert steps_read(tmp_path / "run") == {2}
    assert listing(tmp_path / "run") == set(NAMES)


def interrupt(monkeypatch: pytest.MonkeyPatch, act: Callable[[int, str], None]) -> None:
    """Call `act(k, "before" or "after")` around the k-th thing that a save does to the disk."""
    count = [0]

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            k = count[0]
            act(k, "before")
            result = original(*args, **kwargs)
            act(k, "after")
            return result

        return call

    for owner, name in (
        (os, "replace"), (os, "fsync"), (torch, "save"), (Path, "unlink"), (Path, "write_text"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, around(getattr(owner, name)))


def count_of_calls(tmp_path: Path) -> int:
    last = [0]
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, lambda k, when: last.__setitem__(0, k))
        save_files(tmp_path / "counted", files_of(1))
    return last[0]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("old", [None, 1])
def test_a_process_killed_at_any_instant_leaves_one_whole_set(
    tmp_path: Path, when: str, old: int | None
) -> None:
    outcomes = []
    for k in range(1, count_of_calls(tmp_path) + 1):
        directory = tmp_path / f"{k}"
        directory.mkdir()
        if old is not None:
            save_files(directory, files_of(old))

        def die(call: int, moment: str, k: int = k) -> None:
            # from the k-th call on nothing reaches the disk any more, no cleaning up either
            if call > k or (call == k and moment == when):
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, die)
            try:
                save_files(directory, files_of(2))
            except Killed:
                pass
            else:
                assert (k, when) == (count_of_calls(tmp_path), "after")
        seen = steps_read(directory)
        assert len(seen) == 1, f"call {k}: files of steps {seen}"
        recover(directory)
        assert steps_read(directory) == seen, "recovering changes what is read"
        assert listing(directory) <= set(NAMES)
        outcomes.append(seen.pop())
        save_files(directory, files_of(3))
        assert steps_read(directory) == {3}
    assert outcomes == sorted(outcomes, key=lambda step: step == 2), "old, then new for good"
    assert {old or "missing", 2} == set(outcomes)


def test_a_save_that_is_interrupted_and_then_killed_while_it_cleans_up_leaves_one_whole_set(
    tmp_path: Path,
) -> None:
    calls = count_of_calls(tmp_path)
    for k in range(calls - 8, calls + 1):
        for cleaned in range(1, 5):
            directory = tmp_path / f"{k}-{cleaned}"
            save_files(directory, files_of(1))

            def die(call: int, moment: str, k: int = k, cleaned: int = cleaned) -> None:
                if (call == k and moment == "after") or call >= k + cleaned:
                    raise Killed

            with pytest.MonkeyPatch.context() as patch, suppress(Killed):
                interrupt(patch, die)
                save_files(directory, files_of(2))
            assert steps_read(directory) in ({1}, {2})


def test_recovering_can_itself_be_killed_at_any_instant(tmp_path: Path) -> None:
    def cut_off(directory: Path) -> None:
        """A directory whose save was killed right after its journal was in place."""
        save_files(directory, files_of(1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "recover", lambda _: None)
            save_files(directory, files_of(2))

    for k in range(1, 12):
        directory = tmp_path / f"{k}"
        cut_off(directory)
        assert {"checkpoint.journal", *(f"{n}.new" for n in NAMES)} < listing(directory)
        assert steps_read(directory) == {2}

        def die(call: int, moment: str, k: int = k) -> None:
            if call >= k:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, die)
            with suppress(Killed):
                recover(directory)
        assert steps_read(directory) == {2}
        recover(directory)
        assert steps_read(directory) == {2} and listing(directory) == set(NAMES)


def fail_at(k: int, owner: Any, name: str, patch: pytest.MonkeyPatch) -> None:
    """Let the k-th call of a function find the disk full."""
    original, calls = getattr(owner, name), [0]

    def fill(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == k:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args, **kwargs)

    patch.setattr(owner, name, fill)


@pytest.mark.parametrize("failing", ["replace", "fsync", "save", "write_text"])
def test_a_full_disk_leaves_the_old_set_and_no_leftovers(tmp_path: Path, failing: str) -> None:
    owner = {"save": torch, "write_text": Path}.get(failing, os)
    saves = {"save": len(NAMES), "fsync": len(NAMES) + 1}.get(failing, 1)
    for k in range(1, saves + 1):
        directory = tmp_path / f"{k}"
        save_files(directory, files_of(1))
        with pytest.MonkeyPatch.context() as patch:
            fail_at(k, owner, failing, patch)
            with pytest.raises(OSError, match="No space left on device"):
                save_files(directory, files_of(2))
        assert steps_read(directory) == {1}
        assert listing(directory) == set(NAMES)


def test_a_disk_that_fills_up_inside_torchs_writer_is_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_files(tmp_path, files_of(1))

    def fail(*args: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="cannot write .*file write failed"):
        save_files(tmp_path, files_of(2))
    assert steps_read(tmp_path) == {1} and listing(tmp_path) == set(NAMES)


def test_leftovers_of_a_save_that_never_finished_are_removed(tmp_path: Path) -> None:
    save_files(tmp_path, files_of(1))
    (tmp_path / "generator.pth.new").write_bytes(b"half a file")
    assert steps_read(tmp_path) == {1}
    recover(tmp_path)
    assert listing(tmp_path) == set(NAMES)


def test_there_is_nothing_to_recover_where_there_is_nothing(tmp_path: Path) -> None:
    recover(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# -- reading


@pytest.fixture(scope="module")
def curriculum() -> Curriculum:
    return with_overrides(TINY, ["latent_dim=5"])


def write_run(directory: Path, curriculum: Curriculum, **extra: Mapping[str, Any]) -> Generator:
    """A run's directory with a generator, and averages that are twice and thrice its weights."""
    torch.manual_seed(3)
    generator, record = build_generator(stage_at(curriculum, 0))
    generator.update_w_avg()
    weights = generator.state_dict()
    state = {**network_state(generator, record, 17), "curriculum": curriculum}
    averages = {
        name: {"format": 1, "step": 17, "state_dict": {k: factor * v for k, v in weights.items()}}
        for name, factor in (("ema.pth", 2), ("ema2.pth", 3))
    }
    save_files(directory, {"generator.pth": state, **averages, **extra})
    return generator


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize(("ema", "factor"), [("ema.pth", 2), ("ema2.pth", 3), (None, 1)])
def test_a_generator_is_rebuilt_from_its_file_alone(
    tmp_path: Path, curriculum: Curriculum, as_file: bool, ema: str | None, factor: int
) -> None:
    original = write_run(tmp_path, curriculum)
    path = tmp_path / "generator.pth" if as_file else tmp_path
    generator, stored = load_generator(str(path), ema=ema)
    assert stored == curriculum and checkpoint_step(path) == 17
    assert isinstance(generator, PiGAN) and not generator.training
    assert not any(p.requires_grad for p in generator.parameters())
    loaded = generator.state_dict()
    assert loaded.keys() == original.state_dict().keys()
    for name, value in original.state_dict().items():
        assert torch.equal(loaded[name], factor * value)


def test_the_average_is_the_default(tmp_path: Path, curriculum: Curriculum) -> None:
    original = write_run(tmp_path, curriculum)
    generator, _ = load_generator(tmp_path)
    assert torch.equal(generator.w_avg, 2 * original.w_avg)


def test_the_record_is_plain_data(tmp_path: Path, curriculum: Curriculum) -> None:
    write_run(tmp_path, curriculum)
    data = read_file(tmp_path / "generator.pth")
    assert data["class"] == "PiGAN" and data["step"] == 17
    assert json.loads(json.dumps(data["arguments"])) == {
        "latent_dim": 5, "model": "SpatialSiren",
        "hidden_dim": 8, "num_layers": 2, "mapping_dim": 8,
    }  # fmt: skip


def expect_refusal(path: Path, complaint: str, **options: Any) -> None:
    """Loading fails with a message of one line, and without a warning."""
    with warnings.catch_warnings(), pytest.raises(CheckpointError) as caught:
        warnings.simplefilter("error")
        load_generator(path, **options)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_named(tmp_path: Path, curriculum: Curriculum) -> None:
    write_run(tmp_path, curriculum, **{"trainer.pth": {"format": 1, "step": 17}})
    expect_refusal(tmp_path / "nowhere", f"no such checkpoint file: {tmp_path}/nowhere")
    (tmp_path / "empty").mkdir()
    expect_refusal(tmp_path / "empty", "no such checkpoint file")
    expect_refusal(tmp_path / "generator.pth/generator.pth", "no such checkpoint file")
    expect_refusal(tmp_path, "no such checkpoint file", ema="ema3.pth")
    expect_refusal(tmp_path, "trainer.pth holds no weights", ema="trainer.pth")
    expect_refusal(tmp_path / "trainer.pth", "is not a generator checkpoint: it has no 'class'")


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "generator.pth"
    for content in ([1, 2], {"step": 3}, {"format": 2}, torch.zeros(3)):
        torch.save(content, file)
        expect_refusal(file, "is not a PeriGAN checkpoint of format 1")


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", ["module", "trap", "plain pickle"])
def test_pickled_objects_are_refused_and_never_run(
    tmp_path: Path, kind: str, protocol: int
) -> None:
    file, sprung = tmp_path / "generator.pth", tmp_path / "sprung"
    content = nn.Linear(1, 1) if kind == "module" else Trap(sprung)
    if kind == "plain pickle":
        file.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save({"format": 1, "state_dict": content}, file, pickle_protocol=protocol)
    expect_refusal(file, "pickled objects, which could run code when loaded, are refused")
    assert not sprung.exists()


RUBBISH = {
    "empty": b"", "text": b"hello world\n", "json": b'{"format": 1}', "zeros": bytes(500),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(range(100)), "zip": b"PK\x03\x04" + bytes(50),
    "high": b"\xff" * 100,
}  # fmt: skip


@pytest.mark.parametrize("name", RUBBISH)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "generator.pth").write_bytes(RUBBISH[name])
    expect_refusal(tmp_path, "generator.pth is ")


def test_a_damaged_file_is_refused_wherever_it_is_damaged(
    tmp_path: Path, rng: torch.Generator
) -> None:
    """Cut off anywhere, or with a bit flipped: a CheckpointError, or the flip did no harm."""
    save_files(tmp_path, files_of(1))
    file = tmp_path / "ema.pth"
    whole, refused = file.read_bytes(), 0

    def bad() -> bool:
        try:
            read_file(file)
        except CheckpointError:
            return True
        return False

    for length in range(0, len(whole) - 1, len(whole) // 20):
        file.write_bytes(whole[:length])
        assert bad()
    for place in torch.randint(len(whole), (100,), generator=rng).tolist():
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        refused += bad()
    assert refused > 10


def test_weights_that_do_not_fit_are_counted_and_one_is_named(
    tmp_path: Path, curriculum: Curriculum
) -> None:
    write_run(tmp_path, curriculum)
    state = read_file(tmp_path / "generator.pth")
    wider = with_overrides(curriculum, ["generator_options.hidden_dim=9"])
    generator, _ = build_generator(stage_at(wider, 0))
    with pytest.raises(CheckpointError, match="from another architecture: weights 1. of another"):
        load_weights(generator, state["state_dict"], tmp_path)
    module = nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match=r"1 missing \(bias\); 2 unexpected \(a\)"):
        load_weights(module, {"weight": module.weight, "a": 1, "b": 2}, tmp_path)
    with pytest.raises(CheckpointError, match=r"1 of another shape \(bias\)"):
        load_weights(module, {"weight": module.weight, "bias": torch.zeros(2)}, tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"class": "PyGAN"}, "unknown generator 'PyGAN', did you mean 'PiGAN'?"),
        ({"arguments": {"hiden_dim": 8}}, "cannot be made"),
        ({"arguments": {"hidden_dim": -8}}, "cannot be made"),
        ({"arguments": {"hidden_dim": "8"}}, "cannot be made"),
        ({"arguments": 3}, "cannot be made"),
        ({"arguments": {}}, "is from another architecture"),
    ],
)
def test_a_record_that_no_generator_can_be_made_of_is_refused(
    tmp_path: Path, curriculum: Curriculum, change: dict[str, Any], complaint: str
) -> None:
    write_run(tmp_path, curriculum)
    state = {**read_file(tmp_path / "generator.pth"), **change}
    save_files(tmp_path, {"generator.pth": state})
    expect_refusal(tmp_path, complaint)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("value", [-1, 0, 2.5, "8"])
def test_options_that_no_generator_can_be_made_of_are_a_value_error(
    curriculum: Curriculum, value: Any
) -> None:
    stage = stage_at({**curriculum, "generator_options": {"hidden_dim": value}}, 0)
    with pytest.raises(ValueError, match="cannot make a PiGAN of .*hidden_dim"):
        build_generator(stage)
    with pytest.raises(ValueError, match="no option 'hiden_dim', did you mean 'hidden_dim'"):
        build_generator(stage_at({**curriculum, "generator_options": {"hiden_dim": 8}}, 0))


def test_the_best_of_a_runs_checkpoints_is_found_where_measurements_chose_one(
    tmp_path: Path,
) -> None:
    assert checkpoint.best_checkpoint(tmp_path) == tmp_path
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "generator.pth").touch()
    assert checkpoint.best_checkpoint(tmp_path) == tmp_path / "best"
    file = tmp_path / "generator.pth"
    assert checkpoint.best_checkpoint(file) == file

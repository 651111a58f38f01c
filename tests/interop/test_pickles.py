"""Pickled checkpoints of the original: read without running anything, forged ones refused."""

import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interop.pickles import read_original_checkpoint, read_original_ema

Save = Callable[[Any, Path], Path]


class Forged:
    """Has whatever is given to it called when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class Storage:
    """Stands for the numbers of a storage inside a forged pickle."""

    def __init__(self, key: str, size: int, kind: Any = torch.FloatStorage) -> None:
        self.identity = ("storage", kind, key, "cuda:0", size)


class ForgingPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.identity if isinstance(obj, Storage) else None


def tensor(storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Forged:
    rebuild = torch._utils._rebuild_tensor_v2  # pyright: ignore[reportAttributeAccessIssue]
    return Forged(rebuild, storage, offset, size, stride, False, {})


def container(
    path: Path, content: bytes, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def forge(path: Path, obj: Any, **storages: bytes) -> Path:
    """A file of the original's form around whatever object."""
    stream = io.BytesIO()
    ForgingPickler(stream, protocol=2).dump(obj)
    return container(path, stream.getvalue(), {k.removeprefix("s"): v for k, v in storages.items()})


@pytest.fixture
def generator(originals: Callable[..., Any]) -> Any:
    """The original's generator in miniature: the structure, attributes and names that matter."""
    root = originals("generators.generators.ImplicitGenerator3d")()
    root.siren = originals("siren.siren.EmbeddingPiGAN128")()
    root.siren.network = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 4)])
    root.siren.final_layer = nn.Linear(4, 1)
    root.siren.spatial_embeddings = nn.Parameter(torch.randn(1, 2, 3, 3, 3))
    root.siren.mapping_network = nn.Sequential(nn.Linear(5, 6), nn.LeakyReLU(0.2))
    root.siren.register_module(
        "skip", None
    )  # a module entry without a module, as where channels do not change
    root.siren.device = torch.device("cuda:0")
    root.z_dim, root.step, root.epoch = 5, 70, 3
    root.avg_frequencies, root.avg_phase_shifts = torch.randn(1, 8), torch.randn(1, 8)
    return root


@pytest.fixture
def average(originals: Callable[..., Any], generator: Any) -> Any:
    made = originals("torch_ema.ema.ExponentialMovingAverage", object)()
    made.decay, made.num_updates = 0.999, 12
    made.shadow_params = [p.detach() + 1 for p in generator.parameters()]
    made.collected_params = []
    return made


def test_weights_come_in_parameter_order_and_facts_with_them(
    generator: Any, tmp_path: Path, save: Save
) -> None:
    save(generator, tmp_path / "generator.pth")
    weights, facts = read_original_checkpoint(tmp_path)
    expected = generator.state_dict()
    assert list(weights) == [name for name, _ in generator.named_parameters()] == list(expected)
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert (facts["class"], facts["field"]) == ("ImplicitGenerator3d", "EmbeddingPiGAN128")
    assert (facts["z_dim"], facts["step"], facts["epoch"]) == (5, 70, 3)
    assert torch.equal(facts["avg_frequencies"], generator.avg_frequencies)


def test_averages_replace_weights_by_position(
    generator: Any, average: Any, tmp_path: Path, save: Save
) -> None:
    save(generator, tmp_path / "03--10:20--generator.pth")
    save(average, tmp_path / "03--10:20--ema.pth")
    weights, facts = read_original_checkpoint(
        tmp_path / "03--10:20--generator.pth", "03--10:20--ema.pth"
    )
    for name, parameter in generator.named_parameters():
        assert torch.equal(weights[name], parameter.detach() + 1)
    assert (facts["ema_decay"], facts["ema_num_updates"]) == (0.999, 12)


def test_averages_of_another_network_are_refused(
    generator: Any, average: Any, tmp_path: Path, save: Save
) -> None:
    save(generator, tmp_path / "generator.pth")
    average.shadow_params.pop()
    save(average, tmp_path / "ema.pth")
    with pytest.raises(ValueError, match="averages another network"):
        read_original_checkpoint(tmp_path, "ema.pth")


def test_averages_and_networks_are_not_mistaken_for_each_other(
    generator: Any, average: Any, tmp_path: Path, save: Save
) -> None:
    save(generator, tmp_path / "generator.pth")
    save(average, tmp_path / "ema.pth")
    with pytest.raises(ValueError, match="no network.*ExponentialMovingAverage"):
        read_original_checkpoint(tmp_path / "ema.pth")
    with pytest.raises(ValueError, match="no moving average.*ImplicitGenerator3d"):
        read_original_ema(tmp_path / "generator.pth")


def test_discriminators_are_read_too(
    originals: Callable[..., Any], tmp_path: Path, save: Save
) -> None:
    root = originals("discriminators.sgdiscriminators.CCSDiscriminator")()
    root.layers = nn.ModuleList([originals("discriminators.sgdiscriminators.ResidualCCBlock")()])
    root.layers[0].proj = nn.Conv2d(2, 3, 1)
    root.pose_layer, root.step = nn.Linear(2, 4), 9
    weights, facts = read_original_checkpoint(save(root, tmp_path / "discriminator.pth"))
    assert list(weights) == list(root.state_dict())
    assert facts == {"class": "CCSDiscriminator", "step": 9}


@pytest.mark.parametrize(
    "function, args",
    [(os.system, ("touch {0}",)), (eval, ("open('{0}', 'w')",)), (getattr, (os, "system"))],
)
def test_a_pickle_that_would_run_code_is_refused_before_it_does(
    function: Any, args: tuple[Any, ...], tmp_path: Path
) -> None:
    witness = tmp_path / "witness"
    args = tuple(a.format(witness) if isinstance(a, str) else str(a) for a in args)
    path = forge(tmp_path / "generator.pth", {"weights": Forged(function, *args)})
    with pytest.raises(ValueError, match="it names .*which no genuine checkpoint does") as caught:
        read_original_checkpoint(path)
    assert not witness.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["builtins.object", "torch.load", "torch.nn.modules.conv.Conv3d"])
def test_globals_off_the_list_are_named(name: str, tmp_path: Path) -> None:
    module, _, leaf = name.rpartition(".")
    content = f"c{module}\n{leaf}\n.".encode()
    path = container(tmp_path / "x.pth", content, {})
    with pytest.raises(ValueError, match=f"it names {name},"):
        read_original_checkpoint(path)


@pytest.mark.parametrize(
    "obj",
    [
        tensor(Storage("0", 6), 0, (7,), (1,)),
        tensor(Storage("0", 6), 0, (1000, 1000), (0, 0)),
        tensor(Storage("0", 6), 5, (2,), (1,)),
        tensor(Storage("0", 6), -1, (2,), (1,)),
        tensor(Storage("0", 6), 0, (2, 2), (1,)),
        tensor(Storage("0", 7), 0, (2,), (1,)),
        tensor(Storage("1", 6), 0, (2,), (1,)),
        tensor(Storage("../0", 6), 0, (2,), (1,)),
        tensor(Storage("0", 6, torch.LongStorage), 0, (2,), (1,)),
    ],
)
def test_tensors_that_their_storage_does_not_hold_are_refused(obj: Forged, tmp_path: Path) -> None:
    path = forge(tmp_path / "x.pth", obj, s0=bytes(24))
    with pytest.raises(ValueError, match="is not a checkpoint of the original pi-GAN"):
        read_original_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"]
)
def test_what_a_forged_pickle_attaches_to_a_global_is_gone_with_the_file(
    generator: Any, tmp_path: Path, name: str, save: Save
) -> None:
    # BUILD with (None, {"items": 1}) sets the attribute `items` of the object on the stack
    content = f"c{name.replace(' ', chr(10))}\n(N}}Vitems\nI1\nstb.".encode()
    with pytest.raises(ValueError):
        read_original_checkpoint(container(tmp_path / "forged.pth", content, {}))
    assert callable(OrderedDict().items)
    weights, _ = read_original_checkpoint(save(generator, tmp_path / "generator.pth"))
    assert len(weights) == len(list(generator.parameters()))


def test_a_forged_pickle_cannot_alter_a_tensor(tmp_path: Path) -> None:
    class Altered(Forged):
        def __reduce__(self) -> Any:
            return (*self.call, (1, 2, 3))

    view = tensor(Storage("0", 6), 0, (2,), (1,))
    path = forge(tmp_path / "x.pth", Altered(*view.call[:1], *view.call[1]), s0=bytes(24))
    with pytest.raises(ValueError, match="changes a tensor's state"):
        read_original_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(
    generator: Any, tmp_path: Path, share: float, save: Save
) -> None:
    path = save(generator, tmp_path / "generator.pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="not a zip container") as caught:
        read_original_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("generator\n" * 100)
    with pytest.raises(ValueError, match="not a zip container"):
        read_original_checkpoint(tmp_path / "notes.pth")
    with pytest.raises(ValueError, match="no such file"):
        read_original_checkpoint(tmp_path / "missing.pth")
    container(tmp_path / "packed.pth", b"N.", {}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        read_original_checkpoint(tmp_path / "packed.pth")
    with zipfile.ZipFile(tmp_path / "empty.pth", "w") as archive:
        archive.writestr("readme", "no pickle")
    with pytest.raises(ValueError, match="one data.pkl"):
        read_original_checkpoint(tmp_path / "empty.pth")


def test_modules_that_contain_themselves_are_refused(
    originals: Callable[..., Any], tmp_path: Path, save: Save
) -> None:
    root = originals("generators.generators.ImplicitGenerator3d")()
    root.first = nn.ModuleList([nn.Linear(2, 2)])
    root.first.register_module("root", root)
    path = save(root, tmp_path / "generator.pth")
    with pytest.raises(ValueError, match="nests its modules"):
        read_original_checkpoint(path)


def test_whatever_bytes_a_pickle_has_reading_ends_in_weights_or_a_value_error(
    generator: Any, tmp_path: Path, save: Save
) -> None:
    path = save(generator, tmp_path / "generator.pth")
    with zipfile.ZipFile(path) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    content = parts.pop("data.pkl")
    storages = {n.removeprefix("data/"): v for n, v in parts.items() if n.startswith("data/")}
    draw = random.Random(0)
    refused = 0
    for _ in range(150):
        forged = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            forged[draw.randrange(len(forged))] = draw.randrange(256)
        container(path, bytes(forged), storages)
        try:
            weights, _ = read_original_checkpoint(path)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert all(isinstance(value, Tensor) for value in weights.values())
    assert refused > 30

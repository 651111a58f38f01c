"""Weights of feature networks: where they come from, and what is refused."""

import os
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from random_weights import write_lpips

from metrics import features
from metrics.features import (
    INCEPTION,
    LPIPS,
    VGG,
    WeightFile,
    check_weights,
    inception,
    read_weights,
    sha256,
    vgg16,
)

pytest.importorskip("torch_fidelity")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty download folder, no network, no variables; the folder of torch's downloads."""

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for file in (INCEPTION, VGG, LPIPS):
        monkeypatch.delenv(file.variable, raising=False)
    return tmp_path / "torch" / "hub" / "checkpoints"


class Trap:
    """What pickle would run when it reads this."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("file", [INCEPTION, VGG, LPIPS])
def test_offline_the_file_to_bring_is_named(file: WeightFile) -> None:
    with pytest.raises(ValueError) as caught:
        file.locate()
    for part in (file.name, file.url, file.flag, file.variable, "no network here"):
        assert part in str(caught.value)


def test_a_path_wins_over_the_variable_and_both_over_the_download_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("given", "variable"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setenv(INCEPTION.variable, str(tmp_path / "variable"))
    assert INCEPTION.locate(tmp_path / "given") == tmp_path / "given"
    assert INCEPTION.locate() == tmp_path / "variable"


def test_a_missing_path_is_named() -> None:
    with pytest.raises(ValueError, match="no such weights file: nowhere.pth .--vgg_weights"):
        VGG.locate("nowhere.pth")


def test_a_downloaded_file_must_be_the_published_one(offline: Path) -> None:
    offline.mkdir(parents=True)
    path = offline / INCEPTION.name
    path.write_bytes(b"cut off")
    with pytest.raises(ValueError, match="is not the published file .* begin with 6726825d"):
        INCEPTION.locate()
    good = WeightFile(INCEPTION.name, "", sha256(path)[:8], "", INCEPTION.variable)
    assert good.locate() == path


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Trap()}, "trap.pth")
    with pytest.raises(ValueError, match="pickled objects, which could run code"):
        inception("trap.pth")
    assert not Path("trapped").exists()


@pytest.mark.parametrize("content", [b"<html>not found</html>", b""])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_weights(path)


def test_a_file_of_no_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([torch.zeros(3)], path)
    with pytest.raises(ValueError, match="must map names to tensors"):
        read_weights(path)


@pytest.mark.parametrize("make", [inception, vgg16])
def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path, make: Any) -> None:
    path = write_lpips(tmp_path / "lpips.pth")
    with pytest.raises(ValueError, match="holds the weights of another network") as caught:
        make(path)
    assert "\n" not in str(caught.value)


def test_pytorch_fid_has_no_logits_and_no_rivals(tmp_path: Path) -> None:
    path = write_lpips(tmp_path / "lpips.pth")
    for backend, logits in (("pytorch-fid", True), ("tensorflow", False)):
        with pytest.raises(ValueError, match="backend must be one of"):
            inception(path, backend=backend, logits=logits)


def test_what_is_missing_is_missed_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    check_weights(["swd", "eqt_int"])
    for kind, name in (("fid", INCEPTION.name), ("pr", VGG.name), ("ppl", VGG.name)):
        with pytest.raises(ValueError, match=name):
            check_weights(["swd", kind])

    def lacking(module: str) -> Any:
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(features.importlib, "import_module", lacking)
    with pytest.raises(ValueError, match="needs torch-fidelity: pip install torch-fidelity"):
        check_weights(["is"])

"""LPIPS as a loss: weights from files, one-line complaints, and the distance itself."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from inference import perceptual
from inference.perceptual import lpips_loss


class Slices(nn.Module):
    """Two layers of the network below, named as lpips names them."""

    def __init__(self) -> None:
        super().__init__()
        self.slice1 = nn.Sequential()
        self.slice1.add_module("0", nn.Conv2d(3, 2, 1))
        self.slice2 = nn.Sequential()
        self.slice2.add_module("5", nn.Conv2d(2, 2, 1))


class FakeLPIPS(nn.Module):
    """Stands in for lpips.LPIPS: distance of the first layer's features."""

    def __init__(self, *, net: str, pnet_rand: bool, verbose: bool) -> None:
        super().__init__()
        assert pnet_rand and not verbose, "nothing is downloaded behind our back"
        self.kind, self.net, self.sizes = net, Slices(), []

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        assert not any(p.requires_grad for p in self.parameters())
        self.sizes.append(image.shape[-1])
        features = [self.net.slice1(x) for x in (image, target)]
        return (features[0] - features[1]).square().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeLPIPS]:
    """Puts the fake in place of the package; collects the networks that are made."""
    models: list[FakeLPIPS] = []

    def make(**options: object) -> FakeLPIPS:
        models.append(FakeLPIPS(**options))  # type: ignore[arg-type]
        return models[-1]

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=make))
    monkeypatch.delenv("PERIGAN_LPIPS_WEIGHTS", raising=False)
    return models


def state() -> dict[str, Tensor]:
    shapes = {"features.0.weight": (2, 3, 1, 1), "features.0.bias": (2,),
              "features.5.weight": (2, 2, 1, 1), "features.5.bias": (2,),
              "classifier.0.weight": (4, 4)}  # fmt: skip
    return {name: torch.full(shape, 0.5) for name, shape in shapes.items()}


def no_download(*_: object, **options: object) -> dict[str, Tensor]:
    assert options["weights_only"] is True, "a download must not run anything"
    raise OSError("no route to host")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SimpleNamespace(url="https://example.org/vgg16-397923af.pth",
                             get_state_dict=no_download)  # fmt: skip
    monkeypatch.setattr(perceptual, "SOURCES", {"vgg": source})


def test_weights_come_from_the_file_and_small_pictures_are_enlarged(
    made: list[FakeLPIPS], tmp_path: Path
) -> None:
    torch.save(state(), tmp_path / "vgg.pth")
    loss = lpips_loss("cpu", tmp_path / "vgg.pth")
    (model,) = made
    assert model.kind == "vgg" and not model.training
    assert all((p == 0.5).all() for p in model.parameters())
    image = torch.zeros(1, 3, 8, 8, requires_grad=True)
    value = loss(image, torch.ones(1, 3, 8, 8))
    value.backward()
    assert value.item() == pytest.approx(1.5**2)
    assert image.grad is not None and image.grad.abs().sum() > 0
    loss(torch.zeros(1, 3, 80, 80), torch.zeros(1, 3, 80, 80))
    assert model.sizes == [64, 80]


def test_the_environment_names_the_file_and_the_flag_comes_first(
    made: list[FakeLPIPS], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state(), tmp_path / "vgg.pth")
    monkeypatch.setenv("PERIGAN_LPIPS_WEIGHTS", str(tmp_path / "vgg.pth"))
    lpips_loss("cpu")
    assert len(made) == 1
    with pytest.raises(FileNotFoundError):
        lpips_loss("cpu", tmp_path / "nowhere.pth")


def test_without_network_and_file_the_message_says_what_from_where_and_how(
    made: list[FakeLPIPS], offline: None
) -> None:
    with pytest.raises(ValueError) as caught:
        lpips_loss("cpu")
    told = str(caught.value)
    for part in ("vgg16-397923af.pth", "https://example.org/", "--lpips_weights",
                 "PERIGAN_LPIPS_WEIGHTS", "no route to host"):  # fmt: skip
        assert part in told


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ValueError, match="pip install lpips"):
        lpips_loss("cpu")


def test_an_unknown_network_is_refused(made: list[FakeLPIPS]) -> None:
    with pytest.raises(ValueError, match="vgg, alex, not 'squeeze'"):
        lpips_loss("cpu", None, "squeeze")


def _text(path: Path) -> None:
    path.write_text("hello")


def _pickle(path: Path) -> None:
    torch.save({"features.0.weight": Slices()}, path)


def _other(path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, path)


def _shapes(path: Path) -> None:
    torch.save({**state(), "features.0.weight": torch.zeros(1)}, path)


@pytest.mark.parametrize("write", [_text, _pickle, _other, _shapes])
def test_a_file_of_something_else_is_refused_by_name(
    made: list[FakeLPIPS], tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth"):
        lpips_loss("cpu", tmp_path / "x.pth")


def test_the_package_itself_takes_torchvisions_weights(tmp_path: Path) -> None:
    """With weights of chance: the same picture is at distance 0, another one is not."""
    pytest.importorskip("lpips")
    from torchvision.models import alexnet

    torch.manual_seed(0)
    torch.save(alexnet().state_dict(), tmp_path / "alex.pth")
    loss = lpips_loss("cpu", tmp_path / "alex.pth", "alex")
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    assert loss(image, image).item() == 0
    assert loss(image, -image).item() > 1e-3
    with pytest.raises(ValueError, match="torchvision's weights vgg16"):
        lpips_loss("cpu", tmp_path / "alex.pth", "vgg")

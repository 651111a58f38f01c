"""Networks that turn pictures into features: those of the reference tools, with their own weights.

Pictures are 8-bit (batch, 3, height, width) of any size; each network resizes them its own way:
torch-fidelity's inception-v3-compat and VGG16, pytorch-fid's Inception, and the LPIPS distance of
torch-fidelity (Zhang et al. 2018) for path lengths. The libraries' networks are used as they are;
only their reading of weights is replaced, since it would run code from a pickled file.

Weights come from a path that the user gives, from an environment variable, from torch's download
folder, or are downloaded there; a file that stands for the published one is checked by its digest.
"""

import hashlib
import importlib
import importlib.util
import os
import pickle
import urllib.error
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ops.shapes import Float, UInt8

BACKENDS = ("torch-fidelity", "pytorch-fid")


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights."""

    name: str  # that its publisher gave it, which ends in the start of its SHA-256
    url: str
    digest: str  # the start of its SHA-256; empty: not known
    flag: str  # of eval_metrics.py
    variable: str  # in the environment

    def locate(self, given: str | Path | None = None) -> Path:
        """Where the file is, after downloading it if need be.

        Raises ValueError, naming the file to bring, if it is nowhere and cannot be downloaded.
        """
        given = given or os.environ.get(self.variable)
        if given:
            path = Path(given).expanduser()
            if not path.is_file():
                raise ValueError(f"no such weights file: {path} ({self.flag})")
            return path
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(
                    self.url, str(path), self.digest or None, progress=True
                )
            except (urllib.error.URLError, OSError, RuntimeError) as error:
                raise ValueError(
                    f"cannot download {self.name} ({error}): bring {self.url} and give its path "
                    f"with {self.flag} or {self.variable}"
                ) from error
        elif not sha256(path).startswith(self.digest):
            raise ValueError(
                f"{path} is not the published file (its SHA-256 should begin with {self.digest}): "
                f"delete it, or give other weights on purpose with {self.flag}"
            )
        return path


INCEPTION = WeightFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    "6726825d",
    "--inception_weights",
    "PERIGAN_INCEPTION_WEIGHTS",
)
INCEPTION_PYTORCH_FID = WeightFile(  # the same content under another name
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
    "--inception_weights",
    "PERIGAN_INCEPTION_WEIGHTS",
)
VGG = WeightFile(
    "vgg16-397923af.pth",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af",
    "--vgg_weights",
    "PERIGAN_VGG_WEIGHTS",
)
LPIPS = WeightFile(
    "weights-vgg16-lpips.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth",
    "",
    "--lpips_weights",
    "PERIGAN_LPIPS_WEIGHTS",
)


def sha256(path: Path) -> str:
    """Digest of a file's content."""
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file; nothing in it is ever executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a file of tensors does not do
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not a file of weights alone: it is damaged, or holds pickled objects, "
            "which could run code when loaded and are refused"
        ) from error
    except Exception as error:  # the reader raises whatever it likes over a damaged file
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is damaged or not a weights file: {reason}") from error
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ValueError(f"{path} is not a weights file: it must map names to tensors")
    return data


def check_weights(kinds: Iterable[str]) -> None:
    """Raise ValueError if a library or weights that metrics of these kinds need are missing."""
    kinds = set(kinds)
    if kinds - {"swd", "eqt_int", "eqt_frac", "eqr"}:
        _library("torch_fidelity", "torch-fidelity")
    if kinds & {"fid", "kid", "is"}:
        INCEPTION.locate()
    if kinds & {"pr", "ppl"}:
        VGG.locate()
    if "ppl" in kinds:
        _locate_lpips(None)


class FeatureNetwork(nn.Module):
    """8-bit pictures to named features; `source` says which network with which weights."""

    def __init__(self, network: nn.Module, layers: tuple[str, ...], source: str) -> None:
        super().__init__()
        self.network, self.layers, self.source = (
            network.eval().requires_grad_(False),
            layers,
            source,
        )

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """Features (batch, n) of every layer, float32."""
        return dict(zip(self.layers, self.network(images), strict=True))


class _PytorchFid(nn.Module):
    """pytorch-fid's network behind the bytes that its own reader would make of a file."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images.float() / 255)[0].flatten(1),)


def inception(
    weights: str | Path | None = None, *, backend: str = "torch-fidelity", logits: bool = False
) -> FeatureNetwork:
    """Inception v3 as FID uses it: layer "pool" (2048), and "logits" (1008) if asked for.

    The logits are those without bias, of which the Inception Score is made.
    """
    torch_fidelity = backend == "torch-fidelity"
    path = (INCEPTION if torch_fidelity else INCEPTION_PYTORCH_FID).locate(weights)
    state, source = _read_named(path, f"{backend} Inception", INCEPTION.digest)
    if torch_fidelity:
        library = _library("torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity")
        layers = ["2048", "logits_unbiased"] if logits else ["2048"]
        make = lambda: library.FeatureExtractorInceptionV3("inception-v3-compat", layers)  # noqa: E731
    elif backend == "pytorch-fid" and not logits:
        library = _library("pytorch_fid.inception", "pytorch-fid")
        make = lambda: _PytorchFid(library.InceptionV3())  # noqa: E731
    else:
        raise ValueError(f"backend must be one of {BACKENDS}; pytorch-fid has FID alone")
    with patch.object(library, "load_state_dict_from_url", lambda *_, **__: state):
        network = _construct(make, path)
    return FeatureNetwork(network, ("pool", "logits") if logits else ("pool",), source)


def vgg16(weights: str | Path | None = None) -> FeatureNetwork:
    """VGG16 as precision and recall use it: layer "fc2" (4096)."""
    library = _library("torch_fidelity.feature_extractor_vgg16", "torch-fidelity")
    path = VGG.locate(weights)
    state, source = _read_named(path, "torch-fidelity VGG16", VGG.digest)
    with patch.object(library, "torchvision_load_pretrained_vgg16", lambda **_: _vgg(state)):
        network = _construct(lambda: library.FeatureExtractorVGG16("vgg16", ["fc2_relu"]), path)
    return FeatureNetwork(network, ("fc2",), source)


class Lpips(nn.Module):
    """LPIPS distance of VGG16 (Zhang et al. 2018), at the pictures' own size."""

    def __init__(
        self, vgg_weights: str | Path | None = None, lpips_weights: str | Path | None = None
    ) -> None:
        super().__init__()
        library = _library("torch_fidelity.sample_similarity_lpips", "torch-fidelity")
        vgg, heads = VGG.locate(vgg_weights), _locate_lpips(lpips_weights)
        state, self.source = _read_named(vgg, "LPIPS of VGG16", VGG.digest)
        layers = read_weights(heads)
        # only the heads are the library's own parameters when it loads them
        with (
            patch.object(library, "load_state_dict_from_url", lambda *_, **__: layers),
            patch.object(library, "torchvision_load_pretrained_vgg16", lambda **_: _vgg(state)),
        ):
            self.network = _construct(lambda: library.SampleSimilarityLPIPS("lpips-vgg16"), heads)

    def forward(
        self, a: Float[Tensor, "batch 3 height width"], b: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, " batch"]:
        """Squared distance between pictures whose values run from 0 to 255."""
        return self.network(a, b).flatten()


def _locate_lpips(given: str | Path | None) -> Path:
    """The heads' file; the package lpips, where it is installed, brings the same numbers."""
    if not given and not os.environ.get(LPIPS.variable):
        found = importlib.util.find_spec("lpips")
        for folder in found.submodule_search_locations or [] if found else []:
            path = Path(folder) / "weights" / "v0.1" / "vgg.pth"
            if path.is_file():
                return path
    return LPIPS.locate(given)


def _vgg(state: Mapping[str, Tensor]) -> nn.Module:
    """torchvision's VGG16 of these weights, without drawing 138 million random ones first."""
    from torchvision.models import vgg16 as build

    with torch.device("meta"):
        network = build(init_weights=False)
    network.load_state_dict(state, assign=True)
    return network


def _read_named(path: Path, network: str, digest: str) -> tuple[dict[str, Tensor], str]:
    """Weights and what to call them: the digest is named where they are not the published ones."""
    found = sha256(path)
    published = found.startswith(digest)
    return read_weights(path), network if published else f"{network} (weights {found[:8]})"


def _construct(make: Any, path: Path) -> nn.Module:
    try:
        return make()
    except (RuntimeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} holds the weights of another network: {reason}") from error


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"this metric needs {package}: pip install {package}") from error

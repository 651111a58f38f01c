"""LPIPS (Zhang et al. 2018) as a loss, where the package and its network's weights are to be had.

The package `lpips` brings the weights of its own layers; those of the network below them are
torchvision's, from a file or downloaded once. Files are read as tensors only: nothing in them runs.
"""

import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import AlexNet_Weights, VGG16_Weights

SMALLEST = 64  # pixels per side below which pictures are enlarged: the networks halve five times
WEIGHTS_VARIABLE = "PERIGAN_LPIPS_WEIGHTS"
SOURCES = {"vgg": VGG16_Weights.IMAGENET1K_V1, "alex": AlexNet_Weights.IMAGENET1K_V1}


def lpips_loss(
    device: torch.device | str, weights: Path | None = None, network: str = "vgg"
) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean distance of pictures in [-1, 1].

    `weights` is torchvision's file for the `network`, "vgg" or "alex"; None takes the file that
    PERIGAN_LPIPS_WEIGHTS names, else torchvision's download. Raises ValueError that names what is
    missing: the package, the file, or the way to its source.
    """
    if network not in SOURCES:
        raise ValueError(f"LPIPS has the networks {', '.join(SOURCES)}, not {network!r}")
    try:
        import lpips  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("LPIPS needs the package lpips: pip install lpips") from error
    if weights is None and os.environ.get(WEIGHTS_VARIABLE):
        weights = Path(os.environ[WEIGHTS_VARIABLE])
    state = _download(network) if weights is None else _read(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how lpips calls torchvision
        model = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
    _fill(model.net, state, weights, network)
    model.to(device).eval().requires_grad_(False)

    def loss(image: Tensor, target: Tensor) -> Tensor:
        if min(image.shape[-2:]) < SMALLEST:
            image, target = (
                F.interpolate(x, (SMALLEST, SMALLEST), mode="bilinear") for x in (image, target)
            )
        return model(image, target).mean()

    return loss


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as error:
        raise ValueError(f"--lpips_weights: {path} is not a file of weights") from error


def _download(network: str) -> Mapping[str, Any]:
    """Torchvision's weights, from its cache if they were downloaded before."""
    source = SOURCES[network]
    try:
        return source.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        name = source.url.rpartition("/")[2]
        raise ValueError(
            f"LPIPS needs {name}, which cannot be had from {source.url} ({error}): fetch it "
            f"elsewhere and give it with --lpips_weights or {WEIGHTS_VARIABLE}, or use --loss mse"
        ) from error


def _fill(
    model: torch.nn.Module, state: Mapping[str, Any], path: Path | None, network: str
) -> None:
    """Give torchvision's weights to lpips, which cuts the same layers into named slices."""
    try:
        own = {key: state["features." + key.partition(".")[2]] for key in model.state_dict()}
        model.load_state_dict(own)
    except (KeyError, TypeError, RuntimeError) as error:
        name = SOURCES[network].url.rpartition("/")[2]
        raise ValueError(f"{path} does not hold torchvision's weights {name}") from error

"""LPIPS (Zhang et al. 2018) as a loss, where the package and its network's weights are to be had.

The package `lpips` brings the weights of its own layers; those of the VGG-16 below them come from
torchvision, which downloads them once, or from a file.
"""

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import VGG16_Weights

SMALLEST = 32  # pixels per side that the network's five scales need


def lpips_loss(
    device: torch.device | str, weights: Path | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Distance of pictures in [-1, 1]; those below 32 pixels are enlarged.

    `weights` is torchvision's vgg16-397923af.pth; None asks torchvision for it. Raises ValueError
    if the package, the file or the network is missing.
    """
    try:
        import lpips  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("--loss lpips needs the package lpips: pip install lpips") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how lpips calls torchvision
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    _fill(network.net, _read(weights), weights)
    network.to(device).eval().requires_grad_(False)

    def loss(image: Tensor, target: Tensor) -> Tensor:
        if min(image.shape[-2:]) < SMALLEST:
            image, target = (
                F.interpolate(x, (SMALLEST,) * 2, mode="bilinear") for x in (image, target)
            )
        return network(image, target).mean()

    return loss


def _read(weights: Path | None) -> dict[str, Any]:
    """The state of torchvision's VGG-16."""
    if weights is not None:
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise ValueError(f"--lpips_weights: {weights} is not a file of weights") from error
        return state
    source = VGG16_Weights.IMAGENET1K_V1
    try:
        return dict(source.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        name = source.url.rpartition("/")[2]
        raise ValueError(
            f"LPIPS needs {name}, which cannot be downloaded from {source.url} ({error}): "
            "fetch it elsewhere and give it with --lpips_weights, or use --loss mse"
        ) from error


def _fill(network: torch.nn.Module, state: dict[str, Any], path: Path | None) -> None:
    """Give torchvision's weights to lpips, which cuts the same layers into named slices."""
    try:
        own = {key: state["features." + key.partition(".")[2]] for key in network.state_dict()}
        network.load_state_dict(own)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"--lpips_weights: {path} are not torchvision's VGG-16 weights") from error

"""Files of random weights in the formats that the reference tools publish theirs."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


def random_state(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep activations alive through all layers."""
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            scale = (2 / value[0].numel()) ** 0.5
            state[name] = torch.randn(value.shape, generator=rng) * scale
        elif name.endswith("running_var") or name.endswith("bn.weight"):
            state[name] = torch.rand(value.shape, generator=rng) + 0.5
        elif value.is_floating_point():
            state[name] = torch.randn(value.shape, generator=rng) * 0.1
        else:
            state[name] = torch.zeros_like(value)
    return state


def write_inception(path: Path) -> Path:
    """Inception v3 as torch-fidelity and pytorch-fid read it."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    with (
        patch.object(library, "load_state_dict_from_url", lambda *_, **__: {}),
        patch.object(nn.Module, "load_state_dict", lambda *_, **__: None),
    ):
        network = library.FeatureExtractorInceptionV3("x", ["2048"])
    torch.save(random_state(network), path)
    return path


def write_vgg(path: Path) -> Path:
    """VGG16 as torchvision reads it."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        network = vgg16(init_weights=False)
    torch.save(random_state(network), path)
    return path


def write_lpips(path: Path) -> Path:
    """The five heads of LPIPS."""
    rng = torch.Generator().manual_seed(1)
    channels = (64, 128, 256, 512, 512)
    torch.save(
        {
            f"lin{i}.model.1.weight": torch.rand(1, n, 1, 1, generator=rng)
            for i, n in enumerate(channels)
        },
        path,
    )
    return path


def write_noise(folder: Path, count: int, *, seed: int, size: int = 32, tint: int = 0) -> Path:
    """Smooth random pictures, and how they are tinted."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        coarse = rng.integers(0, 200, (4, 4, 3), np.uint8)
        coarse[..., 0] += tint
        picture = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i:03d}.png")
    return folder

"""EfficientNet-lite0 (Google 2020; Tan and Le 2019), as a source of features at four scales.

Layers are named as timm names them, so that its weights fit. Weights come from timm, from a file,
or, for tests and small experiments, are random: then every layer is scaled so that its outputs have
unit variance, and the features are as lively as trained ones. The classifier's layers are left out.
"""

import pickle
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.shapes import Float

NAME = "tf_efficientnet_lite0"
FILE = f"model.safetensors of timm/{NAME}.in1k on the Hugging Face Hub"
PATIENCE = 3  # seconds that the Hub has to answer
EPSILON = 1e-3  # of batch normalisation
# per stage: kernel, stride, expansion, channels, repeats
BLOCKS = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM = 32  # channels
ENDS = (1, 2, 4, 6)  # the blocks after which features are taken, at 1/4, 1/8, 1/16 and 1/32
CHANNELS = tuple(BLOCKS[end][3] for end in ENDS)
UNUSED = ("conv_head.", "bn2.", "classifier.")  # layers of the file that make no features
RANDOM_SEED, CALIBRATION_SIZE, CALIBRATION_BATCH = 0, 64, 8


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does: what is odd goes to the right and the bottom."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel, stride=stride, groups=groups, bias=False
        )

    def forward(self, input: Float[Tensor, "batch in height width"]) -> Tensor:
        """Convolve; a side of n pixels becomes one of ceil(n / stride)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads: list[int] = []
        for size in (input.shape[3], input.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        if any(pads):
            input = F.pad(input, pads)
        return super().forward(input)


class SeparableBlock(nn.Module):
    """Depthwise, then pointwise and linear: the first block."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(in_channels, in_channels, kernel, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels, eps=EPSILON)
        self.conv_pw = SameConv2d(in_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same size."""
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project linearly; added to the input where shapes allow (MobileNetV2)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.conv_pw = SameConv2d(in_channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner, eps=EPSILON)
        self.conv_dw = SameConv2d(inner, inner, kernel, stride=stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner, eps=EPSILON)
        self.conv_pwl = SameConv2d(inner, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels, eps=EPSILON)
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Features, at half the size if the stride is 2."""
        y = F.relu6(self.bn1(self.conv_pw(x)))
        y = F.relu6(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.has_skip else y


class EfficientNetLite0(nn.Module):
    """Pictures in [-1, 1] to features at four scales; that is its own normalisation, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, STEM, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(STEM, eps=EPSILON)
        self.blocks = nn.ModuleList()
        before = STEM
        for kernel, stride, expansion, channels, repeats in BLOCKS:
            repeated = nn.Sequential()
            for i in range(repeats):
                repeated.append(
                    SeparableBlock(before, channels, kernel)
                    if expansion == 1
                    else InvertedResidual(
                        before,
                        channels,
                        kernel,
                        stride=stride if i == 0 else 1,
                        expansion=expansion,
                    )
                )
                before = channels
            self.blocks.append(repeated)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Features of CHANNELS channels at 1/4, 1/8, 1/16 and 1/32 of the size."""
        x, features = F.relu6(self.bn1(self.conv_stem(x))), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in ENDS:
                features.append(x)
        return features

    def keep(self, count: int) -> None:
        """Forget the blocks that only coarser features than the first `count` need."""
        self.blocks = self.blocks[: ENDS[count - 1] + 1]


def load_backbone(weights: str) -> EfficientNetLite0:
    """The network with weights from "timm", from a file, or "random", the same on every call.

    Raises ValueError that names the file to bring, or what is wrong with the one given.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        network = EfficientNetLite0()
        if weights == "random":
            randomize(network)
            return network
    state = download() if weights == "timm" else read(Path(weights).expanduser())
    own = network.state_dict()
    used = {key: value for key, value in state.items() if not key.startswith(UNUSED)}
    fits = own.keys() == used.keys() and all(own[k].shape == used[k].shape for k in own)
    if not fits:
        raise ValueError(
            f"backbone_weights: {weights} holds another network than {NAME}: {misfit(own, used)}"
        )
    network.load_state_dict(used)
    return network


@torch.no_grad()
def randomize(network: EfficientNetLite0) -> None:
    """Random weights, and batch statistics of smooth random pictures."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # plain averages, here of one batch
    coarse = torch.randn(CALIBRATION_BATCH, 3, 8, 8)
    pictures = F.interpolate(coarse, size=CALIBRATION_SIZE, mode="bicubic").clamp(-1, 1)
    network.train()(pictures)
    network.eval()


def download() -> Mapping[str, Tensor]:
    """Weights through timm, which keeps them for the next time.

    Without a connection what it kept is used, and if there is none, that is known at once.
    """
    options = (
        "give the path of that file, or of timm's own .pth, with --backbone_weights "
        "(or 'random' for an untrained network)"
    )
    try:
        import timm
        from huggingface_hub import constants
    except ModuleNotFoundError as error:
        raise ValueError(f"pip install timm to download {FILE}; or {options}") from error
    online = hub_answers()
    mode = nullcontext() if online else patch.object(constants, "HF_HUB_OFFLINE", True)
    try:
        with mode, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timm.create_model(NAME, pretrained=True).state_dict()
    except Exception as error:  # the hub raises whatever it likes without a network
        reason = type(error).__name__ if online else f"no answer in {PATIENCE} s, no copy here"
        raise ValueError(f"cannot download {FILE} ({reason}): {options}") from error


def hub_answers() -> bool:
    """Whether the Hugging Face Hub can be asked; its own client finds out in about a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(f"timm/{NAME}.in1k", "config.json"), timeout=PATIENCE)
    except Exception:  # whatever the reason, or HF_HUB_OFFLINE
        return False
    return True


def read(path: Path) -> Mapping[str, Tensor]:
    """Tensors of a safetensors file or of one of torch.save; nothing in it is ever executed."""
    if not path.is_file():
        raise ValueError(f"backbone_weights: no such file: {path}; bring {FILE}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"backbone_weights: {path} is damaged, or holds pickled objects, which could run code "
            "when loaded and are refused"
        ) from error
    except Exception as error:  # the readers raise whatever they like over a damaged file
        reason = str(error).partition("\n")[0]
        raise ValueError(f"backbone_weights: {path} cannot be read: {reason}") from error
    if not isinstance(data, dict) or not all(isinstance(v, Tensor) for v in data.values()):
        raise ValueError(f"backbone_weights: {path} must map names to tensors")
    return data


def misfit(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """The first tensors that are missing, unexpected or of another shape."""
    found = {
        "missing": own.keys() - given.keys(),
        "unexpected": given.keys() - own.keys(),
        "of another shape": {
            k for k in own.keys() & given.keys() if own[k].shape != given[k].shape
        },
    }
    return "; ".join(f"{len(keys)} {what} ({min(keys)})" for what, keys in found.items() if keys)

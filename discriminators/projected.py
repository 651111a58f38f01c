"""The discriminator of Projected GAN (Sauer et al. 2021): it judges features, not pictures.

A frozen network trained on photographs makes features at four scales. Fixed random 1x1 convolutions
mix their channels, and then their scales, from coarse to fine (section 3.2; kernels as in the
official code, not the paper). A small trained head judges every scale, at many places; its many
judgements are all logits of the picture. Pictures are expected in [-1, 1].
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discriminators.base import DISCRIMINATORS, Discriminator, Judgement
from discriminators.efficientnet import CHANNELS, load_backbone
from ops.freeze import freeze
from ops.mapping import label_vectors
from ops.registry import nearest
from ops.shapes import Float
from ops.spectral import SpectralConv2d
from rendering.cameras import Cameras, Patch

LEAKY_SLOPE = 0.2
HEAD_CHANNELS = {4: 512, 8: 512, 16: 256, 32: 128, 64: 64, 128: 64, 256: 32, 512: 16, 1024: 8}
HEAD_END = 8  # nominal pixels per side of the last features of a head
STRIDE = 32  # of the coarsest features: pictures must be a multiple of it
SMALLEST = 8  # pixels per side of pictures that are worth enlarging
MIXINGS = ("none", "channels", "scales")


class FeatureNetwork(nn.Module):
    """Frozen features at four scales, mixed at random. It has no parameters and never trains.

    The weights of the backbone are no part of its state; the random ones are.
    """

    def __init__(
        self,
        *,
        weights: str,  # "timm", "random" or a path
        channels: int = 64,  # of the finest mixed features
        expand: bool = True,  # whether coarser ones have more
        mixing: str = "scales",  # or only "channels", or "none"
        num_scales: int = len(CHANNELS),  # how many are wanted, from the finest on
    ) -> None:
        super().__init__()
        if mixing not in MIXINGS:
            raise ValueError(f"unknown mixing {mixing!r}{nearest(mixing, MIXINGS)}")
        self.backbone = freeze(load_backbone(weights), persistent=False)
        widths = [channels * 2**i if expand else channels for i in range(len(CHANNELS))]
        self.channels = list(CHANNELS) if mixing == "none" else widths
        self.mix_channels = self.mix_scales = None
        if mixing != "none":
            pairs = zip(CHANNELS, widths, strict=True)
            mixers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairs)
            self.mix_channels = freeze(mixers, persistent=True)
        if mixing == "scales":
            self.channels = [widths[0], *widths[:-1]]
            pairs = zip(widths, self.channels, strict=True)
            mixers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairs)
            self.mix_scales = freeze(mixers, persistent=True)
        else:  # fine features need no coarser ones
            self.backbone.keep(num_scales)
        self.eval()

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Features from fine to coarse; mixed over scales they are twice as large."""
        if images.device.type == "cpu":  # depthwise convolutions are twice as fast in this order
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.backbone(images)
        if self.mix_channels is not None:
            features = self.channel_mixed(features)
        return features if self.mix_scales is None else self.scale_mixed(features)

    def channel_mixed(self, features: list[Tensor]) -> list[Tensor]:
        """Every scale's features through its own random matrix."""
        assert self.mix_channels is not None
        return [mix(x) for mix, x in zip(self.mix_channels, features, strict=False)]

    def scale_mixed(self, features: list[Tensor]) -> list[Tensor]:
        """Each scale joined by the coarser ones, enlarged, through another random matrix."""
        assert self.mix_scales is not None
        mixed: list[Tensor] = []
        for mix, x in zip(reversed(list(self.mix_scales)), reversed(features), strict=True):
            x = x + mixed[-1] if mixed else x
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            mixed.append(mix(x))
        return mixed[::-1]


class SeparableConv2d(nn.Module):
    """A 3x3 convolution per channel, then one that mixes channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = SpectralConv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        self.pointwise = SpectralConv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same size."""
        return self.pointwise(self.depthwise(x))


class DownBlock(nn.Module):
    """Half the size: convolution, batch normalisation, leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, *, separable: bool, mixes: bool
    ) -> None:
        """With `mixes`, a 1x1 convolution and the same again follow."""
        super().__init__()
        self.conv: nn.Module = (
            SeparableConv2d(in_channels, out_channels)
            if separable
            else SpectralConv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=True)
        )
        self.pools = separable
        self.norm = nn.BatchNorm2d(out_channels)
        self.mix = SpectralConv2d(out_channels, out_channels, 1) if mixes else None
        self.mix_norm = nn.BatchNorm2d(out_channels) if mixes else None

    def forward(self, x: Tensor) -> Tensor:
        """Features of half the size."""
        y = F.leaky_relu(self.norm(self.conv(x)), LEAKY_SLOPE)
        if self.pools:
            y = F.avg_pool2d(y, 2)
        if self.mix is not None and self.mix_norm is not None:
            y = F.leaky_relu(self.mix_norm(self.mix(y)), LEAKY_SLOPE)
        return y


class Head(nn.Module):
    """Judges one scale of features: blocks of half the size each, then a logit at every place."""

    def __init__(
        self,
        *,
        in_channels: int,
        start_size: int,  # nominal size of the features, which says how many blocks there are
        label_dim: int = 0,  # classes; 0: unconditional
        separable: bool = False,  # cheaper convolutions
        mixes: bool = False,  # start at 16 pixels, with 1x1 convolutions between the blocks
        stem: bool = False,  # a convolution at full size first
        width: int | None = None,  # channels of every layer; None: HEAD_CHANNELS
        end_size: int = HEAD_END,
        code_dim: int = 64,  # numbers in which a class and a place are compared
        embedding_dim: int = 128,  # numbers of a class
    ) -> None:
        super().__init__()
        sizes = sorted(HEAD_CHANNELS)
        start = 16 if mixes else min(sizes, key=lambda size: abs(size - start_size))
        channels = {size: width or HEAD_CHANNELS[size] for size in sizes}
        self.stem = SpectralConv2d(in_channels, channels[start], 3, padding=1) if stem else None
        if self.stem is None:
            channels[start] = in_channels
        self.blocks = nn.Sequential()
        while start > end_size:
            before, after = channels[start], channels[start // 2]
            self.blocks.append(DownBlock(before, after, separable=separable, mixes=mixes))
            start //= 2
        self.label_dim, self.code_dim = label_dim, code_dim
        self.out = SpectralConv2d(channels[start], code_dim if label_dim else 1, 4)
        self.embedding = nn.Embedding(label_dim, embedding_dim) if label_dim else None
        self.project = nn.Linear(embedding_dim, code_dim) if label_dim else None

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        label: Float[Tensor, "batch classes"] | None = None,
    ) -> Float[Tensor, "batch 1 rows columns"]:
        """A logit per place; `label` is one-hot."""
        if self.stem is not None:
            x = F.leaky_relu(self.stem(x), LEAKY_SLOPE)
        y = self.out(self.blocks(x))
        if self.embedding is None or self.project is None:
            return y
        assert label is not None
        code = F.leaky_relu(self.project(self.embedding(label.argmax(1))), LEAKY_SLOPE)
        return (y * code[..., None, None]).sum(1, keepdim=True) / math.sqrt(self.code_dim)


@DISCRIMINATORS.register("ProjectedDiscriminator")
class ProjectedDiscriminator(Discriminator):
    """Heads over the frozen features; their logits of a picture stand side by side."""

    compares_pictures = True  # through batch normalisation, in training

    def __init__(
        self,
        *,
        resolution: int = 256,  # pixels per side of whole pictures
        patch_size: int | None = None,  # ... and of what it judges; None: whole pictures
        label_dim: int = 0,  # classes; 0: unconditional
        backbone_weights: str = "timm",  # "timm", a file's path, or "random"
        input_size: int = 224,  # smaller pictures are enlarged to this many pixels
        num_discs: int = 4,  # heads, from the finest scale on
        separable: bool = False,  # whether their convolutions are cheaper
        head_size: int = 256,  # pixels per side of the pictures that the heads are deep for
        head_width: int | None = None,  # channels of every layer; None: HEAD_CHANNELS
        channels: int = 64,  # of the finest mixed features
        expand: bool = True,  # whether coarser ones have more
        mixing: str = "scales",  # of features: "scales", "channels" or "none"
    ) -> None:
        super().__init__()
        if not 1 <= num_discs <= len(CHANNELS):
            raise ValueError(f"num_discs must lie in 1..{len(CHANNELS)}, got {num_discs}")
        self.size = resolution if patch_size is None else patch_size
        self.input_size = max(self.size, input_size)
        self.image_sizes, self.label_dim = enlargeable(self.size, input_size), label_dim
        self.feature_network = FeatureNetwork(
            weights=backbone_weights,
            channels=channels,
            expand=expand,
            mixing=mixing,
            num_scales=num_discs,
        )
        shift = 1 if mixing == "scales" else 2  # of the finest features: pictures are 2^shift wider
        self.heads = nn.ModuleList(
            Head(
                in_channels=self.feature_network.channels[i],
                start_size=max(head_size >> (i + shift), HEAD_END),
                label_dim=label_dim,
                separable=separable,
                width=head_width,
            )
            for i in range(num_discs)
        )
        smallest = max(
            4 << (len(head.blocks) + i + shift)
            for i, head in enumerate(self.heads)
            if isinstance(head, Head)
        )
        if self.input_size % STRIDE or self.input_size < smallest:
            raise ValueError(
                f"these heads need pictures of a multiple of {STRIDE} pixels, at least {smallest},"
                f" got {self.input_size}: raise input_size, or lower head_size"
            )

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        alpha: float = 1.0,
        cameras: Cameras | None = None,
        label: Tensor | None = None,
        patch: Patch | None = None,
    ) -> Judgement:
        """Judge pictures or windows; no layer fades in, `alpha` changes nothing."""
        height, width = images.shape[2:]
        if height != width or height not in self.image_sizes:
            raise ValueError(
                f"{type(self).__name__} takes square pictures of side "
                f"{', '.join(map(str, self.image_sizes))}; got {height}x{width}"
            )
        vectors = label_vectors(label, self.label_dim)
        logits = [
            head(x, vectors).flatten(1)
            for head, x in zip(self.heads, self.features(images), strict=False)
        ]
        return Judgement(torch.cat(logits, dim=1))

    def features(self, images: Float[Tensor, "batch 3 size size"]) -> list[Tensor]:
        """What the heads see, computed once: it needs memory for gradients only if pictures do."""
        if images.shape[-1] < self.input_size:
            images = F.interpolate(images, size=self.input_size, mode="bilinear")
        return self.feature_network(images)


def enlargeable(size: int, input_size: int) -> tuple[int, ...]:
    """Sizes of pictures that are all seen as one size: those that stages may grow through."""
    if size > input_size:
        return (size,)
    powers = (2**i for i in range(SMALLEST.bit_length() - 1, input_size.bit_length()))
    return tuple(sorted({size, *powers}))

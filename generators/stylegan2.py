"""StyleGAN2 (Karras et al. 2020): styles modulate the kernels of a convolutional network.

Blocks at 4, 8, .. pixels; each but the first doubles the resolution, and each adds its picture to
the upsampled one before ("skip"), or to features ("resnet"), or only the last makes one ("orig").
A block's toRGB shares its style with the next block's first convolution.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from generators.base import GENERATORS
from generators.style import StyleGenerator
from ops.activation import ACTIVATIONS, bias_act
from ops.blocks import (
    as_block_input,
    block_channels,
    block_resolutions,
    half_dtype,
    half_resolution,
)
from ops.linear import EqualizedLinear
from ops.modulated import EqualizedConv2d, modulated_conv2d
from ops.registry import nearest
from ops.resample import setup_filter, upsample2d
from ops.shapes import Float
from rendering.cameras import Cameras, Patch
from rendering.renderer import Rendering
from rendering.settings import RenderSettings

ARCHITECTURES = ("skip", "resnet", "orig")
NOISE_MODES = ("random", "const", "none")

Noise = Sequence[Tensor | None]  # per layer: (size, size) or (batch, 1, size, size)
Maps = Callable[[int], Tensor]  # pixels per side -> (batch, channels, size, size)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,  # of the output
        up: int = 1,
        use_noise: bool = True,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.conv_clamp = resolution, up, conv_clamp
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([])) if use_noise else None
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", setup_filter(resample_filter), persistent=False)

    def forward(
        self,
        x: Float[Tensor, "batch in height width"],
        w: Float[Tensor, "batch w_dim"],
        noise: Tensor | None = None,
        gain: float = 1.0,
    ) -> Float[Tensor, "batch out out_height out_width"]:
        """Features in the type of `x`; `gain` scales them and their clamp."""
        if noise is not None and self.noise_strength is not None:
            noise = noise * self.noise_strength
        y = modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            noise=noise,
            f=self.resample_filter,
            up=self.up,
            padding=1,
            flip_weight=self.up == 1,
            fused=False if self.training else None,
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        gain = ACTIVATIONS["lrelu"].gain * gain
        return bias_act(y, self.bias.to(y.dtype), act="lrelu", gain=gain, clamp=clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: features to colours."""

    def __init__(
        self, in_channels: int, out_channels: int, *, w_dim: int, conv_clamp: float | None = None
    ) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(
        self, x: Float[Tensor, "batch in height width"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch out height width"]:
        """Colours in the type of `x`."""
        styles = self.affine(w) * self.weight_gain
        fused = False if self.training else None
        y = modulated_conv2d(x, self.weight, styles, demodulate=False, fused=fused)
        return bias_act(y, self.bias.to(y.dtype), clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    """The layers of one resolution."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,  # 0: the first block, which starts from a learned constant
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str,
        use_noise: bool,
        resample_filter: Sequence[float],
        conv_clamp: float | None,
        map_channels: int = 0,  # of maps that join the features before every convolution
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.const: nn.Parameter | None = None
        self.conv0: SynthesisLayer | None = None
        self.skip: EqualizedConv2d | None = None

        def layer(channels: int, **resampling: Any) -> SynthesisLayer:
            return SynthesisLayer(
                channels + map_channels,
                out_channels,
                w_dim=w_dim,
                resolution=resolution,
                use_noise=use_noise,
                conv_clamp=conv_clamp,
                **resampling,
            )

        enlarging = {"up": 2, "resample_filter": resample_filter}
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = layer(in_channels, **enlarging)
            if architecture == "resnet":
                self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False, **enlarging)
        self.conv1 = layer(out_channels)
        self.torgb: ToRGB | None = None
        if is_last or architecture == "skip":
            self.torgb = ToRGB(out_channels, img_channels, w_dim=w_dim, conv_clamp=conv_clamp)
        self.register_buffer("resample_filter", setup_filter(resample_filter), persistent=False)

    @property
    def layers(self) -> list[SynthesisLayer]:
        """The convolutions that take a style and a noise picture each, in order."""
        return [self.conv1] if self.conv0 is None else [self.conv0, self.conv1]

    def forward(
        self,
        x: Tensor | None,  # features of the block before
        image: Tensor | None,  # the picture so far, float32
        w: Float[Tensor, "batch slots w_dim"],  # one slot per convolution, one for toRGB
        noise: Noise,  # one entry per convolution
        *,
        dtype: torch.dtype,
        channels_last: bool = False,
        maps: Maps | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Features in `dtype` and the picture, at twice the resolution."""

        def joined(y: Tensor) -> Tensor:
            return y if maps is None else torch.cat([y, maps(y.shape[-1]).to(y)], dim=1)

        if self.conv0 is None:
            assert self.const is not None
            start = as_block_input(self.const.expand(len(w), -1, -1, -1), dtype, channels_last)
            y = self.conv1(joined(start), w[:, 0], noise[0])
        else:
            assert x is not None
            x = as_block_input(x, dtype, channels_last)
            gain = 1.0 if self.skip is None else math.sqrt(0.5)
            y = self.conv0(joined(x), w[:, 0], noise[0])
            y = self.conv1(joined(y), w[:, 1], noise[1], gain=gain)
            if self.skip is not None:
                y = y + self.skip(x, gain=gain)
        if image is not None:
            image = upsample2d(image, self.resample_filter)
        if self.torgb is not None:
            rgb = self.torgb(y, w[:, len(self.layers)]).to(w.dtype)
            image = rgb if image is None else image + rgb
        return y, image


class SynthesisNetwork(nn.Module):
    """Styles to pictures: the blocks in order of resolution."""

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,  # a power of two, at least 4
        img_channels: int = 3,
        channel_base: int = 32768,  # channels at a resolution: channel_base / resolution..
        channel_max: int = 512,  # ..but at most so many
        architecture: str = "skip",
        num_fp16_res: int = 4,  # how many of the finest resolutions run in 16 bits on CUDA
        fp16_channels_last: bool = False,
        use_noise: bool = True,
        resample_filter: Sequence[float] = (1, 3, 3, 1),
        conv_clamp: float | None = 256.0,
        map_channels: int = 0,  # of maps that join the features before every convolution
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            near = nearest(architecture, ARCHITECTURES)
            raise ValueError(f"unknown architecture {architecture!r}{near}")
        self.resolution, self.fp16_channels_last = resolution, fp16_channels_last
        self.half_resolution = half_resolution(resolution, num_fp16_res)
        blocks, before = [], 0
        for r in block_resolutions(resolution):
            channels = block_channels(r, channel_base, channel_max)
            block = SynthesisBlock(
                before,
                channels,
                w_dim=w_dim,
                resolution=r,
                img_channels=img_channels,
                is_last=r == resolution,
                architecture=architecture,
                use_noise=use_noise,
                resample_filter=resample_filter,
                conv_clamp=conv_clamp,
                map_channels=map_channels,
            )
            blocks.append(block)
            before = channels
        self.blocks = nn.ModuleList(blocks)

    @property
    def layers(self) -> list[SynthesisLayer]:
        """All convolutions with a style and a noise picture of their own, in order."""
        return [layer for block in self._blocks() for layer in block.layers]

    @property
    def num_ws(self) -> int:
        """Style slots: one per convolution and one for the last toRGB."""
        return len(self.layers) + 1

    def forward(
        self,
        w: Float[Tensor, "batch slots w_dim"],
        noise: Noise | None = None,
        *,
        force_fp32: bool = False,
        maps: Maps | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Pictures, nominally in [-1, 1]; `noise` has an entry per layer, None for no noise."""
        noise = [None] * len(self.layers) if noise is None else noise
        if len(noise) != len(self.layers):
            raise ValueError(f"noise must have {len(self.layers)} entries, got {len(noise)}")
        half = half_dtype(w, force_fp32=force_fp32)  # before autocast ends: it may choose
        with torch.autocast(w.device.type, enabled=False):
            w = w.to(next(self.parameters()).dtype)
            x, image, start = None, None, 0
            for block in self._blocks():
                stop = start + len(block.layers)
                x, image = block(
                    x,
                    image,
                    w[:, start : stop + 1],
                    noise[start:stop],
                    dtype=half if block.resolution >= self.half_resolution else w.dtype,
                    channels_last=self.fp16_channels_last,
                    maps=maps,
                )
                start = stop
        assert image is not None
        return image

    def draw_noise(
        self, batch: int, generator: torch.Generator | None = None
    ) -> list[Float[Tensor, "batch 1 size size"]]:
        """Fresh noise pictures for every layer, drawn on the generator's device."""
        like = self.layers[0].weight
        device = like.device if generator is None else generator.device
        sizes = [layer.resolution for layer in self.layers]
        draws = [torch.randn(batch, 1, n, n, generator=generator, device=device) for n in sizes]
        return [noise.to(like) for noise in draws]

    def _blocks(self) -> list[SynthesisBlock]:
        return [block for block in self.blocks if isinstance(block, SynthesisBlock)]


@GENERATORS.register("StyleGAN2")
class StyleGAN2(StyleGenerator):
    """Mapping network and synthesis network; w has a slot per layer."""

    map_channels = 0  # of what `maps` gives; a hook for networks that know the camera

    def __init__(
        self,
        *,
        resolution: int = 256,  # pixels per side, a power of two
        latent_dim: int = 512,  # numbers in z
        label_dim: int = 0,  # classes, or numbers in a label vector; 0: unconditional
        w_dim: int = 512,  # numbers in one style
        img_channels: int = 3,
        channel_base: int = 32768,  # channels at a resolution: channel_base / resolution..
        channel_max: int = 512,  # ..but at most so many
        architecture: str = "skip",  # skip, resnet or orig
        mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        num_fp16_res: int = 4,  # how many of the finest resolutions run in 16 bits on CUDA
        fp16_channels_last: bool = False,  # memory layout of those
        use_noise: bool = True,  # whether layers have noise inputs at all
        resample_filter: Sequence[float] = (1, 3, 3, 1),  # low-pass of up- and downsampling
        conv_clamp: float | None = 256.0,  # bound of every layer's output; None: none
    ) -> None:
        synthesis_network = SynthesisNetwork(
            w_dim=w_dim,
            resolution=resolution,
            img_channels=img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            architecture=architecture,
            num_fp16_res=num_fp16_res,
            fp16_channels_last=fp16_channels_last,
            use_noise=use_noise,
            resample_filter=resample_filter,
            conv_clamp=conv_clamp,
            map_channels=self.map_channels,
        )
        super().__init__(
            latent_dim=latent_dim,
            label_dim=label_dim,
            w_dim=w_dim,
            num_ws=synthesis_network.num_ws,
            mapping_layers=mapping_layers,
            mapping_lr_multiplier=mapping_lr_multiplier,
        )
        self.resolution, self.use_noise = resolution, use_noise
        self.synthesis_network = synthesis_network

    def synthesis(
        self,
        w: Float[Tensor, "batch slots w_dim"],
        cameras: Cameras | None,
        settings: RenderSettings,
        *,
        patch: Patch | None = None,
        generator: torch.Generator | None = None,
        noise_mode: str | None = None,
        noise: Noise | None = None,
        force_fp32: bool = False,
    ) -> Rendering:
        """Pictures of styles; cameras make no difference.

        `noise_mode` is "random" (drawn from `generator`), "const" (each layer's own picture) or
        "none"; None means random where `settings.jitter` allows chance, else const. `noise` is used
        in place of all these: an entry per layer.
        """
        self.check_request(w, settings, patch)
        if noise_mode is None:
            noise_mode = "random" if settings.jitter else "const"
        if noise is None:
            noise = self.noise(noise_mode, len(w), generator)
        maps = self.maps(cameras)
        return Rendering(self.synthesis_network(w, noise, force_fp32=force_fp32, maps=maps))

    def maps(self, cameras: Cameras | None) -> Maps | None:
        """Maps of any size that join the features before every convolution."""
        return None

    def noise(
        self, mode: str, batch: int, generator: torch.Generator | None = None
    ) -> Noise | None:
        """The layers' noise pictures in one of NOISE_MODES."""
        if mode not in NOISE_MODES:
            raise ValueError(f"unknown noise_mode {mode!r}{nearest(mode, NOISE_MODES)}")
        if mode == "none" or not self.use_noise:
            return None
        if mode == "const":
            return [layer.noise_const for layer in self.synthesis_network.layers]
        return self.synthesis_network.draw_noise(batch, generator)

"""FastGAN (Liu et al. 2021), a small convolutional generator, as Projected GAN uses it.

A latent becomes 4x4 features; blocks double them up to the picture's resolution. Skip excitation
lets features of 4, 8, 16 and 32 pixels choose the channels of those sixteen times as large. Weights
are spectrally normalised, features batch-normalised; classes, if any, scale and shift them. There
is no output activation: pictures may leave [-1, 1] a little.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.base import GENERATORS, Generator
from generators.stylegan2 import NOISE_MODES, Noise
from ops.mapping import label_vectors
from ops.norm import normalize_2nd_moment
from ops.registry import nearest
from ops.shapes import Float
from ops.spectral import SpectralConv2d, SpectralConvTranspose2d, SpectralLinear
from rendering.cameras import Cameras, Patch
from rendering.renderer import Rendering
from rendering.settings import RenderSettings

RESOLUTIONS = (32, 64, 128, 256, 512, 1024)
# channels at a resolution, in units of the network's width
WIDTHS = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0, 64: 2.0, 128: 1.0, 256: 0.5, 512: 0.25, 1024: 0.125}
EXCITATION = 16  # how many times smaller the features are that choose channels
NOISE_SEED = 0  # of the pictures of noise that noise_mode "const" adds


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose scale and shift a class chooses, if there are classes."""

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=condition_dim == 0)
        self.gain = SpectralLinear(condition_dim, channels) if condition_dim else None
        self.bias = SpectralLinear(condition_dim, channels) if condition_dim else None

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        condition: Float[Tensor, "batch numbers"] | None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Normalise, scale and shift."""
        y = self.norm(x)
        if self.gain is None or self.bias is None:
            return y
        gain, bias = self.gain(condition), self.bias(condition)
        return y * (1 + gain[..., None, None]) + bias[..., None, None]


class GatedConv(nn.Module):
    """A 3x3 convolution, noise, normalisation, and a gated linear unit."""

    def __init__(
        self, in_channels: int, out_channels: int, *, condition_dim: int, use_noise: bool
    ) -> None:
        super().__init__()
        self.conv = SpectralConv2d(in_channels, 2 * out_channels, 3, padding=1)
        self.noise_strength = nn.Parameter(torch.zeros(1)) if use_noise else None
        self.norm = ConditionalBatchNorm(2 * out_channels, condition_dim)

    def forward(
        self, x: Tensor, condition: Tensor | None, noise: Tensor | None
    ) -> Float[Tensor, "batch out height width"]:
        """Features of the same size."""
        y = self.conv(x)
        if noise is not None and self.noise_strength is not None:
            y = y + (noise * self.noise_strength).to(y.dtype)
        return F.glu(self.norm(y, condition), dim=1)


class UpBlock(nn.Module):
    """Twice as many pixels: one convolution and no noise (lite), or two with noise."""

    def __init__(
        self, in_channels: int, out_channels: int, *, condition_dim: int, lite: bool
    ) -> None:
        super().__init__()
        widths = [in_channels, out_channels] if lite else [in_channels, out_channels, out_channels]
        convs = [
            GatedConv(before, after, condition_dim=condition_dim, use_noise=not lite)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        ]
        if condition_dim:  # the convolutions of a conditional block share one strength
            for conv in convs:
                conv.noise_strength = convs[0].noise_strength
        self.convs = nn.ModuleList(convs)
        self.num_noises = 0 if lite else len(convs)

    def forward(
        self, x: Tensor, condition: Tensor | None, noise: Noise
    ) -> Float[Tensor, "batch out height width"]:
        """Features of twice the size; `noise` has `num_noises` entries."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        for i, conv in enumerate(self.convs):
            x = conv(x, condition, noise[i] if noise else None)
        return x


class SkipExcitation(nn.Module):
    """Small features choose how much of each large channel is kept (FastGAN, section 3.1)."""

    def __init__(self, small_channels: int, large_channels: int) -> None:
        super().__init__()
        self.squeeze = SpectralConv2d(small_channels, large_channels, 4)
        self.excite = SpectralConv2d(large_channels, large_channels, 1)

    def forward(
        self,
        small: Float[Tensor, "batch small height width"],
        large: Float[Tensor, "batch large large_height large_width"],
    ) -> Float[Tensor, "batch large large_height large_width"]:
        """The large features, scaled."""
        y = F.silu(self.squeeze(F.adaptive_avg_pool2d(small, 4)))
        return large * torch.sigmoid(self.excite(y))


class FastGANNetwork(nn.Module):
    """Normalised latents and class embeddings to pictures."""

    def __init__(
        self,
        *,
        resolution: int,
        latent_dim: int,
        condition_dim: int,
        width: int,
        lite: bool,
        skip_excitation: bool,
    ) -> None:
        super().__init__()
        if resolution not in RESOLUTIONS:
            raise ValueError(f"FastGAN makes pictures of {RESOLUTIONS} pixels, got {resolution}")
        sizes = [size for size in WIDTHS if size <= resolution]
        channels = {size: int(WIDTHS[size] * width) for size in sizes}
        if channels[resolution] < 1:
            raise ValueError(f"width must be at least {1 / WIDTHS[resolution]:.0f}, got {width}")
        self.latent_dim = latent_dim
        self.start = SpectralConvTranspose2d(latent_dim, 2 * channels[4], 4)
        self.start_norm = nn.BatchNorm2d(2 * channels[4])
        self.ups = nn.ModuleDict()
        self.excitations = nn.ModuleDict()
        for small, size in zip(sizes[:-1], sizes[1:], strict=True):
            self.ups[str(size)] = UpBlock(
                channels[small], channels[size], condition_dim=condition_dim, lite=lite
            )
            before = size // EXCITATION
            if skip_excitation and 4 <= before <= 32:
                self.excitations[str(size)] = SkipExcitation(channels[before], channels[size])
        self.to_image = SpectralConv2d(channels[resolution], 3, 3, padding=1, bias=True)

    @property
    def noise_sizes(self) -> list[int]:
        """Pixels per side of every picture of noise, in the order in which they are used."""
        return [int(size) for size, up in self._ups() for _ in range(up.num_noises)]

    def forward(
        self, w: Float[Tensor, "batch numbers"], noise: Noise | None = None
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pictures; `noise` has an entry per size in `noise_sizes`, None for no noise."""
        left = list(noise if noise is not None else [None] * len(self.noise_sizes))
        if len(left) != len(self.noise_sizes):
            raise ValueError(f"noise must have {len(self.noise_sizes)} entries, got {len(left)}")
        z, condition = w[:, : self.latent_dim], w[:, self.latent_dim :]
        x = F.glu(self.start_norm(self.start(z[..., None, None])), dim=1)
        features = {4: x}
        for name, up in self._ups():
            here, left = left[: up.num_noises], left[up.num_noises :]
            x, size = up(x, condition, here), int(name)
            if name in self.excitations:
                x = self.excitations[name](features[size // EXCITATION], x)
            features[size] = x
        return self.to_image(x)

    def _ups(self) -> list[tuple[str, UpBlock]]:
        return [(name, up) for name, up in self.ups.items() if isinstance(up, UpBlock)]


@GENERATORS.register("FastGAN")
class FastGAN(Generator):
    """A style is the normalised latent, followed by its class's embedding."""

    lite = False

    def __init__(
        self,
        *,
        resolution: int = 256,  # pixels per side, one of RESOLUTIONS
        latent_dim: int = 256,  # numbers in z
        label_dim: int = 0,  # classes; 0: unconditional
        width: int = 128,  # channels at 128 pixels; WIDTHS has the other sizes'
        skip_excitation: bool = True,  # whether small features choose channels of large ones
    ) -> None:
        condition_dim = latent_dim if label_dim else 0
        super().__init__(
            latent_dim=latent_dim, w_shape=(latent_dim + condition_dim,), label_dim=label_dim
        )
        self.resolution = resolution
        self.embedding = nn.Embedding(label_dim, condition_dim) if label_dim else None
        self.network = FastGANNetwork(
            resolution=resolution,
            latent_dim=latent_dim,
            condition_dim=condition_dim,
            width=width,
            lite=self.lite,
            skip_excitation=skip_excitation,
        )
        rng = torch.Generator().manual_seed(NOISE_SEED)
        for i, size in enumerate(self.network.noise_sizes):
            noise = torch.randn(1, 1, size, size, generator=rng)
            self.register_buffer(f"noise_const_{i}", noise, persistent=False)

    def style(
        self,
        z: Float[Tensor, "batch latent"],
        label: Tensor | None = None,
        cameras: Cameras | None = None,
    ) -> Float[Tensor, "batch numbers"]:
        """The latent on a sphere and the embedding; classes are numbers or one-hot vectors."""
        vectors = label_vectors(label, self.label_dim)
        w = normalize_2nd_moment(z)
        if self.embedding is None or vectors is None:
            return w
        return torch.cat([w, self.embedding(vectors.argmax(1))], dim=1)

    def synthesis(
        self,
        w: Float[Tensor, "batch numbers"],
        cameras: Cameras | None,
        settings: RenderSettings,
        *,
        patch: Patch | None = None,
        generator: torch.Generator | None = None,
        noise_mode: str | None = None,
    ) -> Rendering:
        """Pictures of styles; cameras make no difference.

        `noise_mode` is "random" (drawn from `generator`), "const" (always the same) or "none"; None
        means random where `settings.jitter` allows chance, else const.
        """
        name = type(self).__name__
        if settings.resolution != self.resolution:
            raise ValueError(
                f"{name} makes pictures of {self.resolution} pixels, got settings.resolution ="
                f" {settings.resolution}"
            )
        if patch is not None:
            raise ValueError(f"{name} makes whole pictures: patch must be None")
        if w.shape[1:] != self.w_avg.shape:
            raise ValueError(
                f"{name} needs styles of shape (batch, {len(self.w_avg)}), got {tuple(w.shape)}"
            )
        if noise_mode is None:
            noise_mode = "random" if settings.jitter else "const"
        image = self.network(w, self.noise(noise_mode, len(w), generator))
        return Rendering(image.to(w.dtype))

    def noise(
        self, mode: str, batch: int, generator: torch.Generator | None = None
    ) -> Noise | None:
        """Pictures of noise in one of NOISE_MODES."""
        if mode not in NOISE_MODES:
            raise ValueError(f"unknown noise_mode {mode!r}{nearest(mode, NOISE_MODES)}")
        if mode == "none":
            return None
        if mode == "const":
            count = len(self.network.noise_sizes)
            return [getattr(self, f"noise_const_{i}") for i in range(count)]
        return self.draw_noise(batch, generator)

    def draw_noise(
        self, batch: int, generator: torch.Generator | None = None
    ) -> list[Float[Tensor, "batch 1 size size"]]:
        """Fresh pictures of noise for every convolution, drawn on the generator's device."""
        like = self.network.to_image.weight
        device = like.device if generator is None else generator.device
        sizes = self.network.noise_sizes
        draws = [torch.randn(batch, 1, n, n, generator=generator, device=device) for n in sizes]
        return [noise.to(like) for noise in draws]


@GENERATORS.register("FastGANLite")
class FastGANLite(FastGAN):
    """One convolution per block and no noise: for small data sets."""

    lite = True

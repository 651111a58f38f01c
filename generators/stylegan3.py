"""StyleGAN3 (Karras et al. 2021): a translation (T) or rotation (R) equivariant synthesis network.

The picture starts as random waves in the plane (`FourierInput`), which a style turns and shifts,
and passes through layers that only ever see and make band-limited signals (`layer_schedule`). There
is no noise: moving the waves moves the picture, margins of the canvas supply what comes into view.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from generators.base import GENERATORS
from generators.style import StyleGenerator
from generators.stylegan3_schedule import Bandwidth, LayerPlan, layer_schedule
from ops.blocks import half_dtype
from ops.linear import EqualizedLinear
from ops.modulated import alias_free_modulated_conv2d
from ops.registry import nearest
from ops.resample import filtered_lrelu
from ops.shapes import Float
from rendering.cameras import Cameras, Patch
from rendering.renderer import Rendering
from rendering.settings import RenderSettings

# what the two published configurations differ in
CONFIGS = {
    "T": {"conv_kernel": 3, "use_radial_filters": False, "widening": 1},
    "R": {"conv_kernel": 1, "use_radial_filters": True, "widening": 2},
}


# pixels per side of a canvas, and per width of the picture in its middle -> maps (batch, ...)
CanvasMaps = Callable[[int, float], Tensor]


class FourierInput(nn.Module):
    """Waves with random frequencies in a disc, turned and shifted by a style (section 3.2)."""

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, signal: Bandwidth, *, w_dim: int) -> None:
        super().__init__()
        self.signal = signal
        channels = signal.channels
        freqs = torch.randn(channels, 2)
        radii = freqs.norm(dim=1, keepdim=True)
        # maps the radius of a normal vector to that of a nearly uniform point in the disc
        freqs = freqs / (radii * radii.square().exp().pow(0.25)) * signal.cutoff
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = EqualizedLinear(w_dim, 4, weight_std=0, bias_init=(1, 0, 0, 0))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.register_buffer("transform", torch.eye(3))

    def forward(
        self, w: Float[Tensor, "batch w_dim"], transform: Float[Tensor, "3 3"] | None = None
    ) -> Float[Tensor, "batch channels size size"]:
        """The waves on the first canvas; `transform` is the inverse of the picture's motion."""
        size, rate, cutoff = self.signal.size, self.signal.rate, self.signal.cutoff
        transform = self.transform if transform is None else transform.to(self.transform)
        matrix = self._motion(w) @ transform
        freqs = self.freqs @ matrix[:, :2, :2]
        phases = self.phases + (self.freqs @ matrix[:, :2, 2:]).squeeze(2)
        # enlarging may push a wave out of the band: fade it before it aliases
        excess = (freqs.norm(dim=2) - cutoff) / (rate / 2 - cutoff)
        amplitudes = (1 - excess).clamp(0, 1)
        x = (torch.arange(size, device=w.device, dtype=w.dtype) + 0.5 - size / 2) / rate
        across = freqs[:, None, None, :, 0] * x[:, None]
        down = freqs[:, None, None, :, 1] * x[:, None, None]
        waves = torch.sin(2 * math.pi * (across + down + phases[:, None, None]))
        waves = waves * amplitudes[:, None, None]
        mixed = waves @ (self.weight / math.sqrt(self.signal.channels)).t()
        return mixed.permute(0, 3, 1, 2)

    def _motion(self, w: Tensor) -> Float[Tensor, "batch 3 3"]:
        """The style's rotation and translation: (cos, sin, x, y) over the first two's length."""
        t = self.affine(w)
        cos, sin, x, y = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1)
        translation = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1)
        return rotation.unflatten(1, (3, 3)) @ translation.unflatten(1, (3, 3))


class AliasFreeLayer(nn.Module):
    """Modulated convolution, then bias and leaky ReLU between two low-pass filters."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self,
        plan: LayerPlan,
        *,
        w_dim: int,
        conv_clamp: float | None,
        magnitude_ema_beta: float,
        map_channels: int = 0,  # of maps that join the features
    ) -> None:
        super().__init__()
        self.plan, self.conv_clamp, self.magnitude_ema_beta = plan, conv_clamp, magnitude_ema_beta
        channels, k = plan.before.channels + map_channels, plan.kernel_size
        self.affine = EqualizedLinear(w_dim, channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(plan.after.channels, channels, k, k))
        self.bias = nn.Parameter(torch.zeros(plan.after.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.register_buffer("up_filter", plan.up_filter(), persistent=False)
        self.register_buffer("down_filter", plan.down_filter(), persistent=False)

    def forward(
        self,
        x: Float[Tensor, "batch in height width"],
        w: Float[Tensor, "batch w_dim"],
        *,
        dtype: torch.dtype,
        track: bool = False,
    ) -> Float[Tensor, "batch out out_height out_width"]:
        """Features in `dtype`; `track` moves the average magnitude of the input first."""
        plan = self.plan
        if track:
            with torch.no_grad():
                power = x.to(self.magnitude_ema.dtype).square().mean()
                self.magnitude_ema.lerp_(power, 1 - self.magnitude_ema_beta)
        styles = self.affine(w)
        if plan.is_torgb:
            styles = styles / math.sqrt(self.weight[0].numel())
        x = alias_free_modulated_conv2d(
            x.to(dtype),
            self.weight,
            styles,
            padding=plan.kernel_size - 1,
            demodulate=not plan.is_torgb,
            input_gain=self.magnitude_ema.rsqrt(),
            fused=False if self.training else None,
        )
        low, high = plan.padding
        return filtered_lrelu(
            x,
            self.up_filter,
            self.down_filter,
            self.bias.to(dtype),
            up=plan.up,
            down=plan.down,
            padding=(low, high, low, high),
            gain=1.0 if plan.is_torgb else math.sqrt(2),
            slope=1.0 if plan.is_torgb else 0.2,
            clamp=self.conv_clamp,
        )


class AliasFreeNetwork(nn.Module):
    """Styles to pictures: Fourier input and layers."""

    def __init__(
        self,
        plans: Sequence[LayerPlan],
        *,
        w_dim: int,
        output_scale: float,
        conv_clamp: float | None,
        magnitude_ema_beta: float,
        map_channels: int = 0,  # of maps that join the features before every layer
    ) -> None:
        super().__init__()
        self.output_scale = output_scale
        self.input = FourierInput(plans[0].before, w_dim=w_dim)
        self.layers = nn.ModuleList(
            AliasFreeLayer(
                plan,
                w_dim=w_dim,
                conv_clamp=conv_clamp,
                magnitude_ema_beta=magnitude_ema_beta,
                map_channels=map_channels,
            )
            for plan in plans
        )

    @property
    def num_ws(self) -> int:
        """Style slots: the input's and one per layer."""
        return len(self.layers) + 1

    def forward(
        self,
        w: Float[Tensor, "batch slots w_dim"],
        transform: Float[Tensor, "3 3"] | None = None,
        *,
        force_fp32: bool = False,
        track: bool = False,
        maps: CanvasMaps | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Pictures, nominally in [-1, 1]."""
        half = half_dtype(w, force_fp32=force_fp32)  # before autocast ends: it may choose
        with torch.autocast(w.device.type, enabled=False):
            w = w.to(self.input.weight.dtype)
            x = self.input(w[:, 0], transform)
            for slot, layer in enumerate(self.layers, start=1):
                assert isinstance(layer, AliasFreeLayer)
                dtype = half if layer.plan.is_half else w.dtype
                if maps is not None:
                    x = torch.cat([x, maps(x.shape[-1], layer.plan.before.rate).to(x)], dim=1)
                x = layer(x, w[:, slot], dtype=dtype, track=track)
            return x.to(w.dtype) * self.output_scale


@GENERATORS.register("StyleGAN3")
class StyleGAN3(StyleGenerator):
    """Mapping network and alias-free synthesis network, in configuration T or R."""

    map_channels = 0  # of what `maps` gives; a hook for networks that know the camera

    def __init__(
        self,
        *,
        resolution: int = 256,  # pixels per side, a power of two
        config: str = "T",  # T: equivariant to translation; R: to rotation too
        latent_dim: int = 512,  # numbers in z
        label_dim: int = 0,  # classes, or numbers in a label vector; 0: unconditional
        w_dim: int = 512,  # numbers in one style
        img_channels: int = 3,
        channel_base: int | None = None,  # channels x twice the cutoff; None: 32768, R 65536
        channel_max: int | None = None,  # upper bound of channels; None: 512, R 1024
        conv_kernel: int | None = None,  # pixels; None: 3, R 1
        use_radial_filters: bool | None = None,  # isotropic downsampling; None: R only
        mapping_layers: int = 2,
        mapping_lr_multiplier: float = 0.01,
        num_layers: int = 14,  # besides toRGB
        num_critical: int = 2,  # last layers whose cutoff is half the sampling rate
        first_cutoff: float = 2.0,  # cycles per picture width at the input
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,  # last stop band, in cutoffs
        margin_size: int = 10,  # pixels around the picture
        filter_size: int = 6,  # taps per pixel of the lower rate
        lrelu_upsampling: int = 2,  # rate of the nonlinearity, in rates of its layer
        output_scale: float = 0.25,
        num_fp16_res: int = 4,  # how many doublings of the finest rate run in 16 bits on CUDA
        conv_clamp: float | None = 256.0,  # bound of activations; None: none
        magnitude_ema_beta: float = 0.999,  # what a batch leaves of the average magnitudes
    ) -> None:
        if config not in CONFIGS:
            raise ValueError(f"unknown config {config!r}{nearest(config, CONFIGS)}")
        preset = CONFIGS[config]
        if use_radial_filters is None:
            use_radial_filters = bool(preset["use_radial_filters"])
        plans = layer_schedule(
            resolution,
            img_channels=img_channels,
            channel_base=channel_base or 32768 * preset["widening"],
            channel_max=channel_max or 512 * preset["widening"],
            num_layers=num_layers,
            num_critical=num_critical,
            first_cutoff=first_cutoff,
            first_stopband=first_stopband,
            last_stopband_rel=last_stopband_rel,
            margin_size=margin_size,
            num_fp16_res=num_fp16_res,
            conv_kernel=conv_kernel or preset["conv_kernel"],
            filter_size=filter_size,
            lrelu_upsampling=lrelu_upsampling,
            use_radial_filters=use_radial_filters,
        )
        super().__init__(
            latent_dim=latent_dim,
            label_dim=label_dim,
            w_dim=w_dim,
            num_ws=len(plans) + 1,
            mapping_layers=mapping_layers,
            mapping_lr_multiplier=mapping_lr_multiplier,
        )
        self.resolution = resolution
        self.synthesis_network = AliasFreeNetwork(
            plans,
            w_dim=w_dim,
            output_scale=output_scale,
            conv_clamp=conv_clamp,
            magnitude_ema_beta=magnitude_ema_beta,
            map_channels=self.map_channels,
        )

    def synthesis(
        self,
        w: Float[Tensor, "batch slots w_dim"],
        cameras: Cameras | None,
        settings: RenderSettings,
        *,
        patch: Patch | None = None,
        generator: torch.Generator | None = None,
        transform: Float[Tensor, "3 3"] | None = None,
        force_fp32: bool = False,
    ) -> Rendering:
        """Pictures of styles; neither cameras nor chance make a difference.

        `transform` (see `input_transform`) moves the picture; None: as the weights say, which is
        not at all.
        """
        self.check_request(w, settings, patch)
        image = self.synthesis_network(
            w, transform, force_fp32=force_fp32, track=self.is_tracking, maps=self.maps(cameras)
        )
        return Rendering(image)

    def maps(self, cameras: Cameras | None) -> CanvasMaps | None:
        """Maps of any canvas that join the features before every layer."""
        return None


def input_transform(
    translate: tuple[float, float] = (0.0, 0.0), rotate: float = 0.0
) -> Float[Tensor, "3 3"]:
    """What moves a picture by `translate` (x, y) widths and turns it by `rotate` degrees."""
    angle = math.radians(rotate)
    cos, sin, (x, y) = math.cos(angle), math.sin(angle), translate
    motion = torch.tensor([[cos, sin, x], [-sin, cos, y], [0, 0, 1]], dtype=torch.float64)
    return torch.linalg.inv(motion).float()

"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with limited data").

Every picture that the discriminator sees is geometrically, chromatically and otherwise changed,
each transformation applied with probability `p` times its strength; gradients of any order flow
through. `training.adaptive` keeps p where the discriminator starts to overfit.

Geometry is accumulated as one matrix per picture that takes output pixels to input pixels, colour
as one 4x4 matrix. Random numbers come from a `Draws`, small ones on its generator's device: a CPU
generator saves the pipeline from waiting for the GPU to learn how much margin it needs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.grid_sample import grid_sample
from ops.registry import nearest
from ops.resample import downsample2d, setup_filter, upsample2d
from ops.shapes import Float
from training.draws import Draws

# low-pass of the symlet with 6 vanishing moments (Daubechies 1992, table 6.3), first tap first
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # share of the bands in natural pictures

_BLIT = ("xflip", "rotate90", "xint")
_GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
_COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
PRESETS = {
    "blit": _BLIT,
    "geom": _GEOMETRY,
    "color": _COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": _BLIT + _GEOMETRY,
    "bgc": _BLIT + _GEOMETRY + _COLOR,
    "bgcf": (*_BLIT, *_GEOMETRY, *_COLOR, "imgfilter"),
    "bgcfn": (*_BLIT, *_GEOMETRY, *_COLOR, "imgfilter", "noise"),
    "bgcfnc": (*_BLIT, *_GEOMETRY, *_COLOR, "imgfilter", "noise", "cutout"),
}
TRANSFORMATIONS = PRESETS["bgcfnc"]


@dataclass(frozen=True)
class Extents:
    """How far each transformation goes at most, or its standard deviation."""

    xint_max: float = 0.125  # of the width
    scale_std: float = 0.2  # of log2
    rotate_max: float = 1.0  # of a half turn
    aniso_std: float = 0.2  # of log2
    xfrac_std: float = 0.125  # of the width
    brightness_std: float = 0.2
    contrast_std: float = 0.5  # of log2
    hue_max: float = 1.0  # of a half turn
    saturation_std: float = 1.0  # of log2
    imgfilter_bands: Sequence[float] = (1, 1, 1, 1)  # strength per frequency band, low to high
    imgfilter_std: float = 1.0  # of log2
    noise_std: float = 0.1
    cutout_size: float = 0.5  # of the width


class AugmentPipe(nn.Module):
    """Transformations in a fixed order; those without a strength are off.

    `p`, the probability that strengths multiply, may be changed at any time.
    """

    geometry_filter: Tensor
    filter_bank: Tensor

    def __init__(self, strengths: Mapping[str, float], extents: Extents | None = None) -> None:
        super().__init__()
        for name, value in strengths.items():
            if name not in TRANSFORMATIONS:
                near = nearest(name, TRANSFORMATIONS)
                raise ValueError(f"unknown augmentation {name!r}{near}")
            if value < 0:
                raise ValueError(f"the strength of {name} must not be negative, got {value}")
        self.p = 1.0
        self.strengths = {name: value for name, value in strengths.items() if value > 0}
        self.extents = Extents() if extents is None else extents
        if len(self.extents.imgfilter_bands) != len(BAND_POWER):
            raise ValueError(f"imgfilter_bands must have {len(BAND_POWER)} entries")
        self.register_buffer("geometry_filter", setup_filter(SYM6), persistent=False)
        self.register_buffer("filter_bank", wavelet_bank(), persistent=False)

    @classmethod
    def preset(cls, name: str) -> "AugmentPipe":
        """The pipeline of a named group of transformations, each at strength 1."""
        if name not in PRESETS:
            raise ValueError(f"unknown augmentation preset {name!r}{nearest(name, PRESETS)}")
        return cls(dict.fromkeys(PRESETS[name], 1.0))

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        draws: Draws | torch.Generator | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Changed pictures of the same size and range; chance comes from a torch.Generator."""
        draws = draws if isinstance(draws, Draws) else Draws(draws)
        geometry = self._geometry(images, draws)
        if geometry is not None:
            images = self._warp(images, geometry)
        color = self._color(images, draws)
        if color is not None:
            images = _recolor(images, color.to(images))
        if "imgfilter" in self.strengths:
            images = self._amplify_bands(images, draws)
        if "noise" in self.strengths:
            sigma = draws.half_normal(len(images), 1, 1, 1) * self.extents.noise_std
            sigma = self._gated(draws, sigma, 0, "noise")
            images = images + (draws.picture(*images.shape) * sigma).to(images)
        if "cutout" in self.strengths:
            images = images * self._cutout(images, draws).to(images)
        return images

    def _gated(self, draws: Draws, value: Tensor, identity: float, name: str) -> Tensor:
        return draws.gated(value, identity, self.strengths[name] * self.p)

    def _geometry(self, images: Tensor, draws: Draws) -> Float[Tensor, "batch 3 3"] | None:
        """Output to input pixels, both centred on the picture, of all geometric changes."""
        steps = (
            ("xflip", self._mirroring),
            ("rotate90", self._quarter_turn),
            ("xint", self._whole_shift),
            ("scale", self._enlargement),
            ("rotate", self._turn),
            ("aniso", self._stretching),
            ("rotate", self._second_turn),
            ("xfrac", self._shift),
        )
        batch, _, height, width = images.shape
        size = torch.tensor([width, height], device=draws.device)
        matrix = None
        for name, step in steps:
            if name in self.strengths:
                change = step(draws, batch, size)
                matrix = change if matrix is None else matrix @ change
        return matrix

    def _mirroring(self, draws: Draws, batch: int, size: Tensor) -> Tensor:
        i = self._gated(draws, (draws.uniform(batch) * 2).floor(), 0, "xflip")
        return _scaling(1 - 2 * i, torch.ones_like(i))

    def _quarter_turn(self, draws: Draws, batch: int, size: Tensor) -> Tensor:
        i = self._gated(draws, (draws.uniform(batch) * 4).floor(), 0, "rotate90")
        return _rotation(math.pi / 2 * i)

    def _whole_shift(self, draws: Draws, batch: int, size: Tensor) -> Tensor:
        t = (draws.uniform(batch, 2) * 2 - 1) * self.extents.xint_max
        return _translation(-(self._gated(draws, t, 0, "xint") * size).round())

    def _enlargement(self, draws: Draws, batch: int, size: Tensor) -> Tensor:
        s = torch.exp2(draws.normal(batch) * self.extents.scale_std)
        s = self._gated(draws, s, 1, "scale")
        return _scaling(1 / s, 1 / s)

    def _turn(self, draws: Draws, batch: int, size: Tensor) -> Tensor:
        """One of two rotations, which together happen with the probability of `rotate`."""
        both = min(self.strengths["rotate"] * self.p, 1)
        angle = (draws.uniform(batch) * 2 - 1) * math.pi * self.extents.rotate_max
        return _rotation(draws.gated(angle, 0, 1 - math.sqrt(1 - both)))

    def _stretching(self, draws: Draws, batch: int, size: Tensor) -> Tensor:
        s = torch.exp2(draws.normal(batch) * self.extents.aniso_std)
        s = self._gated(draws, s, 1, "aniso")
        return _scaling(1 / s, s)

    def _second_turn(self, draws: Draws, batch: int, size: Tensor) -> Tensor:
        if draws.deterministic:  # a quantile turns once
            return torch.eye(3, device=draws.device)
        return self._turn(draws, batch, size)

    def _shift(self, draws: Draws, batch: int, size: Tensor) -> Tensor:
        t = draws.normal(batch, 2) * self.extents.xfrac_std
        return _translation(-self._gated(draws, t, 0, "xfrac") * size)

    def _warp(self, images: Tensor, matrix: Float[Tensor, "batch 3 3"]) -> Tensor:
        """Sample at twice the resolution, behind a margin that mirrors the picture."""
        height, width = images.shape[2:]
        pad = self.geometry_filter.numel() // 4  # pixels that the filter reaches
        x0, x1, y0, y1 = _margins(matrix, width, height, 2 * pad)
        images = F.pad(images, [x0, x1, y0, y1], mode="reflect")
        shift = torch.tensor([(x0 - x1) / 2, (y0 - y1) / 2], device=matrix.device)
        matrix = _translation(shift[None]) @ matrix
        images = upsample2d(images, self.geometry_filter)
        middle = torch.full((1, 2), 0.5, device=matrix.device)  # from pixel centres to corners
        matrix = _translation(-middle) @ _scaled(matrix, 2, 2, 2, 2) @ _translation(middle)
        out_height, out_width = 2 * (height + 2 * pad), 2 * (width + 2 * pad)
        in_height, in_width = images.shape[2:]
        matrix = _scaled(matrix, 2 / in_width, 2 / in_height, 2 / out_width, 2 / out_height)
        shape = [*images.shape[:2], out_height, out_width]
        grid = F.affine_grid(matrix[:, :2].to(images), shape, align_corners=False)
        images = grid_sample(images, grid)
        return downsample2d(images, self.geometry_filter, padding=-2 * pad, flip_filter=True)

    def _color(self, images: Tensor, draws: Draws) -> Float[Tensor, "batch 4 4"] | None:
        """Old to new homogeneous colours of all chromatic changes."""
        steps = {
            "brightness": self._brightening,
            "contrast": self._contrast,
            "lumaflip": self._luma_inversion,
            "hue": self._hue_turn,
            "saturation": self._saturation,
        }
        batch, channels = images.shape[:2]
        if channels == 1:
            del steps["hue"], steps["saturation"]
        matrix = None
        for name, step in steps.items():
            if name in self.strengths:
                change = step(draws, batch)
                matrix = change if matrix is None else change @ matrix
        if matrix is not None and channels not in (1, 3):
            raise ValueError(f"colours can be changed of 1 or 3 channels, got {channels}")
        return matrix

    def _brightening(self, draws: Draws, batch: int) -> Tensor:
        b = draws.normal(batch) * self.extents.brightness_std
        matrix = torch.eye(4, device=draws.device).repeat(batch, 1, 1)
        matrix[:, :3, 3] = self._gated(draws, b, 0, "brightness")[:, None]
        return matrix

    def _contrast(self, draws: Draws, batch: int) -> Tensor:
        c = torch.exp2(draws.normal(batch) * self.extents.contrast_std)
        c = self._gated(draws, c, 1, "contrast")
        return torch.stack([c, c, c, torch.ones_like(c)], 1).diag_embed()

    def _luma_inversion(self, draws: Draws, batch: int) -> Tensor:
        i = self._gated(draws, (draws.uniform(batch, 1, 1) * 2).floor(), 0, "lumaflip")
        eye, onto_grey = _grey_projection(draws.device)
        return eye - 2 * onto_grey * i

    def _hue_turn(self, draws: Draws, batch: int) -> Tensor:
        angle = (draws.uniform(batch) * 2 - 1) * math.pi * self.extents.hue_max
        return _turn_about_grey(self._gated(draws, angle, 0, "hue"))

    def _saturation(self, draws: Draws, batch: int) -> Tensor:
        s = torch.exp2(draws.normal(batch, 1, 1) * self.extents.saturation_std)
        eye, onto_grey = _grey_projection(draws.device)
        return onto_grey + (eye - onto_grey) * self._gated(draws, s, 1, "saturation")

    def _amplify_bands(self, images: Tensor, draws: Draws) -> Tensor:
        """Filter each picture with a mix of four frequency bands, at constant expected power."""
        batch, channels, height, width = images.shape
        taps = self.filter_bank.shape[1]
        if min(height, width) <= taps // 2:
            raise ValueError(f"imgfilter needs pictures of more than {taps // 2} pixels")
        power = torch.tensor(BAND_POWER, device=draws.device)
        gains = torch.ones(batch, len(BAND_POWER), device=draws.device)
        for i, strength in enumerate(self.extents.imgfilter_bands):
            t = torch.exp2(draws.normal(batch) * self.extents.imgfilter_std)
            t = draws.gated(t, 1, self.strengths["imgfilter"] * self.p * strength)
            band = torch.ones_like(gains)
            band[:, i] = t
            gains = gains * band / (power * band.square()).sum(1, keepdim=True).sqrt()
        kernels = gains.to(images) @ self.filter_bank.to(images)
        kernels = kernels.repeat_interleave(channels, 0)[:, None]
        x = F.pad(images.reshape(1, -1, height, width), [taps // 2] * 4, mode="reflect")
        x = F.conv2d(x, kernels[:, :, None, :], groups=batch * channels)
        x = F.conv2d(x, kernels[:, :, :, None], groups=batch * channels)
        return x.reshape(images.shape)

    def _cutout(self, images: Tensor, draws: Draws) -> Float[Tensor, "batch 1 height width"]:
        """0 inside a rectangle, 1 elsewhere."""
        batch, _, height, width = images.shape
        size = torch.full((batch, 1, 1), self.extents.cutout_size, device=draws.device)
        size = self._gated(draws, size, 0, "cutout")
        center = draws.uniform(batch, 2, 1, 1)
        x = (torch.arange(width, device=draws.device) + 0.5) / width
        y = (torch.arange(height, device=draws.device)[:, None] + 0.5) / height
        outside = ((x - center[:, 0]).abs() >= size / 2) | ((y - center[:, 1]).abs() >= size / 2)
        return outside[:, None].float()


def wavelet_bank() -> Float[Tensor, "4 43"]:
    """Four band-pass filters that sum to the identity, lowest band first.

    Iterated filter bank of the wavelet with 2 vanishing moments (Karras et al. 2020, appendix D).
    """
    root = math.sqrt(3)
    low = torch.tensor([1 - root, 3 - root, 3 + root, 1 + root], dtype=torch.float64)
    low = low / (4 * math.sqrt(2))
    high = low * torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)
    low2, high2 = (_convolve(f[None], f.flip(0))[0] / 2 for f in (low, high))
    bank = torch.eye(4, 1, dtype=torch.float64)
    for i in range(1, 4):
        spread = bank.new_zeros(4, 2 * bank.shape[1] - 1)
        spread[:, ::2] = bank
        bank = _convolve(spread, low2)
        start = (bank.shape[1] - len(high2)) // 2
        bank[i, start : start + len(high2)] += high2
    return bank.float()


def _convolve(rows: Tensor, f: Tensor) -> Tensor:
    """Full convolution of each row with a filter."""
    return F.conv1d(rows[:, None], f.flip(0)[None, None], padding=len(f) - 1)[:, 0]


def _margins(matrix: Tensor, width: int, height: int, reach: int) -> list[int]:
    """How far beyond the picture a batch looks: left, right, top, bottom, in whole pixels."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    corners = [[-cx, -cy, 1], [cx, -cy, 1], [cx, cy, 1], [-cx, cy, 1]]
    seen = matrix @ torch.tensor(corners, device=matrix.device).t()
    x, y = seen[:, 0], seen[:, 1]
    far = torch.stack([-x.min(), x.max(), -y.min(), y.max()])
    beyond = far + reach - torch.tensor([cx, cx, cy, cy], device=matrix.device)
    limits = (width - 1, width - 1, height - 1, height - 1)  # a picture can be mirrored once
    return [
        math.ceil(min(max(b, 0), limit)) for b, limit in zip(beyond.tolist(), limits, strict=True)
    ]


def _recolor(images: Tensor, matrix: Float[Tensor, "batch 4 4"]) -> Tensor:
    if images.shape[1] == 3:
        flat = torch.baddbmm(matrix[:, :3, 3:], matrix[:, :3, :3], images.flatten(2))
        return flat.reshape(images.shape)
    matrix = matrix[:, :3].mean(1)[:, :, None, None, None]
    return images * matrix[:, :3].sum(1) + matrix[:, 3]


def _scaling(x: Tensor, y: Tensor) -> Float[Tensor, "batch 3 3"]:
    return torch.stack([x, y, torch.ones_like(x)], 1).diag_embed()


def _scaled(matrix: Tensor, x: float, y: float, by_x: float, by_y: float) -> Tensor:
    """scale(x, y) @ matrix @ scale(1 / by_x, 1 / by_y)."""
    left = matrix.new_tensor([x, y, 1]).diag()
    return left @ matrix @ matrix.new_tensor([1 / by_x, 1 / by_y, 1]).diag()


def _translation(t: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 3 3"]:
    matrix = torch.eye(3, device=t.device).repeat(len(t), 1, 1)
    matrix[:, :2, 2] = t
    return matrix


def _rotation(angle: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3 3"]:
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    one = torch.ones_like(angle)
    rows = [cos, -sin, zero, sin, cos, zero, zero, zero, one]
    return torch.stack(rows, 1).unflatten(1, (3, 3))


def _grey_projection(device: torch.device) -> tuple[Tensor, Tensor]:
    """The identity, and the projection of homogeneous colours onto the grey axis."""
    grey = torch.tensor([1.0, 1, 1, 0], device=device) / math.sqrt(3)
    return torch.eye(4, device=device), torch.outer(grey, grey)


def _turn_about_grey(angle: Float[Tensor, " batch"]) -> Float[Tensor, "batch 4 4"]:
    """Turn colours about the grey axis (Rodrigues)."""
    v = 1 / math.sqrt(3)
    cross = angle.new_tensor([[0, -v, v], [v, 0, -v], [-v, v, 0]])
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    matrix = torch.eye(4, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, :3, :3] = torch.eye(3, device=angle.device) * cos + sin * cross + (1 - cos) / 3
    return matrix

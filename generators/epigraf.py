"""EpiGRAF (Skorokhodov et al. 2022): a convolutional network paints three planes of a scene.

Mapping network, plane painter at a resolution of its own, decoder, and a background where the cube
ends. Colours are rendered directly, at any resolution and in any window of the image.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from generators.base import GENERATORS, RadianceGenerator
from generators.inverted_sphere import SphereNetwork
from generators.style import StyleGenerator
from generators.stylegan2 import SynthesisNetwork
from generators.stylegan3 import CONFIGS, AliasFreeNetwork
from generators.stylegan3_schedule import layer_schedule
from generators.triplane import TriPlaneDecoder, TriPlaneField
from ops.encoding import PoseEncoder
from ops.mapping import label_vectors
from ops.registry import nearest
from ops.shapes import Float
from rendering.background import PlaneBackground, SphereBackground
from rendering.cameras import Cameras
from rendering.field import Background
from rendering.settings import RenderSettings

BACKGROUNDS = ("none", "plane", "sphere")
BACKBONES = ("stylegan2", "stylegan3-r", "raw_planes")
PICTURE_CHANNELS = 3  # of the "plane" background, the painter's last


class RawPlanes(nn.Module):
    """Planes that are parameters themselves, the same for every style; for tests."""

    num_ws = 1

    def __init__(self, channels: int, resolution: int) -> None:
        super().__init__()
        self.planes = nn.Parameter(torch.randn(channels, resolution, resolution))

    def forward(
        self, w: Float[Tensor, "batch slots w_dim"]
    ) -> Float[Tensor, "batch channels size size"]:
        """The planes, once per style."""
        return self.planes.expand(len(w), -1, -1, -1)


@GENERATORS.register("EpiGRAF")
class EpiGRAF(StyleGenerator, RadianceGenerator):
    """Styles have a slot per layer of the painter, then of the sphere background's network."""

    bounds_radiance = False
    truncates_by_class = True
    mean_pose: Tensor

    def __init__(
        self,
        *,
        latent_dim: int = 512,  # numbers in z
        label_dim: int = 0,  # classes, or numbers in a label vector; 0: unconditional
        w_dim: int = 512,  # numbers in one style
        mapping_layers: int = 2,
        mapping_lr_multiplier: float = 0.01,
        backbone: str = "stylegan2",  # what paints the planes: one of BACKBONES
        plane_resolution: int = 512,  # texels per side, a power of two
        feature_dim: int = 32,  # features per plane
        channel_base: int = 32768,  # channels of the painter at a resolution: this / resolution..
        channel_max: int = 512,  # ..but at most so many; both doubled for stylegan3-r
        use_noise: bool = True,  # whether the painter's layers have noise inputs (stylegan2)
        num_fp16_res: int = 0,  # how many of its finest resolutions run in 16 bits on CUDA
        conv_clamp: float | None = 256.0,  # bound of its activations; None: none
        cube_scale: float = 0.2,  # half the side of the cube that the planes span
        decoder_layers: int = 2,
        decoder_width: int = 64,
        view_direction: bool = False,  # whether colours depend on where they are seen from
        coordinate_periods: float = 0.0,  # waves of the points for the decoder; 0: none
        density_gain: float = 1.0,  # raw density's factor
        density_shift: float = 0.0,  # added to raw density
        bound_radius: float = 0.0,  # beyond it nothing is; 0: unbounded. For scenes on white
        axes: str = "exact",  # projection on the planes; "eg3d": with its third plane's mistake
        background: str = "none",  # where the cube ends: one of BACKGROUNDS
        background_size: int | None = None,  # pixels that "plane" is brought to first; None: as is
        background_blocks: int = 2,  # of the "sphere" network
        background_channel_base: int = 32768,
        background_channel_max: int = 128,
        background_periods: float = 64.0,  # waves of its points
        background_modulation: str = "styles",  # one of inverted_sphere.MODULATIONS
        background_rank: int = 3,  # of the low-rank modulations
        background_steps: int = 8,  # samples per ray
        background_start: float = 1.0,  # disparity of the first
        pose_conditioning: bool = False,  # whether styles know the camera (EG3D, section 4.3)
        pose_drop_p: float = 0.0,  # share of the condition's numbers dropped in training
        pose_noise_std: float = 0.0,  # its noise in training, in the batch's own spread
        mean_pose: tuple[float, float] = (0.0, torch.pi / 2),  # yaw, pitch where none is given
    ) -> None:
        for name, value, known in (
            ("background", background, BACKGROUNDS),
            ("backbone", backbone, BACKBONES),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}{nearest(value, known)}")
        painter = build_painter(
            backbone,
            channels=3 * feature_dim + (PICTURE_CHANNELS if background == "plane" else 0),
            resolution=plane_resolution,
            w_dim=w_dim,
            channel_base=channel_base,
            channel_max=channel_max,
            use_noise=use_noise,
            num_fp16_res=num_fp16_res,
            conv_clamp=conv_clamp,
        )
        sphere = None
        if background == "sphere":
            sphere = SphereNetwork(
                w_dim=w_dim,
                num_blocks=background_blocks,
                channel_base=background_channel_base,
                channel_max=background_channel_max,
                periods=background_periods,
                modulation=background_modulation,
                rank=background_rank,
            )
        pose = None
        if pose_conditioning:
            pose = PoseEncoder(
                multiplier=0, use_raw=True, drop_p=pose_drop_p, noise_std=pose_noise_std
            )
        super().__init__(
            latent_dim=latent_dim,
            label_dim=label_dim,
            condition_dim=label_dim + (pose.out_dim if pose else 0),
            w_dim=w_dim,
            num_ws=painter.num_ws + (sphere.num_ws if sphere else 0),
            mapping_layers=mapping_layers,
            mapping_lr_multiplier=mapping_lr_multiplier,
        )
        self.half_side = cube_scale
        self.background, self.background_size = background, background_size
        self.background_steps, self.background_start = background_steps, background_start
        self.use_noise = use_noise
        self.painter, self.sphere, self.pose = painter, sphere, pose
        self.decoder = TriPlaneDecoder(
            feature_dim=feature_dim,
            num_layers=decoder_layers,
            width=decoder_width,
            view_direction=view_direction,
            coordinate_periods=coordinate_periods,
            cube_scale=cube_scale,
            density_gain=density_gain,
            density_shift=density_shift,
            bound_radius=bound_radius,
            axes=axes,
        )
        self.register_buffer("mean_pose", torch.tensor([*mean_pose, 0.0]))

    def condition(self, batch: int, label: Tensor | None, cameras: Cameras | None) -> Tensor | None:
        """Label, then the pose that styles should know; without cameras the mean pose."""
        if self.pose is None:
            return label
        if cameras is None:
            yaw_pitch = self.mean_pose[:2].expand(batch, -1)
        else:
            yaw_pitch = cameras.yaw_pitch.to(self.mean_pose)
        parts = [label_vectors(label, self.label_dim), self.pose(yaw_pitch)]
        return torch.cat([p.to(yaw_pitch) for p in parts if p is not None], dim=1)

    def field(
        self, w: Float[Tensor, "batch slots w_dim"], noise: list[Tensor] | None = None
    ) -> TriPlaneField:
        """The scenes of styles: planes are painted here. `noise` None is the layers' own."""
        planes = self.planes(w, noise)
        background: Background | None = None
        if self.background == "plane":
            planes, picture = planes[:, :-PICTURE_CHANNELS], planes[:, -PICTURE_CHANNELS:]
            background = PlaneBackground(picture, self.background_size)
        elif self.sphere is not None:
            look = bound_to(self.sphere, w[:, self.painter.num_ws :])
            background = SphereBackground(look, self.background_steps, self.background_start)
        return TriPlaneField(planes, self.decoder, background)

    def planes(
        self, w: Float[Tensor, "batch slots w_dim"], noise: list[Tensor] | None = None
    ) -> Float[Tensor, "batch channels size size"]:
        """The painter's picture: features of the planes xy, xz, yz, then the "plane" background."""
        w = w[:, : self.painter.num_ws]
        if isinstance(self.painter, SynthesisNetwork):
            if noise is None and self.use_noise:
                noise = [layer.noise_const for layer in self.painter.layers]
            return self.painter(w, noise)
        if isinstance(self.painter, AliasFreeNetwork):
            return self.painter(w, track=self.is_tracking)
        return self.painter(w)

    def drawn_field(
        self,
        w: Float[Tensor, "batch slots w_dim"],
        settings: RenderSettings,
        generator: torch.Generator | None = None,
    ) -> TriPlaneField:
        """The scenes of styles, with fresh noise where the settings allow chance."""
        noise = None
        if settings.jitter and self.use_noise and isinstance(self.painter, SynthesisNetwork):
            noise = self.painter.draw_noise(len(w), generator)
        return self.field(w, noise)

    def allow_second_derivatives(self) -> None:
        """Sample planes by the way whose gradient has a gradient."""
        self.decoder.twice_differentiable = True

    def to_image(self, radiance: Tensor) -> Tensor:
        """The decoder's colours are in the range of pictures, and beyond: nothing clamps them."""
        return radiance


def build_painter(
    backbone: str,
    *,
    channels: int,
    resolution: int,
    w_dim: int,
    channel_base: int,
    channel_max: int,
    use_noise: bool,
    num_fp16_res: int,
    conv_clamp: float | None,
) -> SynthesisNetwork | AliasFreeNetwork | RawPlanes:
    """The network that makes planes of styles."""
    if backbone == "raw_planes":
        return RawPlanes(channels, resolution)
    if backbone == "stylegan2":
        return SynthesisNetwork(
            w_dim=w_dim,
            resolution=resolution,
            img_channels=channels,
            channel_base=channel_base,
            channel_max=channel_max,
            num_fp16_res=num_fp16_res,
            use_noise=use_noise,
            conv_clamp=conv_clamp,
        )
    preset = CONFIGS["R"]
    plans = layer_schedule(
        resolution,
        img_channels=channels,
        channel_base=channel_base * preset["widening"],
        channel_max=channel_max * preset["widening"],
        num_fp16_res=num_fp16_res,
        conv_kernel=preset["conv_kernel"],
        use_radial_filters=bool(preset["use_radial_filters"]),
    )
    return AliasFreeNetwork(
        plans,
        w_dim=w_dim,
        output_scale=0.25,
        conv_clamp=conv_clamp,
        magnitude_ema_beta=0.999,
    )


def bound_to(
    network: SphereNetwork, w: Float[Tensor, "batch slots w_dim"]
) -> Callable[[Tensor], Tensor]:
    """A network of points and styles as a function of points alone."""
    return lambda points: network(points, w)

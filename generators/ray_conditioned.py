"""Ray conditioning (Chen et al. 2023): a 2D generator that is told the ray of every pixel.

Six numbers per ray, its direction and its moment about the origin (Pluecker coordinates), join the
features before every convolution, computed anew at each resolution. Nothing else knows the camera:
the same style from another camera is meant to be the same person from another side.

`ray_mode` "pinhole" takes rays through the centres of the pixels. "reference" is what the published
code computes and its weights need: it multiplies normalised intrinsics with positions in pixels,
and exchanges rows and columns.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from generators.base import GENERATORS
from generators.style import StyleGenerator
from generators.stylegan2 import Maps, StyleGAN2
from generators.stylegan3 import CanvasMaps, StyleGAN3
from ops.registry import nearest
from ops.shapes import Float
from rendering.camera_labels import labels_from_cameras
from rendering.cameras import Cameras

RAY_MODES = ("pinhole", "reference")
RAY_CHANNELS = 6
MOST_COLOURS = 4  # channels of a picture; a layer with so few outputs makes colours


def ray_map(
    labels: Float[Tensor, "batch 25"],  # cam2world and intrinsics by rows (EG3D's camera labels)
    size: int,
    rate: float | None = None,
    mode: str = "pinhole",
) -> Float[Tensor, "batch 6 size size"]:
    """Direction and moment of the ray of every pixel, in the labels' world.

    `rate` is how many pixels are as wide as the picture, which lies in the middle of a canvas of
    `size` pixels; None: the picture is the canvas. The reference mode does not look at it.
    """
    cam2world, intrinsics = labels[:, :16].reshape(-1, 4, 4), labels[:, 16:].reshape(-1, 3, 3)
    place = torch.arange(size, device=labels.device, dtype=labels.dtype) + 0.5
    if mode == "reference":
        down, across = torch.meshgrid(place, place, indexing="ij")
        position = torch.stack([down, across, torch.ones_like(down)], dim=-1)
        if float(intrinsics.sum()) == 0:  # a label of zeros: the original's stand-in
            intrinsics = torch.eye(3).to(intrinsics).expand_as(intrinsics)
    else:
        place = (place - size / 2) / (size if rate is None else rate) + 0.5
        down, across = torch.meshgrid(place, place, indexing="ij")
        position = torch.stack([across, down, torch.ones_like(down)], dim=-1)
    turn = cam2world[:, :3, :3] @ torch.linalg.inv(intrinsics)
    direction = torch.einsum("bij,hwj->bihw", turn, position)
    direction = torch.nn.functional.normalize(direction, dim=1)
    origin = cam2world[:, :3, 3, None, None].expand_as(direction)
    return torch.cat([direction, torch.cross(origin, direction, dim=1)], dim=1)


def camera_maps(cameras: Cameras | None, mode: str) -> CanvasMaps:
    """Ray maps of cameras on any canvas."""
    if cameras is None:
        raise ValueError("a ray-conditioned generator needs cameras")
    labels = labels_from_cameras(cameras)
    return lambda size, rate: ray_map(labels, size, rate, mode)


def check_ray_mode(mode: str) -> None:
    """Refuse an unknown one."""
    if mode not in RAY_MODES:
        raise ValueError(f"unknown ray_mode {mode!r}{nearest(mode, RAY_MODES)}")


def widened(stock: Tensor, fresh: Tensor, *, reference: bool = False) -> Tensor:
    """A stock network's tensor in the shape of a ray-conditioned one's, `fresh`.

    The weights of the rays begin at zero, so that the network begins as the stock one; `reference`
    leaves them at random, as the original does. Styles of the rays keep their fresh values, and so
    does what has another shape altogether.
    """
    if stock.shape == fresh.shape:
        return stock.clone()
    result, rays = fresh.clone(), RAY_CHANNELS
    if stock.ndim == 4 and stock.shape[1] + rays == fresh.shape[1]:
        result[:, : stock.shape[1]] = stock
        if not reference:
            result[:, stock.shape[1] :] = 0
            if fresh.shape[-1] == 1 and len(fresh) <= MOST_COLOURS:  # toRGB's fan-in gain
                result *= math.sqrt(fresh.shape[1] / stock.shape[1])
    elif len(stock) + rays == len(fresh) and stock.shape[1:] == fresh.shape[1:]:
        result[: len(stock)] = stock
    return result


class RayConditioned(StyleGenerator):
    """What both have: six maps per convolution, and a way to begin as a stock network."""

    map_channels = RAY_CHANNELS
    sees_cameras = True

    def adapted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a stock network of the same sizes, made to fit this one."""
        own = self.state_dict()
        return {n: widened(v, own[n]) if n in own else v for n, v in weights.items()}


@GENERATORS.register("RayConditionedStyleGAN2")
class RayConditionedStyleGAN2(RayConditioned, StyleGAN2):
    """StyleGAN2 with ray maps before every convolution but toRGB's."""

    def __init__(
        self,
        *,
        ray_mode: str = "pinhole",  # one of RAY_MODES
        resolution: int = 256,  # pixels per side, a power of two
        latent_dim: int = 512,  # numbers in z
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
        check_ray_mode(ray_mode)
        super().__init__(
            resolution=resolution,
            latent_dim=latent_dim,
            w_dim=w_dim,
            img_channels=img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            architecture=architecture,
            mapping_layers=mapping_layers,
            mapping_lr_multiplier=mapping_lr_multiplier,
            num_fp16_res=num_fp16_res,
            fp16_channels_last=fp16_channels_last,
            use_noise=use_noise,
            resample_filter=resample_filter,
            conv_clamp=conv_clamp,
        )
        self.ray_mode = ray_mode

    def maps(self, cameras: Cameras | None) -> Maps:
        """Ray maps at the resolutions of the blocks."""
        rays = camera_maps(cameras, self.ray_mode)
        return lambda size: rays(size, size)


@GENERATORS.register("RayConditionedStyleGAN3")
class RayConditionedStyleGAN3(RayConditioned, StyleGAN3):
    """StyleGAN3 with ray maps before every layer; on the margins rays go on past the picture."""

    def __init__(
        self,
        *,
        ray_mode: str = "pinhole",  # one of RAY_MODES
        resolution: int = 256,  # pixels per side, a power of two
        config: str = "T",  # T: equivariant to translation; R: to rotation too
        latent_dim: int = 512,  # numbers in z
        w_dim: int = 512,  # numbers in one style
        img_channels: int = 3,
        channel_base: int | None = None,  # channels x twice the cutoff; None: 32768, R 65536
        channel_max: int | None = None,  # upper bound of channels; None: 512, R 1024
        conv_kernel: int | None = None,  # pixels; None: 3, R 1
        use_radial_filters: bool | None = None,  # isotropic downsampling; None: R only
        mapping_layers: int = 2,
        mapping_lr_multiplier: float = 0.01,
        num_layers: int = 14,  # besides toRGB
        num_fp16_res: int = 4,  # how many doublings of the finest rate run in 16 bits on CUDA
        conv_clamp: float | None = 256.0,  # bound of activations; None: none
        magnitude_ema_beta: float = 0.999,  # what a batch leaves of the average magnitudes
    ) -> None:
        check_ray_mode(ray_mode)
        super().__init__(
            resolution=resolution,
            config=config,
            latent_dim=latent_dim,
            w_dim=w_dim,
            img_channels=img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            conv_kernel=conv_kernel,
            use_radial_filters=use_radial_filters,
            mapping_layers=mapping_layers,
            mapping_lr_multiplier=mapping_lr_multiplier,
            num_layers=num_layers,
            num_fp16_res=num_fp16_res,
            conv_clamp=conv_clamp,
            magnitude_ema_beta=magnitude_ema_beta,
        )
        self.ray_mode = ray_mode

    def maps(self, cameras: Cameras | None) -> CanvasMaps:
        """Ray maps on the canvases of the layers."""
        return camera_maps(cameras, self.ray_mode)

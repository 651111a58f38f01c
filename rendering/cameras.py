"""Cameras on a sphere, the laws they are drawn from, and the rays of their pixels.

World: right-handed, +y up, metres are whatever the field calls 1. A camera looks along its own -z,
+x is right and +y up in the picture. Yaw is measured in the ground plane from +x towards +z, pitch
from +y downwards, so that yaw = pitch = pi/2 is the frontal camera at (0, 0, radius) looking along
-z (pi-GAN, section 3.3). Angles are radians, fields of view degrees, full angle.

Pixels: the outermost rays pass through the image border exactly (x and y run over -1..1 with both
ends included), row-major from the top left.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ops.shapes import Float
from rendering.settings import PoseLaw

PITCH_MARGIN = 1e-5  # at the poles "up" has no meaning: pitch stays this far from 0 and pi


@dataclass(frozen=True)
class Patch:
    """A square window of each image: `scale` of its side, `offset` of its lower left corner.

    Both in units of the image's side, the offset (x, y) with y upwards (EpiGRAF, section 3.2).
    """

    scale: Float[Tensor, " batch"]
    offset: Float[Tensor, "batch 2"]

    @classmethod
    def whole(cls, batch: int, device: torch.device | None = None) -> "Patch":
        """The window that is all of the image."""
        return cls(torch.ones(batch, device=device), torch.zeros(batch, 2, device=device))

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, index: slice) -> "Patch":
        return Patch(self.scale[index], self.offset[index])


def pixel_axes(
    height: int, width: int, patch: Patch | None, like: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch width"], Float[Tensor, "batch height"]]:
    """Where columns and rows of pixels, of the images or of a patch of them, lie in the images.

    x from -1, the left border, to 1; y from 1, the top, to -1. In the type of `like`.
    """
    device, dtype = like.device, like.dtype
    x = torch.linspace(-1, 1, width, device=device, dtype=dtype).expand(len(like), width)
    y = torch.linspace(1, -1, height, device=device, dtype=dtype).expand(len(like), height)
    if patch is not None:
        scale, offset = patch.scale.to(x)[:, None], patch.offset.to(x)
        # so ordered that the window which is all of the image changes no bit
        x = x * scale + (scale - 1 + 2 * offset[:, :1])
        y = y * scale + (scale - 1 + 2 * offset[:, 1:])
    return x, y


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras.

    `angles` remembers the yaw and pitch that a camera was made from, because a matrix loses whole
    turns, and yaw altogether at the poles.
    """

    cam2world: Float[Tensor, "batch 4 4"]
    fov: Float[Tensor, " batch"]
    angles: Float[Tensor, "batch 2"] | None = None

    @classmethod
    def from_angles(
        cls,
        yaw: Tensor | float,
        pitch: Tensor | float,
        fov: Tensor | float,
        radius: Tensor | float = 1.0,
        roll: Tensor | float = 0.0,
    ) -> "Cameras":
        """Cameras on a sphere around the origin, looking at it; arguments broadcast.

        `roll` turns the camera about its viewing axis, counter-clockwise for positive values, so
        that the picture turns clockwise.
        """
        yaw, pitch, fov, radius, roll = _broadcast(yaw, pitch, fov, radius, roll)
        device, dtype = yaw.device, yaw.dtype
        pitch = pitch.clamp(PITCH_MARGIN, math.pi - PITCH_MARGIN)
        outward = torch.stack(
            [pitch.sin() * yaw.cos(), pitch.cos(), pitch.sin() * yaw.sin()], dim=-1
        )
        unit = torch.eye(4, device=device, dtype=dtype)  # made there: copying it would wait
        world_up = unit[1, :3].expand_as(outward)
        right = _normalize(torch.cross(world_up, outward, dim=-1))
        up = _normalize(torch.cross(outward, right, dim=-1))
        cos, sin = roll.cos()[:, None], roll.sin()[:, None]
        right, up = cos * right + sin * up, cos * up - sin * right
        rotation = torch.stack([right, up, outward], dim=-1)
        top = torch.cat([rotation, (radius[:, None] * outward)[..., None]], dim=-1)
        cam2world = torch.cat([top, unit[3].expand(len(yaw), 1, 4)], dim=1)
        return cls(cam2world, fov.clone(), torch.stack([yaw, pitch], dim=-1))

    @classmethod
    def sample(
        cls, law: PoseLaw, batch: int, generator: torch.Generator | None = None
    ) -> "Cameras":
        """Draw `batch` cameras from `law`, on the generator's device."""
        device = generator.device if generator is not None else torch.device("cpu")

        def uniform() -> Tensor:
            return 2 * torch.rand(batch, generator=generator, device=device) - 1

        def normal() -> Tensor:
            return torch.randn(batch, generator=generator, device=device)

        if law.kind == "fixed":
            yaw_unit, pitch_unit = torch.zeros(2, batch, device=device)
        elif law.kind in ("uniform", "spherical_uniform"):
            yaw_unit, pitch_unit = uniform(), uniform()
        elif law.kind == "hybrid":
            coins = 1 if law.batch_coin else batch
            heads = torch.rand(coins, generator=generator, device=device) < 0.5
            yaw_unit = torch.where(heads, 2 * uniform(), normal())
            pitch_unit = torch.where(heads, 2 * uniform(), normal())
        elif law.kind == "truncated_gaussian":
            yaw_unit = _truncated_normal(batch, generator, device)
            pitch_unit = _truncated_normal(batch, generator, device)
        else:
            yaw_unit, pitch_unit = normal(), normal()
        yaw = law.h_mean + law.h_stddev * yaw_unit
        pitch = law.v_mean + law.v_stddev * pitch_unit
        if law.kind == "spherical_uniform":
            area = (pitch / math.pi).clamp(PITCH_MARGIN, 1 - PITCH_MARGIN)
            pitch = torch.arccos(1 - 2 * area)
        return cls.from_angles(yaw, pitch, law.fov, law.radius)

    @property
    def origin(self) -> Float[Tensor, "batch 3"]:
        """Where the cameras stand, in world coordinates."""
        return self.cam2world[:, :3, 3]

    @property
    def yaw_pitch(self) -> Float[Tensor, "batch 2"]:
        """Yaw and pitch in radians, as given, or those of the camera's position."""
        if self.angles is not None:
            return self.angles
        outward = _normalize(self.origin)
        yaw = torch.atan2(outward[:, 2], outward[:, 0])
        return torch.stack([yaw, torch.arccos(outward[:, 1].clamp(-1, 1))], dim=-1)

    def rays(
        self, height: int, width: int, patch: Patch | None = None
    ) -> tuple[Float[Tensor, "batch rays 3"], Float[Tensor, "batch rays 3"]]:
        """Origins and unit directions of the pixels' rays in world space, row-major."""
        x, y = pixel_axes(height, width, patch, self.cam2world[:, 0, 0])
        focal = 1 / torch.tan(torch.deg2rad(self.fov) / 2)
        grid = torch.stack(
            [
                x[:, None, :].expand(-1, height, -1),
                y[:, :, None].expand(-1, -1, width),
                -focal[:, None, None].expand(-1, height, width),
            ],
            dim=-1,
        ).reshape(len(self), height * width, 3)
        directions = _normalize(grid) @ self.cam2world[:, :3, :3].transpose(1, 2)
        return self.origin[:, None].expand_as(directions), directions

    def __len__(self) -> int:
        return len(self.cam2world)

    def __getitem__(self, index: int | slice | Tensor) -> "Cameras":
        """Select cameras; a single index keeps the batch axis."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"camera {index} of a batch of {len(self)}")
            index = slice(index, index + 1 or None)
        angles = None if self.angles is None else self.angles[index]
        return Cameras(self.cam2world[index], self.fov[index], angles)

    def __iter__(self) -> Iterator["Cameras"]:
        return (self[i] for i in range(len(self)))

    def to(self, target: torch.device | torch.dtype | str) -> "Cameras":
        """Move to a device or convert to a dtype."""
        angles = None if self.angles is None else self.angles.to(target)
        return replace(
            self, cam2world=self.cam2world.to(target), fov=self.fov.to(target), angles=angles
        )

    @classmethod
    def cat(cls, batches: "list[Cameras]") -> "Cameras":
        """Join batches of cameras."""
        angles = [b.angles for b in batches if b.angles is not None]
        return cls(
            torch.cat([b.cam2world for b in batches]),
            torch.cat([b.fov for b in batches]),
            torch.cat(angles) if len(angles) == len(batches) else None,
        )


def frustum_reach(fov: float, ray_start: float, ray_end: float, radius: float = 1.0) -> float:
    """How far from the origin samples can lie, whatever the camera's pose.

    They are those of a corner's ray, nearest or farthest. A field in a cube should have at least
    this half side, because poses can turn the point onto a face's normal.
    """
    cos = 1 / math.sqrt(1 + 2 * math.tan(math.radians(fov) / 2) ** 2)
    return max(math.sqrt(radius**2 - 2 * radius * t * cos + t**2) for t in (ray_start, ray_end))


def _broadcast(*values: Tensor | float) -> list[Tensor]:
    """Vectors of one length, device and floating dtype, which arrays decide before scalars."""
    tensors = [v for v in values if isinstance(v, Tensor)]
    tensors.sort(key=lambda v: v.ndim == 0)
    device = tensors[0].device if tensors else None
    floating = [v.dtype for v in tensors if v.is_floating_point()]
    dtype = floating[0] if floating else torch.get_default_dtype()
    vectors = [
        v.to(device, dtype).reshape(-1)
        if isinstance(v, Tensor)
        else torch.full((1,), v, device=device, dtype=dtype)
        for v in values
    ]
    return list(torch.broadcast_tensors(*vectors))


def _normalize(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def _truncated_normal(
    batch: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Standard normal conditioned on (-2, 2): the first of four draws that lies inside."""
    draws = torch.randn(batch, 4, generator=generator, device=device)
    inside = (draws.abs() < 2).to(torch.int8)
    return draws.gather(1, inside.argmax(dim=1, keepdim=True))[:, 0]

"""From a style to its shape: a mesh of the surface that pictures show, or the raw volume.

What is not asked for is measured: cameras of the training pose law look at the density along a few
rays, and the surface is the level set that agrees best with what they see (`rendering.survey`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from generators import RadianceGenerator
from inference.mesh import Mesh, largest_components, visible_faces, with_colours, with_normals
from rendering.cameras import Cameras
from rendering.grid import FieldDensity, dense_slabs
from rendering.refine import near_surface
from rendering.settings import RenderSettings
from rendering.surface import level_surface
from rendering.survey import Survey, enclosing_cube, surface_level, survey
from stages import Stage

SURVEY_CAMERAS, VISIBILITY_CAMERAS = 32, 64


@dataclass(frozen=True)
class Extraction:
    """What is extracted of a shape, and how finely."""

    resolution: int = 256  # voxels per side of the cube around the origin
    cube_size: float | None = None  # its side; None: enough for what the training cameras see
    level: float | None = None  # raw density of the surface; None: the one that cameras see
    pieces: int | None = None  # connected pieces to keep at most, the largest first; None: all
    share: float = 0.01  # of the largest piece's area, below which a piece is a floater
    visible_only: bool = False  # drop what no camera of the training pose law sees
    # of matrix products where the surface is searched, and of normals and colours; vertices are
    # those of full precision (None) whatever it is
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        """Refuse what no lattice can be made with."""
        if self.resolution < 2:
            raise ValueError(f"voxel_resolution must be at least 2, got {self.resolution}")


@dataclass(frozen=True)
class Shape:
    """A mesh with normals and colours, and what it was made with."""

    mesh: Mesh
    level: float
    cube_size: float


class NoSurface(ValueError):
    """A level that the density does not cross, and the range that it has."""

    def __init__(self, level: float, lowest: float, highest: float, cube_size: float) -> None:
        self.lowest, self.highest = lowest, highest
        super().__init__(
            f"level {level:.6g} has no surface: the density goes from {lowest:.6g} to "
            f"{highest:.6g} in the cube of side {cube_size:.4g}"
        )


def extract_shape(
    generator: RadianceGenerator, w: Tensor, stage: Stage, wanted: Extraction
) -> Shape:
    """The surface of one style (1, ...), in the cameras' world.

    Raises ValueError if there is none: the density does not reach the level in the cube, or nothing
    of it can be seen.
    """
    settings, field = stage.eval_settings(), generator.field(w)
    density, rough = FieldDensity(field), FieldDensity(field, wanted.dtype)
    cube_size, level = wanted.cube_size, wanted.level
    if cube_size is None or level is None:
        seen = look_around(density, stage, settings, w.device)
        cube_size = enclosing_cube(seen) if cube_size is None else cube_size
        level = surface_level(seen, settings) if level is None else level
    searching = rough if wanted.dtype is not None else None
    try:
        mesh = find_surface(density, wanted.resolution, cube_size, level, w.device, searching)
    except NoSurface as error:  # fog, or a cube that leaves out what cameras see
        if wanted.level is not None or not error.lowest < error.highest:
            raise
        level = (error.lowest + error.highest) / 2
        mesh = find_surface(density, wanted.resolution, cube_size, level, w.device, searching)
    mesh = with_normals(mesh, rough)
    if wanted.visible_only:
        mesh = keep_visible(mesh, stage, settings)
    mesh = largest_components(mesh, wanted.pieces, wanted.share)
    voxel = cube_size / (wanted.resolution - 1)
    mesh = with_colours(mesh, generator, field, settings, level, voxel, wanted.dtype)
    return Shape(mesh, level, cube_size)


def raw_volume(
    generator: RadianceGenerator,
    w: Tensor,
    stage: Stage,
    wanted: Extraction,
    *,
    compat_shear: bool = False,
) -> tuple[float, Iterator[Tensor]]:
    """Side of the cube, and raw densities of all its voxels, a slab (y, z) at a time."""
    density, cube_size = FieldDensity(generator.field(w)), wanted.cube_size
    if cube_size is None:
        cube_size = enclosing_cube(look_around(density, stage, stage.eval_settings(), w.device))
    return cube_size, dense_slabs(
        density, wanted.resolution, cube_size, compat_shear=compat_shear, device=w.device
    )


def look_around(
    density: FieldDensity, stage: Stage, settings: RenderSettings, device: torch.device
) -> Survey:
    """What cameras of the training pose law see, the same ones every time."""
    return survey(density, training_cameras(stage, SURVEY_CAMERAS).to(device), settings)


def find_surface(
    density: FieldDensity,
    resolution: int,
    cube_size: float,
    level: float,
    device: torch.device,
    rough: FieldDensity | None = None,  # searches in the density's place
) -> Mesh:
    """The level's surface, evaluated only where it runs."""
    near = near_surface(density, resolution, cube_size, level, rough=rough, device=device)
    if not near.lowest < level < near.highest:
        raise NoSurface(level, near.lowest, near.highest, cube_size)
    vertices, faces = level_surface(near.volume, level, cube_size)
    return Mesh(vertices, faces)


def keep_visible(mesh: Mesh, stage: Stage, settings: RenderSettings) -> Mesh:
    """What cameras of the training pose law see of a mesh with normals."""
    cameras = training_cameras(stage, VISIBILITY_CAMERAS).to(mesh.vertices.device)
    seen = visible_faces(mesh, cameras, settings)
    if not bool(seen.any()):
        raise ValueError("visible_only: no camera of the pose law sees any of the surface")
    return mesh.select(seen)


def training_cameras(stage: Stage, count: int) -> Cameras:
    """The first so many of an endless row of cameras drawn from the training pose law."""
    return Cameras.sample(stage.pose_law(), count, torch.Generator().manual_seed(0))

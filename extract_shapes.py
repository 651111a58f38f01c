"""Extract the shapes of a trained generator's latents as meshes.

  python extract_shapes.py runs/celeba/generator.pth --seed 0
  python extract_shapes.py runs/toys --seeds 0-3 --voxel_resolution 512 --format ply glb
  python extract_shapes.py runs/carla --seeds 0-9 --visible_only --keep all
  python extract_shapes.py runs/celeba --latent inversion/latent.npz --format obj
  python extract_shapes.py runs/celeba --seed 0 --cube_size 0.3 --format mrc

Writes <seed>.ply (.obj, .glb): a surface of the density with normals and colours, in the cameras'
world, +y up. The voxels fill a cube around the origin; only those near the surface are evaluated.

Without --cube_size the cube is just large enough for all that cameras of the training pose law see
of the shape. --level auto picks the density whose level set such cameras see as they see the
pictures: it agrees best with where the light of their rays is half absorbed. Without either, both
are looked for along the same rays, seed by seed.

.mrc holds the raw density of every voxel, float32 with axes x, y, z, for volume viewers. All voxels
are evaluated then, which takes 8 to 20 times as long.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from curriculums import find_curriculum, stage_at
from generators import RadianceGenerator
from inference.checkpoint import checkpoint_step, load_generator
from inference.latents import add_latents, named_styles
from inference.mesh import Mesh, largest_components, visible_faces, with_colours, with_normals
from inference.mesh_files import WRITERS, save_mesh, write_mrc
from inference.options import add_device, flatten, positive, run_script
from rendering.cameras import Cameras
from rendering.grid import FieldDensity, dense_slabs
from rendering.refine import near_surface
from rendering.settings import RenderSettings
from rendering.surface import level_surface
from rendering.survey import enclosing_cube, surface_level, survey
from stages import Stage

SURVEY_CAMERAS, VISIBILITY_CAMERAS = 32, 96


def parse_level(text: str) -> float | None:
    """A density, or None for "auto"."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or 'auto', got {text!r}") from None


def parse_keep(text: str) -> tuple[int | None, float]:
    """How many connected pieces to keep at most, and the share of the largest's area they need."""
    if text in ("largest", "all"):
        return (1 if text == "largest" else None), 0.0
    try:
        number = float(text)
        if 0 < number < 1:
            return None, number
        return positive(text), 0.0
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"must be 'largest', 'all', a number of pieces or a share below 1, got {text!r}"
        ) from None


def parse_side(text: str) -> float:
    """A length above 0."""
    try:
        side = float(text)
    except ValueError:
        side = 0.0
    if not 0 < side < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a length above 0, got {text!r}")
    return side


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("path", type=Path, help="a generator.pth, or the run's directory that holds it")
    add_latents(parser)
    add("--output_dir", type=Path, default=Path("shapes"), help="where files go (shapes)")
    add("--format", nargs="+", choices=[s[1:] for s in WRITERS] + ["mrc"], default=["ply"],
        help="files to write for each seed, one or several (ply)")  # fmt: skip
    add("--voxel_resolution", type=positive, default=256, help="voxels per side (256)")
    add("--cube_size", type=parse_side,
        help="side of the cube in world units, for instance the original's 0.3 "
        "(default: what the training cameras see)")  # fmt: skip
    add("--level", type=parse_level, default=None, metavar="auto|NUMBER",
        help="raw density that is the surface (auto)")  # fmt: skip
    add("--keep", type=parse_keep, default=(None, 0.01), metavar="largest|all|N|SHARE",
        help="connected pieces to keep: the largest by area, all, so many, or those that have this "
        "share of the largest's area; smaller ones are floaters (0.01)")  # fmt: skip
    add("--visible_only", action="store_true",
        help="drop what no camera of the training pose law can see: slabs of mass below or behind "
        "what pictures show")  # fmt: skip
    add("--psi", type=float, default=0.5, help="truncation: 1 is none, 0 the average (0.5)")
    add("--max_batch_size", type=positive, default=100_000,
        help="field points computed at once; less takes less memory (100000)")  # fmt: skip
    add("--compat_lattice", action="store_true",
        help=".mrc on the lattice of the original, which is sheared by up to a voxel")  # fmt: skip
    add("--ema", default="ema.pth", help="average of the weights to use, or 'none' (ema.pth)")
    add("--curriculum", help="cameras and settings of another curriculum than the checkpoint's")
    add_device(parser)
    args = parser.parse_args()
    if args.voxel_resolution < 2:
        parser.error("--voxel_resolution must be at least 2")
    if args.compat_lattice and "mrc" not in args.format:
        parser.error("--compat_lattice is for .mrc files: add --format mrc")
    return args


def look_around(
    density: FieldDensity, args: argparse.Namespace, stage: Stage, settings: RenderSettings
) -> tuple[float, float | None]:
    """Side of the cube and level of the surface, as asked for or as cameras see the shape."""
    meshes = set(args.format) != {"mrc"}
    if args.cube_size is not None and (args.level is not None or not meshes):
        return args.cube_size, args.level
    rng = torch.Generator().manual_seed(0)
    cameras = Cameras.sample(stage.pose_law(), SURVEY_CAMERAS, rng).to(args.device)
    seen = survey(density, cameras, settings)
    cube_size = enclosing_cube(seen) if args.cube_size is None else args.cube_size
    if args.level is None and meshes:
        return cube_size, surface_level(seen, settings)
    return cube_size, args.level


def save_volume(
    density: FieldDensity, args: argparse.Namespace, cube_size: float, path: Path, keep: bool
) -> Tensor | None:
    """Write an .mrc of every voxel; return the volume if it is to be used again."""
    n = args.voxel_resolution
    slabs = dense_slabs(density, n, cube_size, compat_shear=args.compat_lattice, device=args.device)
    slabs = tqdm(slabs, total=n, desc=path.name, unit="slab", leave=False, disable=None)
    if not keep or args.compat_lattice:
        write_mrc(path, slabs, n, cube_size)
        return None
    volume = torch.empty(n, n, n)
    for i, slab in enumerate(slabs):
        volume[i] = slab
    write_mrc(path, volume, n, cube_size)
    return volume


def find_surface(
    density: FieldDensity,
    args: argparse.Namespace,
    cube_size: float,
    level: float,
    volume: Tensor | None,
) -> Mesh:
    """The level's surface in a volume, which is evaluated around it unless it is there."""
    if volume is None:
        near = near_surface(density, args.voxel_resolution, cube_size, level, device=args.device)
        volume, lowest, highest = near.volume, near.lowest, near.highest
    else:
        lowest, highest = float(volume.min()), float(volume.max())
    if not lowest < level < highest:
        raise ValueError(
            f"level {level:.6g} has no surface: the density goes from {lowest:.6g} to "
            f"{highest:.6g} in the cube of side {cube_size:.4g}"
        )
    vertices, faces = level_surface(volume, level, cube_size)
    return Mesh(vertices.to(args.device), faces.to(args.device))


def drop_unwanted(
    mesh: Mesh, args: argparse.Namespace, stage: Stage, settings: RenderSettings
) -> Mesh:
    """What is left of a mesh with normals after --visible_only and --keep."""
    if args.visible_only:
        rng = torch.Generator().manual_seed(0)
        cameras = Cameras.sample(stage.pose_law(), VISIBILITY_CAMERAS, rng).to(args.device)
        seen = visible_faces(mesh, cameras, settings)
        if not bool(seen.any()):
            raise ValueError("--visible_only: no camera of the pose law sees any of the surface")
        mesh = mesh.select(seen)
    return largest_components(mesh, *args.keep)


def extract(
    name: str, w: Tensor, generator: RadianceGenerator, args: argparse.Namespace, stage: Stage
) -> str:
    """Write the files of one style; returns a line about them."""
    settings = stage.eval_settings()
    field = generator.field(w)
    density = FieldDensity(field, args.max_batch_size)
    cube_size, level = look_around(density, args, stage, settings)
    meshes = [kind for kind in args.format if kind != "mrc"]
    volume = None
    if "mrc" in args.format:
        path = args.output_dir / f"{name}.mrc"
        volume = save_volume(density, args, cube_size, path, keep=bool(meshes))
    line = f"{name}: cube of side {cube_size:.4g}"
    if meshes:
        assert level is not None
        mesh = with_normals(find_surface(density, args, cube_size, level, volume), density)
        mesh = drop_unwanted(mesh, args, stage, settings)
        voxel = cube_size / (args.voxel_resolution - 1)
        mesh = with_colours(mesh, generator, field, settings, level, voxel)
        for kind in meshes:
            save_mesh(args.output_dir / f"{name}.{kind}", mesh)
        line += f", level {level:.4g}, {len(mesh.vertices)} vertices, {len(mesh.faces)} faces"
    return line


def main() -> None:
    """Extract and save."""
    args = parse_args()
    ema = None if args.ema == "none" else args.ema
    generator, curriculum = load_generator(args.path, args.device, ema)
    if not isinstance(generator, RadianceGenerator):
        raise ValueError(f"{args.path} holds a 2D generator, {type(generator).__name__}: no shapes")
    if args.curriculum:
        curriculum = find_curriculum(args.curriculum)
    stage = stage_at(curriculum, checkpoint_step(args.path))
    styles = named_styles(
        generator, flatten(args.seeds), latent=args.latent, psi=args.psi, z_dist=stage.z_dist
    )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, w in styles:
        print(extract(name, w, generator, args, stage))
    print(f"wrote {len(styles)} x {', '.join(args.format)} to {args.output_dir}")


if __name__ == "__main__":
    run_script(main)

"""Extract the shapes of a trained generator's latents as meshes.

  python extract_shapes.py runs/celeba/generator.pth --seed 0
  python extract_shapes.py runs/toys --seeds 0-3 --voxel_resolution 512 --format ply glb --preview
  python extract_shapes.py runs/carla --seeds 0-9 --visible_only --keep all
  python extract_shapes.py runs/celeba --latent inversion/latent.npz --format obj
  python extract_shapes.py runs/celeba --seed 0 --cube_size 0.3 --format mrc

Writes <seed>.ply (.obj, .glb): a surface of the density with normals and colours, in the cameras'
world, +y up. The voxels fill a cube around the origin; only those near the surface are evaluated.

Without --cube_size the cube is just large enough for all that cameras of the training pose law see
of the shape. --level auto picks the density whose level set such cameras see as they see the
pictures: it agrees best with where the light of their rays is half absorbed. Both are measured
along the same rays, seed by seed.

.mrc holds the raw density of every voxel, float32 with axes x, y, z, for volume viewers. All voxels
are evaluated for it, which takes 8 to 20 times as long.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from curriculums import find_curriculum, stage_at
from generators import RadianceGenerator
from inference.checkpoint import checkpoint_step, load_generator
from inference.latents import add_latents
from inference.media import save_png, tile, to_uint8
from inference.mesh import Mesh
from inference.mesh_files import WRITERS, save_mesh, write_mrc
from inference.mesh_picture import draw_mesh
from inference.model import Model
from inference.options import DTYPES, add_compile, add_device, add_precision, positive
from inference.shapes import Extraction, extract_shape, raw_volume
from inference.views import front_pitch
from rendering.cameras import Cameras
from stages import Stage

PREVIEW_VIEWS = 5


def parse_level(text: str) -> float | None:
    """A density, or None for "auto"."""
    if text == "auto":
        return None
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not math.isfinite(level):
        raise argparse.ArgumentTypeError(f"must be a number or 'auto', got {text!r}")
    return level


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
    if not 0 < side < math.inf:
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
    add("--preview", action="store_true",
        help="also <seed>.png: the mesh from five sides, in its colours and in clay")  # fmt: skip
    add("--image_size", type=positive, default=256, help="pixels per side of a preview (256)")
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
    add("--truncation_cutoff", type=positive, metavar="N",
        help="truncate only the first N layers' styles (a style per layer)")  # fmt: skip
    add("--class", dest="label", type=int, metavar="N",
        help="the class to show, from 0, of a generator with classes")  # fmt: skip
    add("--compat_lattice", action="store_true",
        help=".mrc on the lattice of the original, which is sheared by up to a voxel")  # fmt: skip
    add_precision(
        parser,
        "matrix products where the surface is searched, and of normals and colours: the surface "
        "itself is always as in fp32",
    )
    add_compile(parser)
    add("--ema", default="ema.pth", help="average of the weights to use, or 'none' (ema.pth)")
    add("--curriculum", help="cameras and settings of another curriculum than the checkpoint's")
    add_device(parser)
    args = parser.parse_args()
    if args.compat_lattice and "mrc" not in args.format:
        parser.error("--compat_lattice is for .mrc files: add --format mrc")
    if args.preview and set(args.format) == {"mrc"}:
        parser.error("--preview shows a mesh, and --format asks for none")
    return args


def preview(mesh: Mesh, stage: Stage, size: int) -> Tensor:
    """Bytes of a strip: the mesh from the sides that the pose law knows, coloured, then in clay."""
    steps = (2 * torch.arange(PREVIEW_VIEWS) + 1 - PREVIEW_VIEWS) / PREVIEW_VIEWS
    yaw = stage.h_mean + stage.h_stddev * steps
    cameras = Cameras.from_angles(yaw, front_pitch(stage), stage.fov, stage.radius)
    cameras = cameras.to(mesh.vertices.device)
    rows = torch.cat([draw_mesh(mesh, cameras, size, clay=clay) for clay in (False, True)])
    return tile(to_uint8(rows), columns=PREVIEW_VIEWS)


def save_shapes(
    name: str,
    w: Tensor,
    generator: RadianceGenerator,
    stage: Stage,
    wanted: Extraction,
    args: argparse.Namespace,
) -> None:
    """Write all files of one style, and print a line about them."""
    if "mrc" in args.format:
        cube_size, slabs = raw_volume(generator, w, stage, wanted, compat_shear=args.compat_lattice)
        slabs = tqdm(slabs, name, wanted.resolution, unit="slab", leave=False, disable=None)
        write_mrc(args.output_dir / f"{name}.mrc", slabs, wanted.resolution, cube_size)
        print(f"{name}: cube of side {cube_size:.4g}")
    meshes = [kind for kind in args.format if kind != "mrc"]
    if not meshes:
        return
    shape = extract_shape(generator, w, stage, wanted)
    for kind in meshes:
        save_mesh(args.output_dir / f"{name}.{kind}", shape.mesh)
    if args.preview:
        save_png(args.output_dir / f"{name}.png", preview(shape.mesh, stage, args.image_size))
    print(
        f"{name}: cube of side {shape.cube_size:.4g}, level {shape.level:.4g}, "
        f"{len(shape.mesh.vertices)} vertices, {len(shape.mesh.faces)} faces"
    )


def main() -> None:
    """Extract and save."""
    args = parse_args()
    pieces, share = args.keep
    wanted = Extraction(
        resolution=args.voxel_resolution,
        cube_size=args.cube_size,
        level=args.level,
        pieces=pieces,
        share=share,
        visible_only=args.visible_only,
        dtype=DTYPES[args.precision],
    )
    ema = None if args.ema == "none" else args.ema
    generator, curriculum = load_generator(args.path, args.device, ema)
    if not isinstance(generator, RadianceGenerator):
        raise ValueError(f"{args.path} holds a 2D generator, {type(generator).__name__}: no shapes")
    if args.compile:
        generator.compile_field()
    if args.curriculum:
        curriculum = find_curriculum(args.curriculum)
    stage = stage_at(curriculum, checkpoint_step(args.path))
    styles = Model(generator, stage).styles(args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, w in styles:
        save_shapes(name, w, generator, stage, wanted, args)
    print(f"wrote {len(styles)} x {', '.join(args.format)} to {args.output_dir}")

"""Measure what generators have learned of shape, which pictures alone do not tell.

  python eval_geometry.py runs/toys                                      # numbers of one run
  python eval_geometry.py runs/toys runs/other --num_images 128 --json geometry.json
  python eval_geometry.py runs/faces --dataset_path faces.zip            # with exact cameras
  python eval_geometry.py runs/toys --latent toy7.npz --toy 7            # a reconstruction

Scenes are seen from several sides. View consistency, flatness and identity drift need nothing else;
pose accuracy needs a data set with exact cameras, silhouettes and colours one on white ground, and
chamfer distance, depth and normals need Toys, whose figures are known. What a generator makes up
has no exact partner: it is held against the figure that is most like it. Only a style that was
fitted to a picture of a figure, --latent with --toy, is held against that figure.
docs/geometry.md explains the numbers.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curriculums import find_curriculum, stage_at
from datasets import DATASETS, open_dataset
from inference.checkpoint import checkpoint_step, load_generator
from inference.latents import check_styles, load_latents
from inference.options import add_device, positive, run_script
from metrics.features import Lpips
from metrics.pose import STEPS
from rendering.settings import RenderSettings
from stages import Stage
from training.geometry import Distance, measure_geometry, measure_reconstruction
from training.reference import Reference, make_reference, toy_seed

MEANINGS = {
    "view_consistency": "share of colours that one view foretells of the next: 1 solid, 0 none",
    "stereo_consistency": "the same, explained by whatever surface explains most",
    "stereo_still": "the same of pictures that stay as they are from all sides",
    "reprojection_error": "their mean difference, share of the colours' range",
    "looked_through": "share of one view's surface that the next one looks through",
    "solid": "share of pixels that show a surface",
    "flatness": "1 a billboard, 0 a ball",
    "billboard": "share of the surface that faces one way",
    "identity_drift": "colours of a scene's views: 0 the same, 1 as different as scenes",
    "identity_perceptual": "the same by LPIPS",
    "yaw_error": "degrees",
    "pitch_error": "degrees",
    "yaw_chance": "degrees, of pictures exchanged among each other",
    "pitch_chance": "degrees, of pictures exchanged among each other",
    "yaw_floor": "degrees, of the data set's own pictures",
    "pitch_floor": "degrees, of the data set's own pictures",
    "yaw_offset": "degrees that all yaws are turned by",
    "yaw_aligned": "yaw error in degrees without that",
    "silhouette": "distance to the data set's silhouettes, standard deviations",
    "colour": "distance to the data set's colours, standard deviations",
    "chamfer": "from each known figure to the nearest scene, world units",
    "coverage": "share of the known figures that are nearest to some scene",
    "depth_error": "against the nearest figure, world units",
    "normal_error": "against the nearest figure, degrees",
    "silhouette_iou": "against the nearest figure, 1 is equal",
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="RUN",
        help="runs' directories or generator.pth files")  # fmt: skip
    add("--num_images", type=positive, default=64, help="scenes (64)")
    add("--views", type=positive, default=8, help="pictures of each scene (8)")
    add("--image_size", type=positive, help="pixels per side (default: the curriculum's)")
    add("--psi", type=float, default=1.0, help="truncation: 1 is none, 0 the average (1)")
    add("--ray_step_multiplier", type=positive, default=2,
        help="samples per ray, as a multiple of those in training (2)")  # fmt: skip
    add("--max_batch_size", type=positive, default=2_400_000,
        help="field points computed at once; less takes less memory (2400000)")  # fmt: skip
    add("--dataset_path", help="pictures with exact cameras (default: the curriculum's)")
    add("--no_dataset", action="store_true", help="measure the scenes alone")
    add("--pose_steps", type=positive, default=STEPS,
        help=f"steps of learning poses from the data set ({STEPS})")  # fmt: skip
    add("--num_figures", type=positive, default=64,
        help="figures of Toys to compare shapes with (64)")  # fmt: skip
    add("--lpips", action="store_true",
        help="identity drift by LPIPS, too; needs torch-fidelity and weights")  # fmt: skip
    for name, what in (("vgg", "VGG16"), ("lpips", "LPIPS' heads")):
        add(f"--{name}_weights", type=Path, metavar="FILE",
            help=f"published weights of {what}, where they cannot be downloaded")  # fmt: skip
    add("--latent", type=Path, metavar="FILE",
        help="measure this style, fitted to a picture of the figure --toy")  # fmt: skip
    add("--toy", type=int, metavar="I", help="number of the figure in Toys")
    add("--curriculum", help="in place of the checkpoint's own: a name or a .json file")
    add("--ema", default="ema.pth", help="weights to measure: ema.pth, ema2.pth or none (ema.pth)")
    add("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    add_device(parser)
    args = parser.parse_args()
    if (args.latent is None) != (args.toy is None):
        parser.error("--latent and --toy go together")
    if args.toy is not None and args.toy < 0:
        parser.error(f"--toy must not be negative, got {args.toy}")
    return args


def find_stage(path: Path, args: argparse.Namespace) -> Stage:
    """The stage that a checkpoint had reached, with the pictures that the user names."""
    if args.curriculum:
        curriculum = dict(find_curriculum(args.curriculum))
    else:
        curriculum = dict(load_generator(path, ema=None)[1])
    if args.dataset_path is not None:
        curriculum["dataset_path"] = args.dataset_path
    return stage_at(curriculum, checkpoint_step(path))


def find_reference(stage: Stage, args: argparse.Namespace) -> Reference:
    """What the data set tells; nothing if there is none and the user named none."""
    recipe = DATASETS[stage.dataset]
    if args.no_dataset or not (stage.dataset_path or recipe.make):
        return Reference()
    try:
        options = {"nearest": "nearest_resize" in stage.compat, **stage.dataset_options}
        dataset = open_dataset(stage.dataset, stage.dataset_path, stage.img_size, **options)
    except ValueError as error:
        if args.dataset_path is not None:
            raise
        print(f"(the scenes alone: {error})")
        return Reference()
    return make_reference(
        dataset,
        stage,
        args.device,
        views=args.views,
        figures=args.num_figures,
        steps=args.pose_steps,
    )


def find_distance(args: argparse.Namespace) -> Distance | None:
    """LPIPS of pictures in [-1, 1], if it was asked for."""
    if not args.lpips:
        return None
    network = Lpips(args.vgg_weights, args.lpips_weights).to(args.device)
    return lambda a, b: network(127.5 * (a + 1), 127.5 * (b + 1))


def measure_all(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row of numbers per generator; a data set that several share is looked at once."""
    rows, references, perceptual = [], {}, find_distance(args)
    for path in args.paths:
        stage = find_stage(path, args)
        ema = None if args.ema == "none" else args.ema
        generator, _ = load_generator(path, args.device, ema)
        settings = settings_of(stage, generator.resolution, args)
        row = {"name": str(path), "step": checkpoint_step(path)}
        protocol = f"{args.views} views, {settings.resolution} px, {settings.num_steps} steps"
        if args.latent is not None:
            w = load_latents(args.latent).to(args.device)
            check_styles(generator, w, args.latent)
            seed = toy_seed(stage) or 0
            numbers = measure_reconstruction(
                generator, stage, w[:1], seed, args.toy, views=args.views, settings=settings
            )
            protocol = f"{args.latent} as figure {args.toy}, {protocol}"
        else:
            data = (stage.dataset, stage.dataset_path, stage.img_size, stage.dataset_options)
            key = repr((data, stage.pose_law(evaluation=True)))
            if key not in references:
                references[key] = find_reference(stage, args)
            numbers = measure_geometry(
                generator,
                stage,
                num_images=args.num_images,
                views=args.views,
                psi=args.psi,
                settings=settings,
                reference=references[key],
                perceptual=perceptual,
            )
            protocol = f"{args.num_images} scenes, {protocol}"
        rows.append({**row, "protocol": protocol, **numbers})
    return rows


def settings_of(stage: Stage, resolution: int | None, args: argparse.Namespace) -> RenderSettings:
    """How scenes are rendered."""
    return stage.eval_settings(
        resolution=args.image_size or resolution or stage.img_size,
        num_steps=stage.num_steps * args.ray_step_multiplier,
        max_batch_size=args.max_batch_size,
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per number, a column per generator, and what the number means."""
    names = [name for name in MEANINGS if any(name in row for row in rows)]
    lines = [["", *(f"{row['name']} (step {row['step']})" for row in rows), ""]]
    for name in names:
        cells = [f"{row[name]:.4g}" if name in row else "-" for row in rows]
        lines.append([name, *cells, f"({MEANINGS[name]})"])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> None:
    """Measure, print a table, write the file that was asked for."""
    args = parse_args()
    rows = measure_all(args)
    print(table(rows))
    print(f"({rows[0]['protocol']})")
    if args.json is not None:
        content = rows[0] if len(rows) == 1 else {"results": rows}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)

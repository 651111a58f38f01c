"""Measure generators against real pictures.

  python eval_metrics.py runs/celeba --real_image_dir real/ --num_images 8000
  python eval_metrics.py runs/celeba/snapshots/* --metrics fid50k_full,pr50k3_full   # a table
  python eval_metrics.py --generated_image_dir fakes/ --real_image_dir real/         # two folders
  torchrun --nproc-per-node 8 eval_metrics.py runs/celeba --metrics fid50k_full      # eight GPUs

Real pictures are those of a folder or a zip, else the training pictures of --dataset_path or of the
curriculum. Generators are averaged (ema.pth), untruncated and seen from the evaluation poses; every
picture stays in memory and depends on its own number alone, so that the batch size and the number
of processes do not matter. Metrics: fid, kid, is, pr (precision and recall), ppl and swd as
torch-fidelity and their papers define them, and StyleGAN's and EpiGRAF's own (fid2k_full,
fid50k_full, kid50k_full, pr50k3_full, is50k, ppl2_wend, eqt50k_int, eqt50k_frac, eqr50k). swd needs
no trained network, and so no download.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from curriculums import Curriculum, find_curriculum, stage_at, with_overrides
from datasets import open_dataset
from inference.checkpoint import checkpoint_step, load_generator
from inference.options import add_device, positive, run_script
from inference.samples import Samples
from metrics.distances import KID_SUBSET_SIZE, KID_SUBSETS, RNG_SEED
from metrics.features import BACKENDS
from metrics.protocols import Protocol, find_protocols
from metrics.statistics import Options
from stages import Stage
from training import distributed
from training.evaluate import Evaluation, Weights, check_backend
from training.pictures import DatasetPictures, FilePictures, Pictures
from training.survey import BATCH


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="RUN",
        help="runs' directories or generator.pth files")  # fmt: skip
    add("--generated_image_dir", metavar="DIR",
        help="measure these pictures (folder, glob or zip) in place of a generator")  # fmt: skip
    add("--real_image_dir", metavar="DIR",
        help="real pictures: a folder, glob or zip (default: the training pictures)")  # fmt: skip
    add("--dataset_path", help="where the curriculum's training pictures are")
    add("--curriculum", help="in place of the checkpoint's own: a name or a .json file")
    add("--metrics", default="fid,kid,is", type=lambda text: text.split(","),
        help="names with commas between (fid,kid,is)")  # fmt: skip
    add("--num_images", type=positive,
        help="generated pictures (2048, or what a metric's name says)")  # fmt: skip
    add("--image_size", type=positive, help="pixels per side (default: the curriculum's)")
    add("--ema", default="ema.pth", help="weights to measure: ema.pth, ema2.pth or none (ema.pth)")
    add("--backend", choices=BACKENDS, default=BACKENDS[0],
        help="whose Inception network; pytorch-fid is a second opinion on FID")  # fmt: skip
    for name, what in (("inception", "Inception v3"), ("vgg", "VGG16"), ("lpips", "LPIPS' heads")):
        add(f"--{name}_weights", type=Path, metavar="FILE",
            help=f"published weights of {what}, where they cannot be downloaded")  # fmt: skip
    add("--kid_subsets", type=positive, default=KID_SUBSETS, help=f"({KID_SUBSETS})")
    add("--kid_subset_size", type=positive, default=KID_SUBSET_SIZE,
        help=f"pictures per subset, or as many as there are ({KID_SUBSET_SIZE})")  # fmt: skip
    add("--rng_seed", type=int, default=RNG_SEED,
        help=f"of the subsets and splits, as torch-fidelity has it ({RNG_SEED})")  # fmt: skip
    add("--seed", type=int, default=0, help="of the generated pictures (0)")
    add("--batch_size", type=positive, default=BATCH, help=f"pictures at a time ({BATCH})")
    add("--max_batch_size", type=positive, default=94_800_000,
        help="field points evaluated at once, which bounds memory (94800000)")  # fmt: skip
    add("--output_dir", type=Path, help="where to write metrics.json as well")
    add("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    add_device(parser)
    args = parser.parse_args()
    if bool(args.paths) == bool(args.generated_image_dir):
        parser.error("give either generators or --generated_image_dir")
    return args


class Subject:
    """A generator to be measured: where it is, and the stage of its training."""

    def __init__(self, path: Path, args: argparse.Namespace) -> None:
        self.path, self._args = path, args
        self.name = str(path)
        self.step = checkpoint_step(path)

    def load(self, world: distributed.World, labels: torch.Tensor | None) -> Samples:
        """The generator and how its pictures are made."""
        ema = None if self._args.ema == "none" else self._args.ema
        generator, curriculum = load_generator(self.path, world.device, ema)
        stage = self.stage(curriculum)
        size = self._args.image_size or generator.resolution or stage.img_size
        settings = stage.eval_settings(resolution=size, max_batch_size=self._args.max_batch_size)
        return Samples(generator, stage, seed=self._args.seed, labels=labels, settings=settings)

    def stage(self, curriculum: Curriculum) -> Stage:
        """The stage that the checkpoint had reached, of its own curriculum or the one given."""
        given = self._args.curriculum
        return stage_at(find_curriculum(given) if given else curriculum, self.step)


def open_reals(args: argparse.Namespace, protocols: Sequence[Protocol]) -> Pictures | None:
    """The pictures to compare with; None where no metric compares."""
    if args.real_image_dir is not None:
        return FilePictures(args.real_image_dir)
    if not any(protocol.needs_reals for protocol in protocols):
        return None
    if args.curriculum is not None:
        curriculum, step = find_curriculum(args.curriculum), 0
    elif args.paths:
        _, curriculum = load_generator(args.paths[0], ema=None)
        step = checkpoint_step(args.paths[0])
    else:
        raise ValueError("give the real pictures: --real_image_dir, or --curriculum")
    if args.dataset_path is not None:
        curriculum = with_overrides(curriculum, [f"dataset_path={args.dataset_path!r}"])
    stage = stage_at(curriculum, step)
    options: dict[str, Any] = {"nearest": "nearest_resize" in stage.compat}
    size = args.image_size or stage.img_size
    dataset = open_dataset(
        stage.dataset, stage.dataset_path, size, **options | dict(stage.dataset_options)
    )
    return DatasetPictures(dataset)


def measure_all(
    args: argparse.Namespace, world: distributed.World, evaluation: Evaluation
) -> list[dict[str, Any]]:
    """A row of numbers per generator, or one for the pictures given."""
    reals = evaluation.reals
    if args.generated_image_dir is not None:
        fakes = FilePictures(args.generated_image_dir)
        return [{"name": args.generated_image_dir, **evaluation.of_pictures(fakes)}]
    rows = []
    for path in args.paths:
        subject = Subject(path, args)
        samples = subject.load(world, None if reals is None else reals.labels)
        check_size(samples.settings.resolution, reals)
        numbers = evaluation.of_generator(samples)
        rows.append({"name": subject.name, "step": subject.step, **numbers})
    return rows


def check_size(resolution: int, reals: Pictures | None) -> None:
    """Refuse to compare pictures of different sizes."""
    if reals is not None and reals.size != (resolution, resolution):
        width, height = reals.size
        raise ValueError(
            f"the real pictures have {width}x{height} pixels, the generated ones {resolution}x"
            f"{resolution}: give --image_size, or other real pictures"
        )


def table(rows: Sequence[dict[str, Any]], protocols: Sequence[Protocol]) -> str:
    """The rows side by side; a star marks the best number of each metric."""
    higher = {key: p.higher_is_better for p in protocols for key in p.keys}
    skip = ("name", "step", "protocol")
    keys = [key for key in rows[0] if key not in skip]
    lines = [["", *keys]]
    best = {}
    for key in keys:
        values = [row[key] for row in rows]
        best[key] = max(values) if higher.get(key, False) else min(values)
    for row in rows:
        cells = [row["name"] if "step" not in row else f"{row['name']} (step {row['step']})"]
        for key in keys:
            star = "*" if len(rows) > 1 and row[key] == best[key] and "_std" not in key else " "
            cells.append(f"{row[key]:.5g}{star}")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def report(args: argparse.Namespace, rows: list[dict[str, Any]], protocols: list[Protocol]) -> None:
    """Print the table and write the files asked for."""
    print(table(rows, protocols))
    print(f"({rows[0]['protocol']})")
    content = rows[0] if len(rows) == 1 else {"results": rows}
    text = json.dumps(content, indent=2) + "\n"
    files = [args.json, None if args.output_dir is None else args.output_dir / "metrics.json"]
    for file in files:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


def main() -> None:
    """Measure in this process, or as one of those that torchrun started."""
    args = parse_args()
    protocols = find_protocols([name.strip() for name in args.metrics])
    check_backend(protocols, args.backend)
    reals = open_reals(args, protocols)
    world = distributed.join(args.device)
    try:
        evaluation = Evaluation(
            world,
            protocols,
            reals,
            num_images=args.num_images,
            backend=args.backend,
            weights=Weights(args.inception_weights, args.vgg_weights, args.lpips_weights),
            options=Options(
                kid_subsets=args.kid_subsets,
                kid_subset_size=args.kid_subset_size,
                rng_seed=args.rng_seed,
            ),
            batch_size=args.batch_size,
        )
        rows = measure_all(args, world, evaluation)
        if world.is_main:
            report(args, rows, protocols)
    finally:
        distributed.leave(world)


if __name__ == "__main__":
    run_script(main)

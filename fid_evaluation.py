"""Write the real pictures that generated ones are compared with, as training sees them.

  python fid_evaluation.py --dataset CelebA --dataset_path '/data/celeba/*.jpg' --img_size 128
  python eval_metrics.py runs/celeba --real_image_dir EvalImages/CelebA_real_images_128

A random subset of the data set, always the same, cropped and resized by its recipe, never flipped,
in PNG files whose names are numbers. Training needs none of this: it measures itself every
--eval_freq steps (metrics.jsonl), with the metrics of the curriculum's eval_metrics.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from datasets import DATASETS, open_dataset
from inference.media import save_png, to_uint8
from inference.options import positive, run_script

BATCH = 64


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default="CelebA", help=f"recipe: {', '.join(DATASETS)} (CelebA)")
    add("--dataset_path", default="", help="the pictures: a folder, a zip, or a quoted glob")
    add("--img_size", type=positive, default=128, help="pixels per side (128)")
    add(
        "--num_imgs", type=positive, default=8000, help="pictures, or all if there are fewer (8000)"
    )
    add("--output_dir", type=Path,
        help="an empty or new folder (EvalImages/<dataset>_real_images_<img_size>)")  # fmt: skip
    add("--nearest", action="store_true", help="resize by nearest neighbour, as the original did")
    add("--num_workers", type=int, default=4, help="threads that decode pictures (4)")
    return parser.parse_args()


def main() -> None:
    """Open, subset, write."""
    args = parse_args()
    name = DATASETS.canonical(args.dataset)
    folder = args.output_dir or Path("EvalImages") / f"{name}_real_images_{args.img_size}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} is not empty, and pictures of another set must not be mixed with these: "
            "remove it, or choose another --output_dir"
        )
    dataset = open_dataset(
        name,
        args.dataset_path,
        args.img_size,
        nearest=args.nearest,
        max_images=args.num_imgs,
        num_workers=args.num_workers,
    )
    for start in tqdm(range(0, len(dataset), BATCH), "writing", unit="batch"):
        numbers = range(start, min(start + BATCH, len(dataset)))
        batch = to_uint8(dataset.batch(torch.tensor(numbers)).images)
        for number, pixels in zip(numbers, batch, strict=True):
            save_png(folder / f"{number:05d}.png", pixels)
    print(f"{len(dataset)} pictures of {args.img_size}x{args.img_size} pixels in {folder}")


if __name__ == "__main__":
    run_script(main)

"""Pictures per second: our decoded, memory-mapped data set against decoding each time.

  PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/dataloader.py --images 512 --img_size 64
  PYTHONPATH=. python benchmarks/dataloader.py --dataset_path '/data/celeba/*.jpg'

The reference is what the original does: an image folder behind a `torch.utils.data.DataLoader`
that opens, crops and resizes each file anew, flips it and normalises it. Without a path, JPEGs of
CelebA's size (178x218) are made up. One process each, CPU seconds; making the cache, once in a
data set's life, is told apart. With --workers the reference has processes and both are taken by the
clock.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import interleave, report
from datasets import DATASETS, open_dataset
from image_files import find_images
from inference.options import positive
from training.data import DataStream


class PlainDataset(Dataset[Tensor]):
    """Opens, prepares and normalises a picture whenever it is asked for."""

    def __init__(self, path: str, name: str, img_size: int) -> None:
        self.files, self.recipe, self.img_size = find_images(path), DATASETS[name], img_size
        self.paths = [Path(path).parent / name for name in self.files.names]

    def __len__(self) -> int:
        return len(self.files.names)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as file:
            image = self.recipe.prepare(file.convert("RGB"), self.img_size, False)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
        return pixels.flip(2) if self.recipe.mirror and torch.rand(()) < 0.5 else pixels


def make_pictures(folder: Path, count: int) -> str:
    """JPEGs of CelebA's size, smooth with some grain; returns a glob."""
    rng = np.random.default_rng(0)
    for index in range(count):
        small = rng.integers(0, 255, (14, 11, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((178, 218), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (218, 178, 3))
        pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:06d}.jpg", quality=92)
    return str(folder / "*.jpg")


def endless(loader: DataLoader) -> Iterator[Tensor]:
    """Batches of epoch after epoch."""
    return itertools.chain.from_iterable(iter(loader) for _ in itertools.count())


def compare(
    path: str, args: argparse.Namespace, cache: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a batch by both, and of opening ours without and with its cache."""
    opening = {}
    for name in ("first_open_s", "open_s"):
        began = time.process_time()
        dataset = open_dataset(args.dataset, path, args.img_size, cache_dir=cache, progress=False)
        opening[name] = round(time.process_time() - began, 3)
    stream = DataStream(dataset, args.batch_size, seed=0)
    plain = DataLoader(
        PlainDataset(path, args.dataset, args.img_size),
        args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
    )
    batches = endless(plain)
    ours, theirs = next(stream).images, next(batches)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    seconds = interleave(
        {"ours": lambda: next(stream), "reference": lambda: next(batches)},
        args.rounds,
        torch.device("cpu"),
        time.perf_counter if args.workers else None,
    )
    return seconds, opening


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset_path", default=None, help="glob of pictures (default: made up)")
    parser.add_argument("--dataset", default="CelebA", help="how they are prepared (CelebA)")
    parser.add_argument("--images", type=positive, default=512, help="made-up pictures (512)")
    parser.add_argument("--img_size", type=positive, default=64, help="pixels per side (64)")
    parser.add_argument("--batch_size", type=positive, default=56, help="pictures per batch (56)")
    parser.add_argument("--rounds", type=positive, default=9, help="timed batches of each (9)")
    parser.add_argument("--workers", type=int, default=0, help="the reference's processes (0)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.dataset_path or make_pictures(Path(folder), args.images)
        seconds, opening = compare(path, args, Path(folder) / "cache")
    numbers = {f"{k}_images_per_s": round(args.batch_size / s) for k, s in seconds.items()}
    ratio = round(seconds["reference"] / seconds["ours"], 1)
    settings = {k: getattr(args, k) for k in ("dataset", "img_size", "batch_size", "workers")}
    device = torch.device("cpu")
    report("dataloader", device, {**settings, **opening, **numbers, "ratio": ratio})


if __name__ == "__main__":
    main()

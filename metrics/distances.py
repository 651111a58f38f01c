"""Distances between two sets of pictures, and scores of one, from their features.

FID (Heusel et al. 2017), KID (Binkowski et al. 2018), precision and recall (Kynkaanniemi et al.
2019), Inception Score (Salimans et al. 2016). Features arrive batch by batch and in order: FID and
IS keep sums alone, KID and precision/recall a file of features that the system may page out, so
that memory does not grow with the number of pictures. Formulas are torch-fidelity's own functions
wherever it has them; StyleGAN's variants, which it has not, are written here.
"""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops.shapes import Float

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
IS_SPLITS = 10
NEIGHBOURS = 3
RNG_SEED = 2020  # torch-fidelity's own
BLOCK_NUMBERS = 1 << 26  # distances that are held at a time, at least of one block


class Moments:
    """Sums over a stream of features from which mean and covariance follow."""

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros(0, dtype=torch.float64)
        self.products = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: Float[Tensor, "batch n"]) -> None:
        """Take in more features."""
        x = features.detach().cpu().double()
        if not self.count:
            self.total, self.products = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], x.shape[1])
        self.count += len(x)
        self.total += x.sum(0)
        self.products += x.T @ x

    def mean(self) -> Float[Tensor, " n"]:
        """Mean feature."""
        return self.total / self.count

    def covariance(self, *, population: bool = False) -> Float[Tensor, "n n"]:
        """Covariance, divided by count - 1, or with `population` by count."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 pictures, got {self.count}")
        mean = self.mean()
        centred = self.products - self.count * torch.outer(mean, mean)
        return centred / (self.count if population else self.count - 1)

    def state_dict(self) -> dict[str, Tensor]:
        """The sums, to be kept in a file."""
        return {
            "count": torch.tensor(self.count),
            "total": self.total,
            "products": self.products,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from sums that were kept."""
        self.count, self.total = int(state["count"]), state["total"]
        self.products = state["products"]


class FeatureFile:
    """Features of a stream of pictures in a temporary file, which is gone when this is."""

    def __init__(self, file: Any = None) -> None:
        self._file: Any = tempfile.TemporaryFile() if file is None else file
        weakref.finalize(self, self._file.close)
        self.count, self.width = 0, 0

    def add(self, features: Float[Tensor, "batch n"]) -> None:
        """Append more features."""
        x = features.detach().to("cpu", torch.float32).contiguous()
        self._file.write(x.numpy().tobytes())
        self.count, self.width = self.count + len(x), x.shape[1]

    def tensor(self, count: int | None = None) -> Float[Tensor, "count n"]:
        """The first features, or all, mapped into memory; not to be written to."""
        self._file.flush()
        rows = min(count or self.count, self.count)
        shape = (rows, self.width)
        mapped = np.memmap(self._file, np.float32, mode="c", shape=shape)  # pyright: ignore
        return torch.from_numpy(mapped)

    def copy_to(self, path: Path) -> None:
        """Write the features to a file that `open` reads."""
        self._file.flush()
        self._file.seek(0)
        with open(path, "wb") as copy:
            shutil.copyfileobj(self._file, copy)

    @classmethod
    def open(cls, path: Path, width: int) -> "FeatureFile":
        """Features that `copy_to` wrote, of `width` numbers each."""
        size = path.stat().st_size
        if not width or size % (4 * width):
            raise ValueError(f"{path} does not hold features of {width} numbers")
        self = cls(open(path, "rb"))
        self.count, self.width = size // (4 * width), width
        return self


class InceptionScore:
    """Inception Score of a stream of `count` pictures.

    They are shared out to the splits in a random order, or in their own if `rng_seed` is None.
    """

    def __init__(
        self, count: int, *, splits: int = IS_SPLITS, rng_seed: int | None = RNG_SEED
    ) -> None:
        if count < splits:
            raise ValueError(f"an Inception Score of {splits} splits needs as many pictures")
        order = np.arange(count)
        if rng_seed is not None:
            order = np.random.RandomState(rng_seed).permutation(count)
        self._split = torch.empty(count, dtype=torch.long)
        for i in range(splits):  # the i-th part of the order is the i-th split
            self._split[
                torch.from_numpy(order[i * count // splits : (i + 1) * count // splits])
            ] = i
        self._sizes = self._split.bincount(minlength=splits)
        self._negentropy = torch.zeros(splits, dtype=torch.float64)
        self._classes: Tensor | None = None
        self._seen = 0

    def add(self, logits: Float[Tensor, "batch classes"]) -> None:
        """Take in the class logits of more pictures."""
        log_p = logits.detach().cpu().double().log_softmax(1)
        p = log_p.exp()
        split = self._split[self._seen : self._seen + len(p)]
        self._seen += len(p)
        if self._classes is None:
            self._classes = p.new_zeros(len(self._sizes), p.shape[1])
        self._negentropy.index_add_(0, split, torch.where(p > 0, p * log_p, 0).sum(1))
        self._classes.index_add_(0, split, p)

    def score(self) -> tuple[float, float]:
        """Mean and standard deviation over the splits of exp(E KL(p(y|x) || p(y)))."""
        if self._classes is None or self._seen != len(self._split):
            raise ValueError(f"{len(self._split)} pictures were announced, got {self._seen}")
        q = self._classes / self._sizes[:, None]
        cross = torch.where(q > 0, q * q.log(), 0).sum(1)
        scores = (self._negentropy / self._sizes - cross).exp()
        return float(scores.mean()), float(scores.std(correction=0))


def frechet_distance(fake: Moments, real: Moments, *, population: bool = False) -> float:
    """FID; `population` covariances are StyleGAN's."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    a, b = (
        {"mu": m.mean().numpy(), "sigma": m.covariance(population=population).numpy()}
        for m in (fake, real)
    )
    return fid_statistics_to_metric(a, b, False)[KEY_METRIC_FID]


def kernel_distance(
    fake: Float[Tensor, "m n"],
    real: Float[Tensor, "k n"],
    *,
    subsets: int = KID_SUBSETS,
    subset_size: int = KID_SUBSET_SIZE,
    rng_seed: int = RNG_SEED,
) -> tuple[float, float]:
    """KID: mean and standard deviation over random subsets, made smaller if sets are."""
    from torch_fidelity import metric_kid as library

    numbers = library.kid_features_to_metric(
        fake,
        real,
        kid_subsets=subsets,
        kid_subset_size=min(subset_size, len(fake), len(real)),
        rng_seed=rng_seed,
        verbose=False,
    )
    return numbers[library.KEY_METRIC_KID_MEAN], numbers[library.KEY_METRIC_KID_STD]


def precision_recall(
    fake: Float[Tensor, "m n"], real: Float[Tensor, "k n"], *, half: bool = False
) -> tuple[float, float]:
    """Share of fakes among the reals' neighbourhoods, and of reals among the fakes'.

    `half` rounds features and radii to 16 bits, as StyleGAN does.
    """
    for features in (fake, real):
        if len(features) <= NEIGHBOURS:
            raise ValueError(
                f"precision and recall look at {NEIGHBOURS} neighbours and need more than "
                f"{NEIGHBOURS} pictures, got {len(features)}"
            )
    block = max(64, min(10_000, BLOCK_NUMBERS // max(len(fake), len(real))))
    if half:
        return _share_inside(fake, real, block), _share_inside(real, fake, block)
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    return calculate_precision_recall_part(fake, real, NEIGHBOURS, block)


def _share_inside(points: Tensor, manifold: Tensor, block: int) -> float:
    """Share of `points` that lie as near to a point of the manifold as its k-th neighbour.

    16-bit products decide near ties: they are part of the definition.
    """
    mode = "use_mm_for_euclid_dist"

    def distances(part: Tensor) -> Tensor:
        half = part.half()
        rows = [torch.cdist(half, m.half(), compute_mode=mode) for m in manifold.split(block)]
        return torch.cat(rows, dim=1)

    parts = manifold.split(block)
    radii = [distances(part).float().kthvalue(NEIGHBOURS + 1).values for part in parts]
    radius = torch.cat(radii).half()
    inside = [(distances(part) <= radius).any(dim=1) for part in points.split(block)]
    return float(torch.cat(inside).double().mean())

"""What one pass over pictures keeps, for all metrics asked for; and their numbers from two passes.

Features arrive batch by batch in the order of the pictures. A metric over n of them looks at the
first n, so that several numbers of pictures share one pass.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metrics.distances import (
    IS_SPLITS,
    KID_SUBSET_SIZE,
    KID_SUBSETS,
    RNG_SEED,
    FeatureFile,
    InceptionScore,
    Moments,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from metrics.protocols import Protocol
from metrics.sliced_wasserstein import PatchSet, swd

LAYERS = {"fid": "pool", "kid": "pool", "is": "logits", "pr": "fc2", "swd": "patches"}

Key = tuple[str, str, int]  # how it is kept, of which layer, of how many pictures; 0: of all
Kept = Moments | FeatureFile | InceptionScore | PatchSet


@dataclass(frozen=True)
class Options:
    """How random subsets are drawn: torch-fidelity's defaults."""

    kid_subsets: int = KID_SUBSETS
    kid_subset_size: int = KID_SUBSET_SIZE  # less where there are fewer pictures
    is_splits: int = IS_SPLITS  # likewise
    rng_seed: int = RNG_SEED


def key_of(protocol: Protocol, count: int) -> Key | None:
    """What a metric over `count` pictures of a set keeps of it."""
    layer = LAYERS.get(protocol.kind)
    if layer is None:
        return None
    if protocol.kind == "fid":
        return ("moments", layer, count)
    if protocol.kind == "is":
        return ("score", layer, count)
    return ("patches", layer, count) if protocol.kind == "swd" else ("features", layer, 0)


class Statistics:
    """What is kept of one set of pictures; `counts` says how many each metric looks at."""

    def __init__(self, counts: Mapping[Protocol, int], options: Options | None = None) -> None:
        self.counts, self.options = dict(counts), options or Options()
        self.seen = 0
        self.kept: dict[Key, Kept] = {}
        self._most: dict[str, int] = {}  # features of a layer that somebody looks at
        for protocol, count in self.counts.items():
            key = key_of(protocol, count)
            if key is not None:
                self.kept.setdefault(key, self._new(key))
                self._most[key[1]] = max(count, self._most.get(key[1], 0))

    def _new(self, key: Key) -> Kept:
        how, _, count = key
        if how == "moments":
            return Moments()
        if how == "score":
            splits = min(self.options.is_splits, count)
            return InceptionScore(count, splits=splits, rng_seed=self.options.rng_seed)
        return PatchSet() if how == "patches" else FeatureFile()

    def length(self, key: Key) -> int:
        """How many pictures something kept is about."""
        return key[2] or self._most[key[1]]

    def patches_wanted(self) -> int:
        """Of how many pictures patches are cut."""
        return self._most.get("patches", 0)

    def add(self, features: Mapping[str, Any], count: int, only: Iterable[Key]) -> None:
        """Take in the features of the next `count` pictures, for what is named in `only`."""
        for key in only:
            kept, room = self.kept[key], self.length(key) - self.seen
            if room <= 0:
                continue
            part = features[key[1]]
            if isinstance(kept, PatchSet):
                kept.extend([part])
            else:
                kept.add(part[:room])
        self.seen += count

    def of(self, protocol: Protocol) -> Any:
        """What was kept for a metric."""
        key = key_of(protocol, self.counts[protocol])
        assert key is not None
        kept = self.kept[key]
        if isinstance(kept, FeatureFile):
            return kept.tensor(self.counts[protocol])
        return kept


def numbers_of(protocol: Protocol, fake: Statistics, real: Statistics | None) -> dict[str, float]:
    """A metric's numbers by their keys; `real` is not needed for the Inception Score."""
    options, mine = fake.options, fake.of(protocol)
    if protocol.kind == "is":
        return dict(zip(protocol.keys, mine.score(), strict=True))
    assert real is not None
    theirs = real.of(protocol)
    if protocol.kind == "swd":
        return swd(theirs, mine)
    if protocol.kind == "fid":
        values: tuple[float, ...] = (frechet_distance(mine, theirs, population=protocol.stylegan),)
    elif protocol.kind == "kid":
        values = kernel_distance(
            mine,
            theirs,
            subsets=options.kid_subsets,
            subset_size=options.kid_subset_size,
            rng_seed=options.rng_seed,
        )
    else:
        values = precision_recall(mine, theirs, half=protocol.stylegan)
    return dict(zip(protocol.keys, values, strict=False))


def check_counts(fakes: Mapping[Protocol, int], reals: Mapping[Protocol, int]) -> None:
    """Refuse sets that are too small for anything to be said."""
    for what, counts in (("generated", fakes), ("real", reals)):
        for protocol, count in counts.items():
            if count < 2:
                raise ValueError(f"{protocol.name} needs at least 2 {what} pictures, got {count}")

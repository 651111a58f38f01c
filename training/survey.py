"""Passes over sets of pictures by all processes together, and what of the reals is kept on disk.

Batch k belongs to process k mod size; features are put together in the order of the pictures, so
that the numbers do not depend on how many processes there are. Only features travel and stay:
pictures are let go batch by batch.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from metrics.distances import FeatureFile, Moments
from metrics.features import FeatureNetwork, read_weights
from metrics.sliced_wasserstein import PatchSet
from metrics.statistics import Key, Statistics
from training.distributed import World
from training.pictures import Pictures

BATCH = 16

Networks = Mapping[str, FeatureNetwork]  # by the layers that they compute
Source = Callable[[Sequence[int]], Tensor]  # numbers -> pictures (batch, 3, height, width), uint8


def survey(
    world: World,
    source: Source,
    statistics: Statistics,
    networks: Networks,
    *,
    only: Iterable[Key] | None = None,  # what of the statistics is to be filled; None: all
    batch_size: int = BATCH,
    title: str = "",
    progress: bool = True,
) -> None:
    """Fill statistics, in the main process, from one pass over the first pictures of a source."""
    keys = list(statistics.kept) if only is None else list(only)
    count = max((statistics.length(key) for key in keys), default=0)
    layers = {key[1] for key in keys}
    wanted = {id(n): n for layer, n in networks.items() if layer in layers}.values()
    starts = range(0, count, batch_size)
    quiet = not (progress and world.is_main)
    shown = tqdm(total=count, desc=title, unit="img", disable=quiet, leave=False)
    with shown as bar:
        for first in range(0, len(starts), world.size):
            mine, found = first + world.rank, None
            if mine < len(starts):
                numbers = range(starts[mine], min(starts[mine] + batch_size, count))
                found = (
                    len(numbers),
                    _features(
                        source(numbers).to(world.device), numbers, statistics, wanted, layers
                    ),
                )
            for part in world.gather(found):
                if part is not None:
                    bar.update(part[0])
                    if world.is_main:
                        statistics.add(part[1], part[0], keys)


def _features(
    images: Tensor,
    numbers: Sequence[int],
    statistics: Statistics,
    networks: Iterable[FeatureNetwork],
    layers: set[str],
) -> dict[str, Any]:
    """All layers' features of a batch, on the CPU."""
    features: dict[str, Any] = {}
    for network in networks:
        features |= {name: value.cpu() for name, value in network(images).items()}
    if "patches" in layers:
        patches = PatchSet(seed=numbers[0])  # the same places in reals and fakes
        room = statistics.patches_wanted() - numbers[0]
        if room > 0:
            patches.add(images[:room].float())
        features["patches"] = patches
    return features


class RealCache:
    """Where statistics of real pictures are kept, by what identifies pictures and networks."""

    def __init__(self, folder: Path | None = None) -> None:
        given = os.environ.get("PERIGAN_CACHE")
        root = Path(given).expanduser() if given else Path.home() / ".cache" / "perigan"
        self.folder = folder or root / "metrics"

    def survey(
        self,
        world: World,
        pictures: Pictures,
        statistics: Statistics,
        networks: Networks,
        **options: Any,
    ) -> None:
        """Fill statistics from what is kept, and only the rest of them from the pictures."""
        files = {
            key: self._file(pictures, networks[key[1]], key, statistics)
            for key in statistics.kept
            if key[0] in ("moments", "features")
        }
        found = set()
        if world.is_main:
            found = {key for key, file in files.items() if self._load(file, key, statistics)}
        found = world.gather(found)[0]  # the main process's files decide for all
        missing = [key for key in statistics.kept if key not in found]
        survey(world, pictures.batch, statistics, networks, only=missing, **options)
        if world.is_main:
            for key in missing:
                if key in files:
                    self._save(files[key], statistics.kept[key])

    def _file(
        self, pictures: Pictures, network: FeatureNetwork, key: Key, statistics: Statistics
    ) -> Path:
        facts = [1, pictures.identity, network.source, key[0], key[1], statistics.length(key)]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        return self.folder / f"{name}.pt"

    def _load(self, file: Path, key: Key, statistics: Statistics) -> bool:
        if not file.is_file():
            return False
        try:
            state = read_weights(file)
            if key[0] == "moments":
                moments = Moments()
                moments.load_state_dict(state)
                statistics.kept[key] = moments
            else:
                kept = FeatureFile.open(file.with_suffix(".f32"), int(state["width"]))
                if kept.count != statistics.length(key):
                    return False
                statistics.kept[key] = kept
        except (ValueError, KeyError, OSError):  # damaged: compute it again
            return False
        return True

    def _save(self, file: Path, kept: object) -> None:
        """Keep what was computed; a disk that does not take it is no reason to stop."""
        temporary = file.with_suffix(f".{uuid.uuid4().hex}.tmp")
        with suppress(OSError, RuntimeError):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                if isinstance(kept, FeatureFile):
                    kept.copy_to(temporary)
                    os.replace(temporary, file.with_suffix(".f32"))
                    torch.save({"width": torch.tensor(kept.width)}, temporary)
                elif isinstance(kept, Moments):
                    torch.save(kept.state_dict(), temporary)
                os.replace(temporary, file)
            finally:
                temporary.unlink(missing_ok=True)

"""Measuring generators: every metric asked for, from one pass over their pictures.

`Evaluation` is what eval_metrics.py and the trainer share; `measure` is the trainer's: the averaged
generator against all the pictures it learns from, and no fewer of its own than `eval_images`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from curriculums import Curriculum, stage_at, stage_starts
from generators import RadianceGenerator
from inference.samples import Samples
from metrics import features
from metrics.protocols import DEFAULT_FAKES, Protocol, find_protocols
from metrics.sliced_wasserstein import PATCH
from metrics.statistics import LAYERS, Options, Statistics, check_counts, numbers_of
from stages import FROM_DATA
from training.distributed import World
from training.geometry import measure_geometry
from training.motion import EQUIVARIANCE, equivariance, path_length
from training.pictures import DatasetPictures, Pictures
from training.survey import BATCH, RealCache, Source, survey
from training.trainer import Trainer

SEED = 20_000_000  # far from the latents that people look at


@dataclass(frozen=True)
class Weights:
    """Where the weights of feature networks lie, None: see metrics.features."""

    inception: Path | None = None
    vgg: Path | None = None
    lpips: Path | None = None


@dataclass
class Evaluation:
    """Metrics, the networks that they need, and what is known of the real pictures.

    Networks and real statistics are made once and serve any number of generators.
    """

    world: World
    protocols: Sequence[Protocol]
    reals: Pictures | None = None
    num_images: int | None = None  # in place of every metric's own number
    short_images: int = DEFAULT_FAKES  # of metrics whose name does not say
    backend: str = "torch-fidelity"
    weights: Weights = Weights()
    options: Options = Options()
    batch_size: int = BATCH
    progress: bool = True
    _networks: dict[str, features.FeatureNetwork] = field(default_factory=dict)
    _lpips: features.Lpips | None = None
    _real: Statistics | None = None

    def __post_init__(self) -> None:
        """Load what is needed: whatever is missing is missed before any work."""
        kinds = {protocol.kind for protocol in self.protocols}
        check_backend(self.protocols, self.backend)
        device, weights = self.world.device, self.weights
        if kinds & {"fid", "kid", "is"}:
            logits, backend = "is" in kinds, self.backend
            network = features.inception(weights.inception, backend=backend, logits=logits)
            self._networks |= dict.fromkeys(network.layers, network.to(device))
        if "pr" in kinds:
            self._networks["fc2"] = features.vgg16(weights.vgg).to(device)
        if "ppl" in kinds:
            self._lpips = features.Lpips(weights.vgg, weights.lpips).to(device)
        if any(protocol.needs_reals for protocol in self.protocols) and self.reals is None:
            names = [protocol.name for protocol in self.protocols if protocol.needs_reals]
            raise ValueError(f"{', '.join(names)} compare with real pictures: give some")

    def wanted(self, protocol: Protocol, available: int | None = None) -> int:
        """How many generated pictures a metric looks at; `available`: there are no more."""
        own = self.short_images if protocol.name == protocol.kind else protocol.num_fakes
        count = self.num_images or own
        if protocol.kind == "swd":
            # the original compares as many with as many
            limits = [protocol.max_reals, None if self.reals is None else len(self.reals)]
            count = min(count, *(limit for limit in limits if limit is not None))
        return count if available is None else min(count, available)

    def of_generator(self, samples: Samples) -> dict[str, Any]:
        """Numbers of a generator by their keys, with the protocol; every process takes part."""
        fakes = {p: self.wanted(p) for p in self.protocols if p.kind in LAYERS}

        def source(numbers: Sequence[int]) -> torch.Tensor:
            return samples.pictures(numbers, self.world.device)

        numbers = self._compare(source, fakes)
        for protocol in self.protocols:
            if protocol.kind == "ppl":
                assert self._lpips is not None
                value = path_length(self.world, samples, self._lpips, self.wanted(protocol))
                numbers[protocol.keys[0]] = value
        moving = {p.kind: p for p in self.protocols if p.kind in EQUIVARIANCE}
        if moving:
            count = max(map(self.wanted, moving.values()))
            found = equivariance(self.world, samples, list(moving), count)
            numbers |= {moving[kind].keys[0]: value for kind, value in found.items()}
        return self._ordered(numbers)

    def of_pictures(self, pictures: Pictures) -> dict[str, Any]:
        """Numbers of pictures that somebody else made."""
        for protocol in self.protocols:
            if protocol.needs_generator:
                raise ValueError(f"{protocol.name} needs a generator, pictures are not enough")
        size = None if self.reals is None else self.reals.size
        if size is not None and pictures.size != size:
            (a, b), (c, d) = size, pictures.size
            raise ValueError(f"the real pictures have {a}x{b} pixels, the generated ones {c}x{d}")
        fakes = {p: self.wanted(p, len(pictures)) for p in self.protocols}
        return self._ordered(self._compare(pictures.batch, fakes), available=len(pictures))

    def _compare(self, source: Source, fakes: Mapping[Protocol, int]) -> dict[str, float]:
        """Whatever is computed of features, in the main process."""
        if not fakes:
            return {}
        reals = self._real_counts(fakes)
        check_counts(fakes, reals)
        real = self._real_statistics(reals)
        fake = Statistics(fakes, self.options)
        survey(
            self.world, source, fake, self._networks,
            batch_size=self.batch_size, title="generated pictures", progress=self.progress,
        )  # fmt: skip
        numbers: dict[str, float] = {}
        if self.world.is_main:
            for protocol in fakes:
                numbers |= numbers_of(protocol, fake, real)
        return numbers

    def _real_counts(self, fakes: Mapping[Protocol, int]) -> dict[Protocol, int]:
        counts = {}
        for protocol in fakes:
            if protocol.needs_reals and self.reals is not None:
                most = fakes[protocol] if protocol.kind == "swd" else protocol.max_reals
                counts[protocol] = min(len(self.reals), most or len(self.reals))
        return counts

    def _real_statistics(self, counts: Mapping[Protocol, int]) -> Statistics | None:
        if not counts or self.reals is None:
            return None
        if self._real is None or self._real.counts != counts:
            self._real = Statistics(counts, self.options)
            RealCache().survey(
                self.world, self.reals, self._real, self._networks,
                batch_size=self.batch_size, title="real pictures", progress=self.progress,
            )  # fmt: skip
        return self._real

    def _ordered(self, numbers: dict[str, float], available: int | None = None) -> dict[str, Any]:
        """In the order in which they were asked for, the protocol first; main process only."""
        if not self.world.is_main:
            return {}
        first = [key for protocol in self.protocols for key in protocol.keys if key in numbers]
        return {"protocol": self.protocol(available)} | {
            key: numbers[key] for key in dict.fromkeys([*first, *numbers])
        }

    def protocol(self, available: int | None = None) -> str:
        """What a reader must know to compare the numbers with others."""
        parts = [f"{p.name}, {self.wanted(p, available)} images" for p in self.protocols]
        parts += sorted({network.source for network in self._networks.values()})
        if self._lpips is not None:
            parts.append(self._lpips.source)
        if self.reals is not None:
            parts.append(f"{self.reals.size[0]} px")
        return ", ".join(parts)


def check_backend(protocols: Sequence[Protocol], backend: str) -> None:
    """Refuse what pytorch-fid does not compute, before anything is loaded."""
    if backend not in features.BACKENDS:
        raise ValueError(f"backend must be one of {features.BACKENDS}, got {backend!r}")
    others = [p.name for p in protocols if p.kind in ("kid", "is", "pr", "ppl")]
    if backend == "pytorch-fid" and others:
        raise ValueError(f"pytorch-fid computes FID alone, not {', '.join(others)}")


def check_measurements(curriculum: Curriculum) -> None:
    """Refuse metrics that do not exist or cannot be computed here, before training begins."""
    stages = [stage_at(curriculum, start) for start in stage_starts(curriculum)]
    kinds = {p.kind for stage in stages for p in find_protocols(stage.eval_metrics)}
    features.check_weights(kinds)


@torch.no_grad()
def measure(trainer: Trainer) -> dict[str, Any]:
    """The stage's `eval_metrics` of ema.pth, untruncated, against the training pictures.

    Fakes are seen from the evaluation pose law and rounded to bytes as they would be on disk; each
    depends on its own number alone. Networks are in memory while this runs and not longer.
    Pictures too small for a sliced Wasserstein distance have none. Of `eval_scenes` scenes of a
    radiance generator the geometry is measured, too.
    """
    stage, world, dataset = trainer.stage, trainer.world, trainer.dataset
    protocols = [
        protocol
        for protocol in find_protocols(stage.eval_metrics)
        if protocol.kind != "swd" or stage.img_size >= PATCH
    ]
    generator = trainer.state.emas["ema.pth"].module
    kind = stage.sample_dist_eval or stage.sample_dist
    poses = dataset.poses(stage.fov, stage.radius) if kind == FROM_DATA else None
    samples = Samples(generator, stage, seed=SEED, labels=dataset.labels, poses=poses)
    evaluation = Evaluation(
        world,
        protocols,
        DatasetPictures(dataset),
        short_images=stage.eval_images,
        batch_size=BATCH,
        progress=True,
    )
    numbers = evaluation.of_generator(samples) if protocols else {}
    if stage.eval_scenes and isinstance(generator, RadianceGenerator):
        geometry = measure_geometry(
            generator,
            stage,
            num_images=stage.eval_scenes,
            settings=stage.eval_settings(),
            world=world,
        )
        numbers |= geometry if world.is_main else {}
    return numbers

"""Measuring a run: which fakes, which reals, and how several processes share the work."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_networks import put_in_place
from tiny_runs import TINY
from torch import Tensor

from curriculums import stage_at, with_overrides
from datasets import ImageDataset
from inference.views import seeded_latents
from metrics.protocols import find_protocols
from rendering.cameras import Cameras
from rendering.renderer import Rendering
from rendering.settings import RenderSettings
from training.distributed import World
from training.evaluate import SEED, Evaluation, check_measurements, measure
from training.pictures import DatasetPictures

SIZE = 16


@dataclasses.dataclass
class Echo:
    """A generator that shows the pictures of a data set one by one, and remembers its orders."""

    shown: Tensor
    latent_dim: int = 6
    label_dim: int = 0
    z: list[Tensor] = dataclasses.field(default_factory=list)
    views: list[Cameras] = dataclasses.field(default_factory=list)
    settings: list[RenderSettings] = dataclasses.field(default_factory=list)

    def mapping(self, z: Tensor, label: None, cameras: Cameras) -> Tensor:
        self.z.append(z)
        return z

    def synthesis(self, w: Tensor, cameras: Cameras, settings: RenderSettings) -> Rendering:
        done = sum(len(v) for v in self.views)
        self.views.append(cameras)
        self.settings.append(settings)
        return Rendering(self.shown[done : done + len(w)])


class Sharing(World):
    """One of several processes; nobody hears what it tells the others."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(rank, size, torch.device("cpu"))

    def gather(self, value: Any) -> list[Any]:
        return [value if self.is_main or not isinstance(value, tuple) else None]


def pictures(count: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def trainer(
    dataset: ImageDataset, *changes: str, world: World | None = None, generator: Any = None
) -> Any:
    """As much of a trainer as is looked at."""
    images = dataset.batch(torch.arange(len(dataset))).images
    stage = stage_at(with_overrides(TINY, ["0.img_size=16", *changes]), 0)
    echo = generator or Echo(images)
    return SimpleNamespace(
        stage=stage,
        world=world or World(0, 1, torch.device("cpu")),
        dataset=dataset,
        state=SimpleNamespace(emas={"ema.pth": SimpleNamespace(module=echo)}),
        echo=echo,
    )


def test_a_generator_that_shows_the_data_is_at_no_distance() -> None:
    run = trainer(ImageDataset(pictures(20), mirror=0.5), "eval_images=20")
    assert measure(run) == {"protocol": "swd, 20 images, 16 px", "swd_16": 0.0, "swd": 0.0}


def test_one_that_shows_something_else_is_farther_the_less_alike_it_is() -> None:
    dataset = ImageDataset(pictures(12))
    images = dataset.batch(torch.arange(12)).images
    flat = torch.linspace(-1, 1, SIZE).expand_as(images)
    found = [
        measure(trainer(dataset, "eval_images=12", generator=Echo(torch.lerp(images, flat, mix))))
        for mix in (0.0, 0.3, 0.9)
    ]
    distances = [f["swd"] for f in found]
    assert distances[0] == 0 < distances[1] < distances[2]


def test_no_more_pictures_are_compared_than_there_are() -> None:
    run = trainer(ImageDataset(pictures(5)), "eval_images=2048")
    assert measure(run)["protocol"] == "swd, 5 images, 16 px"
    assert sum(map(len, run.echo.z)) == 5


@pytest.mark.parametrize("law", ["gaussian", "uniform"])
def test_fakes_are_numbered_seeds_of_the_latents_law(law: str) -> None:
    run = trainer(ImageDataset(pictures(20)), "eval_images=20", f"z_dist={law}")
    measure(run)
    expected = seeded_latents([SEED + n for n in range(20)], 6, law)
    assert torch.equal(torch.cat(run.echo.z), expected)
    assert bool((expected.abs() > 1).any()) == (law == "gaussian")


def test_fakes_are_seen_from_the_poses_of_metrics_without_jitter_or_noise() -> None:
    run = trainer(
        ImageDataset(pictures(20)), "eval_images=20", "h_stddev_eval=0", "v_stddev_eval=0.2",
        "sample_dist_eval=uniform", "white_back=False", "eval_last_back=True",
    )  # fmt: skip
    measure(run)
    angles = torch.cat([v.yaw_pitch for v in run.echo.views])
    assert (angles[:, 0] == run.stage.h_mean).all()
    off = (angles[:, 1] - run.stage.v_mean).abs()
    assert off.max() <= 0.2001 and len(torch.unique(off)) == 20
    for settings in run.echo.settings:
        assert (settings.jitter, settings.noise_std, settings.last_back) == (False, 0.0, True)
    z = torch.cat(run.echo.z)
    assert abs(torch.corrcoef(torch.stack([z[:, 0], angles[:, 1]]))[0, 1]) < 0.7


def test_several_processes_share_the_batches_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluate.BATCH", 2)
    dataset = ImageDataset(pictures(5))
    shown = dataset.batch(torch.arange(5)).images
    alone = trainer(dataset, "eval_images=5")
    measure(alone)
    z = {}
    for rank in range(4):  # more of them than batches
        echo = Echo(shown[2 * rank : 2 * rank + 2])
        measure(trainer(dataset, "eval_images=5", world=Sharing(rank, 4), generator=echo))
        z[rank] = echo.z
    assert z[3] == []
    assert torch.equal(torch.cat([z[r][0] for r in range(3)]), torch.cat(alone.echo.z))


def test_all_metrics_take_one_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_in_place(monkeypatch)
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path))
    dataset = ImageDataset(pictures(14), identity="x")
    run = trainer(dataset, "eval_images=14", "eval_metrics=swd,fid,kid,is,pr")
    numbers = measure(run)
    assert sum(map(len, run.echo.z)) == 14
    assert (numbers["swd"], numbers["precision"], numbers["recall"]) == (0, 1, 1)
    assert numbers["fid"] == pytest.approx(0, abs=1e-6)
    assert list(numbers)[:4] == ["protocol", "swd", "fid", "kid"]
    assert "swd, 14 images, fid, 14 images" in numbers["protocol"]


def test_a_metric_looks_at_as_many_pictures_as_its_name_says_or_the_user() -> None:
    world = World(0, 1, torch.device("cpu"))
    protocols = find_protocols(["swd", "eqr50k", "eqt50k_int"])
    reals = DatasetPictures(ImageDataset(pictures(30)))

    def wanted(**options: Any) -> list[int]:
        evaluation = Evaluation(world, protocols, reals, **options)
        return [evaluation.wanted(protocol) for protocol in protocols]

    assert wanted() == [30, 50_000, 50_000]
    assert wanted(short_images=20) == [20, 50_000, 50_000]
    assert wanted(num_images=7) == [7, 7, 7]


def test_real_statistics_are_kept_by_the_identity_of_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_in_place(monkeypatch)
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path))
    changes = ("eval_images=10", "eval_metrics=fid,kid,pr")
    images, other = pictures(10), 255 - pictures(10)
    echo = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    first = measure(trainer(ImageDataset(images, identity="a"), *changes, generator=Echo(echo)))
    kept = {f: f.read_bytes() for f in (tmp_path / "metrics").iterdir()}
    # other pixels under the same name: the numbers come from what was kept
    same = measure(trainer(ImageDataset(other, identity="a"), *changes, generator=Echo(echo)))
    assert same == first
    changed = measure(trainer(ImageDataset(other, identity="b"), *changes, generator=Echo(echo)))
    assert changed["fid"] > first["fid"] + 0.05
    for file in kept:  # what is damaged is computed again
        file.write_bytes(b"damaged")
    again = measure(trainer(ImageDataset(images, identity="a"), *changes, generator=Echo(echo)))
    assert again == first
    assert all(len(f.read_bytes()) == len(content) for f, content in kept.items())


def test_metrics_that_cannot_be_computed_are_missed_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_measurements(TINY)
    with pytest.raises(ValueError, match="unknown metric 'fjd'"):
        check_measurements(with_overrides(TINY, ["eval_metrics=swd,fjd"]))
    monkeypatch.setenv("PERIGAN_INCEPTION_WEIGHTS", "nowhere.pth")
    with pytest.raises(ValueError, match="nowhere.pth"):
        check_measurements(with_overrides(TINY, ["6.eval_metrics=fid2k_full"]))


def test_pictures_smaller_than_a_patch_are_not_measured() -> None:
    run = trainer(ImageDataset(pictures(5, 4)), "0.img_size=4")
    assert measure(run) == {}
    assert run.echo.z == []

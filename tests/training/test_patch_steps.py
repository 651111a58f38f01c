"""Steps on patches: whole windows train as whole images do, memory follows the patch alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY, differences, run_files, tiny_curriculum, write_pictures
from torch import Tensor

from curriculums import stage_at, with_overrides
from generators.epigraf import EpiGRAF
from training.build import build_players
from training.distributed import World
from training.fakes import Sampler
from training.players import Moment, Players, Reals
from training.random import Streams
from training.steps import discriminator_step, generator_step, r1_step
from training.trainer import RunOptions, Trainer

CPU = torch.device("cpu")
PLANES = {
    **{"plane_resolution": 8, "feature_dim": 4, "channel_base": 64, "channel_max": 12},
    **{"w_dim": 8, "decoder_width": 8, "cube_scale": 0.4},
}
CHANGES = [
    "generator=EpiGRAF",
    f"generator_options={PLANES}",
    "discriminator=PatchDiscriminator",
    "discriminator_options={'channel_base': 64, 'channel_max': 8}",
    "0.img_size=8",
    "pos_lambda=0",
    "z_lambda=0",
    "topk_v=1",
    "grad_clip=None",
    "bounded_jitter=True",
]


class Match:
    """Small players at a stage of changed TINY, with four real pictures."""

    def __init__(self, *changes: str) -> None:
        self.stage = stage_at(with_overrides(TINY, [*CHANGES, *changes]), 0)
        self.streams = Streams(0, 0, CPU)
        self.players: Players
        self.players, _ = build_players(
            self.stage, 0, World(0, 1, CPU), self.streams.rendering, self.streams.chance
        )
        size = self.stage.img_size
        settings = self.stage.render_settings(0, resolution=self.stage.patch_size or size)
        self.moment = Moment(self.stage, 0, 1.0, settings)
        group = self.players.discriminator.group_size(4 // self.stage.batch_split)
        generator = self.players.generator
        self.sampler = Sampler(self.stage, generator, self.streams, group_size=group)
        rng = torch.Generator().manual_seed(1)
        self.pictures = torch.rand(4, 3, size, size, generator=rng) * 2 - 1

    def step(self, images_seen: int = 0) -> dict[str, Tensor]:
        """One step of both players."""
        sampler = self.sampler
        reals = sampler.windows(Reals(self.pictures), images_seen)
        stats = discriminator_step(self.players, self.moment, reals, sampler.fakes(images_seen))
        return stats | generator_step(self.players, self.moment, sampler.fakes(images_seen))

    def weights(self) -> dict[str, Tensor]:
        networks = (self.players.generator, self.players.discriminator)
        return {
            f"{i}.{name}": value.clone()
            for i, network in enumerate(networks)
            for name, value in network.state_dict().items()
        }


def test_windows_of_scale_one_train_as_whole_images_do_bit_for_bit() -> None:
    whole = Match()
    windows = Match("patch_size=8", "patch_options={'min_scale': 1.0}")
    for match in (whole, windows):
        match.step()
    for name, value in whole.weights().items():
        assert torch.equal(windows.weights()[name], value), name


@pytest.mark.parametrize("background", ["none", "plane", "sphere"])
def test_a_step_on_patches_moves_both_players(background: str) -> None:
    match = Match(
        "patch_size=8",
        "0.img_size=32",
        "patch_options.anneal_kimg=0",
        f"generator_options.background={background!r}",
    )
    before = match.weights()
    stats = match.step()
    assert all(value.isfinite().all() for value in stats.values())
    still = {n for n, v in match.weights().items() if torch.equal(v, before[n])}
    buffers = {n for n in still if n.endswith(("filter", "noise_const", "mean_pose"))}
    assert not [n for n in still - buffers if not n.endswith("table.weight")]


def saved_bytes(match: Match) -> int:
    """What a step of the generator and R1 keep for their backward passes."""
    total = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    sampler = match.sampler
    reals = sampler.windows(Reals(match.pictures), 0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        r1_step(match.players, match.moment, reals, match.stage.batch_split)
        generator_step(match.players, match.moment, sampler.fakes(0))
    return total


def test_memory_of_a_step_follows_the_patch_and_not_the_image() -> None:
    # a discriminator as deep for all, so that the size of the images is all that differs
    options = "discriminator_options.resolution=32"
    small, large = (
        saved_bytes(Match("patch_size=8", f"0.img_size={size}", options)) for size in (16, 128)
    )
    larger_patch = saved_bytes(Match("patch_size=16", "0.img_size=128", options))
    assert small == large
    assert larger_patch > 1.1 * large


def test_dropped_poses_are_drawn_from_the_runs_own_stream() -> None:
    changes: list[Any] = [
        "patch_size=8",
        "generator_options.pose_conditioning=True",
        "generator_options.pose_drop_p=0.5",
    ]
    state = torch.get_rng_state()
    first, second = Match(*changes), Match(*changes)
    draws = [match.sampler.fakes(0)[0] for match in (first, second)]
    styles = [m.players.styles(d) for m, d in zip((first, second), draws, strict=True)]
    assert torch.equal(*styles)
    generator = first.players.generator
    assert isinstance(generator, EpiGRAF) and generator.pose is not None
    assert generator.pose.rng is first.streams.rendering
    assert torch.equal(state, torch.get_rng_state())


def test_a_run_on_patches_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    curriculum = tiny_curriculum(
        write_pictures(tmp_path / "pictures"),
        *CHANGES,
        "0.img_size=16",
        "patch_size=8",
        "patch_options={'anneal_kimg': 0.02}",
        "spoof_p=0.5",
        "spoof_kimg=0.02",
        "generator_options.background='sphere'",
        "generator_options.pose_conditioning=True",
        "generator_options.pose_drop_p=0.5",
    )

    def train(output: Path, steps: int, load: Path | None = None) -> None:
        options = RunOptions(output, load, n_steps=steps)
        Trainer(curriculum, options, World(0, 1, CPU)).fit()

    train(tmp_path / "whole", 4)
    train(tmp_path / "half", 2)
    train(tmp_path / "half", 4, load=tmp_path / "half")
    assert differences(run_files(tmp_path / "whole"), run_files(tmp_path / "half")) == []

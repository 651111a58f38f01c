"""Runs on patches, with the data's own cameras and spoofed ones: what the sampler hands out."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_runs import differences, run_files, tiny_curriculum, write_pictures
from torch.testing import assert_close

from curriculums import Curriculum, stage_at
from rendering.cameras import Cameras
from rendering.empirical_poses import EmpiricalPoses
from training.distributed import World
from training.evaluate import measure
from training.fakes import Sampler
from training.patches import cut_patches
from training.players import Reals
from training.random import Streams
from training.trainer import RunOptions, Trainer

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
KEYS = [
    "generator=EpiGRAF",
    "generator_options={'plane_resolution': 8, 'feature_dim': 2, 'channel_base': 32, 'w_dim': 8, "
    "'channel_max': 4, 'decoder_width': 4, 'cube_scale': 0.6, 'pose_conditioning': True}",
    "discriminator=PatchDiscriminator",
    "discriminator_options={'channel_base': 32, 'channel_max': 4, 'condition_on_cameras': True,"
    " 'mbstd_group_size': 2}",
    "0.img_size=16",
    "0.batch_size=4",
    "6.batch_size=4",
    "patch_size=8",
    "patch_options={'anneal_kimg': 0.04, 'beta_end': 0.5}",
    "sample_dist=dataset",
    "spoof_p=0.5",
    "spoof_kimg=0.04",
    "bounded_jitter=True",
    "clamp_mode=softplus",
    "pos_lambda=0",
    "z_lambda=0",
]
Make = Callable[..., Curriculum]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Curricula on pictures with cameras and classes."""
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))
    folder = write_pictures(tmp_path / "posed", size=16)
    names = [f"{i:03d}.png" for i in range(12)]
    table = {
        "camera_angles": [[n, [1.2 + 0.05 * i, 1.3 + 0.02 * i, 0.0]] for i, n in enumerate(names)],
        "labels": [[n, i % 3] for i, n in enumerate(names)],
    }
    (folder / "dataset.json").write_text(json.dumps(table))
    return lambda *changes: tiny_curriculum(folder, *KEYS, *changes)


def train(curriculum: Curriculum, output: Path, n_steps: int, load: Path | None = None) -> Trainer:
    trainer = Trainer(curriculum, RunOptions(output, load, n_steps=n_steps), WORLD, measure)
    trainer.fit()
    return trainer


def test_twenty_steps_on_patches_equal_ten_and_a_resume_and_ten(make: Make, tmp_path: Path) -> None:
    train(make(), tmp_path / "whole", 14)
    train(make(), tmp_path / "half", 7)
    train(make(), tmp_path / "half", 14, load=tmp_path / "half")
    assert differences(run_files(tmp_path / "whole"), run_files(tmp_path / "half")) == []


def test_reals_are_cut_where_their_windows_say_and_groups_share_one(make: Make) -> None:
    trainer = Trainer(make("batch_split=1"), RunOptions(Path("nowhere")), WORLD)
    images = torch.rand(4, 3, 16, 16)
    reals = trainer.sampler.windows(Reals(images), 40)
    assert reals.patch is not None and reals.images.shape == (4, 3, 8, 8)
    assert torch.equal(reals.images, cut_patches(images, reals.patch, 8))
    assert trainer.sampler.group_size == 2
    assert torch.equal(reals.patch.scale[:2], reals.patch.scale[2:])  # 0 and 2, 1 and 3
    assert reals.patch.scale.min() >= 0.5 and len(reals.patch.scale.unique()) == 2


def test_windows_shrink_as_pictures_are_seen(make: Make) -> None:
    trainer = Trainer(make("batch_split=1"), RunOptions(Path("nowhere")), WORLD)
    early, late = (
        torch.cat([d.patch.scale for _ in range(50) for d in trainer.sampler.fakes(n) if d.patch])
        for n in (0, 40)
    )
    assert early.mean() > 0.99 and 0.75 < late.mean() < 0.9  # 1/2 + 1/2 E Beta(1, 1/2) = 5/6


def test_fakes_are_seen_from_the_datas_cameras_with_their_labels(make: Make) -> None:
    changes = ["label_dim=3", "batch_split=2", "dataset_options.mirror=False"]
    trainer = Trainer(make(*changes), RunOptions(Path("nowhere")), WORLD)
    found = set()
    for _ in range(20):
        for draw in trainer.sampler.fakes(0):
            assert draw.label is not None
            for yaw, label in zip(draw.cameras.yaw_pitch[:, 0], draw.label, strict=True):
                index = round((float(yaw) - 1.2) / 0.05)
                assert float(yaw) == pytest.approx(1.2 + 0.05 * index, abs=1e-5)
                assert int(label) == index % 3
                found.add(index)
    assert found == set(range(12))


def test_yaws_of_reals_are_counted_as_those_of_fakes_are(make: Make) -> None:
    """A discriminator could tell 4.3 from -2.0, and reals from fakes, though the view is one."""

    def reals(*changes: str) -> Cameras:
        trainer = Trainer(make("batch_split=1", *changes), RunOptions(Path("nowhere")), WORLD)
        cameras = trainer._reals().cameras
        assert cameras is not None
        return cameras

    drawn = reals(f"h_mean={1.5 + math.tau}")
    near, far = (reals("sample_dist=uniform", f"h_mean={1.5 + turn}") for turn in (0, math.tau))
    assert torch.equal(near.yaw_pitch, drawn.yaw_pitch), "the data's own stay what they are"
    assert_close(far.yaw_pitch[:, 0], near.yaw_pitch[:, 0] + math.tau)
    assert_close(far.cam2world, near.cam2world, atol=1e-5, rtol=0)


def test_the_generator_is_told_others_cameras_less_and_less(make: Make) -> None:
    trainer = Trainer(make("batch_split=2"), RunOptions(Path("nowhere")), WORLD)

    def wrong(images_seen: int) -> float:
        told, true = [], []
        for _ in range(100):
            draws = trainer.sampler.fakes(images_seen)
            told += [d.told.yaw_pitch for d in draws if d.told is not None]
            true += [d.cameras.yaw_pitch for d in draws]
        away = (torch.cat(told) - torch.cat(true)).abs().amax(1) > 1e-6
        return float(away.float().mean())

    assert wrong(0) > 0.9  # a batch of four from twelve cameras repeats one now and then
    assert 0.3 < wrong(40) < 0.6
    assert trainer.stage.spoof_p == 0.5


def test_told_cameras_reach_the_mapping_and_true_ones_the_picture(make: Make) -> None:
    trainer = Trainer(make("batch_split=1"), RunOptions(Path("nowhere")), WORLD)
    players = trainer.state.players
    (draw,) = trainer.sampler.fakes(0)
    assert draw.told is not None
    w = players.styles(draw)
    assert_close(w, players.generator.mapping(draw.z, None, draw.told))
    assert not torch.allclose(w, players.generator.mapping(draw.z, None, draw.cameras))


def test_poses_of_a_law_stay_what_they_were(make: Make) -> None:
    """Without the data's cameras the streams give what they gave before there were any."""
    stage = stage_at(make("sample_dist=uniform", "patch_size=None", "patch_options={}",
                          "spoof_p=0", "batch_split=1"), 0)  # fmt: skip
    streams, again = Streams(0, 0, CPU), Streams(0, 0, CPU)
    (draw,) = Sampler(stage, None, streams).fakes(0)  # type: ignore[arg-type]
    assert torch.equal(draw.z, torch.randn(4, 6, generator=again.latents))
    cameras = Cameras.sample(stage.pose_law(), 4, again.poses)
    assert torch.equal(draw.cameras.cam2world, cameras.cam2world)


def test_the_data_stand_for_themselves_as_a_normal_law_where_they_are_not(make: Make) -> None:
    law = stage_at(make(), 0).pose_law()
    assert (law.kind, law.h_mean, law.h_stddev) == ("gaussian", 1.5, 0.3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (["patch_size=32"], "patch_size must be at most img_size"),
        (["patch_options.kind=gamma"], "unknown patch law 'gamma'"),
        (["patch_options.knid=beta"], "patch_options: .*knid"),
        (["patch_size=None"], "patch_options need patch_size"),
        (["generator=StyleGAN2", "generator_options={}"], "patch_size: StyleGAN2 makes whole"),
        (["discriminator=StyleGAN2Discriminator", "discriminator_options={}"], "16 pixels, got 8"),
        (["dataset_path=pictures"], "camera"),
        (["generator_options.cube_scale=0.1", "ray_start=1.2"],
         r"no sample is in the scene: samples lie 1.2 to 1.4 from cameras whose distance is 1, and "
         r"the cube of EpiGRAF reaches 0.1 .* \(stage 0\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_at_once(
    make: Make, changes: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    with pytest.raises(ValueError, match=complaint):
        Trainer(make(*changes), RunOptions(tmp_path / "run"), WORLD)


def test_a_view_beyond_the_cube_is_told_with_numbers(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    Trainer(make(), RunOptions(Path("nowhere")), WORLD)
    assert "in view" not in caplog.text
    Trainer(make("generator_options.cube_scale=0.39"), RunOptions(Path("nowhere")), WORLD)
    assert "reaches 0.39 from the origin, but 0.4 of it is in view" in caplog.text
    assert "(stage 0)" in caplog.text and "(stage 6)" in caplog.text


def test_empirical_poses_pair_places_with_cameras() -> None:
    angles = torch.tensor([[0.1, 1.0, 0.0], [0.2, 1.1, 0.0]])
    poses = EmpiricalPoses.from_angles(angles, 20.0, mirror=0.5, frontal_yaw=math.pi / 2)
    places, flips = poses.draw(500, torch.Generator().manual_seed(0))
    yaw = poses.at(places, flips).yaw_pitch[:, 0]
    wanted = torch.where(flips, math.pi - angles[places, 0], angles[places, 0])
    assert_close(yaw, wanted)
    assert 200 < int(flips.sum()) < 300

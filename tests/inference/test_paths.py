"""Camera paths from flags: the originals' by default, and no parameter ignored."""

import argparse
import math

import pytest
import torch
from tiny_runs import TINY
from torch.testing import assert_close

from curriculums import stage_at, with_overrides
from inference.paths import NUMBERS, add_trajectory, camera_path
from rendering.cameras import Cameras
from rendering.trajectories import FRAMES, TRAJECTORIES

STAGE = stage_at(with_overrides(TINY, [f"h_mean={math.pi / 2}"]), 0)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_trajectory(parser)
    return parser.parse_args(words)


def path(*words: str, **options: object) -> Cameras:
    return camera_path(parse(*words), STAGE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_a_path_is_the_originals_unless_told_otherwise(name: str) -> None:
    made = path("--trajectory", name)
    expected = TRAJECTORIES[name](FRAMES[name], 40.0)
    assert_close(made.cam2world, expected.cam2world, atol=1e-6, rtol=0)
    assert_close(made.fov, expected.fov)
    assert made.cam2world.dtype == torch.float32


def test_every_number_belongs_to_some_path_and_every_path_has_its_frames() -> None:
    asked = {
        parameter
        for name in TRAJECTORIES
        for parameter in NUMBERS
        if parameter in TRAJECTORIES.arguments(name, dict.fromkeys(NUMBERS), {})
    }
    assert asked == set(NUMBERS) and set(FRAMES) == set(TRAJECTORIES)


def test_a_number_reaches_its_path_and_is_refused_by_others() -> None:
    wide = path("--trajectory", "front_circle", "--yaw_diff", "0.7", "--num_frames", "5")
    assert_close(wide.yaw_pitch[1, 0].item(), math.pi / 2 + 0.7)
    with pytest.raises(ValueError, match="trajectory orbit has no option 'yaw_diff'"):
        path("--trajectory", "orbit", "--yaw_diff", "0.7")
    with pytest.raises(ValueError, match="trajectory front has no option 'yaws'"):
        path("--yaws", "0.7")


def test_the_path_lies_around_the_middle_of_the_pose_law_at_its_distance() -> None:
    stage = stage_at(with_overrides(TINY, ["h_mean=0", "radius=2.7", "fov=20"]), 0)
    made = camera_path(parse("--trajectory", "points"), stage)
    assert_close(made.yaw_pitch[:, 0], torch.tensor([0.0, -0.3, 0.3]))
    assert_close(made.origin.norm(dim=-1), torch.full((3,), 2.7))
    assert_close(made.fov, torch.full((3,), 20.0))


def test_points_have_a_frame_each() -> None:
    assert len(path("--trajectory", "points", "--yaws", "0", "1", "-1", "2")) == 4
    assert len(path("--trajectory", "points", "--yaws", "0", "1", "--num_frames", "6")) == 6


def test_the_field_of_view_can_be_chosen_within_reason() -> None:
    assert_close(path("--trajectory", "orbit", "--fov", "11").fov[0].item(), 11.0)
    for wrong in ("0", "180", "nan"):
        with pytest.raises(ValueError, match="field of view"):
            path("--trajectory", "orbit", "--fov", wrong)


def test_a_script_has_its_own_defaults_and_the_user_the_last_word() -> None:
    assert path("--trajectory", "orbit", wobble=0.2).yaw_pitch[:, 1].std() > 0.1
    assert path("--trajectory", "orbit", "--wobble", "0", wobble=0.2).yaw_pitch[:, 1].std() < 1e-6
    assert len(path("--trajectory", "line", wobble=0.2)) == 16, "not every path has it"


def test_a_closed_path_leaves_out_its_repeated_end() -> None:
    loop = path("--trajectory", "orbit", num_frames=4, closed=True).yaw_pitch[:, 0]
    assert_close(loop, torch.arange(4) * math.pi / 2)
    asked = path("--trajectory", "orbit", "--num_frames", "4", "--loop").yaw_pitch[:, 0]
    assert torch.equal(asked, loop)
    assert len(path("--trajectory", "line", num_frames=4, closed=True)) == 4, "as far as it can"
    with pytest.raises(ValueError, match="--loop needs a closed path .* got line"):
        path("--trajectory", "line", "--loop")


def test_an_unknown_path_is_refused_with_the_nearest_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--trajectory", "wigle")
    assert stop.value.code == 2
    assert "unknown trajectory 'wigle', did you mean 'wiggle'?" in capsys.readouterr().err

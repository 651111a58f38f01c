"""One stage: its keys, what is refused and in which words, and what is derived from it."""

import ast
import dataclasses
import inspect
import math
from typing import Any

import pytest

import stages
from curriculums import CARLA, CURRICULA, CelebA, stage_at
from rendering.settings import PoseLaw, RenderSettings
from stages import COMPAT, KEYS, Stage, make_stage

VALUES = {k: v for k, v in CelebA.items() if isinstance(k, str)} | CelebA[0]


def changed(**values: Any) -> Stage:
    return make_stage(0, {**VALUES, **values})


def field_lines() -> dict[str, str]:
    """The source line of every field of Stage."""
    source = inspect.getsource(stages)
    (node,) = [n for n in ast.parse(source).body if getattr(n, "name", "") == "Stage"]
    assert isinstance(node, ast.ClassDef)
    lines = source.splitlines()
    return {
        n.target.id: lines[n.lineno - 1]
        for n in node.body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }


def test_every_key_is_explained_where_it_stands() -> None:
    lines = field_lines()
    assert set(lines) == {f.name for f in dataclasses.fields(Stage)}
    assert [name for name, line in lines.items() if len(line.partition("  # ")[2]) < 6] == []


@pytest.mark.parametrize("name", CURRICULA)
def test_every_key_is_accepted_and_a_stage_makes_itself_again(name: str) -> None:
    stage = stage_at(CURRICULA[name], 0)
    values = {k: v for k, v in vars(stage).items() if k != "start"}
    assert set(KEYS) == values.keys() | {"learnable_dist"}
    assert make_stage(0, {**values, "learnable_dist": False}) == stage


def test_a_stage_is_frozen_and_shares_no_options_with_its_curriculum() -> None:
    options = {"hidden_dim": 8}
    stage = changed(generator_options=options)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stage.fov = 3  # type: ignore[misc]
    assert stage.generator_options == options and stage.generator_options is not options


@pytest.mark.parametrize(
    ("key", "given", "kept"),
    [
        ("batch_size", 8.0, 8),
        ("fov", 12, 12.0),
        ("betas", [0, 0.5], (0.0, 0.5)),
        ("compat", ["batch_coin"], ("batch_coin",)),
        ("topk_interval", None, None),
        ("h_mean", -2, -2.0),
    ],
)
def test_a_value_takes_its_keys_type(key: str, given: Any, kept: Any) -> None:
    value = getattr(changed(**{key: given}), key)
    assert value == kept and type(value) is type(kept)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("fov", "12", "fov must be a number, got '12' (stage 0)"),
        ("fov", True, "fov must be a number, got True (stage 0)"),
        ("fov", math.nan, "fov must be a number, got nan (stage 0)"),
        ("fov", math.inf, "fov must be a number, got inf (stage 0)"),
        ("fov", None, "fov must not be None (stage 0)"),
        ("fov", 0, "fov must be positive, got 0.0 (stage 0)"),
        ("fov", 180, "fov must be below 180 degrees, got 180.0 (stage 0)"),
        ("gen_lr", -1, "gen_lr must not be negative, got -1.0 (stage 0)"),
        ("batch_size", 2.5, "batch_size must be a whole number, got 2.5 (stage 0)"),
        ("batch_size", 0, "batch_size must be positive, got 0 (stage 0)"),
        ("batch_size", 57, "batch_size must be a multiple of batch_split, got 57 and 2 (stage 0)"),
        ("img_size", 96, "img_size must be a power of two, got 96 (stage 0)"),
        ("num_steps", 2, "hierarchical sampling needs num_steps of at least 3, got 2 (stage 0)"),
        ("ray_start", 2, "need 0 <= ray_start < ray_end, got 2.0 and 1.12 (stage 0)"),
        ("white_back", 1, "white_back must be True or False, got 1 (stage 0)"),
        ("model", 3, "model must be text, got 3 (stage 0)"),
        ("generator_options", [], "generator_options must be a dictionary of options, got []"),
        ("clamp_mode", "Relu", "clamp_mode cannot be 'Relu' (stage 0), did you mean 'relu'?"),
        ("clamp_mode", None, "clamp_mode must not be None (stage 0)"),
        ("z_dist", "gausian", "z_dist cannot be 'gausian' (stage 0), did you mean 'gaussian'?"),
        (
            "sample_dist",
            "cube",
            "sample_dist cannot be 'cube' (stage 0); allowed: dataset, fixed, gaussian",
        ),
        ("precision", "fp61", "precision cannot be 'fp61' (stage 0), did you mean 'fp16'?"),
        ("betas", 0.9, "betas must be two numbers in [0, 1), got 0.9 (stage 0)"),
        ("betas", (0, 1), "betas must be two numbers in [0, 1), got (0, 1) (stage 0)"),
        ("betas", (0, 0.5, 0.5), "betas must be two numbers in [0, 1)"),
        ("compat", "batch_coin", "compat must be a list of names, got 'batch_coin' (stage 0)"),
        ("compat", ["batch_con"], "unknown compat name 'batch_con' (stage 0), did you mean 'batch"),
        ("topk_v", 1.5, "topk_v must be at most 1, got 1.5 (stage 0)"),
        ("ema_decay", 1, "ema_decay and ema2_decay must be below 1 (stage 0)"),
        ("white_back", True, "white_back and last_back exclude each other"),
        ("learnable_dist", True, "learnable_dist never had an effect"),
        ("start", 3, "unknown curriculum key 'start' (stage 0)"),
        ("Fov", 3, "unknown curriculum key 'Fov' (stage 0), did you mean 'fov'?"),
    ],
)
def test_an_impossible_value_is_named_with_its_key_and_stage(
    key: str, value: Any, complaint: str
) -> None:
    with pytest.raises(ValueError) as caught:
        changed(**{key: value})
    assert complaint in str(caught.value)


@pytest.mark.parametrize("key", sorted(VALUES))
def test_a_key_without_a_default_must_be_given(key: str) -> None:
    values = {k: v for k, v in VALUES.items() if k != key}
    default = {f.name: f for f in dataclasses.fields(Stage)}[key].default
    factory = {f.name: f for f in dataclasses.fields(Stage)}[key].default_factory
    if default is dataclasses.MISSING and factory is dataclasses.MISSING:
        with pytest.raises(ValueError, match=f"missing curriculum key '{key}' .stage 7."):
            make_stage(7, values)
    else:
        assert getattr(make_stage(7, values), key) == default


def test_a_compat_name_lets_the_background_count_twice() -> None:
    stage = changed(white_back=True, compat=["double_background"])
    assert stage.eval_settings().white_back and stage.eval_settings().last_back
    assert all(len(meaning) > 10 for meaning in COMPAT.values())


# -- what is derived


def test_training_settings_are_the_stages_with_the_steps_noise() -> None:
    stage = changed(nerf_noise=2.0, nerf_noise_steps=1000)
    assert stage.render_settings(250) == RenderSettings(
        64, 12, 0.88, 1.12, hierarchical=True, clamp_mode="relu", noise_std=1.5, jitter=True
    )
    assert stage.render_settings().noise_std == 0
    assert stage.render_settings(resolution=8, jitter=False).resolution == 8


def test_settings_for_looking_are_deterministic_with_the_background_meant_for_it() -> None:
    settings = changed().eval_settings(resolution=256)
    assert (settings.jitter, settings.noise_std, settings.last_back) == (False, 0.0, True)
    assert settings.resolution == 256
    assert not changed(eval_last_back=False).eval_settings().last_back
    assert changed(last_back=True, eval_last_back=None).eval_settings().last_back
    assert not changed().eval_settings(last_back=False).last_back


def test_density_noise_fades_linearly_to_nought() -> None:
    stage = changed()
    assert [stage.noise_std(s) for s in (0, 1250, 5000, 9999)] == [1.0, 0.75, 0.0, 0.0]
    assert changed(nerf_noise_steps=0).noise_std(0) == 0.0


def test_the_kept_share_falls_by_a_hundredth_per_interval_down_to_its_floor() -> None:
    stage = changed(topk_interval=2000, topk_v=0.6)
    assert stage.kept_share(0) == 1.0
    assert stage.kept_share(2000) == pytest.approx(0.99)
    assert stage.kept_share(101_600) > 0.6 == stage.kept_share(101_700)
    assert stage_at(CARLA, 100_000).kept_share(10**6) == 1.0
    assert changed(topk_v=None).kept_share(10**6) == 1.0
    assert changed(topk_interval=None).kept_share(10**6) == 1.0


def test_the_pose_law_of_metrics_is_the_training_one_but_for_what_is_given() -> None:
    law = PoseLaw("gaussian", math.pi / 2, 0.3, math.pi / 2, 0.155, 12, 1.0)
    assert changed().pose_law() == changed().pose_law(evaluation=True) == law
    stage = changed(sample_dist_eval="uniform", v_stddev_eval=0.0, radius=2, compat=["batch_coin"])
    expected = dataclasses.replace(law, radius=2.0, batch_coin=True)
    assert stage.pose_law() == expected
    assert stage.pose_law(evaluation=True) == dataclasses.replace(
        expected, kind="uniform", v_stddev=0.0
    )


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"eval_scenes": 1}, "eval_scenes must be 0, or 2 and more, got 1"),
        ({"eval_scenes": 4, "h_stddev": 0}, "eval_scenes need cameras whose yaw varies"),
        ({"eval_scenes": 4, "sample_dist": "fixed"}, "eval_scenes need cameras whose yaw varies"),
    ],
)
def test_geometry_needs_several_scenes_and_sides(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        changed(**values)

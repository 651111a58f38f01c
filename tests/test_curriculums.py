"""The shipped curricula, stages over time, overrides, and what is said about mistakes."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from curriculums import (
    CARLA,
    CURRICULA,
    CelebA,
    CelebA_progressive,
    Curriculum,
    fade_start,
    find_curriculum,
    from_json,
    last_step,
    next_stage,
    stage_at,
    stage_starts,
    validate,
    with_overrides,
)
from stages import FIXED_KEYS, KEYS

PI = 3.141592653589793

# pi-GAN's own values (its official code), written out once more
STAGE_COLUMNS = ("batch_size", "num_steps", "img_size", "batch_split", "gen_lr", "disc_lr")
STAGE_ROWS = {
    "CelebA": {0: (56, 12, 64, 2, 6e-5, 2e-4)},
    "CARLA": {
        0: (30, 48, 32, 1, 4e-5, 4e-4),
        10_000: (14, 48, 64, 2, 2e-5, 2e-4),
        55_000: (10, 48, 128, 5, 1e-5, 1e-4),
    },
    "CATS": {0: (28, 24, 64, 4, 6e-5, 2e-4)},
}
COLUMNS = ("CelebA", "CARLA", "CATS")
ABSENT = object()
RUN_ROWS: dict[str, tuple[Any, Any, Any]] = {
    "fov": (12, 30, 12),
    "ray_start": (0.88, 0.7, 0.8),
    "ray_end": (1.12, 1.3, 1.2),
    "fade_steps": (10000, 10000, 10000),
    "sample_dist": ("gaussian", "spherical_uniform", "uniform"),
    "h_mean": (PI / 2, PI / 2, PI / 2),
    "h_stddev": (0.3, PI, 0.5),
    "v_mean": (PI / 2, PI / 4 * 85 / 90, PI / 2),
    "v_stddev": (0.155, PI / 4 * 85 / 90, 0.4),
    "topk_interval": (2000, 1000, 2000),
    "topk_v": (0.6, 1, 0.6),
    "betas": ((0, 0.9), (0, 0.9), (0, 0.9)),
    "unique_lr": (False, False, False),
    "weight_decay": (0, 0, 0),
    "r1_lambda": (0.2, 10, 0.2),
    "latent_dim": (256, 256, 256),
    "z_dist": ("gaussian", "gaussian", "gaussian"),
    "grad_clip": (10, 1, 10),
    "model": ("SPATIALSIRENBASELINE", "TALLSIREN", "SPATIALSIRENBASELINE"),
    "generator": ("ImplicitGenerator3d", "ImplicitGenerator3d", "ImplicitGenerator3d"),
    "discriminator": (
        "CCSEncoderDiscriminator",
        "ProgressiveEncoderDiscriminator",
        "StridedDiscriminator",
    ),
    "dataset": ("CelebA", "Carla", "Cats"),
    "dataset_path": ("", "", ""),
    "clamp_mode": ("relu", "relu", "relu"),
    "hierarchical_sample": (True, True, True),
    "z_lambda": (0, 0, 0),
    "pos_lambda": (15, 0, 0),
    "last_back": (False, ABSENT, False),
    "eval_last_back": (True, ABSENT, True),
    "white_back": (ABSENT, True, ABSENT),
    "learnable_dist": (ABSENT, False, ABSENT),
}


def growing(*sizes: int, **run: Any) -> Curriculum:
    """CelebA with a stage of 10 steps per size, then the end."""
    stage = CelebA[0]
    stages = {10 * i: {**stage, "img_size": size} for i, size in enumerate(sizes)}
    return {**CelebA, **stages, 10 * len(sizes): {}, 200_000: {}, **run} | run


def ended(curriculum: Curriculum) -> Curriculum:
    return {k: v for k, v in curriculum.items() if k != 200_000}


# -- what is shipped


@pytest.mark.parametrize("name", COLUMNS)
def test_the_originals_curricula_have_the_originals_values(name: str) -> None:
    stages = {
        start: dict(zip(STAGE_COLUMNS, row, strict=True)) for start, row in STAGE_ROWS[name].items()
    }
    run = {key: row[COLUMNS.index(name)] for key, row in RUN_ROWS.items()}
    run = {key: value for key, value in run.items() if value is not ABSENT}
    assert CURRICULA[name] == {**stages, 200_000: {}, **run}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_stage_has_the_values_of_its_curriculum(name: str) -> None:
    for start, row in STAGE_ROWS[name].items():
        stage = stage_at(CURRICULA[name], start)
        assert stage.start == start
        for key, value in zip(STAGE_COLUMNS, row, strict=True):
            assert getattr(stage, key) == value
        for key, values in RUN_ROWS.items():
            value = values[COLUMNS.index(name)]
            if value is not ABSENT and key != "learnable_dist":
                assert getattr(stage, key) == value


def test_progressive_celeba_grows_from_32_to_128_pixels_and_is_else_celeba() -> None:
    starts = stage_starts(CelebA_progressive)
    assert [stage_at(CelebA_progressive, s).img_size for s in starts] == [32, 64, 128]
    run = {k: v for k, v in CelebA.items() if isinstance(k, str)}
    assert {k: v for k, v in CelebA_progressive.items() if isinstance(k, str)} == run


@pytest.mark.parametrize("name", CURRICULA)
def test_every_curriculum_is_valid_ends_and_names_no_path(name: str) -> None:
    curriculum = CURRICULA[name]
    validate(curriculum)
    last = max(k for k in curriculum if isinstance(k, int))
    assert last_step(curriculum) == last or stage_at(curriculum, last).total_kimg
    assert stage_at(curriculum, 0).dataset_path == ""


@pytest.mark.parametrize("name", CURRICULA)
def test_a_curriculum_survives_json(name: str) -> None:
    curriculum = CURRICULA[name]
    read = from_json(json.loads(json.dumps(curriculum)))
    assert read.keys() == curriculum.keys()
    for start in stage_starts(curriculum):
        assert stage_at(read, start) == stage_at(curriculum, start)
    assert last_step(read) == last_step(curriculum)


# -- over time


@pytest.mark.parametrize(
    ("step", "start", "img_size"),
    [(0, 0, 32), (9_999, 0, 32), (10_000, 10_000, 64), (54_999, 10_000, 64),
     (55_000, 55_000, 128), (199_999, 55_000, 128), (200_000, 55_000, 128),
     (10**9, 55_000, 128)],
)  # fmt: skip
def test_a_stage_applies_from_its_step_on_and_the_last_real_one_past_the_end(
    step: int, start: int, img_size: int
) -> None:
    stage = stage_at(CARLA, step)
    assert (stage.start, stage.img_size) == (start, img_size)


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="step must not be negative, got -1"):
        stage_at(CARLA, -1)


def test_keys_of_the_whole_run_win_over_a_stages() -> None:
    assert stage_at({**CARLA, "img_size": 16}, 60_000).img_size == 16


def test_a_stage_keeps_nothing_of_the_one_before() -> None:
    second = {k: v for k, v in CelebA[0].items() if k != "batch_split"}
    curriculum = {**CelebA, 5: second}
    assert stage_at(curriculum, 4).batch_split == 2
    assert stage_at(curriculum, 5).batch_split == 1


def test_an_empty_last_stage_is_the_end() -> None:
    assert last_step(CARLA) == 200_000
    assert stage_starts(CARLA) == [0, 10_000, 55_000]
    assert last_step(ended(CARLA)) is None
    assert [next_stage(CARLA, s) for s in (0, 9_999, 10_000, 55_000, 199_999)] == [
        10_000, 10_000, 55_000, 200_000, 200_000,
    ]  # fmt: skip
    assert next_stage(CARLA, 200_000) is None
    assert next_stage(ended(CARLA), 55_000) is None


@pytest.mark.parametrize(
    ("step", "since"),
    [(0, 0), (9_999, 0), (10_000, 10_000), (54_999, 10_000), (55_000, 55_000), (300_000, 55_000)],
)
def test_fading_in_counts_from_the_stage_that_brought_the_size(step: int, since: int) -> None:
    assert fade_start(CARLA, step) == since


def test_a_stage_that_keeps_the_size_goes_on_fading() -> None:
    curriculum = ended(growing(16, 32, 32, 16))
    assert [fade_start(curriculum, s) for s in (9, 10, 19, 20, 29, 30, 99)] == [
        0, 10, 10, 10, 10, 30, 30,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "use",
    [
        lambda c: [stage_at(c, s) for s in (0, 20_000, 300_000)],
        lambda c: stage_at(c, 0).generator_options.clear(),  # type: ignore[attr-defined]
        lambda c: (validate(c), fade_start(c, 60_000), next_stage(c, 3), last_step(c)),
        lambda c: with_overrides(c, ["0.fov=3", "gen_lr=1", "generator_options.hidden_dim=2"]),
    ],
)
def test_a_curriculum_is_never_changed(use: Callable[[Curriculum], object]) -> None:
    curriculum = {**copy.deepcopy(CARLA), "generator_options": {"hidden_dim": 8}}
    before = copy.deepcopy(curriculum)
    use(curriculum)
    assert curriculum == before


# -- by name or file


def test_a_curriculum_found_by_name_is_a_copy() -> None:
    found = find_curriculum("CARLA")
    assert found == CARLA
    found[0]["img_size"] = 1
    found["fov"] = 1
    assert stage_at(CARLA, 0).img_size == 32 and stage_at(CARLA, 0).fov == 30


def test_a_curriculum_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(CARLA))
    assert stage_at(find_curriculum(str(file)), 10_000) == stage_at(CARLA, 10_000)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("celeba", None, "unknown curriculum 'celeba', did you mean 'CelebA'?"),
        ("CELEBA", None, "did you mean 'CelebA'?"),
        ("zzz", None, "allowed: CARLA, CATS, CelebA"),
        ("nowhere.json", None, "no such curriculum file"),
        ("bad.json", "{", "is not valid JSON"),
        ("list.json", "[1]", "a curriculum must be a dictionary, got list"),
    ],
)
def test_a_curriculum_that_is_not_there_is_refused(
    tmp_path: Path, name: str, content: str | None, complaint: str
) -> None:
    if name.endswith(".json"):
        if content is not None:
            (tmp_path / name).write_text(content)
        name = str(tmp_path / name)
    with pytest.raises(ValueError) as caught:
        find_curriculum(name)
    assert complaint in str(caught.value)


# -- overrides


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("gen_lr=1e-4", "gen_lr", 1e-4),
        (" gen_lr = 1e-4 ", "gen_lr", 1e-4),
        ("grad_clip=3", "grad_clip", 3.0),
        ("h_mean=-0.5", "h_mean", -0.5),
        ("last_back=True", "last_back", True),
        ("last_back=true", "last_back", True),
        ("hierarchical_sample=FALSE", "hierarchical_sample", False),
        ("topk_v=None", "topk_v", None),
        ("topk_v=none", "topk_v", None),
        ("betas=0.1,0.99", "betas", (0.1, 0.99)),
        ("betas=[0.1, 0.99]", "betas", (0.1, 0.99)),
        ("compat=['summed_chunks']", "compat", ("summed_chunks",)),
        ("dataset_path=/data/a b/*.jpg", "dataset_path", "/data/a b/*.jpg"),
        ("dataset_path='/data/x=1.zip'", "dataset_path", "/data/x=1.zip"),
        ("dataset_path=/data/x=1.zip", "dataset_path", "/data/x=1.zip"),
        ("sample_dist=uniform", "sample_dist", "uniform"),
        ("generator_options={'num_layers': 3}", "generator_options", {"num_layers": 3}),
        ("generator_options.num_layers=3", "generator_options", {"num_layers": 3}),
        ("0.num_steps=7", "num_steps", 7),
        ("0.fov=20", "fov", 20),
        ("0.dataset_options.mirror=False", "dataset_options", {"mirror": False}),
    ],
)
def test_any_key_can_be_set_in_every_form(assignment: str, key: str, value: Any) -> None:
    curriculum = with_overrides(CelebA, [assignment])
    assert getattr(stage_at(curriculum, 0), key) == value
    assert getattr(stage_at(CelebA, 0), key) != value


def test_a_key_set_for_the_run_holds_in_all_stages_and_one_for_a_stage_in_it_alone() -> None:
    curriculum = with_overrides(CARLA, ["gen_lr=1", "10000.num_steps=9"])
    steps = (0, 10_000, 55_000)
    assert [stage_at(curriculum, s).gen_lr for s in steps] == [1, 1, 1]
    assert [stage_at(curriculum, s).num_steps for s in steps] == [48, 9, 48]


def test_a_stages_value_is_not_lost_to_the_whole_runs() -> None:
    curriculum = with_overrides(CARLA, ["10000.fov=20"])
    assert [stage_at(curriculum, s).fov for s in (0, 10_000, 55_000)] == [30, 20, 30]
    curriculum = with_overrides(
        CARLA, ["dataset_options.mirror=True", "0.dataset_options.max_images=5"]
    )
    assert stage_at(curriculum, 0).dataset_options == {"mirror": True, "max_images": 5}
    assert stage_at(curriculum, 10_000).dataset_options == {"mirror": True}


def test_an_option_is_added_to_those_that_are_there() -> None:
    curriculum = with_overrides(CURRICULA["Toys"], ["generator_options.hidden_dim=32"])
    options = stage_at(CURRICULA["Toys"], 0).generator_options
    assert stage_at(curriculum, 0).generator_options == {**options, "hidden_dim": 32}
    in_stage = {**CelebA, 0: {**CelebA[0], "dataset_options": {"mirror": True}}}
    curriculum = with_overrides(in_stage, ["dataset_options.max_images=5"])
    assert stage_at(curriculum, 0).dataset_options == {"mirror": True, "max_images": 5}


def test_the_last_override_wins() -> None:
    curriculum = with_overrides(CARLA, ["fov=10", "0.fov=20", "fov=15", "fov=16"])
    assert [stage_at(curriculum, s).fov for s in (0, 10_000)] == [16, 16]


@pytest.mark.parametrize(
    ("assignment", "complaint"),
    [
        ("gen_lr", "--set takes key=value, got 'gen_lr'"),
        ("gen_lrr=1", "unknown key 'gen_lrr', did you mean 'gen_lr'?"),
        ("0.gen_lrr=1", "did you mean 'gen_lr'?"),
        ("start=1", "unknown key 'start'"),
        ("=1", "unknown key ''"),
        ("0=1", "unknown key '0'"),
        ("0.0.gen_lr=1", "unknown key '0.0.gen_lr'"),
        ("generator_options.a.b=1", "unknown key 'generator_options.a.b'"),
        ("5.gen_lr=1", "no stage begins at step 5; stages: 0, 10000, 55000"),
        ("betas.x=1", "betas takes one value, not named options"),
    ],
)
def test_an_override_that_cannot_be_is_refused(assignment: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="--set") as caught:
        with_overrides(CARLA, [assignment])
    assert complaint in str(caught.value)


@pytest.mark.parametrize("text", ["{[]: 1}", "(" * 300, "1 +", "a'b", "\0", "lambda: 0", "1_", ""])
def test_a_value_that_is_no_literal_is_text(text: str) -> None:
    assert with_overrides(CelebA, [f"dataset_path={text}"])["dataset_path"] == text


# -- mistakes


@pytest.mark.parametrize(
    ("curriculum", "complaint"),
    [
        ({}, "needs at least one stage"),
        ({"fov": 12}, "needs at least one stage"),
        ({0: {}}, "needs at least one stage"),
        ({**CelebA, 0: {}}, "needs at least one stage"),
        ({**CelebA, 5: {}, 9: CelebA[0]}, "stage 5 is empty; only the last stage may be"),
        ({5: CelebA[0]}, "the first stage must begin at step 0, got 5"),
        ({**CelebA, -5: CelebA[0]}, "stage steps or names, got -5"),
        ({**CelebA, 2.5: {}}, "stage steps or names, got 2.5"),
        ({**CelebA, None: 1}, "stage steps or names, got None"),
        ({**CelebA, True: CelebA[0]}, "stage steps or names, got True"),
        ({**CelebA, 0: 5}, "a stage must be a dictionary, got 5 (stage 0)"),
        ({**CelebA, 200_000: None}, "a stage must be a dictionary, got None (stage 200000)"),
        ({**CelebA, "fovv": 12}, "unknown curriculum key 'fovv' (stage 0), did you mean 'fov'?"),
        ({**CARLA, 55_000: {**CARLA[0], "gen_lrr": 1}}, "'gen_lrr' (stage 55000), did you mean"),
        ({**CARLA, 10_000: {"batch_size": 4}}, "missing curriculum key 'img_size' (stage 10000)"),
        ({**CARLA, 10_000: {**CARLA[0], "img_size": 96}}, "got 96 (stage 10000)"),
    ],
)
def test_a_mistake_is_named_with_its_stage_before_work_starts(
    curriculum: dict[Any, Any], complaint: str
) -> None:
    with pytest.raises(ValueError) as caught:
        validate(curriculum)
    assert complaint in str(caught.value)


def test_stages_with_impossible_keys_are_not_passed_over_silently() -> None:
    for bad in (0.5, True):
        with pytest.raises(ValueError, match="stage steps or names"):
            stage_at({**CelebA, bad: {}}, 0)  # type: ignore[dict-item]


@pytest.mark.parametrize("key", FIXED_KEYS)
def test_what_networks_are_made_with_cannot_change_during_a_run(key: str) -> None:
    values: dict[str, tuple[Any, Any]] = {
        "latent_dim": (8, 16), "precision": ("fp32", "bf16"), "disable_scaler": (False, True),
        "ema_decay": (0.5, 0.6), "ema2_decay": (0.5, 0.6), "generator_options": ({}, {"x": 1}),
        "discriminator_options": ({}, {"x": 1}), "augment": ("noaug", "ada"),
        "augment_preset": ("bgc", "blit"), "label_dim": (0, 3), "ada_interval": (4, 8),
        "patch_size": (4, 8), "backbone_weights": ("timm", "random"),
    }  # fmt: skip
    texts = key in ("generator", "model", "discriminator")
    before, now = values.get(key, ("A", "B") if texts else (0.5, 0.6))
    run = {k: v for k, v in CelebA.items() if k != key}
    curriculum = {**run, 0: {**CelebA[0], key: before}, 50: {**CelebA[0], key: before}}
    validate(curriculum)
    curriculum[50] = {**CelebA[0], key: now}
    with pytest.raises(ValueError, match=f"{key} cannot change during a run, got .*stage 50"):
        validate(curriculum)


plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.binary(max_size=3)
)
pair = st.tuples(plain, plain)
anything = st.one_of(plain, pair, pair.map(list), pair.map(lambda p: {p[0]: [p[1]]}))


@settings(max_examples=60)
@given(key=st.sampled_from(KEYS), value=anything, in_stage=st.booleans())
@example("fov", 10**400, False)
@example("latent_dim", 10**400, False)
@example("compat", [[1]], False)
@example("betas", (float("nan"), 0.5), False)
@example("dataset_options", {1: 2}, True)
def test_any_value_of_any_key_is_accepted_or_a_value_error(
    key: str, value: Any, in_stage: bool
) -> None:
    curriculum: dict[Any, Any] = {k: v for k, v in CelebA.items() if k != key}
    if in_stage:
        curriculum[0] = {**CelebA[0], key: value}
    else:
        curriculum[key] = value
    try:
        validate(curriculum)
    except ValueError as error:
        assert key in str(error) and "(stage 0)" in str(error)
    else:
        assert stage_at(curriculum, 0) == stage_at(curriculum, 5)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.one_of(plain, st.integers(-1, 3), st.sampled_from(KEYS)), anything))
def test_a_heap_of_rubbish_is_a_value_error(curriculum: dict[Any, Any]) -> None:
    with pytest.raises(ValueError):
        validate(curriculum)


@settings(max_examples=100)
@given(
    target=st.one_of(
        st.text(max_size=8),
        st.builds(
            "{}{}{}".format,
            st.sampled_from(["", "0.", "10000.", "7."]),
            st.sampled_from(KEYS),
            st.sampled_from(["", ".x", "."]),
        ),
    ),
    text=st.text(max_size=10),
)
def test_any_override_gives_a_curriculum_or_a_value_error(target: str, text: str) -> None:
    try:
        curriculum = with_overrides(CARLA, [f"{target}={text}"])
        validate(curriculum)
    except ValueError:
        return
    assert math.isfinite(stage_at(curriculum, 0).fov)

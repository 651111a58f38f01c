"""Curricula: what to train, on what, and how that changes over time.

A curriculum is a dict. Integer keys are the step from which a stage applies; string keys hold for
the whole run and win over a stage's. An empty last stage ends training there. `stage_at` gives the
frozen, validated `Stage` of a step; curricula themselves are never changed. Key names and the
values of CelebA, CARLA and CATS are pi-GAN's own (Chan et al. 2021, official code);
docs/curricula.md explains every key. No torch here: nothing heavy loads before a typing mistake is
reported.
"""

import ast
import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ops.registry import nearest
from recipes import epigraf, fastgan, raycond, stylegan
from recipes.toys import (
    Toys,
    ToysEpiGRAF,
    ToysFastGANLite,
    ToysGPU,
    ToysProjectedPiGAN,
    ToysRayCond,
    ToysStyleGAN2,
)
from stages import FIXED_KEYS, KEYS, Stage, make_stage

Curriculum = dict[int | str, Any]

CelebA: Curriculum = {
    0: {"batch_size": 56, "num_steps": 12, "img_size": 64, "batch_split": 2,
        "gen_lr": 6e-5, "disc_lr": 2e-4},
    200_000: {},
    "fov": 12,
    "ray_start": 0.88,
    "ray_end": 1.12,
    "fade_steps": 10_000,
    "sample_dist": "gaussian",
    "h_mean": math.pi / 2,
    "h_stddev": 0.3,
    "v_mean": math.pi / 2,
    "v_stddev": 0.155,
    "topk_interval": 2000,
    "topk_v": 0.6,
    "betas": (0.0, 0.9),
    "unique_lr": False,
    "weight_decay": 0,
    "r1_lambda": 0.2,
    "latent_dim": 256,
    "z_dist": "gaussian",
    "grad_clip": 10,
    "model": "SPATIALSIRENBASELINE",
    "generator": "ImplicitGenerator3d",
    "discriminator": "CCSEncoderDiscriminator",
    "dataset": "CelebA",
    "dataset_path": "",
    "clamp_mode": "relu",
    "hierarchical_sample": True,
    "z_lambda": 0,
    "pos_lambda": 15,
    "last_back": False,
    "eval_last_back": True,
}  # fmt: skip

CARLA: Curriculum = {
    0: {"batch_size": 30, "num_steps": 48, "img_size": 32, "batch_split": 1,
        "gen_lr": 4e-5, "disc_lr": 4e-4},
    10_000: {"batch_size": 14, "num_steps": 48, "img_size": 64, "batch_split": 2,
        "gen_lr": 2e-5, "disc_lr": 2e-4},
    55_000: {"batch_size": 10, "num_steps": 48, "img_size": 128, "batch_split": 5,
        "gen_lr": 1e-5, "disc_lr": 1e-4},
    200_000: {},
    "fov": 30,
    "ray_start": 0.7,
    "ray_end": 1.3,
    "fade_steps": 10_000,
    "sample_dist": "spherical_uniform",
    "h_mean": math.pi / 2,
    "h_stddev": math.pi,
    "v_mean": math.pi / 4 * 85 / 90,
    "v_stddev": math.pi / 4 * 85 / 90,
    "topk_interval": 1000,
    "topk_v": 1,
    "betas": (0.0, 0.9),
    "unique_lr": False,
    "weight_decay": 0,
    "r1_lambda": 10,
    "latent_dim": 256,
    "z_dist": "gaussian",
    "grad_clip": 1,
    "model": "TALLSIREN",
    "generator": "ImplicitGenerator3d",
    "discriminator": "ProgressiveEncoderDiscriminator",
    "dataset": "Carla",
    "dataset_path": "",
    "clamp_mode": "relu",
    "hierarchical_sample": True,
    "z_lambda": 0,
    "pos_lambda": 0,
    "white_back": True,
    "learnable_dist": False,
}  # fmt: skip

CATS: Curriculum = {
    0: {"batch_size": 28, "num_steps": 24, "img_size": 64, "batch_split": 4,
        "gen_lr": 6e-5, "disc_lr": 2e-4},
    200_000: {},
    "fov": 12,
    "ray_start": 0.8,
    "ray_end": 1.2,
    "fade_steps": 10_000,
    "sample_dist": "uniform",
    "h_mean": math.pi / 2,
    "h_stddev": 0.5,
    "v_mean": math.pi / 2,
    "v_stddev": 0.4,
    "topk_interval": 2000,
    "topk_v": 0.6,
    "betas": (0.0, 0.9),
    "unique_lr": False,
    "weight_decay": 0,
    "r1_lambda": 0.2,
    "latent_dim": 256,
    "z_dist": "gaussian",
    "grad_clip": 10,
    "model": "SPATIALSIRENBASELINE",
    "generator": "ImplicitGenerator3d",
    "discriminator": "StridedDiscriminator",
    "dataset": "Cats",
    "dataset_path": "",
    "clamp_mode": "relu",
    "hierarchical_sample": True,
    "z_lambda": 0,
    "pos_lambda": 0,
    "last_back": False,
    "eval_last_back": True,
}  # fmt: skip

# Ours, not the original's: the paper grows CelebA from 32 to 128 pixels, the code it came with
# stays at 64. Batches shrink so that a step's memory stays about the same.
CelebA_progressive: Curriculum = CelebA | {
    0: {"batch_size": 56, "num_steps": 12, "img_size": 32, "batch_split": 1,
        "gen_lr": 6e-5, "disc_lr": 2e-4},
    20_000: {"batch_size": 56, "num_steps": 12, "img_size": 64, "batch_split": 2,
        "gen_lr": 6e-5, "disc_lr": 2e-4},
    80_000: {"batch_size": 28, "num_steps": 12, "img_size": 128, "batch_split": 4,
        "gen_lr": 2e-5, "disc_lr": 7e-5},
}  # fmt: skip

# Curricula that follow from the size of pictures and batches, and the number of processes.
RECIPES: dict[str, Callable[..., Curriculum]] = {
    "StyleGAN2": stylegan.stylegan2,
    "StyleGAN3T": stylegan.stylegan3t,
    "StyleGAN3R": stylegan.stylegan3r,
    **fastgan.RECIPES,
    **epigraf.RECIPES,
    **raycond.RECIPES,
}

CURRICULA: dict[str, Curriculum] = {
    "CelebA": CelebA,
    "CelebA_progressive": CelebA_progressive,
    "CARLA": CARLA,
    "CATS": CATS,
    "Toys": Toys,
    "ToysGPU": ToysGPU,
    "ToysStyleGAN2": ToysStyleGAN2,
    "ToysEpiGRAF": ToysEpiGRAF,
    "ToysRayCond": ToysRayCond,
    "ToysFastGANLite": ToysFastGANLite,
    "ToysProjectedPiGAN": ToysProjectedPiGAN,
} | {name: recipe() for name, recipe in RECIPES.items()}


def find_curriculum(
    name: str, assignments: Sequence[str] = (), num_processes: int = 1
) -> Curriculum:
    """Return a copy of a curriculum by its name, or read one from a .json file.

    One of RECIPES is made for the sizes among `assignments` (as of `with_overrides`, which still
    has to apply them) and for so many processes.
    """
    if name in RECIPES:
        return _derive(RECIPES[name], assignments, num_processes)
    if name in CURRICULA:
        return copy.deepcopy(CURRICULA[name])
    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"no such curriculum file: {name}")
        try:
            return from_json(json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} is not valid JSON: {error}") from error
    raise ValueError(f"unknown curriculum {name!r}{nearest(name, CURRICULA)}")


def _derive(
    recipe: Callable[..., Curriculum], assignments: Sequence[str], num_processes: int
) -> Curriculum:
    """What a recipe makes of the sizes that are assigned, each a positive whole number."""
    sizes = {}
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        key = key.strip().removeprefix("0.")
        if key in ("img_size", "batch_size"):
            size = _literal(text)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"--set {key} must be a positive whole number, got {text!r}")
            sizes[key] = size
    return recipe(num_processes=num_processes, **sizes)


def from_json(data: Any) -> Curriculum:
    """Undo JSON's turning of stage numbers into strings."""
    if not isinstance(data, dict):
        raise ValueError(f"a curriculum must be a dictionary, got {type(data).__name__}")
    items = cast(dict[str, Any], data).items()
    return {int(k) if k.isdecimal() else k: v for k, v in items}


def stage_starts(curriculum: Mapping[Any, Any]) -> list[int]:
    """Return the steps at which a stage with content begins, ascending."""
    for key, value in curriculum.items():
        if isinstance(key, str):
            continue
        if not isinstance(key, int) or isinstance(key, bool) or key < 0:
            raise ValueError(f"a curriculum's keys are stage steps or names, got {key!r}")
        if not isinstance(value, Mapping):
            raise ValueError(f"a stage must be a dictionary, got {value!r} (stage {key})")
    starts = sorted(k for k in curriculum if isinstance(k, int))
    if not any(curriculum[s] for s in starts):
        raise ValueError("a curriculum needs at least one stage: an integer key, for instance 0")
    if starts[0] != 0:
        raise ValueError(f"the first stage must begin at step 0, got {starts[0]}")
    for start in starts[:-1]:
        if not curriculum[start]:
            raise ValueError(f"stage {start} is empty; only the last stage may be, to end training")
    return [s for s in starts if curriculum[s]]


def last_step(curriculum: Mapping[int | str, Any]) -> int | None:
    """Return the step at which the curriculum ends training, None if it does not."""
    starts = sorted(k for k in curriculum if isinstance(k, int))
    return starts[-1] if starts and not curriculum[starts[-1]] else None


def stage_at(curriculum: Mapping[int | str, Any], step: int) -> Stage:
    """Return the validated stage of a step; past the end the last real stage stays active."""
    if step < 0:
        raise ValueError(f"step must not be negative, got {step}")
    start = max(s for s in stage_starts(curriculum) if s <= step)
    run = {k: v for k, v in curriculum.items() if isinstance(k, str)}
    return make_stage(start, {**curriculum[start], **run})


def validate(curriculum: Mapping[int | str, Any]) -> None:
    """Check every stage, so that no mistake waits for its step to come."""
    first, *later = [stage_at(curriculum, start) for start in stage_starts(curriculum)]
    for stage in later:
        for key in FIXED_KEYS:
            before, now = getattr(first, key), getattr(stage, key)
            if now != before:
                raise ValueError(
                    f"{key} cannot change during a run, got {before!r} and then {now!r} "
                    f"(stage {stage.start})"
                )


def fade_start(curriculum: Mapping[int | str, Any], step: int) -> int:
    """Return the step since which pictures have had their present size: fade-in counts from it."""
    size, first = stage_at(curriculum, step).img_size, 0
    for start in reversed([s for s in stage_starts(curriculum) if s <= step]):
        if stage_at(curriculum, start).img_size != size:
            break
        first = start
    return first


def images_at(curriculum: Mapping[int | str, Any], step: int) -> int:
    """Return how many images one process has seen before a step."""
    starts = stage_starts(curriculum)
    ends = [*starts[1:], step]
    return sum(
        stage_at(curriculum, start).batch_size * max(min(end, step) - start, 0)
        for start, end in zip(starts, ends, strict=True)
    )


def next_stage(curriculum: Mapping[int | str, Any], step: int) -> int | None:
    """Return the step at which the next stage, or the end, comes; None if neither does."""
    later = [k for k in curriculum if isinstance(k, int) and k > step]
    return min(later) if later else None


def with_overrides(curriculum: Mapping[int | str, Any], assignments: list[str]) -> Curriculum:
    """Return a copy with `key=value`, `stage.key=value` or `options_key.name=value` applied.

    Values are Python literals; whatever is not one is taken as text. A key without a stage is set
    for the whole run and so wins over all stages.
    """
    result = copy.deepcopy(dict(curriculum))
    for assignment in assignments:
        target, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set takes key=value, got {assignment!r}")
        *path, key = target.strip().split(".")
        stage = int(path.pop(0)) if path and path[0].isdecimal() else None
        name = path[0] if path else key
        if name not in KEYS or len(path) > 1:
            raise ValueError(f"--set: unknown key {target.strip()!r}{nearest(name, KEYS)}")
        for scope in _scopes(result, stage, name, is_option=bool(path)):
            if path:
                scope = scope.setdefault(name, {})
                if not isinstance(scope, dict):
                    raise ValueError(f"--set {target}: {name} takes one value, not named options")
            scope[key] = _literal(text)
    return result


def _scopes(
    curriculum: Curriculum, stage: int | None, name: str, *, is_option: bool
) -> list[dict[Any, Any]]:
    """The dictionaries of a curriculum in which a key, or one option of it, is to be set."""
    starts = stage_starts(curriculum)
    if stage is None:
        held = [curriculum[s] for s in starts if name in curriculum[s]]
        return held if is_option and held and name not in curriculum else [curriculum]
    if stage not in curriculum:
        listed = ", ".join(map(str, starts))
        raise ValueError(f"--set {stage}.{name}: no stage begins at step {stage}; stages: {listed}")
    if name in curriculum:  # the whole run's value would win: from now on each stage has its own
        value = curriculum.pop(name)
        for start in starts:
            curriculum[start][name] = copy.deepcopy(value)
    return [curriculum[stage]]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(text.strip().lower(), text.strip())

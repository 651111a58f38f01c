"""What the EpiGRAF parity tests share: tolerances, cameras, settings, replayed chance."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from parity.support import Case, assert_within
from torch import Tensor

from rendering import renderer
from rendering.cameras import Cameras, Patch
from rendering.settings import RenderSettings


def assert_outputs(
    case: Case, actual: Mapping[str, Tensor], *, only: Callable[[str], bool] | None = None
) -> None:
    """Compare everything that the case records (of those names that `only` accepts)."""
    expected = {k: v for k, v in case.tensors("out/").items() if only is None or only(k)}
    assert set(expected) == set(actual)
    for name, value in expected.items():
        limit = case.spec["tolerance"][name]["suggested_atol"]
        assert_within(actual[name], value, {"max_abs": limit}, name)


def inputs_of(case: Case, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The case's inputs by name."""
    return {name: value.to(dtype) for name, value in case.tensors("in/").items()}


def cameras_of(angles: Tensor, camera: Mapping[str, Any], fov: Tensor | None = None) -> Cameras:
    """Cameras of (yaw, pitch, roll) rows; the original never uses the roll."""
    yaw, pitch, _ = angles.unbind(-1)
    return Cameras.from_angles(yaw, pitch, camera["fov"] if fov is None else fov, camera["radius"])


def patch_of(inputs: Mapping[str, Tensor], prefix: str = "") -> Patch:
    """The windows of a case; the original's two scales are always the same."""
    scales, offsets = inputs[f"{prefix}patch_scales"], inputs[f"{prefix}patch_offsets"]
    assert torch.equal(scales[:, 0], scales[:, 1])
    return Patch(scales[:, 0], offsets)


def settings_of(network: Mapping[str, Any], resolution: int, **changes: Any) -> RenderSettings:
    """How the original's generator renders, by its configuration; deterministic."""
    dataset = network["dataset"]
    values = {
        "num_steps": network["num_ray_steps"],
        "ray_start": dataset["camera"]["ray_start"],
        "ray_end": dataset["camera"]["ray_end"],
        "clamp_mode": network["clamp_mode"],
        "white_back": dataset["white_back"],
        "last_back": dataset["last_back"],
        "jitter": False,
        "bounded_jitter": True,
    }
    return RenderSettings(resolution, **{**values, **changes})


@contextmanager
def replayed(draws: renderer._Draws) -> Iterator[None]:
    """Within, the renderer's random numbers are these."""
    with mock.patch.object(renderer, "_draw", lambda *_: draws):
        yield


@contextmanager
def watched(name: str) -> Iterator[list[Any]]:
    """Within, the results of one of the renderer's functions are collected."""
    results: list[Any] = []
    original = getattr(renderer, name)

    def watching(*args: Any, **options: Any) -> Any:
        results.append(original(*args, **options))
        return results[-1]

    with mock.patch.object(renderer, name, watching):
        yield results

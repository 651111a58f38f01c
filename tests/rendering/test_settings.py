"""RenderSettings refuses what no picture can be made with, and is cheap to import."""

import dataclasses
import math
import subprocess
import sys

import pytest

from rendering.settings import RenderSettings


def settings(**changes: object) -> RenderSettings:
    values = {"resolution": 8, "num_steps": 6, "ray_start": 0.7, "ray_end": 1.3, **changes}
    return RenderSettings(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resolution", 0),
        ("resolution", 8.0),
        ("num_steps", -1),
        ("num_steps", "12"),
        ("max_batch_size", 0),
        ("max_batch_size", 2.5),
        ("ray_start", -0.1),
        ("ray_end", 0.7),
        ("clamp_mode", "gelu"),
        ("noise_std", -1.0),
        ("noise_std", math.nan),
    ],
)
def test_an_impossible_value_is_refused_by_name_and_value(name: str, value: object) -> None:
    with pytest.raises(ValueError) as refusal:
        settings(**{name: value})
    assert name in str(refusal.value)
    assert repr(value) in str(refusal.value)


def test_a_hierarchical_pass_needs_an_inner_sample() -> None:
    with pytest.raises(ValueError, match="num_steps of at least 3, got 2"):
        settings(num_steps=2, hierarchical=True)
    assert settings(num_steps=2, hierarchical=False).num_steps == 2


def test_a_single_sample_spans_no_interval() -> None:
    with pytest.raises(ValueError, match="num_steps must be at least 2, got 1"):
        settings(num_steps=1, hierarchical=False)


def test_settings_are_frozen_and_replaced_instead_of_changed() -> None:
    first = settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.num_steps = 3  # type: ignore[misc]
    assert dataclasses.replace(first, num_steps=9).num_steps == 9
    assert first.num_steps == 6


def test_replacing_checks_again() -> None:
    with pytest.raises(ValueError, match="ray_end"):
        dataclasses.replace(settings(), ray_end=0.1)


def test_settings_import_without_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; import rendering.settings"
    subprocess.run([sys.executable, "-c", program], check=True)

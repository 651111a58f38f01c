"""Cameras, rays, depths along them, and pose distributions against the original's numbers."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from parity.support import Case, assert_within, cases_of, variants_of

from rendering.cameras import Cameras
from rendering.sampling import stratified_depths
from rendering.settings import PoseLaw

SAMPLES, COIN_BATCH = 200_000, 200  # as many as the tolerance asks for; poses that share a coin


@pytest.mark.parametrize("case, variant", variants_of("pigan", "camera"))
def test_cameras_and_rays_stand_where_the_originals_do(case: Case, variant: str) -> None:
    options = case.config["variants"][variant]
    width, height = options["width"], options["height"]
    yaw, pitch = case.tensor(f"in/{variant}/yaw_pitch")
    cameras = Cameras.from_angles(yaw, pitch, options["fov_degrees"], radius=case.config["radius"])
    origins, directions = (x[0] for x in cameras.rays(height, width))
    _, from_camera = Cameras(torch.eye(4)[None], cameras.fov).rays(height, width)
    half = torch.full((1, height * width, options["num_steps"]), 0.5)
    t = stratified_depths(options["ray_start"], options["ray_end"], half)[0]
    actual = {
        "cam2world": cameras.cam2world[0],
        "camera_origin": cameras.origin[0],
        "yaw_used": cameras.yaw_pitch[0, :1],
        "pitch_used": cameras.yaw_pitch[0, 1:],
        "ray_origins_world": origins,
        "ray_dirs_world": directions,
        "rays_d_cam": from_camera[0],
        "z_vals": t,
        "points_cam": from_camera[0][:, None] * t[..., None],
        "points_world": origins[:, None] + directions[:, None] * t[..., None],
    }
    expected = case.outputs(variant)
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert_within(actual[name], value, case.tolerance(name), name)


def pose_parameters() -> list[Any]:
    return [
        pytest.param(*param.values, name, id=f"{param.id}:{name}")
        for param in cases_of("pigan", "pose_distribution")
        for name in param.values[0].spec["results"]
    ]


@pytest.mark.parametrize("case, name", pose_parameters())
def test_poses_are_distributed_as_the_originals(
    case: Case, name: str, rng: torch.Generator
) -> None:
    expected = case.spec["results"][name]
    kind = expected["sample_dist"]
    angles = [f"{axis}_{moment}" for axis in "hv" for moment in ("mean", "stddev")]
    law = PoseLaw(
        "fixed" if kind is None else kind,
        **{angle: expected[angle] for angle in angles},
        fov=12.0,
        batch_coin=True,
    )
    batch = COIN_BATCH if kind == "hybrid" else SAMPLES
    drawn = torch.cat([Cameras.sample(law, batch, rng).yaw_pitch for _ in range(SAMPLES // batch)])
    yaw, pitch = drawn.double().unbind(-1)
    limits = parse_pose_tolerance(case.suggested, hybrid=kind == "hybrid")
    for angle, values in {"yaw": yaw, "pitch": pitch}.items():
        assert_distributed(values, expected[angle], limits, angle)
    for end, clamped in {"low": pitch < 1.1e-5, "high": pitch > torch.pi - 1.1e-5}.items():
        share = expected[f"frac_pitch_at_{end}_clamp"]
        assert abs(float(clamped.double().mean()) - share) <= limits["quantiles"]


def parse_pose_tolerance(text: str, *, hybrid: bool) -> dict[str, float]:
    """Numbers of "mean within 5*std/sqrt(n), std within 1%, quantiles within 1.5% ..."."""

    def number(pattern: str) -> float:
        found = re.search(pattern, text)
        assert found, f"unknown tolerance: {text}"
        return float(found[1])

    assert SAMPLES >= 1000 * number(r"n >= (\d+)k samples")
    limits = {
        "mean": number(r"mean within ([\d.]+)\*std/sqrt\(n\)"),
        "std": number(r"std within ([\d.]+)%") / 100,
        "quantiles": number(r"within ([\d.]+)% of the 0.01..0.99 range") / 100,
    }
    if hybrid:
        limits["std"] = limits["quantiles"] = number(r"allow ([\d.]+)%") / 100
    return limits


def assert_distributed(
    values: torch.Tensor, expected: Mapping[str, Any], limits: Mapping[str, float], angle: str
) -> None:
    rounding = 1e-6
    mean_error = abs(float(values.mean()) - expected["mean"])
    assert mean_error <= limits["mean"] * expected["std"] / len(values) ** 0.5 + rounding, angle
    std = float(values.std())
    assert std == pytest.approx(expected["std"], rel=limits["std"], abs=rounding), angle
    quantiles = {
        float(q): value for q, value in expected["quantiles"].items() if 0.01 <= float(q) <= 0.99
    }
    spread = quantiles[0.99] - quantiles[0.01]
    ordered = values.sort().values
    for q, value in quantiles.items():
        actual = float(ordered[int(q * (len(values) - 1))])
        assert abs(actual - value) <= limits["quantiles"] * spread + rounding, (angle, q)

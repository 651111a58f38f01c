"""Whole pictures of small generators against the original's, for every combination of options."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pytest
import torch
from parity.support import Case, all_cases, assert_within, cases_of, variants_of
from torch import Tensor

import interop
from generators.pigan import PiGAN
from interop.pickles import read_original_checkpoint
from rendering.cameras import Cameras
from rendering.compositing import activate_density, render_weights
from rendering.grid import voxel_lattice
from rendering.renderer import Rendering
from rendering.sampling import importance_depths, quantiles, stratified_depths
from rendering.settings import PoseLaw, RenderSettings

STAGE_MARGIN = 8  # intermediates have no suggested tolerance: this many times the original's error


@lru_cache(maxsize=2)
def generator_of(case: Case) -> PiGAN:
    generator = interop.convert("pigan", "generator", case.tensors("weights/"), case.config)
    assert isinstance(generator, PiGAN)
    return with_average(generator, case)


def with_average(generator: PiGAN, case: Case) -> PiGAN:
    averages = [case.tensor(f"in/avg_{name}")[0] for name in ("frequencies", "phase_shifts")]
    generator.w_avg.copy_(torch.cat(averages))
    return generator


def settings_of(options: Mapping[str, Any]) -> RenderSettings:
    return RenderSettings(
        resolution=options["img_size"],
        num_steps=options["num_steps"],
        ray_start=options["ray_start"],
        ray_end=options["ray_end"],
        hierarchical=options["hierarchical_sample"],
        clamp_mode=options["clamp_mode"],
        noise_std=options["nerf_noise"],
        white_back=options.get("white_back", False),
        last_back=options.get("last_back", False),
        jitter=False,
        lock_view_dependence=options["lock_view_dependence"],
        max_batch_size=options.get("max_batch_size"),
    )


def cameras_of(options: Mapping[str, Any], batch: int) -> Cameras:
    angles = [f"{axis}_{moment}" for axis in "hv" for moment in ("mean", "stddev")]
    law = PoseLaw(
        options["sample_dist"] or "fixed", **{a: options[a] for a in angles}, fov=options["fov"]
    )
    assert law.h_stddev == law.v_stddev == 0, "a case's cameras must not be random"
    return Cameras.sample(law, batch)


def styles_of(generator: PiGAN, options: Mapping[str, Any], z: Tensor) -> Tensor:
    """Styles as the original's entry point of that name makes them."""
    if options["method"] == "forward":
        return generator.mapping(z)
    if options["method"] == "staged_forward":
        return generator.mapping(z, psi=options["psi"])
    w = generator.mapping(z, psi=options["truncation_psi"])
    t = options["interp_t"]
    return w if t is None else (1 - t) * w[:1] + t * w[1:2]


def picture_of(rendering: Rendering, fill_mode: str | None) -> Tensor:
    """The picture, or what the original paints in its place."""
    assert rendering.opacity is not None
    opacity = rendering.opacity[:, None]
    if fill_mode == "weight":
        return (2 * opacity - 1).expand_as(rendering.image)
    if fill_mode == "debug":
        red = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
        return torch.where(opacity < 0.9, red, rendering.image)
    assert fill_mode is None
    return rendering.image


@pytest.mark.parametrize("case, variant", variants_of("pigan", "render"))
def test_pictures_depths_and_poses_are_the_originals(case: Case, variant: str) -> None:
    options = case.config["variants"][variant]
    generator = generator_of(case)
    with torch.set_grad_enabled(options["method"].startswith("forward")):
        w = styles_of(generator, options, case.tensor("in/z"))
        cameras = cameras_of(options, len(w))
        result = generator.synthesis(w, cameras, settings_of(options))
    actual = {
        "pixels": picture_of(result, options.get("fill_mode")),
        "depth": result.depth,
        "pitch_yaw": cameras.yaw_pitch.flip(-1),
    }
    expected = case.outputs(variant)
    assert "pixels" in expected
    for name, value in expected.items():
        image = actual[name]
        assert image is not None
        hierarchical = options["hierarchical_sample"]
        assert_within(image, value, case.tolerance(name), name, hierarchical=hierarchical)


@pytest.mark.parametrize("case", cases_of("pigan", "render"))
@torch.no_grad()
def test_intermediates_of_a_picture_are_the_originals(case: Case) -> None:
    if "stages" not in case.config:
        pytest.skip("this case has no intermediates")
    options = case.config["variants"][case.config["stages"]["variant"]]
    generator, settings = generator_of(case), settings_of(options)
    w = styles_of(generator, options, case.tensor("in/z"))
    size, steps = settings.resolution, settings.num_steps
    origins, directions = cameras_of(options, len(w)).rays(size, size)
    half = torch.full((len(w), size**2, steps), 0.5)
    t = stratified_depths(settings.ray_start, settings.ray_end, half)
    points = origins[:, :, None] + directions[:, :, None] * t[..., None]
    views = directions[:, :, None].expand_as(points)
    radiance, raw = generator.field(w)(points.flatten(1, 2), views.flatten(1, 2))
    raw = raw.reshape(t.shape)
    weights = render_weights(activate_density(raw, settings.clamp_mode), t)
    u = quantiles(len(w), size**2, steps, device=t.device, dtype=t.dtype)
    actual = {
        "coarse/z_vals": t[..., None],
        "coarse/rgb_sigma": torch.cat([radiance.reshape(*t.shape, 3), raw[..., None]], dim=-1),
        "coarse/weights": weights[..., None],
        "fine/z_vals": importance_depths(t, weights, u).flatten(0, 1),
    }
    measured = case.spec["tolerance"]["fp32_vs_fp64_max_abs_stages"]
    for name, value in actual.items():
        rule = {"max_abs": STAGE_MARGIN * measured[f"stages/{name}"]}
        assert_within(value, case.tensor(f"out/stages/{name}"), rule, name)


def checkpoint_parameters() -> list[Any]:
    return [
        pytest.param(*param.values, weights, id=f"{param.id}:{weights}")
        for param in variants_of("pigan", "checkpoint")
        for weights in sorted({n.split("/")[1] for n in param.values[0].names if n[:4] == "out/"})
    ]


@pytest.mark.parametrize("case, variant, weights", checkpoint_parameters())
@torch.no_grad()
def test_pickled_checkpoints_render_as_in_the_original(
    case: Case, variant: str, weights: str
) -> None:
    average = None if weights == "raw" else f"{weights}.pth"
    state_dict, facts = read_original_checkpoint(case.path.parent, average)
    generator = interop.convert("pigan", "generator", state_dict, facts)
    assert isinstance(generator, PiGAN)
    options = case.config["variants"][variant]
    z = case.tensor("in/z")
    w = with_average(generator, case).mapping(z, psi=options["psi"])
    result = generator.synthesis(w, cameras_of(options, len(z)), settings_of(options))
    expected = case.outputs(f"{weights}/{variant}")
    assert "pixels" in expected
    for name, value in expected.items():
        actual = {"pixels": result.image, "depth": result.depth}[name]
        assert actual is not None
        assert_within(actual, value, case.tolerance(name), name)


def source_of(case: Case) -> Case | None:
    """The case whose weights a case uses, by the name at the head of its `weights_from`."""
    stem = case.config["weights_from"].split()[0]
    return next((other for other in all_cases() if other.path.stem == stem), None)


@pytest.mark.parametrize("case, grid", variants_of("pigan", "shape_extraction", "grids"))
def test_the_lattice_of_shapes_is_the_originals(case: Case, grid: str) -> None:
    size = case.config["grids"][grid]
    points = voxel_lattice(size["resolution"], size["cube_size"], compat_shear=True)
    assert_within(points, case.tensor(f"out/{grid}/points"), case.tolerance("points"), "points")


@pytest.mark.parametrize("case, grid", variants_of("pigan", "shape_extraction", "grids"))
@torch.no_grad()
def test_densities_on_the_lattice_are_the_originals(case: Case, grid: str) -> None:
    source = source_of(case)
    if source is None:
        pytest.skip(f"{case.config['weights_from']} is not among the cases")
    generator = generator_of(source)
    z = source.tensor("in/z")[:1]
    size = case.config["grids"][grid]
    n = size["resolution"]
    points = voxel_lattice(n, size["cube_size"], compat_shear=True)[None]
    views = torch.tensor([float(x) for x in case.config["view_direction"]]).expand_as(points)
    field = generator.field(generator.mapping(z, psi=case.config["psi"]))
    _, raw = field(points, views)
    assert_within(
        raw.reshape(n, n, n), case.tensor(f"out/{grid}/sigma"), case.tolerance("sigma"), "sigma"
    )

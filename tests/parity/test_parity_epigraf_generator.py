"""EpiGRAF's generator against the original's numbers: styles, planes, pictures, gradients."""

from functools import lru_cache

import pytest
import torch
from parity.epigraf_support import (
    assert_outputs,
    cameras_of,
    inputs_of,
    patch_of,
    replayed,
    settings_of,
    watched,
)
from parity.support import Case, cases_of
from torch import Tensor

import interop
from generators.epigraf import EpiGRAF
from interop.epigraf import names_of
from rendering.cameras import Cameras, pixel_axes
from rendering.field import background_of
from rendering.renderer import _Draws, render


@lru_cache(maxsize=2)
def generator_of(case: Case) -> EpiGRAF:
    generator = interop.convert("epigraf", "generator", case.tensors("weights/"), case.config)
    assert isinstance(generator, EpiGRAF)
    return generator.eval().requires_grad_(False)


def conditions_of(case: Case, inputs: dict[str, Tensor]) -> tuple[Tensor | None, Cameras | None]:
    """Labels, and cameras for styles to know."""
    angles = inputs.get("camera_angles_cond")
    camera = case.config["generator"]["dataset"]["camera"]
    return inputs.get("c"), None if angles is None else cameras_of(angles, camera)


@pytest.mark.parametrize("case", cases_of("epigraf", "generator"))
def test_styles_and_planes_are_the_originals(case: Case) -> None:
    generator, inputs = generator_of(case), inputs_of(case)
    label, pose = conditions_of(case, inputs)
    z = inputs["z"]
    actual = {
        "ws": generator.mapping(z, label, pose),
        "ws_psi0.7": generator.mapping(z, label, pose, psi=0.7),
        "ws_psi0.5_cutoff3": generator.mapping(z, label, pose, psi=0.5, cutoff=3),
    }
    if "out/ws_mean_pose" in case.names:
        actual["ws_mean_pose"] = generator.mapping(z, label)
    actual["planes"] = generator.planes(actual["ws"])
    if "out/densities" in case.names:  # the original's are without the shift
        density = generator.field(actual["ws"]).density(inputs["density_points"])
        actual["densities"] = density - generator.decoder.density_shift
    assert_outputs(case, actual, only=lambda name: name in actual)


@pytest.mark.parametrize("case", cases_of("epigraf", "generator"))
def test_pictures_are_the_originals(case: Case) -> None:
    generator, inputs = generator_of(case), inputs_of(case)
    network, size = case.config["generator"], case.config["ctor"]["img_resolution"]
    label, pose = conditions_of(case, inputs)
    z, camera = inputs["z"], network["dataset"]["camera"]
    settings = settings_of(network, size)
    cameras = cameras_of(inputs["camera_angles"], camera)
    w = generator.mapping(z, label, pose)
    with watched("render_weights") as weights, watched("importance_depths") as fine:
        with watched("composite") as composites:
            whole = generator.synthesis(w, cameras, settings)
    wide = cameras_of(inputs["camera_angles"], camera, inputs["fov"])
    truncated = generator.mapping(z, label, pose, psi=0.7)
    small = settings_of(network, network["patch"]["resolution"])
    part = generator.synthesis(w, cameras, small, patch=patch_of(inputs))
    assert whole.depth is not None and part.depth is not None
    actual = {
        "image": whole.image,
        "depth": whole.depth[:, None],
        "coarse_weights": weights[0],
        "fine_z": fine[0].flatten(0, 1),
        "final_transmittance": composites[0].transmittance,
        "image_psi0.7": generator.synthesis(truncated, cameras, settings).image,
        "image_fov": generator.synthesis(w, wide, settings).image,
        "patch": part.image,
        "patch_depth": part.depth[:, None],
    }
    if pose is not None:
        mean = generator.mapping(z, label)
        actual["image_mean_pose"] = generator.synthesis(mean, cameras, settings).image
    if "out/image_nobg" in case.names:
        nobg = composites[0].radiance
        behind = background_alone(generator, w, cameras, size)
        actual |= {"image_nobg": as_picture(nobg, size), "image_bgonly": as_picture(behind, size)}
    styles = ("ws", "planes", "densities")
    assert_outputs(case, actual, only=lambda name: not name.startswith(styles))


def background_alone(generator: EpiGRAF, w: Tensor, cameras: Cameras, size: int) -> Tensor:
    """What the rays of a picture would see without the field."""
    background = background_of(generator.field(w))
    assert background is not None
    x, y = pixel_axes(size, size, None, cameras.fov)
    positions = torch.stack(torch.broadcast_tensors(x[:, None], y[..., None]), dim=-1)
    return background(*cameras.rays(size, size), positions.flatten(1, 2), None, white_back=False)


def as_picture(radiance: Tensor, size: int) -> Tensor:
    return radiance.transpose(1, 2).unflatten(2, (size, size))


@pytest.mark.parametrize("case", cases_of("epigraf", "generator-training"))
def test_patches_in_training_and_their_gradients_are_the_originals(case: Case) -> None:
    weights = case.tensors("weights/")
    generator = interop.convert("epigraf", "generator", weights, case.config)
    assert isinstance(generator, EpiGRAF)
    inputs, network = inputs_of(case), case.config["generator"]
    label, pose = conditions_of(case, inputs)
    if generator.pose is not None:
        kept = inputs["pose_drop_mask"]
        generator.pose._draw = lambda law, like: kept.to(like)  # type: ignore[method-assign]
    w = generator.mapping(inputs["z"], label, pose)
    w.retain_grad()
    std = 0.5 * network["nerf_noise_std_init"]
    draws = _Draws(
        jitter=inputs["jitter"][..., 0],
        importance=inputs["u"].reshape(len(w), -1, inputs["u"].shape[-1]),
        coarse_noise=std * inputs["noise_coarse"][..., 0],
        final_noise=std * inputs["noise_fine"][..., 0],
        background=inputs.get("bg_jitter"),
    )
    cameras = cameras_of(inputs["camera_angles"], network["dataset"]["camera"])
    settings = settings_of(network, network["patch"]["resolution"], jitter=True)
    with replayed(draws), watched("importance_depths") as fine:
        part = render(generator.field(w), cameras, settings, patch=patch_of(inputs))
    loss = (part.image * inputs["cotangent"]).sum()
    loss.backward()
    names = names_of(generator)
    parameters = {f"grad/{names[name]}": p.grad for name, p in generator.named_parameters()}
    actual = {
        "ws": w,
        "patch": part.image,
        "fine_z": fine[0].flatten(0, 1),
        "loss": loss.reshape(1),
        "grad_ws": w.grad,
        **{name: g for name, g in parameters.items() if f"out/{name}" in case.names},
    }
    assert_outputs(case, actual)


@pytest.mark.parametrize(
    "case", cases_of("epigraf", "generator") + cases_of("epigraf", "generator-training")
)
def test_converted_generators_export_the_same_bits(case: Case) -> None:
    weights = case.tensors("weights/")
    generator = interop.convert("epigraf", "generator", weights, case.config)
    exported = interop.export("epigraf", "generator", generator)
    assert set(exported) == set(weights)
    for name, value in weights.items():
        if name.endswith(("resample_filter", "fourier_coefs")):
            torch.testing.assert_close(exported[name], value, atol=1e-6, rtol=1e-6)
        else:
            assert torch.equal(exported[name], value), name

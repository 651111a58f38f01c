"""EpiGRAF's parts against the original's numbers: encoders, mapping, field, backgrounds, rays."""

import math
from typing import Any

import pytest
import torch
from parity.epigraf_support import assert_outputs, cameras_of, inputs_of, patch_of
from parity.support import Case, cases_of
from torch import Tensor

import interop
from generators.inverted_sphere import SphereNetwork
from generators.style import StyleGenerator
from generators.triplane import TriPlaneDecoder, TriPlaneField, sample_planes
from interop.epigraf import MAPPING_NAMES, names_of, theirs
from ops.encoding import PoseEncoder, ScalarEncoder
from ops.mapping import MappingNetwork
from rendering.background import SphereBackground, inverted_sphere_points
from rendering.camera_labels import turntable_angles
from rendering.cameras import Cameras, frustum_reach
from rendering.compositing import (
    FAR_DELTA,
    NEAR_DELTA,
    activate_density,
    composite,
)
from rendering.sampling import invert_cdf, jittered_depths, quantiles
from rendering.settings import PoseLaw

# -- encoders and mapping networks


@pytest.mark.parametrize("case", cases_of("epigraf", "encoders"))
def test_encoders(case: Case) -> None:
    inputs, actual = inputs_of(case), {}
    for config in case.config["encoders"]:
        encoder = ScalarEncoder(
            config["coord_dim"],
            multiplier=config["x_multiplier"],
            table_dim=config["const_emb_dim"],
            use_raw=config.get("use_raw", False),
            use_cos=config.get("use_cos", True),
        )
        weights = case.tensors(f"weights/{config['id']}.")
        assert_frequencies(encoder, weights.pop("fourier_encoder.fourier_coefs", None))
        encoder.load_state_dict(
            {name.replace("const_embed", "table"): w for name, w in weights.items()}
        )
        actual[config["id"]] = encoder(inputs[config["id"]])
    assert_outputs(case, actual)


def assert_frequencies(encoder: ScalarEncoder, expected: Tensor | None) -> None:
    if expected is None:
        assert encoder.frequencies.numel() == 0
    else:
        torch.testing.assert_close(encoder.frequencies, expected, rtol=1e-6, atol=0)


class MappingOnly(StyleGenerator):
    """A generator of which only the mapping matters; a pose comes as the cameras' angles."""

    def __init__(self, pose: PoseEncoder | None, **options: Any) -> None:
        super().__init__(mapping_lr_multiplier=0.01, **options)
        self.pose = pose

    def condition(self, batch: int, label: Tensor | None, cameras: Cameras | None) -> Tensor | None:
        if self.pose is None or cameras is None:
            return label
        return torch.cat([label, self.pose(cameras.yaw_pitch)], dim=1)  # type: ignore[list-item]

    def synthesis(self, w: Tensor, cameras: Any, settings: Any, **options: Any) -> Any:
        raise AssertionError


def poses(angles: Tensor) -> Cameras:
    """Cameras that know angles beyond a turn as they are given."""
    return Cameras(torch.eye(4).repeat(len(angles), 1, 1), torch.ones(len(angles)), angles[:, :2])


def pose_encoder(config: dict[str, Any]) -> PoseEncoder | None:
    if not config.get("camera_cond"):
        return None
    raw = config["camera_raw_scalars"]
    return PoseEncoder(
        multiplier=0 if raw else 64,
        use_raw=raw,
        drop_p=config["camera_cond_drop_p"],
        noise_std=config["camera_cond_noise_std"],
    )


def replay(encoder: PoseEncoder, noise: Tensor, kept: Tensor) -> None:
    """Give a pose encoder the original's draws: noise first, then what is kept."""
    draws = [noise, kept]
    encoder._draw = lambda law, like: draws.pop(0).to(like)  # type: ignore[method-assign]


@pytest.mark.parametrize("case", cases_of("epigraf", "mapping"))
def test_mapping(case: Case) -> None:
    actual = {}
    for config in case.config["mappings"]:
        of_one = mapping_outputs if config["z_dim"] else direction_outputs
        outputs = of_one(case, config, inputs_of(case))
        actual |= {f"{config['id']}/{name}": value for name, value in outputs.items()}
    assert_outputs(case, actual)


def load_mapping(case: Case, config: dict[str, Any], network: MappingNetwork) -> None:
    weights = case.tensors(f"weights/{config['id']}.")
    ours = {name: weights[theirs(name, MAPPING_NAMES)] for name, _ in network.named_parameters()}
    network.load_state_dict(ours)


def direction_outputs(
    case: Case, config: dict[str, Any], inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """A discriminator's mapping of label and pose."""
    encoder = pose_encoder(config)
    assert encoder is not None
    network = MappingNetwork(
        latent_dim=0,
        label_dim=config["c_dim"] + encoder.out_dim,
        w_dim=config["w_dim"],
        num_layers=config.get("num_layers", 2),
    )
    load_mapping(case, config, network)
    given = {name: inputs[f"{config['id']}.{name}"] for name in ("c", "pose_noise", "drop_mask")}
    angles = inputs[f"{config['id']}.camera_angles"][:, :2]

    def direction() -> Tensor:
        return network(None, torch.cat([given["c"], encoder(angles)], dim=1))

    encoder.eval()
    actual = {"ws": direction()}
    replay(encoder.train(), given["pose_noise"], given["drop_mask"])
    return actual | {"ws_train_dropout_noise": direction()}


def mapping_outputs(
    case: Case, config: dict[str, Any], inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """A generator's mapping, truncated and not, and its average after a batch."""
    name, encoder = config["id"], pose_encoder(config)
    generator = MappingOnly(
        encoder,
        latent_dim=config["z_dim"],
        label_dim=config["c_dim"],
        condition_dim=config["c_dim"] + (encoder.out_dim if encoder else 0),
        w_dim=config["w_dim"],
        num_ws=config["num_ws"],
        mapping_layers=config.get("num_layers", 2),
    )
    load_mapping(case, config, generator.mapping_network)
    generator.w_avg.copy_(case.tensor(f"weights/{name}.w_avg").expand_as(generator.w_avg))
    z, label = inputs[f"{name}.z"], inputs.get(f"{name}.c")
    cameras = poses(inputs[f"{name}.camera_angles"]) if encoder else None
    generator.eval()
    actual = {
        "ws": generator.mapping(z, label, cameras),
        "ws_psi0.7": generator.mapping(z, label, cameras, psi=0.7),
        "ws_psi0.5_cut2": generator.mapping(z, label, cameras, psi=0.5, cutoff=2),
    }
    if encoder is not None:
        mean = torch.tensor(config["mean_camera_pose"]).expand(len(z), 3)
        actual["ws_mean_pose"] = generator.mapping(z, label, poses(mean))
        replay(encoder.train(), inputs[f"{name}.pose_noise"], inputs[f"{name}.drop_mask"])
        actual["ws_train_dropout_noise"] = generator.mapping(z, label, cameras)
        encoder.eval()
    with generator.tracking():
        generator.mapping(z, label, cameras)
    return actual | {"w_avg_after_update": generator.w_avg[0]}


# -- fields


@pytest.mark.parametrize("case", cases_of("epigraf", "field"))
def test_field(case: Case) -> None:
    decoder = interop.convert("epigraf", "field", case.tensors("weights/"), case.config)
    assert isinstance(decoder, TriPlaneDecoder)
    inputs = inputs_of(case)
    planes = inputs["planes"].requires_grad_()
    given = inputs["points"].requires_grad_()
    points, directions = given.flatten(1, 2), along(inputs["ray_dirs"], given)
    radiance, density = TriPlaneField(planes, decoder)(points, directions)
    (torch.cat([radiance, density], dim=-1) * inputs["cotangent"]).sum().backward()
    met = sample_planes(planes, points / decoder.cube_scale)
    special = inputs["points_special"]
    at_special = TriPlaneField(planes, decoder)(
        special.flatten(1, 2), along(inputs["ray_dirs_special"], special)
    )
    names = names_of(decoder)
    actual = {
        "plane_features": met,
        "mean_features": met.mean(1),
        "rgb": radiance,
        "sigma": density,
        "special_out": torch.cat(at_special, dim=-1),
        "grad_planes": planes.grad,
        "grad_points": given.grad,
        **{f"grad/{names[name]}": p.grad for name, p in decoder.named_parameters()},
    }
    assert_outputs(case, actual)  # type: ignore[arg-type]


def along(directions: Tensor, points: Tensor) -> Tensor:
    """The directions of rays at each of the points on them, unit and flat."""
    unit = directions / directions.norm(dim=-1, keepdim=True)
    return unit[:, :, None].expand_as(points).flatten(1, 2)


# -- backgrounds


@pytest.mark.parametrize("case", cases_of("epigraf", "background"))
def test_background(case: Case) -> None:
    network = interop.convert("epigraf", "background", case.tensors("weights/"), case.config)
    assert isinstance(network, SphereNetwork)
    inputs, model = inputs_of(case), case.config["bg_model"]
    points, w = inputs["points4"].requires_grad_(), inputs["ws"].requires_grad_()
    out = network(points, w).transpose(1, 2)
    (out * inputs["cotangent"]).sum().backward()
    rotation = cameras_of(inputs["angles"], {"fov": 1.0, "radius": case.config["radius"]})
    directions = inputs["dirs_cam"] @ rotation.cam2world[:, :3, :3].transpose(1, 2)
    origins = rotation.origin[:, None].expand_as(directions)
    background = SphereBackground(lambda p: network(p, w), model["num_steps"], model["start"])
    regular = background.disparities(origins, None)
    jittered = background.disparities(origins, inputs["jitter"])
    unit = torch.nn.functional.normalize(directions, dim=-1)
    points_jittered, depth = inverted_sphere_points(origins, unit, jittered)
    actual = {
        "inr_out": out,
        "grad_points4": points.grad,
        "grad_ws": w.grad,
        "ray_o": origins,
        "ray_d": directions,
        "bg_points": inverted_sphere_points(origins, directions, regular)[0].flatten(1, 2),
        "bg_z": regular,
        "bg_dirs": along(directions, depth[..., None].expand(*depth.shape, 3)),
        "bg_points_jittered": points_jittered.flatten(1, 2),
        "bg_z_jittered": jittered,
        "depth_real_jittered": depth,
        "bg_rgb": background(origins, directions, None, inputs["jitter"]),
    }
    assert_outputs(case, actual)  # type: ignore[arg-type]


# -- rays, depths, pixels


@pytest.mark.parametrize("case", cases_of("epigraf", "integration"))
def test_integration(case: Case) -> None:
    inputs, actual = inputs_of(case), {}
    for variant in case.config["variants"]:
        samples = inputs["rgb_sigma"].clone().requires_grad_()
        raw = samples[..., 3] + variant["density_shift"]
        noise = variant["noise_std"] * inputs["noise"][..., 0] if variant["noise_std"] else None
        result = composite(
            samples[..., :3],
            activate_density(raw, variant["clamp_mode"], noise),
            inputs["z"][..., 0],
            white_back=variant["white_back_end_idx"] > 0,
            last_back=variant["last_back"],
            last_delta=FAR_DELTA if variant["use_inf_depth"] else NEAR_DELTA,
        )
        (result.radiance * inputs["cot_rgb"]).sum().backward()
        outputs = {
            "rgb": result.radiance,
            "depth": result.depth[..., None],
            "weights": result.weights[..., None],
            "final_transmittance": result.transmittance,
            "grad_rgb_sigma": samples.grad,
        }
        actual |= {f"{variant['id']}/{name}": value for name, value in outputs.items()}
    bins, weights = inputs["pdf_bins"], inputs["pdf_weights"]
    count = next(len(case.tensor(f"out/{n}")[0]) for n in names_with(case, "midpoints"))
    middle = quantiles(1, len(bins), count, device=bins.device, dtype=bins.dtype)[0]
    linear = torch.linspace(0, 1, count).expand(len(bins), count)
    actual |= {
        "pdf_samples": invert_cdf(bins, weights, inputs["pdf_u"]),
        f"pdf_samples_midpoints{count}": invert_cdf(bins, weights, middle),
        f"pdf_samples_linspace{count}": invert_cdf(bins, weights, linear),
        "perturbed_z": jittered_depths(
            inputs["perturb_z"][..., 0], inputs["perturb_noise"][..., 0]
        )[..., None],
    }
    assert_outputs(case, actual)


def names_with(case: Case, part: str) -> list[str]:
    return [name.removeprefix("out/") for name in case.names if part in name]


camera_laws = pytest.mark.parametrize(
    "case", [p for p in cases_of("epigraf", "camera") if "sampling" in p.values[0].config]
)


@camera_laws
def test_cameras_and_rays(case: Case) -> None:
    config, inputs = case.config, inputs_of(case)
    cameras = cameras_of(inputs["angles"], config)
    size = math.isqrt(case.tensor("out/full_z").shape[1])
    patch_size = math.isqrt(inputs["jitter"].shape[1])
    count = inputs["jitter"].shape[2]
    t = torch.linspace(config["ray_start"], config["ray_end"], count)
    origins, directions = cameras.rays(size, size)
    patch = patch_of(inputs) if is_square(inputs) else None
    actual = {
        "origins": cameras.origin,
        "cam2world": cameras.cam2world,
        "full_z": t.expand(len(cameras), size**2, -1)[..., None],
        "full_dirs_cam": camera_space(cameras).rays(size, size)[1],
        "full_dirs_world": directions,
        "full_origins_world": origins,
        "full_points": points_at(origins, directions, t),
        "fov_dirs_cam": camera_space(cameras_of(inputs["angles"], config, inputs["fov"])).rays(
            patch_size, patch_size
        )[1],
    }
    if patch is not None:
        origins, directions = cameras.rays(patch_size, patch_size, patch)
        regular = t.expand(*directions.shape[:2], -1)
        jittered = jittered_depths(regular, inputs["jitter"][..., 0])
        actual |= {
            "patch_dirs_cam": camera_space(cameras).rays(patch_size, patch_size, patch)[1],
            "patch_dirs_world": directions,
            "patch_points": points_at(origins, directions, t),
            "patch_points_jittered": points_at(origins, directions, jittered),
            "patch_z_jittered": jittered[..., None],
        }
    assert_outputs(case, actual, only=lambda name: name in actual)


@camera_laws
def test_poses_of_given_draws(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    config, inputs = case.config["sampling"], inputs_of(case)
    actual = {}
    for kind, draws in {"uniform": "u", "normal": "n", "spherical_uniform": "u"}.items():
        law = PoseLaw(
            kind,
            h_mean=config["horizontal_mean"],
            h_stddev=config["horizontal_stddev"],
            v_mean=config["vertical_mean"],
            v_stddev=config["vertical_stddev"],
            fov=case.config["fov"],
        )
        queue = [inputs[f"draw_{draws}{i}"][:, 0] for i in (0, 1)]
        count = len(queue[0])
        for name in ("rand", "randn"):
            monkeypatch.setattr(torch, name, lambda *_, queue=queue, **__: queue.pop(0))
        angles = Cameras.sample(law, count).yaw_pitch
        monkeypatch.undo()
        actual[f"sample_{kind}"] = torch.nn.functional.pad(angles, (0, 1))  # no roll
    assert_outputs(case, actual, only=lambda name: name in actual)


@camera_laws
def test_frustums_fit_into_cubes_as_the_originals(case: Case) -> None:
    given = case.tensor("in/frustum_params").double().tolist()
    fits = [frustum_reach(*frustum) <= half_cube for *frustum, half_cube in given]
    assert fits == case.tensor("out/frustum_valid").bool().tolist()


@camera_laws
def test_angles_of_z_up_cameras(case: Case) -> None:
    rotations = case.tensor("out/euler_from_matrix_input")[:, :3, :3]
    actual = {"euler_from_matrix": turntable_angles(rotations)}
    assert_outputs(case, actual, only=lambda name: name in actual)


def is_square(inputs: dict[str, Tensor]) -> bool:
    return torch.equal(*inputs["patch_scales"].unbind(-1))


def camera_space(cameras: Cameras) -> Cameras:
    return Cameras(torch.eye(4).repeat(len(cameras), 1, 1), cameras.fov)


def points_at(origins: Tensor, directions: Tensor, t: Tensor) -> Tensor:
    return origins[:, :, None] + directions[:, :, None] * t[..., None]

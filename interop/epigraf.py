"""Weights of the official EpiGRAF networks made into our modules, and back.

`config` holds the original's configuration of a network under "generator" or "discriminator" and
its constructor arguments under "ctor". Tensors only change their names; filters and frequencies,
which theirs store and ours compute, are compared. Parts that theirs has and never reads are left
out, and written as zeros.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from discriminators.patch import PatchDiscriminator
from generators.epigraf import EpiGRAF
from generators.inverted_sphere import SphereNetwork
from generators.triplane import TriPlaneDecoder
from interop.stylegan import FILTER_TOLERANCE, original_names
from interop.weights import SYSTEMS, Role, Weights, require_same_shapes

COMPUTED = ("resample_filter", "up_filter", "down_filter", "frequencies")
W_AVG = "mapping.w_avg"
FMM = {"tanh": "tanh", "sigmoid": "sigmoid", "demod": "demod"}

ENCODER_NAMES = [
    (r"frequencies$", "fourier_encoder.fourier_coefs"),
    (r"table\.weight$", "const_embed.weight"),
]
DECODER_NAMES = [
    (r"^layers\.", "model."),
    (r"^colors\.", "color_network."),
    (r"^coordinates\.", "pos_enc."),
    (r"^directions\.", "ray_dir_enc."),
]
SPHERE_NAMES = [
    (r"\.linear([01])\.", r".conv\1."),
    (r"\.points\.", ".scalar_enc."),
]
MAPPING_NAMES = [(r"^layers\.(\d+)\.", r"fc\1.")]


def decoder_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our decoder's arguments, of the original's "tri_plane" and cube."""
    planes = config["tri_plane"]
    return {
        "feature_dim": planes["feat_dim"],
        "view_direction": planes["has_view_cond"],
        "coordinate_periods": planes["posenc_period_len"],
        "num_layers": planes["mlp"]["n_layers"],
        "width": planes["mlp"]["hid_dim"],
        "cube_scale": config["cube_scale"],
    }


def sphere_arguments(config: Mapping[str, Any], w_dim: int) -> dict[str, Any]:
    """Our background network's arguments, of the original's "bg_model"."""
    if config["coord_dim"] != 4 or config["output_channels"] != 4:
        raise ValueError("a sphere background sees 4 coordinates and makes 4 numbers of them")
    fmm = config["fmm"]
    return {
        "w_dim": w_dim,
        "num_blocks": config["num_blocks"],
        "channel_base": config["cbase"],
        "channel_max": config["cmax"],
        "periods": config["posenc_period_len"],
        "modulation": FMM[fmm["activation"]] if fmm["enabled"] else "styles",
        "rank": fmm["rank"],
    }


def generator_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """EpiGRAF's arguments, of the original's configuration and constructor arguments."""
    network, ctor, mapping = config["generator"], config["ctor"], config["ctor"]["mapping"]
    planes, backdrop = network["tri_plane"], network["bg_model"]
    decoder = decoder_arguments({**network, "cube_scale": network["dataset"]["cube_scale"]})
    sphere = sphere_arguments(backdrop, ctor["w_dim"])
    decoder["decoder_layers"], decoder["decoder_width"] = (
        decoder.pop("num_layers"),
        decoder.pop("width"),
    )
    del sphere["w_dim"]
    size = ctor["img_resolution"]
    return {
        **decoder,
        **{f"background_{name}": value for name, value in sphere.items() if name != "num_blocks"},
        "background_blocks": sphere["num_blocks"],
        "background": backdrop["type"] or "none",
        "background_size": None if size == planes["res"] else size,
        "background_steps": backdrop["num_steps"],
        "background_start": backdrop["start"],
        "latent_dim": ctor["z_dim"],
        "label_dim": ctor["c_dim"],
        "w_dim": ctor["w_dim"],
        "mapping_layers": mapping.get("num_layers", 2),
        "backbone": network["backbone"].replace("raw-planes", "raw_planes"),
        "plane_resolution": planes["res"],
        "channel_base": ctor["channel_base"],
        "channel_max": ctor["channel_max"],
        "use_noise": network["use_noise"],
        "num_fp16_res": 0 if planes["fp32"] else 4,
        "density_shift": network["density_shift"],
        "pose_conditioning": mapping["camera_cond"],
        "pose_drop_p": mapping.get("camera_cond_drop_p", 0.0),
        "pose_noise_std": mapping.get("camera_cond_noise_std", 0.0),
        "mean_pose": tuple(mapping.get("mean_camera_pose", (0.0, math.pi / 2, 0.0))[:2]),
    }


def discriminator_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our discriminator's arguments, of the original's configuration and constructor arguments."""
    network, ctor = config["discriminator"], config["ctor"]
    if network["hyper_mod"] and not network["patch"]["patch_params_cond"]:
        raise ValueError("hyper_mod needs patch_params_cond, as it does in the original")
    return {
        "resolution": ctor["img_resolution"] << network["num_additional_start_blocks"],
        "patch_size": ctor["img_resolution"],
        "label_dim": ctor["c_dim"],
        "condition_on_patches": network["hyper_mod"],
        "condition_on_cameras": network["camera_cond"],
        "pose_raw": network["camera_cond_raw"],
        "pose_drop_p": network["camera_cond_drop_p"],
        "pose_noise_std": network["camera_cond_noise_std"],
        "img_channels": ctor["img_channels"],
        "channel_base": ctor["channel_base"],
        "channel_max": ctor["channel_max"],
        "mbstd_group_size": ctor.get("mbstd_group_size", 4),
    }


def theirs(name: str, rules: list[tuple[str, str]]) -> str:
    """Our name of a tensor under the original's name."""
    for pattern, replacement in [*rules, *ENCODER_NAMES]:
        name = re.sub(pattern, replacement, name)
    return name


def names_of(module: nn.Module) -> dict[str, str]:
    """Our name of every parameter and buffer -> the original's."""
    ours = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    if isinstance(module, EpiGRAF):
        painter = original_names(module.painter)
        return {name: _generator_name(name, painter) for name in ours}
    if isinstance(module, PatchDiscriminator):
        size = module.resolution
        blocks = {str(i): f"b{size >> i}." for i in range(len(module.blocks))}
        return {name: _discriminator_name(name, blocks) for name in ours}
    if isinstance(module, SphereNetwork):
        return {name: theirs(name, SPHERE_NAMES) for name in ours}
    assert isinstance(module, TriPlaneDecoder)
    return {name: theirs(name, DECODER_NAMES) for name in ours}


def _generator_name(name: str, painter: Mapping[str, str]) -> str:
    part, _, rest = name.partition(".")
    if part == "w_avg":
        return W_AVG
    if part == "mean_pose":
        return "mapping.mean_camera_pose"
    if part == "mapping_network":
        return "mapping." + theirs(rest, MAPPING_NAMES)
    if part == "pose":
        return "mapping.camera_scalar_enc." + theirs(rest.removeprefix("scalars."), [])
    if part == "decoder":
        return "synthesis.tri_plane_mlp." + theirs(rest, DECODER_NAMES)
    if part == "sphere":
        return "synthesis.bg_model." + theirs(rest, SPHERE_NAMES)
    assert part == "painter"
    return "synthesis.tri_plane_decoder." + painter[rest]


def _discriminator_name(name: str, blocks: Mapping[str, str]) -> str:
    part, _, rest = name.partition(".")
    if part == "blocks":
        index, _, rest = rest.partition(".")
        return blocks[index] + rest.replace("affine.", "conv1.affine.")
    if part == "epilogue":
        return "b4." + rest
    if part == "patches":
        return "scalar_enc." + theirs(rest, [])
    if part == "pose":
        return "head_mapping.camera_scalar_enc." + theirs(rest.removeprefix("scalars."), [])
    return {"hyper_network": "hyper_mod_mapping.", "mapping_network": "head_mapping."}[
        part
    ] + theirs(rest, MAPPING_NAMES)


def original_tensors(module: nn.Module) -> dict[str, Tensor]:
    """What one of our modules stores and computes, under the original's names."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    return {
        theirs: tensors[ours][0] if theirs == W_AVG else tensors[ours].detach()
        for ours, theirs in names_of(module).items()
    }


def load(module: nn.Module, weights: Weights) -> nn.Module:
    """Fill one of our modules with the original's tensors, and return it."""
    own, names = original_tensors(module), names_of(module)
    unread = unread_tensors(module)
    given = {key: value for key, value in weights.items() if key not in unread}
    optional = {key for key in own if key.endswith("fourier_coefs") and own[key].numel() == 0}
    expected = {key: value for key, value in own.items() if key not in optional}
    require_same_shapes(given, expected, f"a {type(module).__name__} of these arguments")
    state = {}
    for ours, key in names.items():
        if key in optional:
            continue
        if ours.rpartition(".")[2] not in COMPUTED:
            state[ours] = given[key]
        elif (given[key].to(own[key]) - own[key]).abs().max() > (
            FILTER_TOLERANCE * own[key].abs().max()
        ):
            raise ValueError(f"{key} differs from what the arguments ask for")
    if isinstance(module, EpiGRAF):  # theirs has one average for all slots
        state["w_avg"] = given[W_AVG].expand_as(module.w_avg)
    module.load_state_dict(state)
    return module


def unread_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Zeros for what the original's module has and never reads."""
    if not isinstance(module, PatchDiscriminator):
        return {}
    unread = {}
    own = original_tensors(module)
    for i in range(1, len(module.blocks)):
        name = f"b{module.resolution >> i}."
        channels = own[name + "conv0.weight"].shape[1]
        unread[name + "fromrgb.weight"] = torch.zeros(channels, module.img_channels, 1, 1)
        unread[name + "fromrgb.bias"] = torch.zeros(channels)
        unread[name + "fromrgb.resample_filter"] = own[name + "conv0.resample_filter"]
    if module.patches is None:
        unread["scalar_enc.const_embed.weight"] = torch.zeros(1001, 256)
        unread["scalar_enc.fourier_encoder.fourier_coefs"] = math.pi * 2.0 ** torch.arange(-10, 0)
    return unread


def export(module: nn.Module) -> dict[str, Tensor]:
    """Our module's tensors under the original's names."""
    own = {key: value for key, value in original_tensors(module).items() if value.numel()}
    return own | unread_tensors(module)


SYSTEMS.register("epigraf")(
    {
        "generator": Role(lambda w, c: load(EpiGRAF(**generator_arguments(c)), w), export),
        "discriminator": Role(
            lambda w, c: load(PatchDiscriminator(**discriminator_arguments(c)), w), export
        ),
        "field": Role(lambda w, c: load(TriPlaneDecoder(**decoder_arguments(c)), w), export),
        "background": Role(
            lambda w, c: load(SphereNetwork(**sphere_arguments(c["bg_model"], c["w_dim"])), w),
            export,
        ),
    }
)

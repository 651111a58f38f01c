"""EpiGRAF's training against the original's numbers: patches, schedules, blur, an iteration."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity.epigraf_support import (
    assert_outputs,
    cameras_of,
    inputs_of,
    patch_of,
    settings_of,
)
from parity.support import Case, cases_of
from torch import Tensor, nn

import interop
from discriminators.patch import PatchDiscriminator
from generators.epigraf import EpiGRAF
from interop.epigraf import names_of
from rendering.cameras import Cameras, Patch, pixel_axes
from training.patches import PatchLaw, anneal, cut_patches, placed
from training.poses import spoofed
from training.regularizers import blur, blur_sigma, gradient_penalty, half_life_decay

DOUBLE = torch.float64


def having(cases: list[Any], key: str) -> list[Any]:
    """Those cases whose configuration has a key."""
    return [case for case in cases if key in case.values[0].config]


# -- patches and schedules


@pytest.mark.parametrize("case", having(cases_of("epigraf", "patches"), "patch"))
def test_windows_patches_and_schedules(case: Case) -> None:
    inputs, config = inputs_of(case), case.config
    patch, size = patch_of(inputs), config["patch"]["resolution"]
    images = inputs["real_images"].requires_grad_()
    cut = cut_patches(images, patch, size)
    (gradient,) = torch.autograd.grad(cut.square().sum(), images)
    x, y = pixel_axes(size, size, patch, patch.scale)
    grid = torch.broadcast_tensors(x[:, None], -y[..., None])  # row 0 on top, y downwards
    actual = {
        **windows(inputs, config),
        "patches": cut,
        "grad_images_sum_sq": gradient,
        "patch_coords_gridsample": torch.stack(grid, dim=-1),
        **schedules(config["schedule"], inputs["kimg"].tolist()),
    }
    assert_outputs(case, actual)


def windows(inputs: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Scales and offsets of given draws, one window for every group of neighbours."""
    largest = config["patch"]["max_scale"]
    uniform = PatchLaw(kind="uniform", min_scale=0.4, max_scale=largest, anneal_kimg=0)
    made = {
        "beta": placed(0.25 + inputs["beta_draws"] * (largest - 0.25), inputs["offset_draws"]),
        "uniform": uniform.window(inputs["uniform_draws"], inputs["offset_draws"], 0),
        "discrete": placed(inputs["choice_draws"], inputs["offset_draws"]),
    }
    group, found = config["group_size"], {}
    for name, patch in made.items():
        scales = patch.scale.repeat_interleave(group)[:, None].expand(-1, 2)
        found[f"{name}_scales"] = scales
        found[f"{name}_offsets"] = patch.offset.repeat_interleave(group, dim=0)
    return found


def schedules(config: Mapping[str, Any], kimg: list[float]) -> dict[str, Tensor]:
    """Everything that changes with the number of pictures seen."""
    law = PatchLaw(
        min_scale=config["min_scale_trg"],
        max_scale=config["max_scale"],
        anneal_kimg=config["anneal_kimg"],
        beta_start=config["beta_val_start"],
        beta_end=config["beta_val_end"],
    )
    batch, half_life = config["batch_size"], config["ema_multiplier"] * config["batch_size"]
    found = {
        "beta": law.beta,
        "uniform_min_scale": law.smallest,
        "nerf_noise_std": lambda k: anneal(
            k, config["nerf_noise_std_init"], 0.0, config["nerf_noise_kimg_growth"]
        ),
        "gpc_spoof_p": lambda k: anneal(k, 1.0, config["camera_cond_spoof_p"], 1000.0),
        "blur_sigma": lambda k: blur_sigma(
            k * 1000, config["blur_init_sigma"], config["blur_fade_kimg"]
        ),
        "ema_beta": lambda k: half_life_decay(
            batch, half_life, int(k * 1000), config["ema_rampup"]
        ),
    }
    return {f"sched_{name}": torch.tensor([f(k) for k in kimg]) for name, f in found.items()}


@pytest.mark.parametrize("case", having(cases_of("epigraf", "patches"), "spoof_p"))
def test_spoofed_poses(case: Case) -> None:
    inputs = inputs_of(case)
    angles = inputs["camera_angles"]
    cameras = Cameras(torch.eye(4).repeat(len(angles), 1, 1), angles[:, 2], angles[:, :2])
    actual = {}
    for p in case.config["spoof_p"]:
        told = spoofed(cameras, p, inputs["uniform_draws"])
        actual[f"cond_p{p}"] = torch.cat([told.yaw_pitch, told.fov[:, None]], dim=1)
    assert_outputs(case, actual)


@pytest.mark.parametrize("case", having(cases_of("epigraf", "losses"), "sigmas"))
def test_blur(case: Case) -> None:
    image, actual = inputs_of(case)["img"], {}
    for sigma in case.config["sigmas"]:
        actual[f"blurred_s{sigma}"] = blur(image, sigma)
        kernel = f"kernel_s{sigma}"
        if f"out/{kernel}" in case.names:
            actual[kernel] = response(len(case.tensor(f"out/{kernel}")), sigma)
    assert_outputs(case, actual)


def response(taps: int, sigma: float) -> Tensor:
    """The kernel: what blurring makes of a vertical line, which only its other axis sees."""
    line = torch.zeros(1, 1, 3 * taps, 3 * taps)
    line[..., 3 * taps // 2] = 1
    return blur(line, sigma)[0, 0, 3 * taps // 2, taps : 2 * taps]


# -- one iteration


@lru_cache(maxsize=1)
def players_of(case: Case) -> tuple[EpiGRAF, PatchDiscriminator]:
    weights = case.tensors("weights/")
    made = []
    for prefix, role in (("G", "generator"), ("D", "discriminator")):
        own = {k[2:]: v for k, v in weights.items() if k.startswith(f"{prefix}.")}
        made.append(interop.convert("epigraf", role, own, case.config[prefix]).to(DOUBLE))
    generator, discriminator = made
    assert isinstance(generator, EpiGRAF) and isinstance(discriminator, PatchDiscriminator)
    for name, buffer in generator.named_buffers():
        if name.endswith("noise_const"):  # the fixture's noise is zero
            buffer.zero_()
    return generator, discriminator


class Iteration:
    """The phases of an iteration on the case's inputs, at one amount of blur."""

    def __init__(self, case: Case, sigma: float) -> None:
        self.inputs, self.sigma = inputs_of(case, DOUBLE), sigma
        self.generator, self.discriminator = players_of(case)
        self.network = case.config["G"]["generator"]
        self.size = self.network["patch"]["resolution"]
        self.gamma = case.config["loss"]["r1_gamma"]

    def fake_scores(self) -> Tensor:
        inputs, generator = self.inputs, self.generator
        camera = self.network["dataset"]["camera"]
        told = cameras_of(inputs["gen_camera_angles_cond"], camera)
        cameras = cameras_of(inputs["gen_camera_angles"], camera)
        patch = patch_of(inputs, "gen_")
        w = generator.mapping(inputs["z"], inputs["gen_c"], told)
        settings = settings_of(self.network, self.size)
        image = generator.synthesis(w, cameras, settings, patch=patch).image
        return self.judge(image, cameras, inputs["gen_c"], patch)

    def real_scores(self) -> tuple[Tensor, Tensor]:
        """Scores, and the R1 penalty in the patches before they are blurred."""
        inputs, patch = self.inputs, patch_of(self.inputs, "real_")
        camera = self.network["dataset"]["camera"]
        cut = cut_patches(inputs["real_img"], patch, self.size).requires_grad_()
        cameras = cameras_of(inputs["real_camera_angles"], camera)
        scores = self.judge(cut, cameras, inputs["real_c"], patch)
        return scores, gradient_penalty(scores, cut)

    def judge(self, image: Tensor, cameras: Cameras, label: Tensor, patch: Patch) -> Tensor:
        seen = blur(image, self.sigma)
        return self.discriminator(seen, cameras=cameras, label=label, patch=patch).logits


def phase_outputs(phase: str, step: Iteration) -> dict[str, Tensor]:
    """What one phase computes."""
    if phase == "Gall":
        fake = step.fake_scores()[:, 0]
        loss = F.softplus(-fake)
        return {
            "scores/fake": fake,
            "G/loss": loss,
            **player_gradients(loss.mean(), step.generator),
        }
    found: dict[str, Tensor] = {}
    total = torch.zeros(len(step.inputs["z"]), dtype=DOUBLE)
    real, penalty = step.real_scores()
    found["scores/real"] = real[:, 0]
    if phase != "Dreg":
        before = step.generator.w_avg.clone()
        with step.generator.tracking():
            found["scores/fake"] = fake = step.fake_scores()[:, 0]
        found["w_avg_after"] = step.generator.w_avg[0].clone()
        step.generator.w_avg.copy_(before)
        found["D/loss"] = total = F.softplus(fake) + F.softplus(-real[:, 0])
    if phase != "Dmain":
        found["D/r1_penalty"] = penalty
        found["D/reg"] = penalty * step.gamma / 2
        total = total + found["D/reg"]
    gain = REG_INTERVAL if phase == "Dreg" else 1
    return found | player_gradients(total.mean() * gain, step.discriminator)


def player_gradients(loss: Tensor, player: nn.Module) -> dict[str, Tensor]:
    """Gradients and their norms under the original's names."""
    names = {name: p for name, p in player.named_parameters()}
    theirs = names_of(player)
    values = torch.autograd.grad(loss, list(names.values()), materialize_grads=True)
    found = {}
    for name, value in zip(names, values, strict=True):
        found[f"grad/{theirs[name]}"] = value
        found[f"grad_norm/{theirs[name]}"] = value.norm().reshape(1)
    return found


PHASES = ("Gall", "Dmain", "Dreg", "Dall")
REG_INTERVAL = 16


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("case", having(cases_of("epigraf", "losses"), "cur_nimg"))
def test_an_iteration(case: Case, phase: str) -> None:
    config = case.config["loss"]
    actual = {}
    for tag, seen in case.config["cur_nimg"].items():
        sigma = blur_sigma(seen, config["blur_init_sigma"], config["blur_fade_kimg"])
        outputs = phase_outputs(phase, Iteration(case, sigma))
        actual |= {f"{tag}/{phase}/{name}": value for name, value in outputs.items()}
    recorded = {name for name in actual if f"out/{name}" in case.names}
    assert_outputs(
        case,
        {name: actual[name] for name in recorded},
        only=lambda name: f"/{phase}/" in name,
    )

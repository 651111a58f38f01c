"""Ray conditioning against the original's numbers: ray maps, networks, losses, weight surgery."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity.stylegan_support import original_parameters
from parity.support import Case, cases_of
from torch import Tensor, nn

import interop
from discriminators.stylegan2 import StyleGAN2Discriminator
from generators.ray_conditioned import (
    RayConditionedStyleGAN2,
    RayConditionedStyleGAN3,
    ray_map,
)
from generators.stylegan3 import input_transform
from interop.raycond import from_stock
from interop.stylegan import original_names, original_tensors
from rendering.camera_labels import cameras_from_labels
from rendering.settings import RenderSettings
from training.regularizers import gradient_penalty, mix_styles, path_length_penalty, path_lengths

TINY_PEAK = 1e-6  # outputs that small are held to an absolute error of it
Generators = RayConditionedStyleGAN2 | RayConditionedStyleGAN3


def assert_close(case: Case, name: str, actual: Tensor) -> None:
    """The case's rule: relative L2, at least 1e-5."""
    expected = case.tensor(f"out/{name}").double()
    assert actual.shape == expected.shape, f"{name}: {actual.shape}, not {expected.shape}"
    rule = case.spec["tolerance"]["per_output"][name]
    error = (actual.detach().double() - expected).norm()
    if rule["peak"] < TINY_PEAK:
        assert float(error) <= TINY_PEAK, f"{name}: {float(error)}"
        return
    assert float(error / expected.norm()) <= max(20 * rule["rel_l2"], 1e-5), name


def assert_all_close(case: Case, actual: Mapping[str, Tensor]) -> None:
    recorded = {name.removeprefix("out/") for name in case.names if name.startswith("out/")}
    missing = recorded - actual.keys()
    assert not missing, f"nothing compares {sorted(missing)}"
    for name in recorded:
        assert_close(case, name, actual[name])


def of_generator(case: Case, config: Any, prefix: str = "weights/") -> Generators:
    generator = interop.convert("raycond", "generator", case.tensors(prefix), config)
    assert isinstance(generator, (RayConditionedStyleGAN2, RayConditionedStyleGAN3))
    return generator


def network(generator: Generators, w: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """Pictures of the very labels: cameras would round them."""
    if isinstance(generator, RayConditionedStyleGAN2):
        noise = generator.noise(options.pop("noise_mode", "const"), len(w))
        return generator.synthesis_network(
            w, options.pop("noise", noise), maps=lambda size: maps(labels, size), **options
        )
    return generator.synthesis_network(
        w, maps=lambda size, rate: ray_map(labels, size, rate, "reference"), **options
    )


def maps(labels: Tensor, size: int) -> Tensor:
    return ray_map(labels, size, mode="reference")


# -- rays


def unused_embedding(kind: str, labels: Tensor, size: int) -> Tensor:
    """The original's other two descriptions of the same rays, from ours."""
    labels = labels.double()
    origin = labels[:, :16].reshape(-1, 4, 4)[:, :3, 3, None, None]
    direction = maps(labels, size)[:, :3]
    if kind == "origindir":
        return torch.cat([origin.expand_as(direction), direction], dim=1)
    hits = [origin + (z - origin[:, 2:]) / direction[:, 2:] * direction for z in (-1.0, 1.0)]
    return torch.cat(hits, dim=1)


@pytest.mark.parametrize("case", cases_of("raycond", "rays"))
def test_the_published_ray_maps(case: Case) -> None:
    labels = case.tensor("in/c")
    for name in case.names:
        kind, _, size = name.removeprefix("out/").rpartition("_")
        if kind == "plucker":
            assert_close(case, f"plucker_{size}", maps(labels, int(size)))
        elif kind in ("origindir", "twoplane"):
            assert_close(case, f"{kind}_{size}", unused_embedding(kind, labels, int(size)))
    identity = torch.eye(4).flatten()
    blank = torch.cat([identity, torch.zeros(9)])[None]
    assert_close(case, "zero_intrinsics_identity_pose_4", maps(blank, 4))
    assert_close(case, "all_zero_label_4", maps(torch.zeros(1, 25), 4))


# -- generators


def outputs_of(generator: nn.Module, run: Callable[[], Tensor]) -> list[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []
    hooks = [
        module.register_forward_hook(lambda _m, _a, out, name=name: seen.append((name, out)))
        for name, module in generator.named_modules()
        if name.count(".") == 2 or name == "synthesis_network.input"
    ]
    run()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("case", cases_of("raycond", "generator_raycond2"))
def test_stylegan2_with_rays(case: Case) -> None:
    generator = of_generator(case, case.config).eval()
    z, labels = case.tensor("in/z"), case.tensor("in/c")
    w = generator.mapping(z)
    actual = {
        "ws": w,
        "image_const": network(generator, w, labels),
        "image_none_psi07": network(
            generator, generator.mapping(z, psi=0.7), labels, noise_mode="none"
        ),
        "image_cut3": network(generator, generator.mapping(z, psi=0.7, cutoff=3), labels),
        "image_other_camera": network(generator, w, labels.roll(1, 0)),
        "image_train": network(generator.train(), w, labels),
    }
    generator.eval()
    for name, out in outputs_of(generator, lambda: network(generator, w, labels)):
        index = name.rpartition(".")[2]
        if index.isdigit() and isinstance(out, tuple):
            size = 4 << int(index)
            actual |= {f"block_{size}_x": out[0], f"block_{size}_img": out[1]}
    assert_all_close(case, actual)


@pytest.mark.parametrize("case", cases_of("raycond", "generator_raycond3"))
def test_stylegan3_with_rays(case: Case) -> None:
    generator = of_generator(case, case.config).eval()
    z, labels = case.tensor("in/z"), case.tensor("in/c")
    w = generator.mapping(z)
    transform = input_transform((0.1, -0.05), 20)
    actual = {
        "ws": w,
        "image": network(generator, w, labels),
        "image_psi07": network(generator, generator.mapping(z, psi=0.7), labels),
        "image_other_camera": network(generator, w, labels.roll(1, 0)),
        "image_transform": network(generator, w, labels, transform=transform),
    }
    for name, out in outputs_of(generator, lambda: network(generator, w, labels)):
        part = name.rpartition(".")[2]
        actual["input_features" if part == "input" else f"layer_{part}"] = out
    with generator.tracking(), torch.no_grad():
        w = generator.mapping(z)
        actual["image_update_emas"] = network(generator, w, labels, track=True)
    actual |= {f"after/{name}": value for name, value in original_tensors(generator).items()}
    assert_all_close(case, actual)


@pytest.mark.parametrize("case", cases_of("raycond", "generator_raycond2"))
def test_our_cameras_reach_the_published_network(case: Case) -> None:
    """The same pictures through cameras, as every script makes them."""
    generator = of_generator(case, case.config).eval()
    cameras = cameras_from_labels(case.tensor("in/c"))
    assert generator.resolution is not None
    settings = RenderSettings(generator.resolution, 2, 0.1, 1, hierarchical=False, jitter=False)
    w = generator.mapping(case.tensor("in/z"))
    image = generator.synthesis(w, cameras, settings).image.detach()
    expected = case.tensor("out/image_const")
    assert float((image - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize(
    "case",
    cases_of("raycond", "generator_raycond2") + cases_of("raycond", "generator_raycond3"),
)
def test_the_way_there_and_back_loses_nothing(case: Case) -> None:
    weights = case.tensors("weights/")
    module = interop.convert("raycond", case.role, weights, case.config)
    back = interop.export("raycond", case.role, module)
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        torch.testing.assert_close(back[name], value, rtol=1e-5, atol=1e-6)


# -- discriminator and losses


@pytest.mark.parametrize("case", cases_of("raycond", "discriminator"))
def test_the_discriminator_of_labelled_cameras(case: Case) -> None:
    module = interop.convert("raycond", "discriminator", case.tensors("weights/"), case.config)
    module = module.double()
    assert isinstance(module, StyleGAN2Discriminator) and module.mapping_network is not None
    images = case.tensor("in/img").double().requires_grad_()
    labels = case.tensor("in/c").double()
    logits = module(images, label=labels).logits
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    penalty = gradient.square().sum((1, 2, 3))
    parameters = original_parameters(module, original_names(module))
    slopes = torch.autograd.grad(
        penalty.mean(), list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    actual = {f"r1wgrad/{n}": g for n, g in zip(parameters, slopes, strict=True)}
    actual |= {
        "logits": logits,
        "logits_other_camera": module(images, label=labels.roll(1, 0)).logits,
        "grad": gradient,
        "r1": penalty,
        "cmap": module.mapping_network(None, labels),
    }
    assert_all_close(case, actual)


class Draws:
    """The recorded random numbers, in the order in which they were drawn."""

    def __init__(self, case: Case) -> None:
        self.case, self.index, self.cut = case, 0, 0

    def take(self) -> Tensor:
        self.index += 1
        return self.case.tensor(f"in/draw_{self.index - 1}").double()

    def cutoff(self) -> int:
        self.cut += 1
        return int(self.case.tensor("in/cutoff")[self.cut - 1])


class Phases:
    """The phases of an iteration from the same weights, buffers carried over."""

    def __init__(self, case: Case) -> None:
        self.case, self.losses = case, case.config["loss"]
        self.generator = of_generator(case, case.config["G"], "weights/G.").double().train()
        weights = case.tensors("weights/D.")
        self.discriminator = interop.convert(
            "raycond", "discriminator", weights, case.config["D"]
        ).double()
        self.draws = Draws(case)
        self.found = {"pl_mean": torch.zeros((), dtype=torch.float64)}

    def fakes(self, z: Tensor, labels: Tensor, *, track: bool = False) -> tuple[Tensor, Tensor]:
        generator = self.generator
        generator.is_tracking = track
        w = generator.mapping(z)
        generator.is_tracking = False
        if self.losses.get("style_mixing_prob", 0) > 0:
            cutoff, u = self.draws.cutoff(), self.draws.take()
            cutoff = cutoff if u < self.losses["style_mixing_prob"] else generator.num_ws
            w = mix_styles(w, generator.mapping(self.draws.take()), cutoff)
        if isinstance(generator, RayConditionedStyleGAN3):
            return network(generator, w, labels, track=track), w
        noise = [self.draws.take() for _ in generator.synthesis_network.layers]
        return network(generator, w, labels, noise=noise), w

    def judged(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.discriminator(images, label=labels).logits

    def keep(
        self, phase: str, loss: Tensor, player: nn.Module, facts: Mapping[str, Tensor]
    ) -> None:
        parameters = original_parameters(player, original_names(player))
        slopes = torch.autograd.grad(
            loss * self.case.config["gains"][phase],
            list(parameters.values()),
            allow_unused=True,
            materialize_grads=True,
        )
        grads = {f"grad/{n}": g for n, g in zip(parameters, slopes, strict=True)}
        self.found |= {f"{phase}/{n}": v for n, v in {**facts, **grads}.items()}

    def run(self) -> dict[str, Tensor]:
        inputs = {n: v.double() for n, v in self.case.tensors("in/").items()}
        z, labels = inputs["gen_z_G"], inputs["gen_c_G"]
        scores = self.judged(self.fakes(z, labels)[0], labels)
        loss = F.softplus(-scores)
        facts = {"Loss.scores.fake": scores, "Loss.G.loss": loss}
        self.keep("Gmain", loss.mean(), self.generator, facts)
        if self.losses.get("pl_weight", 0):
            half = len(z) // 2
            images, w = self.fakes(z[:half], labels[:half])
            lengths = path_lengths(images, w, self.draws.take())
            start = torch.zeros((), dtype=torch.float64)
            penalty, self.found["pl_mean"] = path_length_penalty(lengths, start)
            reg = penalty * self.losses["pl_weight"]
            facts = {"Loss.pl_penalty": penalty, "Loss.G.reg": reg}
            self.keep("Greg", reg.mean(), self.generator, facts)
        z, labels = inputs["gen_z_D"], inputs["gen_c_D"]
        with torch.no_grad():
            images = self.fakes(z, labels, track=True)[0]
        fake, real = self.judged(images, labels), self.judged(inputs["real"], inputs["real_c"])
        loss = F.softplus(fake) + F.softplus(-real)
        facts = {"Loss.scores.fake": fake, "Loss.scores.real": real, "Loss.D.loss": loss}
        self.keep("Dmain", loss.mean(), self.discriminator, facts)
        images = inputs["real"].clone().requires_grad_()
        scores = self.judged(images, inputs["real_c"])
        penalty = gradient_penalty(scores, images)
        reg = penalty * self.losses["r1_gamma"] / 2
        facts = {"Loss.scores.real": scores, "Loss.r1_penalty": penalty, "Loss.D.reg": reg}
        self.keep("Dreg", reg.mean(), self.discriminator, facts)
        tensors = original_tensors(self.generator)
        return self.found | {f"after/G.{n}": v for n, v in tensors.items()}


@pytest.mark.parametrize("case", cases_of("raycond", "training_phases"))
def test_the_phases_of_an_iteration(case: Case) -> None:
    actual = Phases(case).run()
    recorded = [n.removeprefix("out/") for n in case.names if n.startswith("out/")]
    missing = [n for n in recorded if n not in actual]
    assert not missing, f"nothing compares {missing}"
    for name in recorded:
        assert_close(case, name, actual[name])


# -- surgery


@pytest.mark.parametrize("case", cases_of("raycond", "weight_surgery"))
def test_beginning_with_a_stock_network_as_the_original_does(case: Case) -> None:
    stock, fresh = case.tensors("in/src/"), case.tensors("in/dst/")
    result = from_stock(stock, fresh, reference=True)
    for name, value in case.tensors("out/").items():
        assert torch.equal(result[name], value), name

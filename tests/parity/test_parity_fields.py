"""Radiance fields and mapping networks, with gradients, against the original's numbers."""

import pytest
import torch
from parity.support import Case, assert_checksums, assert_within, cases_of, filled_weights

import interop
from generators.pigan import PiGAN


def weights_of(case: Case) -> dict[str, torch.Tensor]:
    fill = case.config.get("weight_fill")
    return case.tensors("weights/") if fill is None else filled_weights(fill)


@pytest.mark.parametrize("case", cases_of("pigan", "field"))
def test_colours_densities_styles_and_gradients_are_the_originals(case: Case) -> None:
    generator = interop.convert("pigan", case.role, weights_of(case), case.config)
    assert isinstance(generator, PiGAN)
    points, z = (case.tensor(f"in/{name}").requires_grad_() for name in ("points", "z"))
    w = generator.mapping(z)
    radiance, density = generator.field(w)(points, case.tensor("in/ray_directions"))
    rgb_sigma = torch.cat([radiance, density], dim=-1)
    loss = (rgb_sigma * case.tensor("in/cotangent")).sum()
    loss.backward()
    frequencies, phases = w.chunk(2, dim=-1)
    actual = {
        "raw_frequencies": frequencies,
        "raw_phase_shifts": phases,
        "rgb_sigma": rgb_sigma,
        "loss": loss.reshape(1),
        "grad_points": points.grad,
        "grad_z": z.grad,
    }
    names = interop.pigan.generator_names(generator)
    for ours, parameter in generator.named_parameters():
        key = names[ours].removeprefix(interop.pigan.PREFIX)
        actual[f"grad_weights/{key}"] = parameter.grad
    expected = case.tensors("out/")
    assert len(expected) > 6, "no gradients of weights to compare with"
    for name, value in expected.items():
        # the loss is a sum of outputs: it is held to their tolerance
        kind = {"loss": "rgb_sigma"}.get(name, "gradients" if name.startswith("grad_") else name)
        result = actual[name]
        assert result is not None
        assert_within(result, value, case.tolerance(kind), name)


@pytest.mark.parametrize("case", cases_of("pigan", "field"))
def test_a_converted_field_exports_the_same_bits(case: Case) -> None:
    weights = weights_of(case)
    generator = interop.convert("pigan", case.role, weights, case.config)
    exported = interop.export("pigan", case.role, generator)
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[key], weights[key]) for key in weights)
    if "weight_fill" in case.config:
        assert_checksums(exported, case.config["weight_fill"]["checksums"])

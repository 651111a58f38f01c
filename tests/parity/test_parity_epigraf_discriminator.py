"""EpiGRAF's discriminator against the original's numbers: logits, conditions, R1, gradients."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from parity.epigraf_support import assert_outputs, cameras_of, inputs_of, patch_of
from parity.support import Case, cases_of
from torch import Tensor

import interop
from discriminators.patch import PatchDiscriminator
from interop.epigraf import names_of, unread_tensors
from ops.encoding import ScalarEncoder
from training.regularizers import gradient_penalty

DOUBLE = torch.float64


def discriminator_of(case: Case) -> PatchDiscriminator:
    weights = case.tensors("weights/")
    discriminator = interop.convert("epigraf", "discriminator", weights, case.config)
    assert isinstance(discriminator, PatchDiscriminator)
    return discriminator.to(DOUBLE).eval()


def window_encoder(case: Case, discriminator: PatchDiscriminator) -> ScalarEncoder:
    """The encoder of windows, which the original has even where nothing reads it."""
    if discriminator.patches is not None:
        return discriminator.patches
    encoder = ScalarEncoder(3, multiplier=1000, table_dim=256)
    table = case.tensor("weights/scalar_enc.const_embed.weight")
    encoder.load_state_dict({"table.weight": table})
    return encoder.to(DOUBLE)


def parameter_gradients(
    case: Case, loss: Tensor, discriminator: PatchDiscriminator, prefix: str
) -> dict[str, Tensor]:
    """Gradients, or their norms, under the original's names, of what the case records."""
    names = names_of(discriminator)
    asked = {
        name: p
        for name, p in discriminator.named_parameters()
        if any(
            f"out/{prefix}{kind}/{names[name]}" in case.names for kind in ("_grad", "_grad_norm")
        )
    }
    values = torch.autograd.grad(
        loss, list(asked.values()), retain_graph=True, materialize_grads=True
    )
    found: dict[str, Tensor] = {}
    for name, value in zip(asked, values, strict=True):
        whole, norm = f"{prefix}_grad/{names[name]}", f"{prefix}_grad_norm/{names[name]}"
        if f"out/{whole}" in case.names:
            found[whole] = value
        if f"out/{norm}" in case.names:
            found[norm] = value.norm().reshape(1)
    return found


@pytest.mark.parametrize("case", cases_of("epigraf", "discriminator"))
def test_judgements_and_gradients_are_the_originals(case: Case) -> None:
    discriminator, inputs = discriminator_of(case), inputs_of(case, DOUBLE)
    patch = patch_of(inputs)
    images = inputs["img"].requires_grad_()
    given = {"label": inputs.get("c"), "patch": patch}
    if "camera_angles" in inputs:
        given["cameras"] = cameras_of(inputs["camera_angles"], {"fov": 12.0, "radius": 1.0})
    window = window_encoder(case, discriminator)(
        torch.cat([patch.scale[:, None], patch.offset], dim=1)
    )
    logits = discriminator(images, **given).logits
    penalty = gradient_penalty(logits, images)
    actual = {"logits": logits[:, 0], "patch_embedding": window, "r1_penalty": penalty}
    (actual["r1_grad"],) = torch.autograd.grad(logits.sum(), images, retain_graph=True)
    actual |= conditions(discriminator, given, window)
    if "pose_drop_mask" in inputs:
        assert discriminator.pose is not None
        kept = inputs["pose_drop_mask"]
        discriminator.pose._draw = lambda law, like: kept  # type: ignore[method-assign]
        logits_dropped = discriminator.train()(images, **given).logits
        actual["logits_train_pose_dropout"] = logits_dropped[:, 0]
    actual |= parameter_gradients(case, penalty.sum(), discriminator, "r1_param")
    loss = F.softplus(-logits).mean()
    actual |= parameter_gradients(case, loss, discriminator, "loss_param")
    assert_outputs(case, actual)


def conditions(
    discriminator: PatchDiscriminator, given: Mapping[str, object], window: Tensor
) -> dict[str, Tensor]:
    """The code of the window, and the direction that features are projected on."""
    seen = window if discriminator.patches is not None else None
    condition = discriminator.condition(given["label"], given.get("cameras"), seen)  # type: ignore[arg-type]
    assert discriminator.mapping_network is not None
    found = {"cmap": discriminator.mapping_network(None, condition)}
    if discriminator.hyper_network is not None:
        found["hyper_mod_code"] = discriminator.hyper_network(None, window)
    return found


@pytest.mark.parametrize("case", cases_of("epigraf", "discriminator"))
def test_converted_discriminators_export_the_same_bits(case: Case) -> None:
    weights = case.tensors("weights/")
    discriminator = interop.convert("epigraf", "discriminator", weights, case.config)
    exported = interop.export("epigraf", "discriminator", discriminator)
    assert set(exported) == set(weights)
    unread = unread_tensors(discriminator)
    for name, value in weights.items():
        if name.endswith(("resample_filter", "fourier_coefs")):
            torch.testing.assert_close(exported[name], value, atol=1e-6, rtol=1e-6)
        elif name in unread:
            assert exported[name].shape == value.shape and not exported[name].any()
        else:
            assert torch.equal(exported[name], value), name

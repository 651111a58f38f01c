"""FastGAN against the original: pictures, features, and what a pass of training leaves behind."""

import pytest
import torch
from parity.projected_support import assert_outputs
from parity.support import Case, cases_of
from torch import Tensor

import interop
from generators.fastgan import FastGAN
from interop.projected import export_fastgan, is_unused

LARGEST_FEATURES = 32  # pixels per side of the features that the fixtures keep


def converted(case: Case) -> FastGAN:
    generator = interop.convert("fastgan", "generator", case.tensors("weights/"), case.config)
    assert isinstance(generator, FastGAN)
    return generator


@pytest.mark.parametrize("case", cases_of("projected_gan", "generator"))
def test_fastgan_computes_what_the_original_computes(case: Case) -> None:
    generator = converted(case)
    network = generator.network
    c = case.tensor("in/c") if generator.label_dim else None
    w = generator.mapping(case.tensor("in/z"), c)
    draws = [case.tensor(f"in/draw_{i}") for i in range(sum("in/draw_" in n for n in case.names))]
    count = len(network.noise_sizes)
    passes = {
        "eval": draws[:count] if draws else None,
        "train": draws[count:] if draws else None,
    }
    actual: dict[str, Tensor] = {}
    features: dict[str, Tensor] = {}
    stages = {f"feat_{size}": up for size, up in network.ups.items()}
    stages |= {f"se_{size}": module for size, module in network.excitations.items()}
    for name, module in stages.items():
        module.register_forward_hook(lambda *call, name=name: features.update({name: call[2]}))
    network.start_norm.register_forward_hook(
        lambda *call: features.update(init=torch.nn.functional.glu(call[2], 1))
    )
    for mode, noise in passes.items():
        generator.train(mode == "train")
        with torch.no_grad():
            image = network(w, noise)
        actual |= picture_outputs(image, f"image_{mode}", case.config["image_stride_saved"])
        for name, value in features.items():
            stride = max(value.shape[-1] // LARGEST_FEATURES, 1)
            actual[f"act_{mode}/{name}"] = value[..., ::stride, ::stride]
    after = export_fastgan(generator)
    unused = {
        key: value
        for key, value in case.tensors("weights/").items()
        if is_unused(key, case.config["img_resolution"])
    }
    actual |= {f"after_train/{name}": value for name, value in (unused | after).items()}
    assert_outputs(case, actual)


def picture_outputs(image: Tensor, name: str, stride: int) -> dict[str, Tensor]:
    return {
        name: image[..., ::stride, ::stride],
        f"{name}_mean": image.mean((2, 3)),
        f"{name}_std": image.std((2, 3)),
    }

"""Spectral normalisation: singular values, what training moves, and PyTorch's own as an oracle."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from ops.spectral import SpectralConv2d, SpectralConvTranspose2d, SpectralLinear

LAYERS: dict[str, tuple[Callable[[], "Layer"], tuple[int, ...]]] = {
    "conv": (lambda: SpectralConv2d(3, 5, 3, padding=1), (2, 3, 6, 6)),
    "strided": (lambda: SpectralConv2d(4, 6, 4, stride=2, padding=1, bias=True), (2, 4, 6, 6)),
    "depthwise": (lambda: SpectralConv2d(4, 4, 3, padding=1, groups=4), (2, 4, 6, 6)),
    "transposed": (lambda: SpectralConvTranspose2d(3, 5, 4), (2, 3, 1, 1)),
    "linear": (lambda: SpectralLinear(3, 5), (2, 3)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


Layer = SpectralConv2d | SpectralConvTranspose2d | SpectralLinear


def layer_and_input(name: str) -> tuple[Layer, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    return make(), torch.randn(shape)


def singular_value(layer: Layer) -> Tensor:
    return torch.linalg.matrix_norm(layer.matrix().detach(), 2)


@every_layer
def test_a_new_layer_already_divides_by_its_largest_singular_value(name: str) -> None:
    layer, _ = layer_and_input(name)
    divided = layer.eval().normalized_weight()
    assert_close(divided * singular_value(layer), layer.weight, rtol=0.03, atol=0)


@every_layer
def test_training_converges_to_the_largest_singular_value(name: str) -> None:
    layer, x = layer_and_input(name)
    layer.weight.data.normal_()
    with torch.no_grad():
        for _ in range(300):
            layer(x)
    divided = layer.normalized_weight()
    assert_close(divided * singular_value(layer), layer.weight, rtol=1e-4, atol=1e-6)


@every_layer
def test_evaluation_moves_nothing_and_training_does(name: str) -> None:
    layer, x = layer_and_input(name)
    layer.weight.data.normal_()
    before = copy.deepcopy(layer.state_dict())
    layer.eval()(x)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    layer.train()(x)
    assert not torch.equal(layer.weight_u, before["weight_u"])
    assert not torch.equal(layer.weight_v, before["weight_v"])


@every_layer
def test_outputs_gradients_and_vectors_are_those_of_pytorchs_own(name: str) -> None:
    layer, x = layer_and_input(name)
    layer, x = layer.double(), x.double().requires_grad_()
    plain: nn.Module
    if isinstance(layer, SpectralLinear):
        plain = nn.Linear(3, 5)
    elif isinstance(layer, SpectralConvTranspose2d):
        plain = nn.ConvTranspose2d(3, 5, 4, bias=False)
    else:
        assert isinstance(layer, SpectralConv2d)
        plain = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size[0],
            stride=layer.stride[0],
            padding=int(layer.padding[0]),
            groups=layer.groups,
            bias=layer.bias is not None,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its age
        oracle = nn.utils.spectral_norm(plain.double())
    state = layer.state_dict()
    oracle.load_state_dict(
        {"weight_orig" if key == "weight" else key: value for key, value in state.items()}
    )
    for training in (True, True, False):
        layer.train(training)
        oracle.train(training)
        ours, theirs = layer(x), oracle(x)
        assert_close(ours, theirs)
        probe = torch.randn_like(ours)
        gradients = torch.autograd.grad((ours * probe).sum(), [layer.weight, x])
        expected = torch.autograd.grad(
            (theirs * probe).sum(), [oracle.get_parameter("weight_orig"), x]
        )
        assert_close(gradients, expected)
        assert_close(layer.weight_u, oracle.weight_u)
        assert_close(layer.weight_v, oracle.weight_v)


def test_a_pass_that_moves_the_vectors_leaves_earlier_gradients_alone() -> None:
    layer, x = layer_and_input("conv")
    first = layer.eval()(x)
    second = layer.train()(x)
    layer(x)
    (first.sum() + second.sum()).backward()
    assert layer.weight.grad is not None and layer.weight.grad.any()


def test_mixed_precision_estimates_singular_values_in_full() -> None:
    layer, x = layer_and_input("conv")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert layer.weight_u.dtype == torch.float32
    assert_close(
        y.float(), F.conv2d(x, layer.eval().normalized_weight(), padding=1), rtol=0.05, atol=0.05
    )

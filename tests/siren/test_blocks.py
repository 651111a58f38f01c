"""The blocked path of a field is the plain one: values, gradients, and what it leaves out."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from siren import blocks, layers
from siren.fields import FIELDS, EmbeddingSiren, SirenNetwork

ALL = pytest.mark.parametrize("name", list(FIELDS))
VIEWS = pytest.mark.parametrize("view_direction", [True, False])
GAIN = 3.0


@pytest.fixture(autouse=True)
def _ragged_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "BLOCK", 5 * 6)  # points, channels


def tiny(name: str, **options: Any) -> SirenNetwork:
    grid = {"grid_size": 4} if issubclass(FIELDS[name], EmbeddingSiren) else {}
    network = FIELDS[name](hidden_dim=6, num_layers=2, density_gain=GAIN, **grid, **options)
    return network.double()


def scene(network: SirenNetwork, points: int = 13, batch: int = 2) -> list[Tensor]:
    """Styles, points and view directions to differentiate by."""
    w = 0.3 * torch.randn(batch, network.style_dim, dtype=torch.float64)
    place = 0.24 * torch.rand(batch, points, 3, dtype=torch.float64) - 0.12
    views = torch.nn.functional.normalize(torch.randn_like(place), dim=-1)
    return [v.requires_grad_() for v in (w, place, views)]


def outputs(network: SirenNetwork, inputs: list[Tensor], *, blocked: bool) -> Tensor:
    network.blocked = blocked
    w, points, views = inputs
    return torch.cat(network.bind(w)(points, views), dim=-1)


def gradients(out: Tensor, network: SirenNetwork, inputs: list[Tensor], mix: Tensor) -> Any:
    wanted = [*inputs, *network.parameters()]
    return torch.autograd.grad((out * mix).sum(), wanted, allow_unused=True)


def assert_same_gradients(ours: Any, reference: Any, network: SirenNetwork) -> None:
    # grid features are always looked up in single precision
    atol, rtol = (1e-4, 1e-4) if isinstance(network, EmbeddingSiren) else (1e-12, 1e-9)
    for own, expected in zip(ours, reference, strict=True):
        if expected is None:  # views that no colour depends on
            assert own is None
        else:
            assert expected.abs().max() > 1e-9
            assert_close(own, expected, atol=atol, rtol=rtol)


@ALL
@VIEWS
@pytest.mark.parametrize("points", [1, 4, 5, 13])
def test_blocks_give_the_plain_values_and_gradients(
    name: str, view_direction: bool, points: int
) -> None:
    network = tiny(name, view_direction=view_direction)
    inputs = scene(network, points)
    mix = torch.randn(2, points, 4, dtype=torch.float64)
    found = {}
    for blocked in (True, False):
        out = outputs(network, inputs, blocked=blocked)
        found[blocked] = (out.detach(), gradients(out, network, inputs, mix))
    assert_close(found[True][0], found[False][0], atol=1e-12, rtol=1e-9)
    assert_same_gradients(found[True][1], found[False][1], network)


@ALL
@VIEWS
def test_a_bounded_field_is_the_same_in_blocks(name: str, view_direction: bool) -> None:
    network = tiny(name, view_direction=view_direction, bound_radius=0.11)
    inputs = scene(network)
    outside = inputs[1].norm(dim=-1) > 0.11
    assert 3 < outside.sum() < 23
    mix = torch.randn(2, 13, 4, dtype=torch.float64)
    found = {}
    for blocked in (True, False):
        out = outputs(network, inputs, blocked=blocked)
        assert not out[..., :3][outside].any() and (out[..., 3][outside] < -1000).all()
        found[blocked] = (out.detach(), gradients(out, network, inputs, mix))
        assert not found[blocked][1][1][outside].any()
    assert_close(found[True][0], found[False][0], atol=1e-12, rtol=1e-9)
    assert_same_gradients(found[True][1], found[False][1], network)


@VIEWS
def test_first_derivatives_are_those_of_finite_differences(view_direction: bool) -> None:
    network = tiny("TallSiren", view_direction=view_direction)
    inputs = scene(network, points=4)

    def evaluate(*given: Tensor) -> Tensor:
        return outputs(network, list(given), blocked=True)

    if not view_direction:
        inputs[2] = inputs[2].detach()
    assert torch.autograd.gradcheck(evaluate, inputs, eps=1e-6, atol=1e-5)


@VIEWS
def test_either_output_alone_has_its_own_gradient(view_direction: bool) -> None:
    network = tiny("SpatialSiren", view_direction=view_direction)
    inputs = scene(network)
    for channels in (slice(0, 3), slice(3, 4)):
        found = []
        for blocked in (True, False):
            network.blocked = blocked
            colour, raw = network.bind(inputs[0])(*inputs[1:])
            one = raw if channels.start else colour
            grads = torch.autograd.grad(
                one.square().sum(), [inputs[1], *network.parameters()],
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
            found.append(grads)
        for ours, reference in zip(*found, strict=True):
            assert_close(ours, reference, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("needed", ["weights", "points", "styles"])
def test_only_what_is_asked_for_is_differentiated(needed: str) -> None:
    network = tiny("SpatialSiren")
    inputs = [v.detach() for v in scene(network)]
    network.requires_grad_(needed == "weights")
    if needed != "weights":
        inputs[1 if needed == "points" else 0].requires_grad_()
    wanted = [v for v in (*inputs, *network.parameters()) if v.requires_grad]
    found = [
        torch.autograd.grad(outputs(network, inputs, blocked=b).square().sum(), wanted)
        for b in (True, False)
    ]
    for ours, reference in zip(*found, strict=True):
        assert_close(ours, reference, atol=1e-12, rtol=1e-9)


# -- leaving out what teaches nothing


@pytest.fixture
def recomputed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many points each block of the backward pass takes up again."""
    counted: list[int] = []
    original = layers.TorchScene.backward

    def count(scene: layers.TorchScene, x: Tensor, *rest: Any, **options: Any) -> Any:
        counted.append(len(x))
        return original(scene, x, *rest, **options)

    monkeypatch.setattr(layers.TorchScene, "backward", count)
    return counted


@ALL
def test_points_without_gradient_are_left_out_and_nothing_else_changes(
    name: str, recomputed: list[int]
) -> None:
    network = tiny(name)
    inputs = scene(network, points=17)
    mix = torch.randn(2, 17, 4, dtype=torch.float64)
    mix[0, torch.arange(17) % 3 > 0] = 0  # 6 of the first image's points matter
    mix[1, 2:] = 0
    mix[1, 0, :3] = 0  # this one matters by its density alone,
    mix[1, 1, 1:] = 0  # that one by its red
    reference = gradients(outputs(network, inputs, blocked=False), network, inputs, mix)
    ours = gradients(outputs(network, inputs, blocked=True), network, inputs, mix)
    assert recomputed == [5, 1, 2]
    assert_same_gradients(ours, reference, network)
    assert not ours[1][0, 1].any() and ours[1][0, 0].any()


def test_with_no_gradient_at_all_nothing_is_recomputed(recomputed: list[int]) -> None:
    network = tiny("TallSiren")
    inputs = scene(network)
    out = outputs(network, inputs, blocked=True)
    grads = gradients(out, network, inputs, torch.zeros_like(out))
    assert recomputed == [] and not any(g.any() for g in grads)


def test_a_gradient_that_is_not_a_number_is_not_left_out(recomputed: list[int]) -> None:
    network = tiny("TallSiren")
    inputs = scene(network)
    mix = torch.zeros(2, 13, 4, dtype=torch.float64)
    mix[0, 3, 1] = torch.nan
    grads = gradients(outputs(network, inputs, blocked=True), network, inputs, mix)
    assert recomputed == [1]
    assert grads[0][0].isnan().any() and not grads[0][1].isnan().any()


def test_the_backward_pass_keeps_no_activations() -> None:
    network, kept = tiny("TallSiren"), []
    inputs = scene(network, points=40)

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    for blocked in (True, False):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            outputs(network, inputs, blocked=blocked)
        wide = [s for s in kept if len(s) == 3 and s[1] == 40 and s[2] == network.hidden_dim]
        assert bool(wide) != blocked


# -- where it is taken, and what it cannot do


def test_second_derivatives_are_refused_by_blocks_and_right_without() -> None:
    network = tiny("TallSiren")
    inputs = scene(network, points=3, batch=1)
    out = outputs(network, inputs, blocked=True)
    with pytest.raises(RuntimeError, match="first derivatives only: set .*`blocked` to False"):
        torch.autograd.grad(out.sum(), inputs[1], create_graph=True)
    w, views = inputs[0].detach(), inputs[2].detach()

    def evaluate(points: Tensor) -> Tensor:
        return outputs(network, [w, points, views], blocked=False)

    assert torch.autograd.gradgradcheck(evaluate, inputs[1], atol=1e-4)


def test_without_gradients_the_values_are_the_same() -> None:
    network = tiny("SpatialSiren")
    inputs = scene(network)
    reference = outputs(network, inputs, blocked=True)
    assert reference.requires_grad
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            out = outputs(network, inputs, blocked=True)
        assert not out.requires_grad and torch.equal(out, reference)


@pytest.mark.parametrize(
    ("blocked", "autocast", "taken"), [(True, False, 1), (False, False, 0), (True, True, 1)]
)
def test_blocks_are_taken_on_a_cpu_in_any_precision(
    blocked: bool, autocast: bool, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, calls = tiny("TallSiren").float(), []
    original = blocks.evaluate_blocks

    def count(*given: Any, **named: Any) -> Any:
        calls.append(given)
        return original(*given, **named)

    monkeypatch.setattr("siren.fields.evaluate_blocks", count)
    inputs = [v.detach().float() for v in scene(network)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        outputs(network, inputs, blocked=blocked)
    assert len(calls) == taken


def test_no_points_are_no_trouble() -> None:
    network = tiny("TallSiren")
    inputs = scene(network, points=0)
    out = outputs(network, inputs, blocked=True)
    assert out.shape == (2, 0, 4)
    grads = gradients(out, network, inputs, out.detach())
    assert not any(g.any() for g in grads)

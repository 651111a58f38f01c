"""The kernels' own tests, run in Triton's interpreter by test_kernels.py in a process of its own.

There, kernels compute with numpy on the CPU. It knows no bfloat16: that is for a GPU.
"""

import os

import pytest
import torch

from siren import fused
from siren.fused import Tiling, evaluate_fused
from siren.kernel_trial import evaluate_plain, largest_error

assert os.environ.get("TRITON_INTERPRET") == "1", "set it before Triton is imported"

CPU = torch.device("cpu")
SMALL = Tiling(16, 16, 16)
LAYERWISE = Tiling(16, 16, 16, fused=False)

Affine = tuple[torch.Tensor, torch.Tensor]


def small_field(batch: int) -> tuple[list[Affine], Affine, Affine]:
    """Two layers and the colour's, without directions, and both heads."""
    widths = [3, 16, 16]
    layers = [
        (torch.rand(batch, 16, width, requires_grad=True), torch.zeros(batch, 1, 16))
        for width in widths
    ]
    return layers, (torch.rand(1, 16), torch.zeros(1)), (torch.rand(3, 16), torch.zeros(3))


@pytest.mark.parametrize("tiling", [SMALL, LAYERWISE, Tiling(32, 32, 16)])
@pytest.mark.parametrize(
    ("features", "hidden", "depth", "views", "points"),
    [
        (3, 32, 2, True, 32),  # whole tiles
        (3, 16, 3, True, 21),  # a last tile of points that is not full
        (3, 20, 2, True, 17),  # layers narrower than their tiles
        (3, 40, 2, False, 17),  # ... and a last tile of channels that is not full
        (7, 16, 4, True, 1),  # an encoding; one point
    ],
)
def test_outputs_and_gradients_are_those_of_the_plain_path(
    features: int, hidden: int, depth: int, views: bool, points: int, tiling: Tiling
) -> None:
    error = largest_error(
        CPU, torch.float32, features, hidden, depth, views=views, points=points, tiling=tiling
    )
    assert error < 1e-5


@pytest.mark.parametrize("tiling", [SMALL, LAYERWISE])
def test_sixteen_bit_products_keep_phases_and_sums_in_fp32(tiling: Tiling) -> None:
    error = largest_error(CPU, torch.float16, 3, 32, 3, points=20, tiling=tiling)
    assert 1e-5 < error < 3e-3  # rounded inputs, and nothing worse


@pytest.mark.parametrize("tiling", [SMALL, LAYERWISE])
def test_chunks_of_points_do_not_matter(tiling: Tiling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "FORWARD_NUMBERS", 2 * 16 * 16)  # 16 points of 2 images of 16
    monkeypatch.setattr(fused, "BACKWARD_NUMBERS", 2 * 32 * 16)
    assert largest_error(CPU, torch.float32, 3, 16, 2, points=75, tiling=tiling) < 1e-5


def test_splits_of_the_weight_gradients_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "POINTS_PER_SPLIT", 8)
    assert largest_error(CPU, torch.float32, 3, 16, 2, points=75, tiling=SMALL) < 1e-5


def test_points_without_a_gradient_are_not_read_in_the_backward_pass() -> None:
    x = torch.rand(1, 40, 3)
    layers, density, radiance = small_field(1)

    def gradient(points: torch.Tensor, rows: slice) -> torch.Tensor:
        outputs = evaluate_fused(points, None, layers, density, radiance, tiling=SMALL)
        loss = sum(out[:, rows].sum() for out in outputs)
        return torch.autograd.grad(loss, layers[0][0])[0]  # pyright: ignore

    broken = x.clone()
    broken[:, 20:] = torch.nan  # would spoil every sum that they enter
    rows = slice(0, 20)
    assert torch.equal(gradient(broken, rows), gradient(x[:, rows].clone(), rows))


def test_no_point_at_all_teaches_nothing() -> None:
    layers, density, radiance = small_field(2)
    nowhere = torch.zeros(2, 20, dtype=torch.bool)
    x = torch.rand(2, 20, 3)
    colors, densities = evaluate_fused(x, None, layers, density, radiance, nowhere)
    assert (colors == 0).all() and (densities == fused.EMPTY).all()
    (gradient,) = torch.autograd.grad(colors.sum() + densities.sum(), layers[0][0])
    assert (gradient == 0).all()


def test_density_alone_is_that_of_the_whole_field() -> None:
    layers, density, radiance = small_field(2)
    x = torch.rand(2, 20, 3)
    true = evaluate_plain(x, None, layers, density, radiance)[1]
    found = fused.density_fused(x, layers, density)
    torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-5)


def test_second_derivatives_are_refused() -> None:
    layers, density, radiance = small_field(1)
    densities = evaluate_fused(torch.rand(1, 4, 3), None, layers, density, radiance)[1]
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(densities.sum(), layers[0][0], create_graph=True)

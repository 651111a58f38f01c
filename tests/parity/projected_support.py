"""What the Projected GAN parity tests share: tolerances, the deterministic fill of weights.

The tolerance of every output is 20 times its own relative L2 error of float32 against float64, at
least 1e-5; outputs that are nearly 0 are held to an absolute error. Float64 companions are held to
1e-5 everywhere.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from parity.support import Case
from safetensors.torch import load_file
from torch import Tensor

SMALLEST_PEAK = 1e-6
RELATIVE = 1e-5


def assert_outputs(
    case: Case,
    actual: Mapping[str, Tensor],
    *,
    expected: Mapping[str, Tensor] | None = None,
    exact: bool = False,
) -> None:
    """Compare everything that the case records, or `expected`; `exact` is for float64."""
    expected = case.tensors("out/") if expected is None else expected
    missing = set(expected) - set(actual)
    assert not missing, f"nothing compares {sorted(missing)}"
    assert expected
    per_output = case.spec["tolerance"]["per_output"]
    broken = {}
    for name, value in expected.items():
        ours, value = actual[name].detach().double(), value.double()
        assert ours.shape == value.shape, f"{name}: {tuple(ours.shape)}, not {tuple(value.shape)}"
        error = ours - value
        if float(value.abs().max()) < SMALLEST_PEAK:
            measured, limit = float(error.abs().max()), SMALLEST_PEAK
        else:
            measured, limit = float(error.norm() / value.norm()), RELATIVE
            if not exact:
                limit = max(20 * per_output[name]["rel_l2"], RELATIVE)
        if not measured <= limit:
            broken[name] = (measured, limit)
    assert not broken, f"(measured, allowed) is {broken}"


def float64_outputs(case: Case) -> dict[str, Tensor]:
    """What a float64 run of the original gives."""
    tensors = load_file(case.path.with_suffix(".float64.safetensors"))
    return {name.removeprefix("out/"): value for name, value in tensors.items()}


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights by the fixtures' rule, from names and shapes alone (projected_fill.json)."""
    weights: dict[str, Tensor] = {}
    keys = sorted(shapes)
    for seed, key in enumerate(keys):
        noise = torch.randn(shapes[key], generator=torch.Generator().manual_seed(seed))
        weights[key] = scaled(key, noise)
    for key in keys:
        if key.endswith("weight_u"):
            stem = key.removesuffix("weight_u")
            weights |= singular_vectors(stem, weights[stem + "weight_orig"], weights[key])
    return weights


def scaled(key: str, noise: Tensor) -> Tensor:
    """The rule for one tensor."""
    kind = key.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(noise.shape, dtype=torch.long)
    if kind in ("running_mean", "stored_mean", "bias"):
        return 0.1 * noise
    if kind in ("running_var", "stored_var"):
        return 1 + 0.1 * noise.abs()
    if kind in ("weight_u", "weight_v"):
        return noise
    if noise.ndim <= 1:
        return 1 + 0.1 * noise
    return noise * (math.sqrt(2) / math.sqrt(math.prod(noise.shape[1:])))


def singular_vectors(stem: str, weight: Tensor, start: Tensor) -> dict[str, Tensor]:
    """u and v after 20 power iterations."""
    matrix = weight.flatten(1).double()
    u = (start / start.norm()).double()
    v = matrix.new_zeros(matrix.shape[1])
    for _ in range(20):
        v = torch.nn.functional.normalize(matrix.t() @ u, dim=0)
        u = torch.nn.functional.normalize(matrix @ v, dim=0)
    return {stem + "weight_u": u.float(), stem + "weight_v": v.float()}


def assert_fill(weights: Mapping[str, Tensor], table: list[dict[str, Any]]) -> None:
    """Compare filled weights with the check sums that the fixtures record of the first of them."""
    assert sorted(weights)[: len(table)] == [entry["key"] for entry in table]
    for entry in table:
        value = weights[entry["key"]].double()
        assert list(value.shape) == entry["shape"]
        for name, ours in (("sum", value.sum()), ("abssum", value.abs().sum())):
            assert math.isclose(float(ours), entry[name], rel_tol=1e-4, abs_tol=1e-3), entry["key"]

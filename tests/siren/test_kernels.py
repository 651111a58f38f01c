"""The field's Triton kernels: in the interpreter, through the compiler, and on a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from generators.pigan import PiGAN
from siren import kernel_trial
from siren.compaction import pick
from siren.fields import SpatialSiren
from siren.fused import Tiling, tiling_for

ROOT = Path(__file__).parents[2]


def test_in_the_interpreter_kernels_compute_what_the_plain_path_does() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--noconftest", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, str(Path(__file__).with_name("kernel_cases.py"))],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert "passed" in result.stdout and "skipped" not in result.stdout


def test_pick_moves_points_to_the_front_and_spread_moves_them_back() -> None:
    mask = torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]) > 0
    values = torch.arange(15.0).reshape(3, 5, 1)
    picked = pick(mask)
    assert picked.counts.tolist() == [3, 0, 5]
    gathered = picked.gather(values)
    assert gathered[0, :3, 0].tolist() == [1, 2, 4]
    assert torch.equal(gathered[2], values[2])
    back = picked.spread(gathered, torch.tensor(-1.0))
    assert torch.equal(back, torch.where(mask[..., None], values, -1))


def test_tiles_are_no_wider_than_layers_and_no_narrower_than_a_product_takes() -> None:
    assert (Tiling().fit(256).channels, Tiling().fit(256).inner) == (128, 64)
    assert (Tiling().fit(20).channels, Tiling().fit(20).inner) == (32, 32)
    assert (Tiling().fit(3).channels, Tiling().fit(3).inner) == (16, 16)


def test_the_cpu_takes_no_kernels() -> None:
    layers = [(torch.zeros(1, 16, 3), torch.zeros(1, 1, 16))] * 2
    assert not kernel_trial.usable(torch.zeros(1, 4, 3), layers)


def test_what_the_kernels_are_held_against_is_the_field() -> None:
    network = SpatialSiren(hidden_dim=8, num_layers=3)
    field = network.bind(torch.randn(2, network.style_dim))
    points = 0.1 * torch.randn(2, 20, 3)
    views = torch.nn.functional.normalize(torch.randn(2, 20, 3), dim=-1)
    color = network.color_layer_linear[0]
    assert isinstance(color, torch.nn.Linear)
    density, radiance = ((head.weight, head.bias) for head in (network.final_layer, color))
    layers = [*field._layers, field._color]
    found = kernel_trial.evaluate_plain(network.encode(points), views, layers, density, radiance)
    for a, b in zip(found, field(points, views), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_kernels_that_are_off_are_not_used_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_trial, "largest_error", lambda *_: 0.5)
    kernel_trial._agrees.cache_clear()
    with pytest.warns(UserWarning, match="not used: their results are off by 5.0e-01"):
        assert not kernel_trial._agrees(torch.device("cpu"), torch.float16, 3, 16, 2)


def test_kernels_that_do_not_compile_are_not_used_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("out of resources")

    monkeypatch.setattr(kernel_trial, "largest_error", fail)
    kernel_trial._agrees.cache_clear()
    with pytest.warns(UserWarning, match="not used: RuntimeError: out of resources"):
        assert not kernel_trial._agrees(torch.device("cpu"), torch.float16, 3, 16, 2)
    kernel_trial._agrees.cache_clear()


def test_without_triton_the_field_is_there_all_the_same() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch; from siren.fields import SpatialSiren\n"
        "network = SpatialSiren(hidden_dim=8, num_layers=2)\n"
        "field = network.bind(torch.zeros(1, network.style_dim))\n"
        "field(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", list(kernel_trial.TOLERANCE))
@pytest.mark.parametrize(
    ("features", "hidden", "depth", "points"),
    [(3, 256, 8, 4096), (3, 256, 8, 1001), (35, 128, 8, 300), (3, 64, 4, 7), (3, 20, 2, 129)],
)
def test_on_a_gpu_kernels_compute_what_the_plain_path_does(
    features: int, hidden: int, depth: int, points: int, dtype: torch.dtype, fused: bool
) -> None:
    device = torch.device("cuda")
    tiling = tiling_for(device, dtype)._replace(fused=fused)
    error = kernel_trial.largest_error(
        device, dtype, features, hidden, depth, points=points, tiling=tiling
    )
    assert error < kernel_trial.TOLERANCE[dtype]


@pytest.mark.gpu
def test_on_a_gpu_the_field_takes_the_kernels_until_they_are_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = PiGAN(latent_dim=8, hidden_dim=64, num_layers=3).cuda()
    field = generator.field(generator.mapping(torch.randn(2, 8).cuda()))
    points = (torch.rand(2, 500, 3) * 0.2 - 0.1).cuda()
    directions = torch.nn.functional.normalize(torch.randn(2, 500, 3).cuda(), dim=-1)
    kernel_trial._agrees.cache_clear()
    fast = field(points, directions)
    assert kernel_trial._agrees.cache_info().currsize == 1
    monkeypatch.setenv("PERIGAN_KERNELS", "0")
    for a, b in zip(fast, field(points, directions), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


HALF, SINGLE = "*fp16", "*fp32"
FORWARD = {"FEATURES": 3, "HIDDEN": 256, "DEPTH": 8, "VIEWS": True}
KERNELS = {  # name -> its constants, besides tiles and precision
    "forward_kernel": [
        {**FORWARD, "SLOTS": 2, "SLOPES": False},
        {**FORWARD, "SLOTS": 9, "SLOPES": True},
    ],
    "backward_kernel": [{"HIDDEN": 256, "PRODUCT": True, "HEADS_FROM": 3, "HEADS_TO": 4}],
    "weight_gradient_kernel": [{"OUT": 256, "IN": 256}],
}
SCALARS = ("n", "offset", "chunk", "first", "last", "share")
PRODUCTS = {"weights", "activations", "slopes", "following", "gradients", "inputs"}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(KERNELS))
@pytest.mark.parametrize(
    ("capability", "memory", "half", "tiling"),
    [
        (90, 227, True, Tiling()),
        (90, 227, False, Tiling(64, 64, 32, warps=4, stages=2)),
        (80, 99, True, Tiling(64, 64, 32, warps=4, stages=2)),
    ],
)
def test_kernels_compile_for_gpus_that_are_not_here(
    name: str,
    capability: int,
    memory: int,
    half: bool,
    tiling: Tiling,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Down to machine code, in the shared memory that there is, with Hopper's own products."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from siren import kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tiles = {"BLOCK_M": tiling.points, "BLOCK_N": tiling.channels, "BLOCK_K": tiling.inner}
    if name == "weight_gradient_kernel":
        tiles = {
            "BLOCK_OUT": tiling.channels,
            "BLOCK_IN": tiling.channels,
            "BLOCK_P": tiling.inner,
            "WIDE": not half,
        }
    kernel = getattr(kernels, name)
    for constants in KERNELS[name]:
        constants = {**constants, **tiles, "PRECISION": "ieee" if half else "tf32x3"}
        if name == "forward_kernel":
            constants["APPROXIMATE"] = half
        signature, attributes = {}, {}
        for index, argument in enumerate(kernel.arg_names):
            if argument in constants:
                signature[argument] = "constexpr"
            elif argument in (*SCALARS, "image_stride", "gradients_stride", "inputs_stride"):
                signature[argument] = "i32"
            else:
                kind = HALF if half and argument in PRODUCTS else SINGLE
                signature[argument] = "*i32" if argument == "counts" else kind
            if argument not in constants and argument not in SCALARS:
                attributes[(index,)] = [["tt.divisibility", 16]]
        source = ASTSource(kernel, signature, constants, attributes)
        options = {"num_warps": tiling.warps, "num_stages": tiling.stages, "enable_fp_fusion": True}
        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options)
        assert compiled.metadata.shared <= memory * 1024
        assert ("wgmma" in compiled.asm["ptx"]) == (capability == 90)
        assert len(compiled.asm["cubin"]) > 1000

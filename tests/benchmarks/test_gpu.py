"""The script of a GPU's rows, at tiny sizes, on a CPU; and that its sides do the same work."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.train_step import Work, leave_empty, make_work, reference_step
from generators.pigan import PiGAN
from siren import fused

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "benchmarks/gpu.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_every_row_is_measured_and_written(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    result = run("--device", "cpu", "--tiny", "--no_compile", "--output", str(file))
    assert result.returncode == 0, result.stderr
    numbers = json.loads(file.read_text())
    assert set(numbers) == {"hardware", "torch", "date", *gpu.ROWS}
    assert not any("failed" in numbers[name] for name in gpu.ROWS)
    assert numbers["train_step"]["untrained"]["ratio"]["ours"] > 0
    assert numbers["render"]["psnr"]["ours fp32"] > 80
    assert numbers["field"]["radiance_rms_error"]["ours"] < 5e-3
    assert set(numbers["stylegan"]) >= {"stylegan2_forward", "discriminator_r1"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    result = run()
    assert result.returncode == 2
    assert "device 'cuda' is not available" in result.stderr.splitlines()[-1]


def test_a_row_that_fails_does_not_take_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: gpu.Bench) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(gpu.Bench, "field", fail)
    bench = gpu.Bench(torch.device("cpu"), gpu.TINY, compiled=False)
    results = gpu.measure(bench, ["field", "ceilings"])
    assert results["field"]["failed"] == "RuntimeError: out of luck"
    assert results["ceilings"]["copy_tb_per_s"] > 0


def deterministic_work(batch_split: int) -> Work:
    changes = {**gpu.TINY.step, "batch_split": batch_split, "precision": "fp32"}
    work = make_work(torch.device("cpu"), changes)
    settings = dataclasses.replace(work.moment.settings, jitter=False)
    return dataclasses.replace(work, moment=dataclasses.replace(work.moment, settings=settings))


@pytest.mark.parametrize("batch_split", [1, 2])
def test_the_reference_step_changes_weights_as_ours_does(batch_split: int) -> None:
    work = deterministic_work(batch_split)
    before = [p.detach().clone() for p in work.ours.generator.parameters()]
    work.our_step()
    reference_step(work)
    for name in ("generator", "discriminator"):
        ours, plain = (getattr(side, name) for side in (work.ours, work.plain))
        for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
            # Adam's first step is the gradient's sign times the rate: rounding may turn a few
            assert ((a - b).abs() > 1e-6).float().mean() < 0.02
    moved = [
        bool((a != b).any()) for a, b in zip(work.ours.generator.parameters(), before, strict=True)
    ]
    assert sum(moved) > len(moved) / 2


def test_a_field_can_be_made_as_empty_as_a_trained_one() -> None:
    work = deterministic_work(1)
    leave_empty(work, 0.7)
    generator, draw = work.ours.generator, work.draws[0]
    assert isinstance(generator, PiGAN) and isinstance(work.plain.generator, PiGAN)
    bias = generator.siren.final_layer.bias
    assert torch.equal(bias, work.plain.generator.siren.final_layer.bias)
    origins, directions = draw.cameras.rays(9, 9)
    points = (origins + directions).reshape(2, -1, 3)  # at the middle of the rays
    density = generator.field(generator.mapping(draw.z)).density(points)
    assert 0.4 < (density < 0).float().mean() < 0.95


def test_tilings_and_the_switch_hold_only_while_they_are_asked_for() -> None:
    own, tiling = fused.tiling_for, gpu.TILINGS["128x256x64 w8 s3"]
    device = torch.device("cpu")
    assert gpu.with_tiling(tiling, lambda: fused.tiling_for(device, torch.float16)) == tiling
    assert fused.tiling_for is own
    assert gpu.without_kernels(lambda: os.environ["PERIGAN_KERNELS"]) == "0"
    assert "PERIGAN_KERNELS" not in os.environ

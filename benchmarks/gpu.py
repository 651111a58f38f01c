"""Every row of a GPU, in a few minutes: ceilings, kernels, field, training, render, StyleGAN.

  PYTHONPATH=. python benchmarks/gpu.py --output gpu.json
  PYTHONPATH=. python benchmarks/gpu.py --only field train_step
  PYTHONPATH=. python benchmarks/gpu.py --device cpu --tiny        # whether the script works

Networks are pi-GAN's of CelebA, untrained; all sides of a row have the same weights and inputs and
take turns. The reference (benchmarks/reference.py) computes as the original does: fp16 autocast in
training, fp32 in its render scripts. Results go to stderr as they come and to the output as JSON;
a row that fails says why and the others go on.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import graphs, stylegan
from benchmarks.reference import reference_field, reference_render
from benchmarks.timing import interleave
from benchmarks.train_step import Work, leave_empty, make_work, ratios, step_sides
from curriculums import CelebA, stage_at
from generators.pigan import PiGAN
from inference.options import parse_device
from rendering.cameras import Cameras
from siren import fused, kernel_trial
from siren.fused import Tiling
from training import losses

Numbers = dict[str, Any]

FIELD_FLOP = 1_053_696  # per point at 8 + 1 layers of 256 channels
TILINGS = {
    "128x128x64 w8 s3": Tiling(),
    "128x128x64 w4 s3": Tiling(warps=4),
    "128x256x64 w8 s3": Tiling(channels=256),
    "64x256x64 w8 s3": Tiling(points=64, channels=256),
    "128x128x32 w8 s4": Tiling(inner=32, stages=4),
}


@dataclass(frozen=True)
class Sizes:
    """How large the work of each row is."""

    copy: int = 2**31  # bytes
    product: int = 8192  # rows of square matrices
    batch: int = 28  # scenes of the field row
    points: int = 49_152  # of each
    image_size: int = 128  # of the render row
    samples: int = 24  # coarse ones per ray; as many fine ones
    stylegan: int = 256  # pixels
    stylegan_batch: int = 8
    channel_base: int = 16384  # of StyleGAN
    rounds: int = 5
    network: dict[str, Any] = field(default_factory=dict)  # arguments of pi-GAN, where not CelebA's
    step: dict[str, Any] = field(  # keys of the training step's curriculum
        default_factory=lambda: {"batch_size": 56, "batch_split": 2}
    )


SMALL: dict[str, Any] = {"hidden_dim": 16, "num_layers": 2, "mapping_dim": 8}
TINY = Sizes(
    copy=2**16,
    product=32,
    batch=2,
    points=64,
    image_size=8,
    samples=3,
    stylegan=8,
    stylegan_batch=1,
    channel_base=64,
    rounds=1,
    network=SMALL,
    step={
        "batch_size": 2,
        "batch_split": 2,
        "img_size": 8,
        "num_steps": 3,
        **{f"generator_options.{key}": value for key, value in SMALL.items()},
        "discriminator_options.max_channels": 8,
    },
)


class Bench:
    """The rows, each a method that returns its numbers."""

    def __init__(self, device: torch.device, sizes: Sizes, *, compiled: bool) -> None:
        self.device, self.sizes, self.compiled = device, sizes, compiled
        self.half = torch.float16 if device.type == "cuda" else torch.bfloat16

    def seconds(self, sides: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Medians of turns."""
        return interleave(sides, self.sizes.rounds, self.device)

    def pigan(self) -> PiGAN:
        """CelebA's generator, untrained."""
        torch.manual_seed(0)
        return PiGAN(**self.sizes.network).to(self.device).eval()

    def ceilings(self) -> Numbers:
        """What the machine gives: bytes copied and products per second."""
        a = torch.empty(self.sizes.copy, dtype=torch.uint8, device=self.device)
        b, n = torch.empty_like(a), self.sizes.product
        x = torch.randn(n, n, device=self.device).to(self.half)
        seconds = self.seconds({"copy": lambda: b.copy_(a), "product": lambda: x @ x})
        return {
            "copy_tb_per_s": 2 * self.sizes.copy / seconds["copy"] / 1e12,
            "half_product_tflop_per_s": 2 * n**3 / seconds["product"] / 1e12,
        }

    def kernels(self) -> Numbers:
        """Largest relative error of outputs and gradients against PyTorch in fp32."""
        if self.device.type != "cuda":
            return {"skipped": "the kernels compile for CUDA only"}
        errors: Numbers = {}
        for dtype, limit in kernel_trial.TOLERANCE.items():
            for fused_layers in (True, False):
                tiling = fused.tiling_for(self.device, dtype)._replace(fused=fused_layers)
                problems = [(256, 8, 5000), (256, 8, 1), (100, 3, 777)]
                for hidden, depth, points in problems[: 3 if dtype == torch.float16 else 2]:
                    error = kernel_trial.largest_error(
                        self.device, dtype, 3, hidden, depth, points=points, tiling=tiling
                    )
                    name = f"{dtype} {'fused' if fused_layers else 'layers'} {hidden}x{depth}"
                    errors[f"{name} n={points}"] = {"error": error, "right": error < limit}
        return errors

    def field(self) -> Numbers:
        """The field forward, and forward and backward, in half precision: TFLOP/s and ratios."""
        generator, sizes = self.pigan(), self.sizes
        w = generator.mapping(torch.randn(sizes.batch, generator.latent_dim, device=self.device))
        w = w.detach()
        points = torch.rand(sizes.batch, sizes.points, 3, device=self.device) * 0.24 - 0.12
        views = torch.nn.functional.normalize(torch.randn_like(points), dim=-1)
        seeds = torch.randn(sizes.batch, sizes.points, 4, device=self.device)
        seeds[:, ::2] = 0  # as much as a trained field has without a gradient, or less

        def ours() -> Tensor:
            return torch.cat(generator.field(w)(points, views), dim=-1)

        sides = self.field_sides(ours, lambda: reference_field(generator, w, points, views))
        if self.compiled:
            compiled = torch.compile(reference_field)
            sides["compiled_reference"] = lambda: compiled(generator, w, points, views)

        def forward(evaluate: Callable[[], Tensor]) -> Tensor:
            with torch.no_grad(), self.autocast():
                return evaluate()

        def backward(evaluate: Callable[[], Tensor]) -> None:
            with self.autocast():
                out = evaluate()
            out.backward(seeds.to(out.dtype))
            generator.zero_grad()

        numbers: Numbers = {"points": sizes.batch * sizes.points}
        with torch.no_grad():
            exact = reference_field(generator, w, points, views)
        rms = {k: (forward(f) - exact)[..., :3].square().mean().sqrt() for k, f in sides.items()}
        numbers["radiance_rms_error"] = {k: float(v) for k, v in rms.items()}
        for name, run in (("forward", forward), ("forward_backward", backward)):
            if name != "forward":  # each tiling's backward kernels would take long to compile
                sides = {k: f for k, f in sides.items() if k not in TILINGS}
            seconds = self.seconds({k: lambda f=f, run=run: run(f) for k, f in sides.items()})
            work = numbers["points"] * FIELD_FLOP * (1 if name == "forward" else 4) / 1e12
            numbers[name] = {
                "ms": {k: 1e3 * s for k, s in seconds.items()},
                "tflop_per_s": {k: work / s for k, s in seconds.items()},
                "ratio": ratios(seconds),
            }
            numbers[name]["peak_mib"] = {
                k: self.peak(lambda f=f, run=run: run(f)) for k, f in sides.items()
            }
        return numbers

    def field_sides(
        self, ours: Callable[[], Tensor], reference: Callable[[], Tensor]
    ) -> dict[str, Callable[[], Tensor]]:
        """Our field with the kernels, in each tiling and schedule, and without; the reference."""
        sides = {"ours": ours, "reference": reference}
        if self.device.type == "cuda":
            sides["without kernels"] = lambda: without_kernels(ours)
            sides["launch per layer"] = lambda: with_tiling(Tiling(fused=False), ours)
            for name, tiling in TILINGS.items():
                sides[name] = lambda tiling=tiling: with_tiling(tiling, ours)
        return sides

    def train_step(self) -> Numbers:
        """A step of the CelebA curriculum, untrained and with 57% of its samples empty."""
        work = make_work(self.device, {**self.sizes.step, "precision": "auto"})
        numbers = {"untrained": self.step_numbers(work)}
        leave_empty(work, 0.57)
        return {**numbers, "57% empty": self.step_numbers(work)}

    def step_numbers(self, work: Work) -> Numbers:
        """Seconds, ratios, peak memory of a training step."""
        sides: dict[str, Callable[[], object]] = dict(
            step_sides(work, compile_reference=self.compiled)
        )
        sides["without kernels"] = lambda: without_kernels(work.our_step)
        seconds = self.seconds(sides)
        images = {f"{k}_images_per_s": len(work.images) / s for k, s in seconds.items()}
        peaks = {k: self.peak(side) for k, side in sides.items()}
        return {"seconds": seconds, **images, "ratio": ratios(seconds), "peak_mib": peaks}

    def graphs(self) -> Numbers:
        """The same step replayed as a CUDA graph."""
        return graphs.rows(self.device, self.sizes.step, self.sizes.rounds)

    def discriminator(self) -> Numbers:
        """The discriminator's losses with R1, backward, with its weights in either layout."""
        work = make_work(self.device, {**self.sizes.step, "precision": "auto"})
        network, moment, real = work.ours.discriminator, work.moment, work.images
        fake = torch.randn_like(real)

        def step(layout: torch.memory_format) -> None:
            network.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
            images = real.clone().requires_grad_()
            with self.autocast():
                logits = [network(x, moment.alpha).logits.float() for x in (fake, images)]
            penalty = losses.r1_penalty(logits[1], images, 1024.0)
            (losses.fake_loss(logits[0]) + losses.real_loss(logits[1]) + penalty).backward()
            network.zero_grad()

        layouts = {"rows": torch.contiguous_format, "channels_last": torch.channels_last}
        seconds = self.seconds({k: lambda v=v: step(v) for k, v in layouts.items()})
        return {"ms": {k: 1e3 * s for k, s in seconds.items()}}

    def render(self) -> Numbers:
        """A picture of one latent: ours in half and full precision, the reference in both."""
        generator, size = self.pigan(), self.sizes.image_size
        stage = stage_at(CelebA, 0)
        settings = stage.eval_settings(resolution=size, num_steps=self.sizes.samples)
        with torch.no_grad():
            w = generator.mapping(torch.randn(1, generator.latent_dim, device=self.device))
        cameras = Cameras.from_angles(torch.tensor([1.4]), 1.5, stage.fov).to(self.device)

        def ours(half: bool) -> Tensor:
            with torch.no_grad(), self.autocast(half):
                return generator.synthesis(w, cameras, settings).image

        def plain(half: bool, evaluate: Callable[..., Tensor] = reference_field) -> Tensor:
            with torch.no_grad(), self.autocast(half):
                return reference_render(generator, w, cameras, settings, field=evaluate)

        sides: dict[str, Callable[[], Tensor]] = {
            "ours": lambda: ours(True),
            "ours fp32": lambda: ours(False),
            "reference": lambda: plain(False),
            "reference half": lambda: plain(True),
        }
        if self.compiled:
            compiled = torch.compile(reference_field)
            sides["compiled_reference"] = lambda: plain(False, compiled)
        exact = plain(False)
        errors = {k: float((side() - exact).square().mean()) / 4 for k, side in sides.items()}
        seconds = self.seconds(dict(sides))
        return {
            "ms": {k: 1e3 * s for k, s in seconds.items()},
            "ratio": ratios(seconds),
            "psnr": {k: -10 * math.log10(max(e, 1e-12)) for k, e in errors.items()},
        }

    def stylegan(self) -> Numbers:
        """Rows of benchmarks/stylegan.py; on CUDA with peaks of memory."""
        args = argparse.Namespace(
            resolution=self.sizes.stylegan,
            batch=self.sizes.stylegan_batch,
            channel_base=self.sizes.channel_base,
        )
        return {
            name: stylegan.measure(task, self.sizes.rounds, self.device)
            for name, task in stylegan.tasks(args, self.device).items()
        }

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Half precision, as the device has it."""
        return torch.autocast(self.device.type, dtype=self.half, enabled=enabled)

    def peak(self, run: Callable[[], object]) -> float | None:
        """MiB that a run takes beyond what is there; None on a CPU, which does not say."""
        if self.device.type != "cuda":
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


ROWS = (
    *("ceilings", "kernels", "field", "train_step", "graphs"),
    *("discriminator", "render", "stylegan"),
)


@contextmanager
def _replaced(target: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


def with_tiling(tiling: Tiling, run: Callable[[], Any]) -> Any:
    """Run with another tiling of the kernels than the device's own."""
    with _replaced(fused, "tiling_for", lambda device, dtype: tiling):
        return run()


def without_kernels(run: Callable[[], Any]) -> Any:
    """Run as if there were no Triton."""
    os.environ["PERIGAN_KERNELS"] = "0"
    try:
        return run()
    finally:
        del os.environ["PERIGAN_KERNELS"]


def measure(bench: Bench, names: list[str]) -> Numbers:
    """Each row's numbers, or why it has none; shown as they come."""
    results: Numbers = {}
    for name in names:
        began = time.perf_counter()
        try:
            results[name] = getattr(bench, name)()
        except Exception as error:  # the other rows are worth having
            results[name] = {"failed": f"{type(error).__name__}: {error}"[:2000]}
        results[name]["took_s"] = round(time.perf_counter() - began, 1)
        print(name, json.dumps(rounded(results[name]), indent=1), file=sys.stderr, flush=True)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return results


def rounded(value: Any) -> Any:
    """Numbers as people read them."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def hardware(device: torch.device) -> str:
    """What it was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=parse_device, default="cuda", help="cuda, or cpu --tiny")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it works")
    parser.add_argument("--no_compile", action="store_true", help="without the compiled reference")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="some rows")
    parser.add_argument("--output", type=Path, default=None, help="JSON file (default: stdout)")
    args = parser.parse_args()
    device = torch.device(args.device)
    bench = Bench(device, TINY if args.tiny else Sizes(), compiled=not args.no_compile)
    results = {
        "hardware": hardware(device),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        **rounded(measure(bench, args.only)),
    }
    text = json.dumps(results, indent=2)
    if args.output is None:
        print(text)
    else:
        args.output.write_text(text + "\n", encoding="utf-8")
    if any("failed" in results[name] for name in args.only):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""StyleGAN2 and StyleGAN3: our ops against the straightforward formulation, in one run.

    python benchmarks/stylegan.py                  # 256 x 256, on CUDA where there is one, else CPU
    python benchmarks/stylegan.py --resolution 64 --only stylegan2_forward discriminator_r1

The reference computes literally what the ops are defined to compute: zeros are inserted, padded and
filtered; a bias, an activation, a gain and a clamp follow each other; convolutions run at the upper
rate; demodulation forms every kernel. Same modules, same weights, the same order of modulation; the
two take turns, medians are compared, and results must agree. On the CPU, seconds are those that the
process computes, so that neighbours do not count. Prints JSON, on CUDA also the peaks of memory.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from discriminators.stylegan2 import StyleGAN2Discriminator
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3
from ops import resample
from ops.activation import ACTIVATIONS
from training.regularizers import gradient_penalty

AGREEMENT = {torch.float32: 1e-3, torch.float16: 5e-2}  # of the largest number


# -- the reference


def reference_upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: Any = 1,
    down: Any = 1,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Insert zeros, pad, filter at the full rate, drop pixels."""
    taps = x.new_ones(1, 1) if f is None else f.to(x.dtype)
    (up_x, up_y), (down_x, down_y) = resample.as_pair(up, "up"), resample.as_pair(down, "down")
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height, 1, width, 1)
    x = F.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1])
    x = x.reshape(batch, channels, height * up_y, width * up_x)
    x = F.pad(x, list(resample.as_sides(padding)))
    taps = taps * gain ** (taps.ndim / 2)
    taps = taps if flip_filter else taps.flip(list(range(taps.ndim)))
    for kernel in [taps] if taps.ndim == 2 else [taps[None, :], taps[:, None]]:
        weight = kernel[None, None].repeat(channels, 1, 1, 1)
        x = F.conv2d(x, weight, groups=channels)
    return x[:, :, ::down_y, ::down_x]


def reference_bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """One step after the other."""
    if b is not None:
        x = x + b.reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    slope = 0.2 if alpha is None else alpha
    x = F.leaky_relu(x, slope) if act == "lrelu" else ACTIVATIONS[act].function(x)
    x = x * (ACTIVATIONS[act].gain if gain is None else gain)
    return x if clamp is None else x.clamp(-clamp, clamp)


def reference_conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Any = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Upsample, convolve at the full rate, downsample."""
    pads = resample.as_sides(padding)
    if up > 1:
        pads = resample.resample_padding(f, up=up, padding=pads)
    if down > 1:
        pads = resample.resample_padding(f, down=down, padding=pads)
    flip = {"flip_filter": flip_filter}
    x = reference_upfirdn2d(x, f if up > 1 else None, up=up, padding=pads, gain=up**2, **flip)
    x = F.conv2d(x, w if flip_weight else w.flip(2, 3), groups=groups)
    return reference_upfirdn2d(x, f, down=down, **flip) if down > 1 else x


def reference_demodulation(w: Tensor, styles: Tensor) -> Tensor:
    """The norms of kernels that are formed one by one."""
    kernels = w * styles[:, None, :, None, None]
    return (kernels.square().sum((2, 3, 4)) + 1e-8).rsqrt()


@contextmanager
def reference_ops() -> Iterator[None]:
    """Within, all modules compute by the reference."""
    replaced = {
        "upfirdn2d": reference_upfirdn2d,
        "bias_act": reference_bias_act,
        "conv2d_resample": reference_conv2d_resample,
        "_demodulation": reference_demodulation,
    }
    ours = [m for name, m in sys.modules.items() if name.split(".")[0] in ("ops", "generators")]
    patches = [
        mock.patch.object(module, name, function)
        for module in ours
        for name, function in replaced.items()
        if hasattr(module, name)
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        mock.patch.stopall()


# -- what is measured


def tasks(args: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Name -> a function that does the work and returns a result to compare."""
    torch.manual_seed(0)
    size = {"resolution": args.resolution, "channel_base": args.channel_base}
    g2 = StyleGAN2(**size, use_noise=False).to(device)
    g3 = StyleGAN3(**size, channel_max=512).to(device)
    d = StyleGAN2Discriminator(**size).to(device)
    w2 = g2.style(torch.randn(args.batch, 512, device=device)).detach()
    w3 = g3.style(torch.randn(args.batch, 512, device=device)).detach()
    images = torch.randn(args.batch, 3, args.resolution, args.resolution, device=device)

    def forward(generator: StyleGAN2 | StyleGAN3, w: Tensor) -> Tensor:
        with torch.no_grad():
            return generator.eval().synthesis_network(w)

    def backward(generator: StyleGAN2 | StyleGAN3, w: Tensor) -> Tensor:
        loss = generator.train().synthesis_network(w).square().mean()
        grads = torch.autograd.grad(loss, list(generator.synthesis_network.parameters()))
        return torch.cat([g.flatten() for g in grads])

    def judge(steps: bool) -> Tensor:
        real = images.clone().requires_grad_(steps)
        logits = d(real).logits
        loss = F.softplus(-logits).mean()
        if steps:
            loss = loss + gradient_penalty(logits, real).mean()
        grads = torch.autograd.grad(loss, list(d.parameters()), allow_unused=True)
        return torch.cat([g.flatten() for g in grads if g is not None])

    return {
        "stylegan2_forward": lambda: forward(g2, w2),
        "stylegan2_backward": lambda: backward(g2, w2),
        "stylegan3_forward": lambda: forward(g3, w3),
        "stylegan3_backward": lambda: backward(g3, w3),
        "discriminator_backward": lambda: judge(False),
        "discriminator_r1": lambda: judge(True),
    }


def timed(task: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float, float]:
    """Result, seconds, and on CUDA the peak of memory beyond what was there, in MiB."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    result = task()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = clock() - start
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return result, seconds, (peak - before) / 2**20


def measure(task: Callable[[], Tensor], repeats: int, device: torch.device) -> dict[str, Any]:
    """Both formulations in turns; the first turn warms up and is compared."""
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    peaks = {"ours": 0.0, "reference": 0.0}
    results = {}
    for turn in range(repeats + 1):
        for name in seconds:
            if name == "ours":
                result, took, peak = timed(task, device)
            else:
                with reference_ops():
                    result, took, peak = timed(task, device)
            if turn == 0:
                results[name] = result.double()
            else:
                seconds[name].append(took)
                peaks[name] = max(peaks[name], peak)
            del result
    error = (results["ours"] - results["reference"]).abs().max() / results["reference"].abs().max()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report: dict[str, Any] = {f"{name}_seconds": round(s, 4) for name, s in medians.items()}
    report["speedup"] = round(medians["reference"] / medians["ours"], 2)
    report["largest_relative_difference"] = float(f"{float(error):.1e}")
    if device.type == "cuda":
        report |= {f"{name}_peak_mib": round(peak) for name, peak in peaks.items()}
    limit = AGREEMENT[torch.float16 if device.type == "cuda" else torch.float32]
    if not math.isfinite(float(error)) or error > limit:
        raise SystemExit(f"the formulations differ by {float(error):.1e} of the largest number")
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--channel_base", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", default=None, help="names of tasks")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    report: dict[str, Any] = {"device": f"{device.type} {name}", "torch": torch.__version__}
    report |= {k: v for k, v in vars(args).items() if k not in ("device", "only")}
    for task_name, task in tasks(args, device).items():
        if args.only is None or task_name in args.only:
            report[task_name] = measure(task, args.repeats, device)
            print(task_name, report[task_name], file=sys.stderr, flush=True)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

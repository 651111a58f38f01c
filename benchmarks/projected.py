"""The projected discriminator's step against the naive composition.

    python benchmarks/projected.py                          # 256 x 256, on CUDA where there is one
    python benchmarks/projected.py --resolution 64 --batch_size 2 --rounds 3

The naive one computes the features anew for every head, and its backbone has parameters, so that a
discriminator's step stores what their gradients would need. Same weights, same logits; the two take
turns, medians are compared. On the CPU, seconds are those that the process computes. Prints JSON.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from discriminators.projected import ProjectedDiscriminator


def thaw(module: nn.Module) -> None:
    """Make buffers of floating point that could be weights parameters again."""
    for child in module.modules():
        for name in ("weight", "bias"):
            if name in child._buffers:
                value = child._buffers.pop(name)
                assert value is not None
                child.register_parameter(name, nn.Parameter(value))


def naive(discriminator: ProjectedDiscriminator, images: Tensor) -> Tensor:
    """Logits, with features computed for every head."""
    logits = [head(discriminator.features(images)[i]) for i, head in enumerate(discriminator.heads)]
    return torch.cat([part.flatten(1) for part in logits], dim=1)


def seconds(step: Callable[[], None], device: str) -> float:
    """What a step takes."""
    if device == "cpu":
        began = time.process_time()
        step()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(args: argparse.Namespace) -> dict[str, float | str]:
    """Medians of both players' steps, ours and the naive one's."""
    torch.manual_seed(0)
    ours = ProjectedDiscriminator(resolution=args.resolution, backbone_weights="random")
    ours = ours.to(args.device)
    theirs = copy.deepcopy(ours)
    thaw(theirs.feature_network)
    shape = (args.batch_size, 3, args.resolution, args.resolution)
    images = torch.rand(shape, device=args.device) * 2 - 1
    difference = (ours(images).logits - naive(theirs, images)).abs().max()
    assert difference < 1e-3, f"logits differ by {float(difference)}"

    def step_of(judge: Callable[[Tensor], Tensor], network: nn.Module, *, generator: bool):
        def step() -> None:
            network.requires_grad_(not generator)
            judge(images.clone().requires_grad_(generator)).mean().backward()
            network.zero_grad(set_to_none=True)

        return step

    result: dict[str, float | str] = {"device": args.device, "resolution": args.resolution}
    for name, generator in (("discriminator", False), ("generator", True)):
        steps = {
            "ours": step_of(lambda x: ours(x).logits, ours, generator=generator),
            "naive": step_of(lambda x: naive(theirs, x), theirs, generator=generator),
        }
        taken: dict[str, list[float]] = {kind: [] for kind in steps}
        for _ in range(args.rounds + 1):
            for kind, step in steps.items():
                taken[kind].append(seconds(step, args.device))
        medians = {kind: statistics.median(values[1:]) for kind, values in taken.items()}
        result |= {f"{name}_{kind}_s": round(value, 4) for kind, value in medians.items()}
        result[f"{name}_speedup"] = round(medians["naive"] / medians["ours"], 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()

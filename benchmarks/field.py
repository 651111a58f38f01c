"""The field alone at the CelebA settings: ours in each precision against the plain reference.

  PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/field.py --rounds 5 --compile_reference

Points of one scene through the 8 FiLM layers, 256 wide, and the colour branch: forward without
gradients, then forward and backward with a random gradient in every output, so that nothing is
skipped (`--empty_share` gives that share of the samples an exactly zero one). All candidates take
turns; on the CPU seconds are those that the process computes. Errors: colours and densities (these
in their standard deviation) from those in double precision; gradients of the weights as the cosine
between theirs and double precision's. One line of JSON per candidate and direction.
"""

import argparse
import copy
import os
import shutil
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.reference import reference_field
from benchmarks.render import clock
from benchmarks.timing import interleave, report
from generators.pigan import PiGAN
from inference.options import add_device, positive

Evaluate = Callable[[PiGAN, Tensor, Tensor, Tensor], Tensor]

CHECKED = 2048  # points that are evaluated in double precision as well
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def ours(
    dtype: torch.dtype, compiled: bool, generator: PiGAN, w: Tensor, points: Tensor, views: Tensor
) -> Tensor:
    """(batch, n, 4) as training and rendering get it."""
    generator.siren.compiled = compiled
    with torch.autocast(points.device.type, dtype=dtype, enabled=dtype != torch.float32):
        return torch.cat(generator.field(w)(points, views), dim=-1)


class Contest:
    """One scene, its points, and what each candidate makes of them."""

    def __init__(self, candidates: dict[str, Evaluate], device: torch.device, points: int) -> None:
        torch.manual_seed(0)
        self.candidates = candidates
        self.generator = PiGAN(latent_dim=256).to(device)
        self.w = self.generator.mapping(torch.randn(1, 256, device=device)).detach()
        self.points = 0.24 * torch.rand(1, points, 3, device=device) - 0.12
        views = torch.randn(1, points, 3, device=device)
        self.views = torch.nn.functional.normalize(views, dim=-1)
        self.grad = torch.randn(1, points, 4, device=device)

    def forward(self, name: str) -> Tensor:
        """Colours and densities."""
        with torch.no_grad():
            return self.candidates[name](self.generator, self.w, self.points, self.views)

    def backward(self, name: str) -> None:
        """The same, and the weights' gradients."""
        self.generator.siren.zero_grad()
        out = self.candidates[name](self.generator, self.w, self.points, self.views)
        out.backward(self.grad)

    def errors(self, name: str) -> dict[str, float]:
        """How far from double precision."""
        return compare(
            self.truth(), self.evaluated(self.candidates[name], self.generator, torch.float32)
        )

    def truth(self) -> tuple[Tensor, Tensor]:
        """Outputs and gradients of the first points in double precision."""
        network = copy.deepcopy(self.generator).double()
        return self.evaluated(reference_field, network, torch.float64)

    def evaluated(
        self, evaluate: Evaluate, generator: PiGAN, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Outputs of the first points and all weights' gradients, in one row."""
        points, views = self.points[:, :CHECKED], self.views[:, :CHECKED]
        w, points, views, grad = (v.to(dtype) for v in (self.w, points, views, self.grad))
        generator.siren.zero_grad()
        out = evaluate(generator, w, points, views)
        out.backward(grad[:, :CHECKED])
        grads = [p.grad.flatten() for p in generator.siren.parameters() if p.grad is not None]
        return out.detach().double(), torch.cat(grads).double()


def compare(truth: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Largest and root mean square errors of outputs, cosine of gradients."""
    error = found[0] - truth[0]
    error[..., 3] /= truth[0][..., 3].std()
    cosine = torch.nn.functional.cosine_similarity(truth[1], found[1], dim=0)
    return {
        "color_error_max": float(error[..., :3].abs().max()),
        "color_error_rms": float(error[..., :3].square().mean().sqrt()),
        "density_error_rms": float(error[..., 3].square().mean().sqrt()),
        "gradient_cosine": float(cosine),
    }


def main() -> None:
    """Time all candidates in turns and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--points", type=positive, default=64 * 64 * 12, help="points of the scene (49152)")
    add("--rounds", type=positive, default=5, help="timed turns of each candidate (5)")
    add("--empty_share", type=float, default=0.0, help="share of samples of zero gradient (0)")
    add("--compile_reference", action="store_true", help="also torch.compile of the reference")
    add_device(parser)
    args = parser.parse_args()
    device = torch.device(args.device)
    candidates: dict[str, Evaluate] = {"reference": reference_field}
    if args.compile_reference:
        candidates["compiled_reference"] = torch.compile(reference_field)
    for name, dtype in PRECISIONS.items():
        candidates[name] = partial(ours, dtype, False)
        if device.type == "cpu" and shutil.which(os.environ.get("CXX") or "g++"):
            candidates[f"compiled_{name}"] = partial(ours, dtype, True)
    contest = Contest(candidates, device, args.points)
    contest.grad[:, torch.rand(args.points) < args.empty_share] = 0
    errors = {name: contest.errors(name) for name in candidates}
    for direction, run in {"forward": contest.forward, "both": contest.backward}.items():
        turns = {name: partial(run, name) for name in candidates}
        seconds = interleave(turns, args.rounds, device, clock(device))
        for name in candidates:
            line: dict[str, object] = {
                "direction": "forward" if direction == "forward" else "forward and backward",
                "candidate": name,
                "points": args.points,
                "empty_share": args.empty_share,
                "us_per_point": round(1e6 * seconds[name] / args.points, 2),
                "ratio": round(seconds["reference"] / seconds[name], 2),
            }
            if args.compile_reference:
                line["ratio_to_compiled"] = round(seconds["compiled_reference"] / seconds[name], 2)
            line |= {key: float(f"{value:.6g}") for key, value in errors[name].items()}
            report("field", device, line)


if __name__ == "__main__":
    main()

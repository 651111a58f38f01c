"""A field of the CelebA settings that holds something: what trained fields cost, without training.

  PYTHONPATH=. python benchmarks/fitted.py --output_dir runs/fitted_wall
  PYTHONPATH=. python benchmarks/fitted.py --output_dir runs/fitted_object --object

How long steps, pictures and shapes take depends on where a field is empty and how it jumps at
surfaces, of which untrained networks know nothing. Here pi-GAN's field (8 x 256, the box of side
0.24, the cameras of CelebA) is fitted to snow figures of the embedded data set (`toys/`), reduced
to the size of a head and striped, in front of a wall as photographs have it, or with `--object` on
white ground. Seed k is figure k. The raw density goes from SOLID inside to -SOLID outside within
SOFT. Minutes of one core; the result is a run's directory that all scripts and benchmarks take.
"""

import argparse
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from curriculums import CelebA, Curriculum, stage_at
from generators.pigan import PiGAN
from inference.checkpoint import build_generator, network_state, save_files
from inference.options import positive
from inference.views import seeded_latents
from ops.shapes import Float
from toys.scenes import Figures

SCALE = math.tan(math.radians(6)) / math.tan(math.radians(25))  # CelebA's view against Toys'
SOLID, SOFT = 300.0, 0.006  # raw density; half the width of its fall, in world units
WALL = -0.09  # where the wall begins, behind the figures
HALF_BOX = 0.12
STRIPES = 150.0  # radians per world unit


def target(
    figures: Figures, points: Float[Tensor, "batch n 3"], *, wall: bool
) -> tuple[Float[Tensor, "batch n 3"], Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
    """Colour in 0..1, raw density by SOLID, and the distance to the surface."""
    distance, part = figures.signed_distance(points / SCALE)
    distance = distance * SCALE
    colour = figures.colours.gather(1, part[..., None].expand_as(points))
    if wall:
        behind = points[..., 2] - WALL
        ground = points.new_tensor([0.35, 0.5, 0.65]).expand_as(colour)
        colour = torch.where((behind < distance)[..., None], ground, colour)
        distance = torch.minimum(distance, behind)
    stripes = 0.85 + 0.15 * torch.sin(STRIPES * points.sum(-1, keepdim=True))
    return colour * stripes, (-distance / SOFT).clamp(-1, 1), distance


def batches(figures: Figures, n: int, *, wall: bool) -> Iterator[tuple[Tensor, ...]]:
    """Points of the box, half of them near a surface, with their colour and density."""
    rng, count = torch.Generator().manual_seed(0), len(figures.colours)
    while True:
        points = (2 * torch.rand(count, 4 * n, 3, generator=rng) - 1) * HALF_BOX
        distance = target(figures, points, wall=wall)[2].abs()
        near = distance[:, n // 2 :].topk(n // 2, largest=False).indices + n // 2
        picked = torch.cat([torch.arange(n // 2).expand(count, -1), near], dim=1)
        points = points.gather(1, picked[..., None].expand(-1, -1, 3))
        yield points, *target(figures, points, wall=wall)[:2]


def fit(generator: PiGAN, count: int, steps: int, n: int, lr: float, *, wall: bool) -> None:
    """Teach a generator the first so many figures as its seeds."""
    z = seeded_latents(range(count), generator.latent_dim)
    figures = Figures.sample(0, list(range(count)))
    with torch.no_grad():
        generator.siren.final_layer.weight.mul_(SOLID)
    optimizer = torch.optim.Adam(generator.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, lr / 20)
    views = torch.nn.functional.normalize(torch.randn(count, n, 3), dim=-1)
    bar = tqdm(range(steps), desc="fit")
    for _, (points, colour, density) in zip(bar, batches(figures, n, wall=wall), strict=False):
        radiance, raw = generator.field(generator.mapping(z))(points, views)
        off = (raw[..., 0] / SOLID - density).square().mean()
        # colours count where there is something
        miss = ((radiance - colour).square().mean(-1) * (density > -1)).mean()
        optimizer.zero_grad()
        (off + miss).backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(density=f"{off.item():.4f}", colour=f"{miss.item():.4f}")


def make_curriculum(*, wall: bool) -> Curriculum:
    """CelebA's, with the embedded pictures; on white ground if there is no wall."""
    curriculum = CelebA | {"dataset": "Toys"}
    return curriculum if wall else curriculum | {"white_back": True, "eval_last_back": False}


def main() -> None:
    """Fit, and save what a training run would."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="the run's directory")
    add("--object", action="store_true", help="no wall, white ground")
    add("--figures", type=positive, default=4, help="how many seeds are fitted (4)")
    add("--steps", type=positive, default=1000, help="of the optimiser (1000)")
    add("--points", type=positive, default=2048, help="of each figure in a step (2048)")
    add("--lr", type=float, default=3e-4, help="learning rate, falling to a twentieth (3e-4)")
    args = parser.parse_args()
    wall = not args.object
    curriculum = make_curriculum(wall=wall)
    torch.manual_seed(0)
    generator, record = build_generator(stage_at(curriculum, 0))
    assert isinstance(generator, PiGAN)
    if shutil.which(os.environ.get("CXX") or "g++"):
        generator.compile_field()
    fit(generator, args.figures, args.steps, args.points, args.lr, wall=wall)
    generator.update_w_avg()
    data = network_state(generator, record, args.steps)
    files = {"generator.pth": data | {"curriculum": curriculum}, "ema.pth": data}
    save_files(args.output_dir, files)
    print(f"saved in {args.output_dir}")


if __name__ == "__main__":
    main()

"""One training step at the CelebA curriculum's settings: ours against the plain reference.

  PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/train_step.py --batch_size 2 --rounds 3
  PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/train_step.py --run runs/fitted_wall
  PYTHONPATH=. python benchmarks/train_step.py --batch_size 56 --batch_split 2 --device cuda

On a CPU the batch is smaller than the curriculum's 56, so that a laptop takes part; all sides have
the same networks, latents, cameras and pictures. The reference computes the field as the original
does (benchmarks/reference.py), collects the discriminator's gradients in the generator's step and
has plain Adam; compiled, its field goes through torch.compile (its discriminator cannot: R1 takes
second derivatives). A reference in mixed precision is autocast, as the original is. On a CPU,
ours is also taken in bf16 (`mixed`) and with its own compiled field, and seconds are those that the
process computes.

How many samples carry no gradient depends on the field. With the ReLU clamp they are those of
negative density: 57 to 74% in fields fitted to heads, fewer in an untrained one. `--run` takes the
weights of a trained or fitted generator (benchmarks/fitted.py) and the latents of its first seeds;
`--empty 0.57` shifts an untrained field's density until so many are. `no_gradient` is the share of
samples whose gradients are exactly zero in our generator's step.
"""

import argparse
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from benchmarks.reference import reference_field, reference_render
from benchmarks.timing import interleave, report
from curriculums import CelebA, stage_at, with_overrides
from generators.pigan import PiGAN
from inference.checkpoint import load_generator
from inference.options import add_device, positive
from inference.views import seeded_latents
from rendering.cameras import Cameras
from rendering.field import Field
from rendering.renderer import render
from training import losses
from training.build import build_players
from training.distributed import World
from training.players import Draw, Moment, Players, Reals
from training.steps import discriminator_step, generator_step


@dataclass(frozen=True)
class Work:
    """What a step is made of; the two sides have networks and optimisers of their own."""

    ours: Players
    plain: Players
    moment: Moment
    images: Tensor
    draws: list[Draw]  # one per chunk of the batch

    def our_step(self) -> None:
        """A step as `train.py` computes it."""
        discriminator_step(self.ours, self.moment, Reals(self.images), self.draws)
        generator_step(self.ours, self.moment, self.draws)


def make_work(device: torch.device, changes: Mapping[str, Any]) -> Work:
    """A step of the CelebA curriculum with some of its keys changed."""
    stage = stage_at(with_overrides(CelebA, [f"{k}={v}" for k, v in changes.items()]), 0)
    rng = torch.Generator(device).manual_seed(0)
    ours, _ = build_players(stage, 0, World(0, 1, device), rng)
    plain, _ = build_players(stage, 0, World(0, 1, device), rng)
    for name, network, lr in (
        ("optimizer_g", plain.generator, stage.gen_lr),
        ("optimizer_d", plain.discriminator, stage.disc_lr),
    ):
        setattr(plain, name, Adam(network.parameters(), lr=lr, betas=stage.betas))
    # past the density noise, which both sides would draw alike
    moment = Moment(stage, 6000, 0.6, stage.render_settings(6000))
    size, chunk = stage.img_size, stage.batch_size // stage.batch_split
    images = torch.rand(stage.batch_size, 3, size, size, device=device) * 2 - 1
    draws = [
        Draw(
            torch.randn(chunk, stage.latent_dim, device=device),
            Cameras.sample(stage.pose_law(), chunk, rng),
        )
        for _ in range(stage.batch_split)
    ]
    return Work(ours, plain, moment, images, draws)


def take_weights(work: Work, run: Path) -> Work:
    """The same step of a run's generator, for the latents of its first seeds."""
    trained, _ = load_generator(run)
    for player in (work.ours, work.plain):
        player.generator.load_state_dict(trained.state_dict())
    count = sum(len(draw.z) for draw in work.draws)
    z = seeded_latents(range(count), trained.latent_dim).to(work.images.device)
    parts = z.split([len(draw.z) for draw in work.draws])
    draws = [replace(draw, z=part) for draw, part in zip(work.draws, parts, strict=True)]
    return replace(work, draws=draws)


def no_gradient(work: Work) -> float:
    """Share of the generator step's samples to which nothing flows back."""
    generator, settings = work.ours.generator, work.moment.settings
    assert isinstance(generator, PiGAN)
    outputs: list[tuple[Tensor, Tensor]] = []

    def keeping(field: Field) -> Field:
        def kept(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
            outputs.append(field(points, directions))
            for output in outputs[-1]:
                output.retain_grad()
            return outputs[-1]

        return kept

    for draw in work.draws:
        field = keeping(generator.field(generator.mapping(draw.z)))
        rng = torch.Generator(draw.z.device).manual_seed(0)
        image = render(field, draw.cameras, settings, generator=rng).image
        image.backward(torch.randn(image.shape, device=image.device))
    generator.zero_grad()
    zero = [
        (radiance.grad == 0).all(-1) & (density.grad[..., 0] == 0)
        for radiance, density in outputs
        if radiance.grad is not None and density.grad is not None
    ]
    return float(torch.cat(zero, dim=1).float().mean())


@torch.no_grad()
def leave_empty(work: Work, share: float) -> None:
    """Lower the density of both untrained fields until such a share of samples is negative.

    As it is in trained fields, where it decides how much of the backward pass there is.
    """
    stage, draw = work.moment.stage, work.draws[0]
    generator = work.ours.generator
    assert isinstance(generator, PiGAN)
    field = generator.field(generator.mapping(draw.z))
    origins, directions = draw.cameras.rays(8, 8)
    depths = torch.linspace(stage.ray_start, stage.ray_end, 12, device=draw.z.device)
    points = origins[:, :, None] + directions[:, :, None] * depths[:, None]
    views = directions[:, :, None].expand_as(points)
    density = field(points.flatten(1, 2), views.flatten(1, 2))[1]
    shift = density.float().flatten().quantile(share)
    for player in (work.ours, work.plain):
        assert isinstance(player.generator, PiGAN)
        player.generator.siren.final_layer.bias.sub_(shift)


def reference_step(work: Work, field: Callable[..., Tensor] = reference_field) -> None:
    """An iteration as the original's loop computes it."""
    players, moment, stage = work.plain, work.moment, work.moment.stage
    generator, discriminator = players.generator, players.discriminator
    assert isinstance(generator, PiGAN)

    def fakes(draw: Draw) -> Tensor:
        w = generator.mapping(draw.z)
        return reference_render(
            generator, w, draw.cameras, moment.settings, players.rng, field=field
        )

    with torch.no_grad(), players.autocast():
        fake = torch.cat([fakes(draw) for draw in work.draws])
    real = work.images.detach().requires_grad_()
    with players.autocast():
        real_logits = discriminator(real, moment.alpha).logits
        judged = discriminator(fake, moment.alpha)
    scale = players.scaler.scale(torch.ones((), device=real.device))
    penalty = losses.r1_penalty(real_logits, real, scale)
    loss = losses.fake_loss(judged.logits.float()) + losses.real_loss(real_logits.float())
    loss = loss + 0.5 * stage.r1_lambda * penalty
    z = torch.cat([draw.z for draw in work.draws])
    cameras = _together([draw.cameras for draw in work.draws])
    loss = loss + losses.identity_loss(judged, z, cameras, stage)
    players.optimizer_d.zero_grad()
    players.scaler.scale(loss).backward()
    _plain_update(players, players.optimizer_d, discriminator, stage.grad_clip)
    for draw in work.draws:
        with players.autocast():
            judged = discriminator(fakes(draw), moment.alpha)
        loss = losses.generator_loss(judged.logits.float(), stage.kept_share(moment.step))
        loss = loss + losses.identity_loss(judged, draw.z, draw.cameras, stage)
        players.scaler.scale(loss / len(work.draws)).backward()
    _plain_update(players, players.optimizer_g, generator, stage.grad_clip)
    players.scaler.update()
    players.optimizer_g.zero_grad()


def _together(cameras: list[Cameras]) -> Cameras:
    angles = [c.angles for c in cameras]
    return Cameras(
        torch.cat([c.cam2world for c in cameras]),
        torch.cat([c.fov for c in cameras]),
        torch.cat([a for a in angles if a is not None]) if None not in angles else None,
    )


def _plain_update(
    players: Players, optimizer: Adam, network: torch.nn.Module, grad_clip: float | None
) -> None:
    players.scaler.unscale_(optimizer)
    assert grad_clip is not None
    torch.nn.utils.clip_grad_norm_(network.parameters(), grad_clip)
    players.scaler.step(optimizer)


def step_sides(work: Work, *, compile_reference: bool) -> dict[str, Callable[[], None]]:
    """Who takes turns: ours as the curriculum has it, on a CPU also in bf16; the references."""
    generator, own = work.ours.generator, work.ours.dtype
    assert isinstance(generator, PiGAN)

    def ours(dtype: torch.dtype, compiled: bool) -> None:
        work.ours.dtype, generator.siren.compiled = dtype, compiled
        work.our_step()

    sides = {"reference": lambda: reference_step(work), "ours": lambda: ours(own, False)}
    if work.images.device.type == "cpu":
        sides["mixed"] = lambda: ours(torch.bfloat16, False)
        if shutil.which(os.environ.get("CXX") or "g++"):
            sides["compiled"] = lambda: ours(own, True)
            sides["mixed_compiled"] = lambda: ours(torch.bfloat16, True)
    if compile_reference:
        field = torch.compile(reference_field)
        sides["compiled_reference"] = lambda: reference_step(work, field)
    return sides


def ratios(seconds: Mapping[str, float]) -> dict[str, float]:
    """How many times faster than the reference each other side is."""
    return {
        name: round(seconds["reference"] / s, 2)
        for name, s in seconds.items()
        if name != "reference"
    }


def main() -> None:
    """Time all sides and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=positive, default=2, help="images per step (2)")
    parser.add_argument("--batch_split", type=positive, default=1, help="chunks of a batch (1)")
    parser.add_argument("--img_size", type=positive, default=64, help="pixels per side (64)")
    parser.add_argument("--rounds", type=positive, default=3, help="timed steps of each side (3)")
    parser.add_argument("--precision", default="auto", help="as the curriculum's key (auto)")
    field = parser.add_mutually_exclusive_group()
    field.add_argument(
        "--run", type=Path, help="a pi-GAN of the CelebA settings (default: untrained)"
    )
    field.add_argument("--empty", type=float, help="share of samples without mass")
    parser.add_argument("--compile_reference", action="store_true", help="also that")
    add_device(parser)
    args = parser.parse_args()
    device = torch.device(args.device)
    keys = ("batch_size", "batch_split", "img_size", "precision")
    settings = {key: getattr(args, key) for key in keys}
    work = make_work(device, settings)
    if args.run is not None:
        work = take_weights(work, args.run)
        settings["run"] = args.run.name
    if args.empty is not None:
        leave_empty(work, args.empty)
        settings["empty"] = args.empty
    settings["no_gradient"] = round(no_gradient(work), 3)
    sides = step_sides(work, compile_reference=args.compile_reference)
    seconds = interleave(sides, args.rounds, device)
    images_per_s = {f"{k}_images_per_s": round(args.batch_size / s, 4) for k, s in seconds.items()}
    report("train_step", device, {**settings, **images_per_s, "ratio": ratios(seconds)})


if __name__ == "__main__":
    main()

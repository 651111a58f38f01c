"""One training step at the CelebA curriculum's settings: ours against the plain reference.

  PYTHONPATH=. python benchmarks/train_step.py --batch_size 2 --rounds 3

The batch is smaller than the curriculum's 56, so that a laptop takes part; both sides have the same
networks, latents, cameras and pictures. The reference computes the field as the original does
(benchmarks/reference.py) and collects the discriminator's gradients in the generator's step.
"""

import argparse

import torch

from benchmarks.reference import reference_render
from benchmarks.timing import interleave, report
from curriculums import CelebA, stage_at, with_overrides
from generators.pigan import PiGAN
from inference.options import add_device, positive
from rendering.cameras import Cameras
from training import losses
from training.build import build_players
from training.distributed import World
from training.players import Draw, Moment, Players, Reals
from training.steps import discriminator_step, generator_step


def reference_step(players: Players, moment: Moment, images: torch.Tensor, draw: Draw) -> None:
    """An iteration as the original's loop computes it, in full precision."""
    stage, generator, discriminator = moment.stage, players.generator, players.discriminator
    assert isinstance(generator, PiGAN) and stage.grad_clip is not None

    def fakes() -> torch.Tensor:
        w = generator.mapping(draw.z)
        return reference_render(generator, w, draw.cameras, moment.settings, players.rng)

    with torch.no_grad():
        fake = fakes()
    real = images.detach().requires_grad_()
    real_logits = discriminator(real, moment.alpha).logits
    penalty = losses.r1_penalty(real_logits, real)
    judged = discriminator(fake, moment.alpha)
    loss = losses.fake_loss(judged.logits) + losses.real_loss(real_logits)
    loss = loss + 0.5 * stage.r1_lambda * penalty
    loss = loss + losses.identity_loss(judged, draw.z, draw.cameras, stage)
    players.optimizer_d.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(discriminator.parameters(), stage.grad_clip)
    players.optimizer_d.step()
    judged = discriminator(fakes(), moment.alpha)
    loss = losses.generator_loss(judged.logits, stage.kept_share(moment.step))
    loss = loss + losses.identity_loss(judged, draw.z, draw.cameras, stage)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(generator.parameters(), stage.grad_clip)
    players.optimizer_g.step()
    players.optimizer_g.zero_grad()


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=positive, default=2, help="images per step (2)")
    parser.add_argument("--img_size", type=positive, default=64, help="pixels per side (64)")
    parser.add_argument("--rounds", type=positive, default=3, help="timed steps of each side (3)")
    add_device(parser)
    args = parser.parse_args()
    device = torch.device(args.device)
    curriculum = with_overrides(
        CelebA,
        [f"batch_size={args.batch_size}", "batch_split=1", "precision=fp32",
         f"img_size={args.img_size}"],
    )  # fmt: skip
    stage = stage_at(curriculum, 0)
    rng = torch.Generator(device).manual_seed(0)
    ours, _ = build_players(stage, 0, World(0, 1, device), rng)
    plain, _ = build_players(stage, 0, World(0, 1, device), rng)
    # past the density noise, which both sides would draw alike
    moment = Moment(stage, 6000, 0.6, stage.render_settings(6000))
    images = torch.rand(args.batch_size, 3, args.img_size, args.img_size, device=device) * 2 - 1
    z = torch.randn(args.batch_size, stage.latent_dim, device=device)
    draw = Draw(z, Cameras.sample(stage.pose_law(), args.batch_size, rng))

    def our_step() -> None:
        discriminator_step(ours, moment, Reals(images), [draw])
        generator_step(ours, moment, [draw])

    seconds = interleave(
        {"ours": our_step, "reference": lambda: reference_step(plain, moment, images, draw)},
        args.rounds,
        device,
    )
    speed = {f"{name}_steps_per_s": round(1 / s, 4) for name, s in seconds.items()}
    images_per_s = {
        f"{name}_images_per_s": round(args.batch_size / s, 4) for name, s in seconds.items()
    }
    ratio = seconds["reference"] / seconds["ours"]
    settings = {"batch_size": args.batch_size, "img_size": args.img_size, "precision": "fp32"}
    report("train_step", device, {**settings, **speed, **images_per_s, "ratio": round(ratio, 2)})


if __name__ == "__main__":
    main()

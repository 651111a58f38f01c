"""What adaptive augmentation is for: StyleGAN2 on 64 pictures, with it and without.

  PYTHONPATH=. python benchmarks/limited_data.py --steps 3900 --output_dir runs/limited \
      --plot docs/images/limited_data.png

Both runs see the same 64 pictures of Toys, from the same start (`--modes` does one of them; the
plot is of all that `--output_dir` holds). Measured is the sliced Wasserstein
distance to 512 figures that neither has seen: a discriminator that knows its pictures by heart
drives the generator away from all others. Needs matplotlib for the plot; prints JSON.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from curriculums import Curriculum, find_curriculum, with_overrides
from datasets import open_dataset
from inference.media import to_uint8
from inference.options import add_device, positive, run_script
from inference.views import seeded_latents
from metrics.sliced_wasserstein import PatchSet, swd
from rendering.cameras import Cameras
from training.distributed import World
from training.trainer import RunOptions, Trainer

SIZE, BATCH, PICTURES, JUDGED = 16, 8, 64, 512
MODES = ("noaug", "ada")
CHANGES = [
    f"img_size={SIZE}",
    f"batch_size={BATCH}",
    f"dataset_options={{'toys_num': {PICTURES}}}",
    "sample_images=16",
    # nothing but augmentation keeps the discriminator from learning its pictures by heart, and it
    # learns twice as fast as the generator
    "r1_lambda=0",
    "gen_lr=0.005",
    "disc_lr=0.01",
    "discriminator_options={'channel_base': 2048, 'channel_max': 128}",
]


def measure_unseen(trainer: Trainer) -> dict[str, Any]:
    """Distance of the averaged generator's pictures to figures that it has not seen, and p."""
    fresh = open_dataset("Toys", "", SIZE, toys_num=JUDGED, toys_seed=1, progress=False)
    real, fake = PatchSet(), PatchSet()
    real.add(to_uint8(fresh.batch(torch.arange(JUDGED)).images).permute(0, 3, 1, 2))
    generator, device = trainer.state.emas["ema.pth"].module, trainer.world.device
    settings = trainer.stage.eval_settings()
    z = seeded_latents(range(JUDGED), generator.latent_dim).to(device)
    cameras = Cameras.from_angles(torch.zeros(JUDGED), 1.0, trainer.stage.fov).to(device)
    with torch.no_grad():
        for part in torch.arange(JUDGED).split(64):
            w = generator.mapping(z[part])
            images = generator.synthesis(w, cameras[part], settings).image
            fake.add(to_uint8(images).permute(0, 3, 1, 2))
    augment = trainer.state.players.augment
    return {"swd_unseen": swd(real, fake)["swd"], "p": 0.0 if augment is None else augment.p}


def curriculum_of(mode: str, ada_kimg: float) -> Curriculum:
    """ToysStyleGAN2 on few pictures, with or without augmentation."""
    changes = [*CHANGES, f"augment={mode}", f"ada_kimg={ada_kimg}"]
    curriculum = with_overrides(find_curriculum("ToysStyleGAN2"), changes)
    return {key: value for key, value in curriculum.items() if value != {}}  # without an end


def history(run: Path) -> list[dict[str, Any]]:
    """What a run measured, in order."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def plot(directory: Path, file: Path) -> None:
    """Distance and probability against thousand pictures shown, of every run in a folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(7, 6))
    for mode, colour in zip(MODES, ("tab:red", "tab:blue"), strict=True):
        for number, run in enumerate(sorted(directory.glob(f"{mode}_*"))):
            lines = history(run)
            kimg = [line["step"] * BATCH / 1000 for line in lines]
            label = None if number else mode
            above.plot(kimg, [line["swd_unseen"] for line in lines], color=colour, label=label)
            below.plot(kimg, [line["p"] for line in lines], color=colour)
    above.set_ylabel("SWD to unseen figures")
    above.set_yscale("log")
    above.legend()
    below.set_ylabel("augmentation probability p")
    below.set_xlabel("thousand pictures shown")
    figure.suptitle(f"StyleGAN2 on {PICTURES} pictures of {SIZE}x{SIZE}")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, bbox_inches="tight")


def main() -> None:
    """Train both, print what they came to, draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=positive, default=300, help="of each run (300)")
    parser.add_argument("--every", type=positive, default=150, help="steps between looks (150)")
    parser.add_argument("--ada_kimg", type=float, default=20.0, help="see docs/curricula.md (20)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="(both)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a run of each (0)")
    parser.add_argument("--output_dir", type=Path, help="where the runs go (nowhere)")
    parser.add_argument("--plot", type=Path, help="where the plot goes")
    add_device(parser)
    args = parser.parse_args()
    directory = args.output_dir or Path(tempfile.mkdtemp(prefix="perigan-"))
    for mode, seed in itertools.product(args.modes, args.seeds):
        run = directory / f"{mode}_{seed}"
        options = RunOptions(
            run,
            n_steps=args.steps,
            eval_freq=args.every,
            sample_interval=10 * args.every,
            n_epochs=None,
            seed=seed,
        )
        world = World(0, 1, torch.device(args.device))
        Trainer(curriculum_of(mode, args.ada_kimg), options, world, measure_unseen).fit()
        lines = history(run)
        best = min(line["swd_unseen"] for line in lines)
        print(json.dumps({"mode": mode, "seed": seed, "best": best, **lines[-1]}))
    if args.plot:
        plot(directory, args.plot)


if __name__ == "__main__":
    run_script(main)

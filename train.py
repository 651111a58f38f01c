"""Train a 3D-aware GAN.

  python train.py --curriculum Toys --output_dir runs/toys
  python train.py --curriculum CelebA --dataset_path '/data/celeba/*.jpg' --output_dir runs/celeba
  python train.py --load_dir runs/celeba --output_dir runs/celeba              # go on
  CUDA_VISIBLE_DEVICES=0,1 python train.py ...                                 # two GPUs
  torchrun --nnodes 4 --nproc-per-node 8 train.py ...                          # four machines

Batch sizes are per process. SIGTERM and Ctrl-C save and leave; --load_dir goes on exactly there.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from curriculums import CURRICULA, Curriculum, find_curriculum, validate, with_overrides
from inference import checkpoint
from inference.options import (
    add_compile,
    default_device,
    parse_device,
    positive,
    run_script,
)
from siren.native import compiled
from stages import PRECISIONS
from training import distributed
from training.evaluate import check_measurements, measure
from training.graphs import check_graphs
from training.state import NotFiniteError
from training.trainer import END_OF_CURRICULUM, RunOptions, Trainer

# what the averages, the discriminator and ADA need not wait for once the networks are trained
TRANSFER = ["ema_rampup=None", "blur_init_sigma=0", "blur_fade_kimg=0", "ada_kimg=100"]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--curriculum", help=f"what to train: {', '.join(CURRICULA)}, or a .json file; "
        "optional with --load_dir, whose run carries its own")  # fmt: skip
    add("--output_dir", type=Path, default=Path("debug"), help="the run's directory (debug)")
    add("--load_dir", type=Path, help="go on from the run in this directory")
    add("--init_from", type=Path, metavar="DIR",
        help="begin a new run with the networks of the run in this directory (transfer learning): "
        "no ema_rampup, no blur, ada_kimg=100 unless set")  # fmt: skip
    add("--generator_only", action="store_true",
        help="with --init_from: the discriminator begins anew")  # fmt: skip
    add("--dataset_path", help="the pictures: a folder, a zip, or a quoted glob")
    add("--backbone_weights", metavar="PATH",
        help="weights of a projected discriminator's features: a file, random, or timm "
        "(which downloads them): short for the key of that name")  # fmt: skip
    add("--set", action="append", default=[], metavar="KEY=VALUE",
        help="set any curriculum key, for instance gen_lr=1e-4, 0.batch_size=8 (stage 0) or "
        "generator_options.hidden_dim=128; may be repeated")  # fmt: skip
    add("--kimg", type=float, help="stop after so many thousand images: short for total_kimg")
    add("--n_steps", type=positive, help="stop at this step (default: where the curriculum ends)")
    add("--n_epochs", type=positive, default=3000, help="stop after so many epochs (3000)")
    add("--sample_interval", type=positive, default=200,
        help="steps between sample grids, each with a save of the run (200)")  # fmt: skip
    add("--model_save_interval", type=positive, default=5000,
        help="steps between snapshots that are kept for good (5000)")  # fmt: skip
    add("--eval_freq", type=int, default=5000, help="steps between measurements, 0 for none (5000)")
    add("--set_step", type=int, help="with --load_dir: pretend that the run is at this step")
    add("--seed", type=int, default=0, help="seed of weights, latents, poses and data order (0)")
    add("--device", type=parse_device, default=default_device(),
        help="cpu, cuda (all visible GPUs) or cuda:1 (cuda if there is a GPU)")  # fmt: skip
    add("--precision", choices=PRECISIONS,
        help="auto (fp16 on a GPU, fp32 elsewhere), fp32, fp16 or bf16")  # fmt: skip
    add_compile(parser)
    add("--cuda_graphs", action="store_true",
        help="record steps and replay them where nothing but their inputs changes: for one GPU "
        "that waits for Python; never yet run on one (docs/architecture.md)")  # fmt: skip
    add("--num_workers", type=int, default=4, help="threads that decode pictures (4)")
    add("--port", type=int, help="where spawned processes meet (default: a free port)")
    args = parser.parse_args()
    if args.set_step is not None and args.load_dir is None:
        parser.error("--set_step needs --load_dir")
    if args.init_from is not None and args.load_dir is not None:
        parser.error("--init_from begins a run, --load_dir goes on with one: give one of them")
    if args.generator_only and args.init_from is None:
        parser.error("--generator_only needs --init_from")
    if args.curriculum is None and args.load_dir is None:
        parser.error("--curriculum is needed (or --load_dir, to go on with a run)")
    for name in ("eval_freq", "num_workers", "set_step"):
        if (getattr(args, name) or 0) < 0:
            parser.error(f"--{name} must not be negative")
    return args


def choose_curriculum(args: argparse.Namespace) -> Curriculum:
    """The named curriculum or the loaded run's own, with the command line's changes."""
    changes = [*(TRANSFER if args.init_from is not None else []), *args.set]
    if args.kimg is not None:
        changes.append(f"total_kimg={args.kimg}")
    if args.dataset_path is not None:
        changes.append(f"dataset_path={args.dataset_path!r}")
    if args.backbone_weights is not None:
        changes.append(f"backbone_weights={args.backbone_weights!r}")
    if args.precision is not None:
        changes.append(f"precision={args.precision}")
    if args.curriculum is not None:
        curriculum = find_curriculum(args.curriculum, changes, process_count(args))
    else:
        curriculum = checkpoint.read_file(args.load_dir / "generator.pth")["curriculum"]
    curriculum = with_overrides(curriculum, changes)
    validate(curriculum)
    return curriculum


def process_count(args: argparse.Namespace) -> int:
    """How many processes train together."""
    if distributed.launched_by_torchrun():
        return distributed.torchrun_size()
    return torch.cuda.device_count() if args.device == "cuda" else 1


def check_directories(args: argparse.Namespace) -> None:
    """Finish a save that was cut off, and refuse to write over another run."""
    same = args.load_dir is not None and args.load_dir.resolve() == args.output_dir.resolve()
    if same:  # into another run's directory somebody may be saving just now
        checkpoint.recover(args.output_dir)
    names = ("generator.pth", checkpoint.JOURNAL)
    if not same and any((args.output_dir / name).exists() for name in names):
        raise ValueError(
            f"{args.output_dir} already holds a run: go on with --load_dir {args.output_dir}, "
            "or choose another --output_dir"
        )


def train(rank: int, size: int, port: int | None, args: argparse.Namespace) -> None:
    """Train as one of `size` processes."""
    curriculum = choose_curriculum(args)
    options = RunOptions(
        output_dir=args.output_dir,
        load_dir=args.load_dir,
        init_from=args.init_from,
        generator_only=args.generator_only,
        n_epochs=args.n_epochs,
        n_steps=args.n_steps,
        sample_interval=args.sample_interval,
        model_save_interval=args.model_save_interval,
        eval_freq=args.eval_freq,
        set_step=args.set_step,
        seed=args.seed,
        num_workers=args.num_workers,
        cuda_graphs=args.cuda_graphs,
    )
    if args.eval_freq:
        check_measurements(curriculum)
    world = distributed.join(args.device, rank, size, port)
    try:
        trainer = Trainer(curriculum, options, world, evaluate=measure)
        if args.compile:
            averages = [ema.module for ema in trainer.state.emas.values()]
            for generator in (trainer.state.players.generator, *averages):
                generator.compile_field()
        began = trainer.state.step
        reason = trainer.fit()
        if world.is_main:
            print(f"{reason}: step {began} to {trainer.state.step}, saved in {args.output_dir}")
            if reason != END_OF_CURRICULUM:
                run = args.output_dir
                print(f"go on with: python train.py --load_dir {run} --output_dir {run}")
    finally:
        distributed.leave(world)


def spawned(rank: int, size: int, port: int, args: argparse.Namespace) -> None:
    """Run as a process of our own making: errors end it with one line, as in `main`."""
    run_script(lambda: train(rank, size, port, args), also=(NotFiniteError,))


def main() -> None:
    """Train in this process, in one per GPU, or in those that torchrun started."""
    args = parse_args()
    torch.backends.cudnn.deterministic = True  # a resumed run goes on bit for bit
    curriculum = choose_curriculum(args)
    if args.cuda_graphs:
        device = torch.device(args.device)
        check_graphs(curriculum, distributed.World(0, process_count(args), device))
    if args.compile:
        compiled()  # without a compiler it ends here
    if distributed.launched_by_torchrun():
        if distributed.torchrun_rank() == 0:
            check_directories(args)
        train(0, 1, None, args)
        return
    check_directories(args)
    size = process_count(args)
    if size == 1:
        train(0, 1, None, args)
        return
    port = args.port or distributed.free_port()
    try:
        start_processes(spawned, (size, port, args), nprocs=size, start_method="spawn")
    except ProcessExitedException as error:
        sys.exit(error.exit_code)


if __name__ == "__main__":
    run_script(main, also=(NotFiniteError,))

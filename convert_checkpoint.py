"""Turn a checkpoint of the original pi-GAN into a run's directory of this project.

  python convert_checkpoint.py CelebA/generator.pth --curriculum CelebA --output_dir runs/celeba

The original pickles whole modules, which could run code when loaded: here they are read without
running any. The averages ema.pth and ema2.pth, and discriminator.pth, are taken along if they lie
beside the generator, under its own prefix if it has one (03--10:20--generator.pth). The result
renders, measures and exports; it cannot be trained on, since optimisers stay behind.
"""

import argparse
from pathlib import Path
from typing import Any

import interop
from curriculums import CURRICULA, Curriculum, find_curriculum, validate
from generators.pigan import PiGAN
from inference.checkpoint import FORMAT, network_state, save_files
from inference.options import run_script
from interop.pickles import read_original_checkpoint
from interop.pigan import discriminator_arguments, generator_arguments

AVERAGES = ("ema.pth", "ema2.pth")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("path", type=Path, help="the original's generator.pth, or the folder that holds it")
    add("--curriculum", required=True,
        help=f"what it was trained by: {', '.join(CURRICULA)}, or a .json file")  # fmt: skip
    add("--output_dir", type=Path, required=True, help="the run's directory to write")
    return parser.parse_args()


def sibling(generator: Path, name: str) -> Path:
    """Where the original keeps a file that belongs to a generator's."""
    prefix, found, _ = generator.name.partition("generator.pth")
    return generator.with_name(prefix + name if found else name)


def convert_generator(path: Path, ema: Path | None = None) -> tuple[PiGAN, dict[str, Any]]:
    """The generator, or the average of its weights, as our module; and what else is known."""
    weights, facts = read_original_checkpoint(path, ema.name if ema else None)
    if "field" not in facts:
        raise ValueError(f"{path} holds no generator, but a {facts['class']}")
    generator = interop.convert("pigan", "generator", weights, facts)
    assert isinstance(generator, PiGAN)
    return generator, facts


def convert_averages(path: Path, step: int) -> dict[str, dict[str, Any]]:
    """Contents of the averages' files, by name; the raw weights stand in for a missing ema.pth."""
    files = {}
    for name in AVERAGES:
        ema = sibling(path, name)
        if ema.exists():
            average, facts = convert_generator(path, ema)
        elif name == AVERAGES[0]:
            print(f"there is no {ema}: {name} gets the generator's own weights")
            average, facts = convert_generator(path)[0], {"ema_decay": 0.0, "ema_num_updates": 0}
        else:
            continue
        counts = {key: facts[f"ema_{key}"] for key in ("decay", "num_updates")}
        files[name] = {"format": FORMAT, "step": step, **counts, "state_dict": average.state_dict()}
    return files


def convert_run(path: Path, curriculum: Curriculum) -> dict[str, dict[str, Any]]:
    """Contents of the run's files, by name; the curriculum is made to name these networks."""
    generator, facts = convert_generator(path)
    step, arguments = facts.get("step", 0), generator_arguments(generator)
    options = dict(arguments)
    curriculum["latent_dim"], curriculum["model"] = options.pop("latent_dim"), options.pop("model")
    curriculum["generator"], curriculum["generator_options"] = "PiGAN", options
    record = {"class": "PiGAN", "arguments": arguments, "curriculum": curriculum}
    files = {"generator.pth": network_state(generator, record, step)}
    files |= convert_averages(path, step)
    judge = sibling(path, "discriminator.pth")
    if judge.exists():
        weights, facts = read_original_checkpoint(judge)
        name = facts["class"]
        discriminator = interop.convert("pigan", "discriminator", weights, facts)
        arguments = discriminator_arguments(weights, name)
        record = {"class": name, "arguments": arguments}
        files["discriminator.pth"] = network_state(discriminator, record, step)
        curriculum["discriminator"] = name
        curriculum["discriminator_options"] = {
            key: value for key, value in arguments.items() if key != "latent_dim"
        }
    validate(curriculum)
    return files


def main() -> None:
    """Read, convert, save."""
    args = parse_args()
    curriculum = find_curriculum(args.curriculum)
    path = args.path / "generator.pth" if args.path.is_dir() else args.path
    if (args.output_dir / "generator.pth").exists():
        raise ValueError(f"{args.output_dir} already holds a run: choose another --output_dir")
    files = convert_run(path, curriculum)
    save_files(args.output_dir, files)
    print(f"{', '.join(files)} saved in {args.output_dir}, step {files['generator.pth']['step']}")


if __name__ == "__main__":
    run_script(main)

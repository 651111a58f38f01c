"""What the rendering scripts share: a checkpoint, its stage, and the styles and scenes in it."""

import argparse
import inspect
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curriculums import find_curriculum, stage_at
from generators import Generator
from generators.base import RadianceGenerator
from generators.stylegan2 import NOISE_MODES
from generators.stylegan3 import input_transform
from inference.checkpoint import checkpoint_step, load_generator
from inference.latents import add_latents, check_label, named_styles
from inference.options import (
    DTYPES,
    add_compile,
    add_device,
    add_exact,
    add_precision,
    add_proposal,
    flatten,
    positive,
)
from inference.scene import Scene
from inference.views import front_pitch
from rendering.cameras import Cameras
from rendering.settings import RenderSettings
from stages import Stage

IMAGE_SIZE, RAY_STEP_MULTIPLIER = 256, 2


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint, what to take from it, and how finely to render."""
    add = parser.add_argument
    add("path", type=Path, help="a generator.pth, or the run's directory that holds it")
    add_latents(parser)
    add("--psi", type=float, default=0.7, help="truncation: 1 is none, 0 the average (0.7)")
    add("--image_size", type=positive,
        help="pixels per side (256; of a 2D generator, its own)")  # fmt: skip
    add("--ray_step_multiplier", type=positive,
        help="samples per ray, as a multiple of those in training (2)")  # fmt: skip
    add("--max_batch_size", type=positive, default=2_400_000,
        help="field points computed at once; less takes less memory (2400000)")  # fmt: skip
    add("--lock_view_dependence", action="store_true", help="colours as seen from the front")
    add_exact(parser)
    add_proposal(parser)
    add_precision(parser, "a field's matrix products")
    add_compile(parser)
    add("--ema", default="ema.pth", help="average of the weights to use, or 'none' (ema.pth)")
    add("--curriculum", help="cameras and settings of another curriculum than the checkpoint's")
    add_device(parser)
    group = parser.add_argument_group("some generators only")
    add = group.add_argument
    add("--truncation_cutoff", type=positive, metavar="N",
        help="truncate only the first N layers' styles (StyleGAN)")  # fmt: skip
    add(
        "--class",
        dest="label",
        type=int,
        metavar="N",
        help="the class to show, from 0 (each seed has its own)",
    )
    add("--noise_mode", choices=NOISE_MODES,
        help="noise in the layers (StyleGAN2): each layer's own picture, drawn by seed, or none"
        " (const)")  # fmt: skip
    add("--translate", type=_pair, metavar="X,Y",
        help="move the picture by so many widths (StyleGAN3): --translate=-0.2,0")  # fmt: skip
    add("--rotate", type=float, metavar="DEG",
        help="turn the picture by so many degrees (StyleGAN3)")  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A trained generator and the stage of its curriculum that it was saved in."""

    generator: Generator
    stage: Stage

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return self.generator.w_avg.device

    @property
    def is_radiance(self) -> bool:
        """Whether pictures are renderings of a field, which has depth, normals and opacity."""
        return isinstance(self.generator, RadianceGenerator)

    def settings(self, args: argparse.Namespace) -> RenderSettings:
        """What the flags of `add_model` say about pictures; deterministic."""
        return self.stage.eval_settings(
            resolution=args.image_size or self.generator.resolution or IMAGE_SIZE,
            num_steps=self.stage.num_steps * (args.ray_step_multiplier or RAY_STEP_MULTIPLIER),
            lock_view_dependence=args.lock_view_dependence,
            max_batch_size=args.max_batch_size,
        )

    def front(self) -> Cameras:
        """The camera in the middle of the pose law."""
        stage = self.stage
        yaw = torch.tensor([stage.h_mean])
        return Cameras.from_angles(yaw, front_pitch(stage), stage.fov, stage.radius).to(self.device)

    def styles(self, args: argparse.Namespace) -> list[tuple[str, Tensor]]:
        """The styles (1, ...) that the flags ask for, each with its files' name."""
        return named_styles(
            self.generator,
            flatten(args.seeds),
            latent=args.latent,
            psi=args.psi,
            cutoff=args.truncation_cutoff,
            z_dist=self.stage.z_dist,
            label=args.label,
            camera=self.front(),
        )

    def scene(self, w: Tensor, args: argparse.Namespace, name: str = "") -> Scene:
        """The scene of a style (1, ...); random noise in it is drawn by its name."""
        options = synthesis_options(self.generator, args)
        if options.get("noise_mode") == "random":
            seed = zlib.crc32(name.encode())
            options["generator"] = torch.Generator(self.device).manual_seed(seed)
        return Scene(
            self.generator,
            w,
            options=options,
            exact=args.exact,
            proposal=args.proposal,
            dtype=DTYPES[args.precision],
        )


def open_model(args: argparse.Namespace) -> Model:
    """Load what the flags of `add_model` name; every mistake in them is a ValueError."""
    generator, curriculum = load_generator(
        args.path, args.device, None if args.ema == "none" else args.ema
    )
    if args.curriculum:
        curriculum = find_curriculum(args.curriculum)
    model = Model(generator, stage_at(curriculum, checkpoint_step(args.path)))
    size = generator.resolution
    if size is not None and args.image_size not in (None, size):
        raise ValueError(f"--image_size: this generator's pictures have {size} pixels a side")
    if args.compile:
        generator.compile_field()
    if DTYPES[args.precision] is not None and not model.is_radiance:
        raise ValueError("--precision: a 2D generator chooses its own")
    if args.proposal and not model.is_radiance:
        raise ValueError("--proposal: a 2D generator has no samples along rays")
    if args.proposal and args.exact:
        raise ValueError("--proposal leaves out samples, which --exact forbids: give one of them")
    if args.proposal and args.ray_step_multiplier:
        raise ValueError("--proposal takes the place of --ray_step_multiplier: give one of them")
    if not math.isfinite(args.psi):
        raise ValueError(f"--psi must be finite, got {args.psi}")
    synthesis_options(generator, args)
    check_label(generator, args.label)
    return model


def synthesis_options(generator: Generator, args: argparse.Namespace) -> dict[str, Any]:
    """Arguments that only some generators' synthesis has; refused where it lacks them."""
    known: Mapping[str, Any] = inspect.signature(generator.synthesis).parameters
    moved = args.translate is not None or args.rotate is not None
    flag = "--translate" if args.translate is not None else "--rotate"
    asked = {
        "noise_mode": ("--noise_mode", args.noise_mode is not None),
        "transform": (flag, moved),
    }
    for option, (name, given) in asked.items():
        if given and option not in known:
            raise ValueError(f"{name}: a {type(generator).__name__} cannot do that")
    options: dict[str, Any] = {}
    if args.noise_mode is not None:
        options["noise_mode"] = args.noise_mode
    if moved:
        options["transform"] = input_transform(args.translate or (0.0, 0.0), args.rotate or 0.0)
    return options


def _pair(text: str) -> tuple[float, float]:
    """Two numbers with a comma between."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise argparse.ArgumentTypeError(f"must be two numbers X,Y, got {text!r}")
    return x, y

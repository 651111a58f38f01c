"""Who plays a step, and with what: both networks, drawn latents, real pictures, the moment.

What is random comes in from outside (latents, cameras and mixed styles as `Draw`s, generators for
the pictures' randomness and the augmentation's), so that a step is a function of its arguments.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from discriminators.base import Discriminator, Judgement
from generators import Generator
from ops.shapes import Float
from rendering.cameras import Cameras, Patch
from rendering.settings import RenderSettings
from stages import Stage
from training import diffaugment
from training.adaptive import AdaptiveControl
from training.augment import AugmentPipe
from training.distributed import World
from training.regularizers import blur, blur_sigma, mix_styles


@dataclass(frozen=True)
class Draw:
    """What one chunk of fakes is made of.

    `other` and `cutoff` mix a second latent's style in; `patch` is the window that is rendered;
    `told` are the cameras that the generator believes in, None where these are the true ones.
    """

    z: Float[Tensor, "batch latent"]
    cameras: Cameras
    label: Tensor | None = None
    other: Float[Tensor, "batch latent"] | None = None
    cutoff: int = 0
    patch: Patch | None = None
    told: Cameras | None = None

    def first(self, count: int) -> "Draw":
        """The first few of a chunk."""
        values = {
            f.name: None if (value := getattr(self, f.name)) is None else value[:count]
            for f in fields(self)
            if f.name != "cutoff"
        }
        return Draw(**values, cutoff=self.cutoff)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Moment:
    """What a step needs to know of the curriculum: the stage, the step, fade-in, settings."""

    stage: Stage
    step: int
    alpha: float
    settings: RenderSettings
    images_seen: int = 0  # reals shown before this step, by all processes

    @property
    def blur_sigma(self) -> float:
        """By how many pixels what the discriminator sees is blurred."""
        return blur_sigma(self.images_seen, self.stage.blur_init_sigma, self.stage.blur_fade_kimg)


@dataclass
class Players:
    """Both networks with their optimisers, and the precision that they compute in.

    `rng` feeds the pictures' randomness and lives on their device, `chance` feeds the augmentation
    and lives on the CPU. `path_length_mean` is what path lengths are compared with.
    """

    generator: Generator
    discriminator: Discriminator
    optimizer_g: Adam
    optimizer_d: Adam
    scaler: torch.amp.GradScaler
    world: World
    rng: torch.Generator
    dtype: torch.dtype = torch.float32
    augment: AugmentPipe | None = None
    control: AdaptiveControl | None = None
    chance: torch.Generator | None = None
    path_length_mean: Tensor = field(default_factory=lambda: torch.zeros(()))

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for a forward pass, or nothing in fp32."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.world.device.type, dtype=self.dtype, enabled=enabled)

    def styles(self, draw: Draw, *, track: bool = False) -> Tensor:
        """Styles of a draw; `track` moves the generator's running averages, by its own alone."""
        told = draw.cameras if draw.told is None else draw.told
        with self.autocast():
            with self.generator.tracking() if track else nullcontext():
                w = self.generator.mapping(draw.z, draw.label, told)
            if draw.other is None:
                return w
            other = self.generator.mapping(draw.other, draw.label, told)
            return mix_styles(w, other, draw.cutoff)

    def pictures(self, w: Tensor, draw: Draw, moment: Moment) -> Tensor:
        """Pictures of styles, in training's settings."""
        with self.autocast():
            made = self.generator.synthesis(
                w, draw.cameras, moment.settings, patch=draw.patch, generator=self.rng
            )
        return made.image

    def fakes(self, draw: Draw, moment: Moment, *, track: bool = False) -> Tensor:
        """Pictures of a draw, in training's settings."""
        w = self.styles(draw, track=track)
        with self.generator.tracking() if track else nullcontext():
            return self.pictures(w, draw, moment)

    def judge(
        self, images: Tensor, moment: Moment, facts: "Draw | Reals | None" = None
    ) -> Judgement:
        """What the discriminator says of pictures, seen through blur and augmentation.

        `facts` are what it is told about them: cameras, labels, windows.
        """
        images = blur(images, moment.blur_sigma)
        if self.augment is not None:
            images = self.augment(images, self.chance)
        policies = moment.stage.diffaugment
        draws = diffaugment.draw(policies, images.shape, self.chance)
        images = diffaugment.diff_augment(images, policies, draws)
        with self.autocast():
            if facts is None:
                return self.discriminator(images, moment.alpha)
            return self.discriminator(
                images, moment.alpha, facts.cameras, facts.label, patch=facts.patch
            )


@dataclass(frozen=True)
class Reals:
    """Real pictures, or windows of them, with what is known of them."""

    images: Float[Tensor, "batch 3 size size"]
    cameras: Cameras | None = None
    label: Tensor | None = None
    patch: Patch | None = None

    def chunks(self, count: int) -> list["Reals"]:
        """Equal parts, in order."""
        size = len(self.images) // count
        parts = [slice(i * size, (i + 1) * size) for i in range(count)]
        return [
            Reals(
                self.images[part],
                None if self.cameras is None else self.cameras[part],
                None if self.label is None else self.label[part],
                None if self.patch is None else self.patch[part],
            )
            for part in parts
        ]

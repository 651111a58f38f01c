"""A generator's pictures by number, to be measured: each depends on its own number alone.

So a set of them is the same whatever the batch and however many processes make it. Latents, class,
camera and noise of number n all come from one random generator seeded by `seed` + n; cameras follow
the evaluation pose law or are the data's own, classes those of a data set. Nothing is truncated.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generators import Generator
from inference.media import quantize
from inference.views import draw_latent
from ops.shapes import Float, Int, UInt8
from rendering.cameras import Cameras
from rendering.empirical_poses import EmpiricalPoses
from rendering.settings import RenderSettings
from stages import Stage


@dataclass(frozen=True)
class Draw:
    """What a batch of pictures is made of; `rngs` feed whatever else is random in each."""

    z: Float[Tensor, "batch latent"]
    label: Int[Tensor, " batch"] | None
    cameras: Cameras
    rngs: Sequence[torch.Generator]


class Samples:
    """Numbered pictures of a generator, on its device."""

    def __init__(
        self,
        generator: Generator,
        stage: Stage,
        *,
        seed: int = 0,  # number n is drawn from seed + n
        labels: Tensor | None = None,  # the data set's, to be drawn from; None: all classes alike
        poses: EmpiricalPoses | None = None,  # the data set's cameras; None: the pose law's
        settings: RenderSettings | None = None,  # None: the stage's for evaluation
    ) -> None:
        self.generator, self.stage, self.seed = generator, stage, seed
        self.settings = stage.eval_settings() if settings is None else settings
        self._known = inspect.signature(generator.synthesis).parameters  # what it can be told
        self._law, self._poses = stage.pose_law(evaluation=True), poses
        classes = getattr(generator, "label_dim", 0)
        self._labels = labels if labels is not None else torch.arange(classes)
        self._conditional = classes > 0
        if self._conditional and int(self._labels.max()) >= classes:
            raise ValueError(
                f"the data set has class {int(self._labels.max())}, and this "
                f"{type(generator).__name__} knows classes 0 to {classes - 1}"
            )

    def draw(self, numbers: Sequence[int], device: torch.device | str = "cpu") -> Draw:
        """Everything random of these pictures."""
        rngs = [torch.Generator().manual_seed(self.seed + n) for n in numbers]
        latent_dim = self.generator.latent_dim
        z = torch.stack([draw_latent(rng, latent_dim, self.stage.z_dist) for rng in rngs])
        drawn = [self._camera(rng) for rng in rngs]
        cameras = Cameras.cat([camera for camera, _ in drawn])
        label = None
        if self._conditional:
            picked = torch.cat([index for _, index in drawn])
            label = self._labels[picked].to(device)
        return Draw(z.to(device), label, cameras.to(device), rngs)

    def _camera(self, rng: torch.Generator) -> tuple[Cameras, Int[Tensor, " one"]]:
        """A camera, and whose label goes with it: of the data's cameras, its own picture's."""
        if self._poses is not None:
            index, flip = self._poses.draw(1, rng)
            return self._poses.at(index, flip), index
        camera = Cameras.sample(self._law, 1, rng)
        return camera, torch.randint(max(len(self._labels), 1), (1,), generator=rng)

    @torch.no_grad()
    def pictures(
        self, numbers: Sequence[int], device: torch.device | str = "cpu"
    ) -> UInt8[Tensor, "batch 3 height width"]:
        """The pictures as bytes, where the generator is; grey ones get three equal channels."""
        draw = self.draw(numbers, device)
        w = self.generator.mapping(draw.z, draw.label, draw.cameras)
        images = quantize(self._synthesis(w, draw))
        return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images

    def _synthesis(self, w: Tensor, draw: Draw) -> Tensor:
        generator: Any = self.generator
        options: dict[str, Any] = {}
        if "noise" in self._known:
            per_image = [generator.noise("random", 1, rng) for rng in draw.rngs]
            if None not in per_image:
                options["noise"] = [torch.cat(layer) for layer in zip(*per_image, strict=True)]
        return generator.synthesis(w, draw.cameras, self.settings, **options).image

    # ---- along paths and under motion

    def still(self, w: Tensor, cameras: Cameras) -> Tensor:
        """Pictures in [-1, 1] of styles in full precision, with each layer's own noise picture."""
        generator: Any = self.generator
        options = {"force_fp32": True} if "force_fp32" in self._known else {}
        return generator.synthesis(w, cameras, self.settings, **options).image

    def redraw_noise(self, rng: torch.Generator) -> None:
        """Give the layers that keep a noise picture another one."""
        for name, buffer in self.generator.named_buffers():
            if name.endswith("noise_const"):
                buffer.copy_(torch.randn(buffer.shape, generator=rng))

    def moved(self, w: Tensor, transform: Float[Tensor, "3 3"]) -> Tensor:
        """Pictures in [-1, 1] under a transform of the generator's input plane."""
        generator: Any = self.generator
        if "transform" not in self._known:
            raise ValueError(
                "equivariance is measured by moving a generator's input plane, which StyleGAN3 "
                f"has and {type(self.generator).__name__} has not"
            )
        settings = self.settings
        return generator.synthesis(w, None, settings, transform=transform, force_fp32=True).image

"""What a step is made of: latents, cameras, labels, mixed styles and windows, drawn anew."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from generators import Generator
from generators.style import StyleGenerator
from ops.shapes import Float
from rendering.cameras import Cameras, Patch
from rendering.empirical_poses import EmpiricalPoses
from stages import Stage
from training.patches import PatchLaw, anneal, cut_patches
from training.players import Draw, Reals
from training.poses import spoofed
from training.random import Streams
from training.regularizers import mixing_cutoff


@dataclass(frozen=True)
class Sampler:
    """Draws everything that a stage asks for, each kind from the stream of its purpose.

    `labels` and `poses` are the data's, of which the fakes' are drawn; `group_size` is how many
    pictures of a chunk the discriminator compares: they share a window.
    """

    stage: Stage
    generator: Generator
    streams: Streams
    labels: Tensor | None = None
    poses: EmpiricalPoses | None = None
    group_size: int = 1

    @property
    def size(self) -> int:
        """Pictures in a chunk."""
        return self.stage.batch_size // self.stage.batch_split

    def fakes(self, images_seen: int) -> list[Draw]:
        """A draw per chunk of the batch."""
        draws = [self._draw(images_seen) for _ in range(self.stage.batch_split)]
        return draws if self.stage.spoof_p == 0 else self._spoof(draws, images_seen)

    def windows(self, reals: Reals, images_seen: int) -> Reals:
        """Real pictures, or where the stage looks at windows, these, with fresh ones per chunk."""
        stage = self.stage
        if stage.patch_size is None:
            return reals
        parts = [self._patch(images_seen) for _ in range(stage.batch_split)]
        patch = Patch(torch.cat([p.scale for p in parts]), torch.cat([p.offset for p in parts]))
        return replace(
            reals, images=cut_patches(reals.images, patch, stage.patch_size), patch=patch
        )

    def cameras_at(self, angles: Float[Tensor, "batch 3"]) -> Cameras:
        """Cameras of real pictures' yaw, pitch, roll.

        Where fakes' are drawn from a law about h_mean, yaws lie within half a turn of it: a
        discriminator that sees angles could tell 4.3 from -2.0, though the view is the same.
        """
        stage = self.stage
        yaw, pitch, roll = angles.unbind(-1)
        if self.poses is None:
            yaw = yaw - math.tau * ((yaw - stage.h_mean) / math.tau).round()
        return Cameras.from_angles(yaw, pitch, stage.fov, stage.radius, roll)

    def _draw(self, images_seen: int) -> Draw:
        stage, streams = self.stage, self.streams
        z = self._latents()
        label, other, cutoff = None, None, 0
        if self.poses is not None:  # a camera and its picture's label come together
            indices, flips = self.poses.draw(self.size, streams.poses)
            cameras = self.poses.at(indices, flips)
        else:
            cameras = Cameras.sample(stage.pose_law(), self.size, streams.poses)
            indices = None
        if stage.label_dim:
            assert self.labels is not None
            if indices is None:
                indices = torch.randint(len(self.labels), (self.size,), generator=streams.chance)
            label = self.labels[indices.cpu()].to(z.device)
        if stage.style_mixing > 0:
            assert isinstance(self.generator, StyleGenerator)
            num_ws = self.generator.num_ws
            cutoff = mixing_cutoff(num_ws, stage.style_mixing, streams.chance)
            other = self._latents() if cutoff < num_ws else None
        patch = None if stage.patch_size is None else self._patch(images_seen)
        return Draw(z, cameras, label, other, cutoff, patch)

    def _latents(self) -> Tensor:
        stage, rng = self.stage, self.streams.latents
        if stage.z_dist == "uniform":
            return 2 * torch.rand(self.size, stage.latent_dim, generator=rng, device=rng.device) - 1
        return torch.randn(self.size, stage.latent_dim, generator=rng, device=rng.device)

    def _patch(self, images_seen: int) -> Patch:
        patch = make_patch_law(self.stage).sample(
            self.size, images_seen / 1000, group_size=self.group_size, generator=self.streams.chance
        )
        device = self.streams.latents.device
        return Patch(patch.scale.to(device), patch.offset.to(device))

    def _spoof(self, draws: list[Draw], images_seen: int) -> list[Draw]:
        """Tell the generator another picture's camera now and then, less and less often."""
        stage = self.stage
        p = anneal(images_seen / 1000, 1.0, stage.spoof_p, stage.spoof_kimg)
        cameras = Cameras.cat([draw.cameras for draw in draws])
        told = spoofed(cameras, p, torch.rand(len(cameras), generator=self.streams.chance))
        size = self.size
        return [replace(d, told=told[i * size : (i + 1) * size]) for i, d in enumerate(draws)]


def make_patch_law(stage: Stage) -> PatchLaw:
    """The law that a stage's windows follow; at most every pixel is seen, at least once."""
    assert stage.patch_size is not None
    try:
        return PatchLaw(**{"min_scale": stage.patch_size / stage.img_size, **stage.patch_options})
    except TypeError as error:
        raise ValueError(f"patch_options: {error} (stage {stage.start})") from error

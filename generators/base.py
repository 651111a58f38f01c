"""The contract of every generator.

`mapping` turns latents into styles w, `synthesis` styles and cameras into pictures; the base owns
truncation and its stored average. A radiance generator offers `field(w)` in place of `synthesis`
and never casts a ray.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ops.registry import Registry
from ops.shapes import Float
from rendering.cameras import Cameras, Patch
from rendering.renderer import Field, Rendering, render
from rendering.settings import RenderSettings

GENERATORS: Registry[type["Generator"]] = Registry("generator")

AVERAGE_SEED, AVERAGE_SAMPLES, AVERAGE_BATCH = 0, 10_000, 1_000
CLASS_SAMPLES = 256  # latents whose mean style is a class's average


class Generator(nn.Module, ABC):
    """Latent to picture.

    `latent_dim` numbers in z; `label_dim` classes, 0 for none. `w_avg` is the mean style that
    truncation pulls towards, refreshed by `update_w_avg` whenever weights are stored. `resolution`
    is the side of its pictures where the network fixes it, None where the settings choose it.
    `sees_cameras` says whether another camera is another picture; `truncates_by_class`, whether
    scripts truncate a picture towards its own class's average.
    """

    resolution: int | None = None
    sees_cameras: bool = False
    truncates_by_class: bool = False
    w_avg: Tensor

    def __init__(self, *, latent_dim: int, w_shape: tuple[int, ...], label_dim: int = 0) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.label_dim = label_dim
        self.register_buffer("w_avg", torch.zeros(w_shape))

    @abstractmethod
    def style(
        self, z: Float[Tensor, "batch latent"], label: Tensor | None, cameras: Cameras | None
    ) -> Tensor:
        """Styles without truncation."""

    @abstractmethod
    def synthesis(
        self,
        w: Tensor,
        cameras: Cameras,
        settings: RenderSettings,
        *,
        patch: Patch | None = None,
        generator: torch.Generator | None = None,
    ) -> Rendering:
        """Pictures in [-1, 1] of styles `w`; `generator` feeds whatever is random in them."""

    def mapping(
        self,
        z: Float[Tensor, "batch latent"],
        label: Tensor | None = None,
        cameras: Cameras | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Styles of latents, truncated towards `w_avg` as `truncated` says."""
        return self.truncated(self.style(z, label, cameras), self.w_avg, psi, cutoff)

    def truncated(
        self, w: Tensor, average: Tensor, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """Styles pulled towards the average of all or of each: average + psi (w - average).

        `cutoff` truncates only the first so many slots of a style that has a slot per layer.
        """
        if psi == 1:
            return w
        truncated = torch.lerp(average.expand_as(w), w, psi)
        if cutoff is None:
            return truncated
        if w.ndim < 3:
            raise ValueError(
                f"cutoff needs a style per layer; {type(self).__name__} has one for all layers"
            )
        return torch.cat([truncated[:, :cutoff], w[:, cutoff:]], dim=1)

    def forward(
        self,
        z: Float[Tensor, "batch latent"],
        cameras: Cameras,
        settings: RenderSettings,
        label: Tensor | None = None,
    ) -> Rendering:
        """Pictures of latents, without truncation."""
        return self.synthesis(self.mapping(z, label, cameras), cameras, settings)

    @torch.no_grad()
    def update_w_avg(self) -> None:
        """Store the mean style of 10,000 latents that are the same on every call.

        Classes take turns.
        """
        rng = torch.Generator().manual_seed(AVERAGE_SEED)
        total = torch.zeros_like(self.w_avg)
        label = None
        if self.label_dim:
            label = torch.arange(AVERAGE_BATCH, device=total.device) % self.label_dim
        for _ in range(AVERAGE_SAMPLES // AVERAGE_BATCH):
            z = torch.randn(AVERAGE_BATCH, self.latent_dim, generator=rng).to(self.w_avg)
            total += self.style(z, label, None).mean(0)
        self.w_avg.copy_(total / (AVERAGE_SAMPLES // AVERAGE_BATCH))

    @torch.no_grad()
    def class_average(self, label: Tensor, cameras: Cameras | None = None) -> Tensor:
        """The mean style of each label: of 256 latents that are the same on every call."""
        rng = torch.Generator().manual_seed(AVERAGE_SEED)
        z = torch.randn(CLASS_SAMPLES, self.latent_dim, generator=rng).to(self.w_avg)
        means = []
        for i in range(len(label)):
            own = label[i : i + 1].expand(CLASS_SAMPLES, *label.shape[1:])
            seen = None if cameras is None else Cameras.cat([cameras[i]] * CLASS_SAMPLES)
            means.append(self.style(z, own, seen).mean(0))
        return torch.stack(means)

    def tracking(self) -> AbstractContextManager[None]:
        """Within, pictures also move averages that a generator keeps over what training sees."""
        return nullcontext()

    def allow_second_derivatives(self) -> None:
        """Give up fast paths whose gradients have none: for regularisers of gradients."""

    def compile_field(self) -> None:
        """Let a compiler make pictures faster; ValueError where nothing is to be compiled."""
        raise ValueError(f"a {type(self).__name__} has nothing to compile (--compile)")

    def adapted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the class that this one extends, made to fit; a hook for transfer."""
        return dict(weights)

    def mapping_parameters(self) -> list[nn.Parameter]:
        """The mapping network's own parameters, which `unique_lr` trains more slowly."""
        return []


class RadianceGenerator(Generator):
    """A generator whose pictures are renderings of a field.

    `bounds_radiance` says whether its field cannot leave the range of pictures; `half_side` is half
    the side of the cube around the origin that its scenes fill, None for no limit.
    """

    bounds_radiance: bool = True
    half_side: float | None = None
    sees_cameras = True

    @abstractmethod
    def field(self, w: Tensor) -> Field:
        """The scenes of styles `w`; whatever they share over points is computed here, once."""

    def drawn_field(
        self, w: Tensor, settings: RenderSettings, generator: torch.Generator | None
    ) -> Field:
        """The scenes of styles with whatever is random in them; a hook for noise."""
        return self.field(w)

    def to_image(self, radiance: Tensor) -> Tensor:
        """Bring composited radiance from the field's range to [-1, 1]."""
        return 2 * radiance - 1

    def synthesis(
        self,
        w: Tensor,
        cameras: Cameras,
        settings: RenderSettings,
        *,
        patch: Patch | None = None,
        generator: torch.Generator | None = None,
    ) -> Rendering:
        """Pictures in [-1, 1] of styles `w`, with depth and opacity."""
        field = self.drawn_field(w, settings, generator)
        raw = render(field, cameras, settings, patch=patch, generator=generator)
        return Rendering(self.to_image(raw.image), raw.depth, raw.opacity)

"""One style, seen as often as wanted: what it needs to be seen is computed once."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from generators import Generator
from generators.base import RadianceGenerator
from rendering.cameras import Cameras
from rendering.proposal import Proposal
from rendering.renderer import Rendering, render
from rendering.settings import RenderSettings
from rendering.skip import Occupancy, farthest, find_occupancy

SPARE = 1.1  # empty space is looked for somewhat further than a camera sees: the next may zoom out


class Scene:
    """A generator's scene of one style (1, ...): videos, strips and the viewer look at it.

    Of a radiance generator the field is built once, for all pictures, and empty space is found
    once and then left out, unless pictures shall be `exact`. It is sought wherever a camera like
    the first, turned about the origin, could see, and anew for cameras that see further. With
    `proposal`, no more than so many samples lie on a ray, placed by a grid of the density
    (rendering/proposal.py). A 2D generator makes each picture from the style and the camera, and
    from `options`, arguments of its own synthesis.
    """

    occupancy: Occupancy | None = None

    @torch.no_grad()
    def __init__(
        self,
        generator: Generator,
        w: Tensor,
        *,
        options: Mapping[str, Any] | None = None,
        exact: bool = False,
        proposal: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if len(w) != 1:
            raise ValueError(f"a scene has one style, got {len(w)}")
        self.generator, self.w, self.exact, self.dtype = generator, w, exact, dtype
        self.options = dict(options or {})
        self.field = generator.field(w) if isinstance(generator, RadianceGenerator) else None
        if proposal is not None and (exact or self.field is None):
            why = "exact pictures need all samples" if exact else "a 2D generator has no samples"
            raise ValueError(f"{why}: proposal must be None, got {proposal!r}")
        self.proposal = None if proposal is None else Proposal(proposal)

    @torch.no_grad()
    def look(self, camera: Cameras, settings: RenderSettings) -> Rendering:
        """The picture (1, ...) that a camera takes."""
        if self.field is None:
            return self.generator.synthesis(self.w, camera, settings, **self.options)
        assert isinstance(self.generator, RadianceGenerator)
        with torch.autocast(self.w.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            raw = render(
                self.field,
                camera,
                settings,
                occupancy=self._known(camera, settings),
                proposal=self.proposal,
            )
        return Rendering(self.generator.to_image(raw.image), raw.depth, raw.opacity)

    def _known(self, camera: Cameras, settings: RenderSettings) -> Occupancy | None:
        """What to know of empty space for a picture; None where nothing may be left out."""
        if self.exact or self.proposal or settings.noise_std or self.field is None:
            return None
        if self.occupancy is None or not self.occupancy.holds(camera, settings):
            self.find_occupancy(camera, settings)
        return self.occupancy

    def find_occupancy(self, camera: Cameras, settings: RenderSettings) -> None:
        """Look for empty space, as `look` does where what is known is not enough."""
        assert self.field is not None
        reach = SPARE * farthest(camera, settings)
        self.occupancy = find_occupancy(self.field, reach, settings, camera.cam2world.device)

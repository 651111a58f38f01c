"""One style, seen as often as wanted: what it needs to be seen is computed once."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from generators import Generator
from generators.base import RadianceGenerator
from rendering.cameras import Cameras
from rendering.renderer import Rendering, render
from rendering.settings import RenderSettings


class Scene:
    """A generator's scene of one style (1, ...): videos, strips and the viewer look at it.

    Of a radiance generator the field is built once, for all pictures; a 2D generator makes each
    picture from the style and the camera, and from `options`, arguments of its own synthesis.
    """

    @torch.no_grad()
    def __init__(
        self, generator: Generator, w: Tensor, *, options: Mapping[str, Any] | None = None
    ) -> None:
        if len(w) != 1:
            raise ValueError(f"a scene has one style, got {len(w)}")
        self.generator, self.w = generator, w
        self.options = dict(options or {})
        self.field = generator.field(w) if isinstance(generator, RadianceGenerator) else None

    @torch.no_grad()
    def look(self, camera: Cameras, settings: RenderSettings) -> Rendering:
        """The picture (1, ...) that a camera takes."""
        if self.field is None:
            return self.generator.synthesis(self.w, camera, settings, **self.options)
        assert isinstance(self.generator, RadianceGenerator)
        raw = render(self.field, camera, settings)
        return Rendering(self.generator.to_image(raw.image), raw.depth, raw.opacity)

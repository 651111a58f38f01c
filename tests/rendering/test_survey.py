"""What cameras find out about a shape whose surface is known."""

import math

import pytest
import torch
from analytic_shapes import SolidField, ball
from oracles import BallField

from rendering.cameras import Cameras
from rendering.grid import Density, FieldDensity
from rendering.settings import PoseLaw, RenderSettings
from rendering.survey import enclosing_cube, surface_level, survey

SETTINGS = RenderSettings(8, 12, 0.5, 1.5, jitter=False)
LAW = PoseLaw("uniform", math.pi / 2, math.pi, math.pi / 2, 0.5, 50.0)
CAMERAS = Cameras.sample(LAW, 16, torch.Generator().manual_seed(0))


def constant(density: float) -> Density:
    return lambda points: torch.full_like(points[:, 0], density)


@pytest.mark.parametrize("radius", [0.1, 0.3])
def test_the_cube_holds_what_is_opaque_and_little_more(radius: float) -> None:
    seen = survey(FieldDensity(BallField(radius)), CAMERAS, SETTINGS)
    assert 2 * radius < enclosing_cube(seen) < 2 * radius + 0.3


def test_rays_end_where_half_of_the_light_is_gone() -> None:
    """In fog of density 2, that is ln 2 / 2 behind the first sample."""
    seen = survey(constant(2.0), CAMERAS[0], SETTINGS, samples=400)
    assert seen.half.shape == (144,)
    torch.testing.assert_close(
        seen.half, torch.full((144,), 0.5 + math.log(2) / 2), atol=3e-3, rtol=0
    )


def test_the_level_is_where_pictures_show_the_surface() -> None:
    """Density rises by 200 per unit of depth: straight in, light is half gone where d^2 = ln2/100.

    A level set at that depth all round is too small a silhouette: rays that graze the ball pass
    more of it. What both say lies between the border and that depth.
    """
    field = SolidField(ball((0.0, 0.0, 0.0), 0.3), slope=200.0)
    level = surface_level(survey(FieldDensity(field), CAMERAS, SETTINGS), SETTINGS)
    assert 0 < level < 200 * math.sqrt(math.log(2) / 100)
    opaque = SolidField(ball((0.0, 0.0, 0.0), 0.3), slope=1e5)
    seen = survey(FieldDensity(opaque), CAMERAS, SETTINGS)
    assert abs(surface_level(seen, SETTINGS)) < 1e5 * 0.02  # within 0.02 of the surface


def test_fog_too_thin_to_be_opaque_has_a_level_and_a_cube_nevertheless() -> None:
    field = SolidField(ball((0.0, 0.0, 0.0), 0.3), slope=0.5)
    seen = survey(FieldDensity(field), CAMERAS, SETTINGS)
    assert seen.half.isinf().all()
    level = surface_level(seen, SETTINGS)
    assert 0 < level < 0.15, "inside the ball"
    ends = enclosing_cube(seen)
    assert ends > 1.0, "all that rays run through"


def test_emptiness_beyond_a_bound_does_not_decide_the_level_of_fog() -> None:
    def field(points: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distance = points.norm(dim=-1, keepdim=True)
        return points, torch.where(distance > 0.4, -1e5, 0.3 - distance)

    level = surface_level(survey(FieldDensity(field), CAMERAS, SETTINGS), SETTINGS)
    assert -0.1 < level < 0.3


def test_a_constant_has_no_surface() -> None:
    seen = survey(constant(0.5), CAMERAS, SETTINGS)
    with pytest.raises(ValueError, match="no surface: the density is 0.5 everywhere"):
        surface_level(seen, SETTINGS)

"""How snow figures vary: from random numbers to the solids and colours of their parts.

Lengths are world units, y is up, figures look along +z. Snowballs and hat are laid out in units of
the belly's radius and scaled to the figure's height; the small parts (eyes, nose, scarf, arms) keep
absolute thicknesses, so that pictures of 32 x 32 pixels show them on the slimmest figure too.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ops.shapes import Float

FIGURE_RADIUS = 0.42  # no part leaves this ball around the origin
DRAWS = 48  # numbers that a figure may use; spare ones leave room for new traits
OVERLAP = 0.7  # distance of neighbouring snowballs, in units of the sum of their radii
BRIM_AT = 0.62  # height of the brim above the head's centre, in units of the head's radius


class Traits:
    """Deals out a figure's random numbers, one per trait, in the order of asking."""

    def __init__(self, numbers: Float[Tensor, "batch draws"]) -> None:
        """`numbers` are uniform in [0, 1)."""
        self._columns = iter(numbers.unbind(1))

    def between(self, low: float | Tensor, high: float | Tensor) -> Float[Tensor, " batch"]:
        """A trait spread evenly over an interval."""
        return low + (high - low) * next(self._columns)

    def angle(self, low: float, high: float) -> Float[Tensor, " batch"]:
        """Likewise an angle: limits in degrees, result in radians."""
        return torch.deg2rad(self.between(low, high))

    def coin(self) -> Tensor:
        """True for half of the figures."""
        return next(self._columns) < 0.5


@dataclass(frozen=True)
class Skeleton:
    """Heights and radii of snowballs and hat; `upper` is the ball below the head."""

    belly: Tensor  # (batch, 2): height of the centre, radius
    chest: Tensor  # hidden in the belly where a figure has two snowballs only
    upper: Tensor
    head: Tensor
    brim_height: Tensor  # (batch,)
    top: Tensor

    @classmethod
    def sample(cls, traits: Traits) -> "Skeleton":
        """Stack the balls and the hat, then scale to the figure's height around the origin."""
        three = traits.coin()
        chest = torch.where(three, traits.between(0.72, 0.88), 0.5)
        belly = torch.ones_like(chest)
        upper = torch.where(three, chest, belly)
        head = torch.where(three, traits.between(0.72, 0.86), traits.between(0.62, 0.94))
        upper_at = belly + torch.where(three, OVERLAP * (belly + chest), 0)
        head_at = upper_at + OVERLAP * (upper + head)
        brim = head_at + BRIM_AT * head
        top = brim + traits.between(0.55, 1.5) * head

        height = traits.between(0.66, 0.78)
        scale = height / top

        def place(at: Tensor, radius: Tensor) -> Tensor:
            return torch.stack([at * scale - height / 2, radius * scale], dim=-1)

        return cls(
            belly=place(belly, belly),
            chest=place(torch.where(three, upper_at, belly), chest),
            upper=place(upper_at, upper),
            head=place(head_at, head),
            brim_height=brim * scale - height / 2,
            top=height / 2,
        )

    @property
    def neck(self) -> Float[Tensor, "batch 2"]:
        """Height and radius of the circle in which head and upper ball meet."""
        (low, below), (high, above) = self.upper.unbind(-1), self.head.unbind(-1)
        gap = high - low
        rise = (gap * gap + below * below - above * above) / (2 * gap)
        return torch.stack([low + rise, (below * below - rise * rise).sqrt()], dim=-1)


def snowballs(skeleton: Skeleton) -> list[Float[Tensor, "batch 4"]]:
    """Belly, chest and head."""
    parts = (skeleton.belly, skeleton.chest, skeleton.head)
    return [_solid(0.0, at, 0.0, radius) for at, radius in (p.unbind(-1) for p in parts)]


def coal(skeleton: Skeleton, traits: Traits) -> list[Float[Tensor, "batch 4"]]:
    """Two eyes and two buttons, each a ball half sunk into the snow."""
    apart, size = traits.angle(27, 38), traits.between(0.026, 0.033)
    up = torch.full_like(apart, math.radians(12))
    eyes = [_on_ball(skeleton.head, side * apart, up, 0.97) for side in (-1, 1)]
    middle = torch.zeros_like(apart)
    chestless = skeleton.upper[:, 0] == skeleton.belly[:, 0]  # both buttons on the belly
    high, low = torch.where(chestless, 8, 0), torch.where(chestless, -24, 8)
    buttons = [
        _on_ball(skeleton.upper, middle, torch.deg2rad(high.to(apart)), 0.98),
        _on_ball(skeleton.belly, middle, torch.deg2rad(low.to(apart)), 0.98),
    ]
    return [torch.cat([c, size[:, None]], dim=-1) for c in eyes + buttons]


def nose(skeleton: Skeleton, traits: Traits) -> Float[Tensor, "batch 8"]:
    """A carrot that points ahead."""
    at, radius = skeleton.head.unbind(-1)
    at = at - 0.12 * radius
    thick, tip = traits.between(0.036, 0.046), radius + traits.between(0.09, 0.16)
    return torch.cat([_solid(0.0, at, 0.85 * radius, thick), _solid(0.0, at, tip, 0.014)], dim=-1)


def arms(skeleton: Skeleton, traits: Traits) -> list[Float[Tensor, "batch 8"]]:
    """Right and left arm, raised independently and thicker towards the hand."""
    at, radius = skeleton.upper.unbind(-1)
    thick = traits.between(0.026, 0.032)
    pair = []
    for side in (-1, 1):
        raised, length = traits.angle(-30, 60), traits.between(0.15, 0.21)
        reach = 0.85 * radius + length * raised.cos()
        shoulder = _solid(side * 0.7 * radius, at + 0.25 * radius, 0.0, thick)
        rise = 0.25 * radius + length * raised.sin()
        hand = _solid(side * reach, at + rise, 0.25 * length)
        limit = FIGURE_RADIUS - 1.3 * thick
        hand = hand * (limit / hand.norm(dim=-1)).clamp_max(1)[:, None]
        pair.append(torch.cat([shoulder, hand, 1.3 * thick[:, None]], dim=-1))
    return pair


def scarf(
    skeleton: Skeleton, traits: Traits
) -> tuple[Float[Tensor, "batch 3"], Float[Tensor, "batch 8"]]:
    """A ring around the neck, and its loose end that hangs down in front on one side."""
    at, radius = skeleton.neck.unbind(-1)
    tube = traits.between(0.036, 0.046)
    ring = torch.stack([at, radius + 0.2 * tube, tube], dim=-1)
    aside = torch.where(traits.coin(), 1, -1) * traits.angle(28, 45)
    hanging = -traits.angle(0, 20)
    low = _on_ball(skeleton.upper, aside, hanging, 1.08)
    high = _solid(radius * aside.sin(), at, radius * aside.cos(), tube)
    return ring, torch.cat([high, low, tube[:, None]], dim=-1)


def hat(skeleton: Skeleton, traits: Traits) -> list[Float[Tensor, "batch 4"]]:
    """Brim and crown."""
    head = skeleton.head[:, 1]
    rim = (FIGURE_RADIUS**2 - skeleton.top**2).sqrt()  # the widest that stays in the ball
    crown = (traits.between(0.6, 0.9) * head).minimum(rim)
    brim = crown + traits.between(0.04, 0.075)
    half = (skeleton.top - skeleton.brim_height) / 2
    thick = torch.full_like(crown, 0.024)
    return [
        torch.stack([skeleton.brim_height, brim, thick, 0.5 * thick], dim=-1),
        torch.stack([skeleton.brim_height + half, crown, half, 0.5 * thick], dim=-1),
    ]


def colours(traits: Traits) -> Float[Tensor, "batch 6 3"]:
    """Tinted snow, black coal, orange carrot, hat and scarf of unlike hues, brown arms."""
    between = traits.between
    hat_hue = between(0, 1)
    scarf_hue = 0.14 + 0.86 * ((hat_hue + between(0.25, 0.75)) % 1)  # never the carrot's
    parts = [
        _rgb(between(0, 1), between(0.14, 0.38), between(0.9, 1)),
        torch.full((len(hat_hue), 3), 0.08),
        _rgb(between(0.03, 0.11), between(0.9, 1), between(0.95, 1)),
        _rgb(hat_hue, between(0.75, 1), between(0.45, 0.95)),
        _rgb(scarf_hue, between(0.75, 1), between(0.75, 1)),
        _rgb(between(0.04, 0.1), between(0.6, 0.8), between(0.3, 0.5)),
    ]
    return torch.stack(parts, dim=1)


def _solid(*values: Tensor | float) -> Tensor:
    """Parameters of a solid on the last axis; plain numbers are shared by the batch."""
    batch = next(v for v in values if isinstance(v, Tensor))
    return torch.stack([torch.as_tensor(v).to(batch).expand_as(batch) for v in values], dim=-1)


def _on_ball(ball: Tensor, aside: Tensor, up: Tensor, share: float) -> Float[Tensor, "batch 3"]:
    """The point at an angle aside of +z (towards +x) and above it, at a share of the radius."""
    at, radius = ball.unbind(-1)
    reach = share * radius
    return torch.stack(
        [reach * up.cos() * aside.sin(), at + reach * up.sin(), reach * up.cos() * aside.cos()],
        dim=-1,
    )


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Float[Tensor, "batch 3"]:
    """From the HSV hexagon: each channel falls off with the hue's distance from its own."""
    centres = torch.tensor([0.0, 2.0, 4.0]).to(hue)
    away = ((6 * hue[:, None] - centres + 3) % 6 - 3).abs()
    return value[:, None] * (1 - saturation[:, None] * (away - 1).clamp(0, 1))

"""Snow figures: solids with exact distances, one plain colour per part.

A figure stands upright around the world's y axis, centred at the origin, inside a ball of radius
`anatomy.FIGURE_RADIUS`; it looks along +z, where the frontal camera (yaw = pitch = pi/2) stands.
It has two or three snowballs, coal eyes and buttons, a carrot, a hat, a scarf with a loose end and
two arms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ops.shapes import Float, Int
from toys import anatomy
from toys.distances import ball_distance, cone_distance, drum_distance, ring_distance
from toys.draws import uniforms

PARTS = ("body", "coal", "nose", "hat", "scarf", "arms")
# The part that each solid belongs to: balls, cones, drums, rings, in the order of their rows.
SOLIDS = (
    ("body", "body", "body", "coal", "coal", "coal", "coal")
    + ("nose", "scarf", "arms", "arms")
    + ("hat", "hat")
    + ("scarf",)
)


@dataclass(frozen=True)
class Figures:
    """A batch of figures: solids (parameters as in `toys.distances`), colours of their parts."""

    balls: Float[Tensor, "batch 7 4"]  # belly, chest, head, two eyes, two buttons
    cones: Float[Tensor, "batch 4 8"]  # nose, scarf's loose end, right and left arm
    drums: Float[Tensor, "batch 2 4"]  # brim and crown of the hat
    rings: Float[Tensor, "batch 1 3"]  # scarf
    colours: Float[Tensor, "batch 6 3"]  # of PARTS, red, green, blue in 0..1

    @classmethod
    def sample(cls, seed: int, indices: Sequence[int]) -> "Figures":
        """The figures `indices` of the endless row that `seed` stands for."""
        traits = anatomy.Traits(uniforms(seed, indices, anatomy.DRAWS, "figure").float())
        skeleton = anatomy.Skeleton.sample(traits)
        coal, nose = anatomy.coal(skeleton, traits), anatomy.nose(skeleton, traits)
        arms, hat = anatomy.arms(skeleton, traits), anatomy.hat(skeleton, traits)
        ring, loose_end = anatomy.scarf(skeleton, traits)
        return cls(
            balls=torch.stack([*anatomy.snowballs(skeleton), *coal], dim=1),
            cones=torch.stack([nose, loose_end, *arms], dim=1),
            drums=torch.stack(hat, dim=1),
            rings=ring[:, None],
            colours=anatomy.colours(traits),
        )

    @torch.no_grad()
    def signed_distance(
        self, points: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
        """Distance to the surface, negative inside, and the index in PARTS of the nearest part.

        The distance is exact outside the figure; inside, where solids overlap, it is the deepest
        solid's, which the surface is at least as far away as. No gradients flow through it.
        """
        distance, solid = torch.cat(self._solids(points), dim=1).min(dim=1)
        parts = torch.tensor([PARTS.index(part) for part in SOLIDS], device=points.device)
        return distance, parts[solid]

    @torch.no_grad()
    def distance(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
        """The distance alone."""
        nearest = [d.amin(dim=1) for d in self._solids(points)]
        return torch.stack(nearest).amin(dim=0)

    def _solids(self, points: Tensor) -> list[Float[Tensor, "batch solids n"]]:
        """Distances to all solids, kind by kind."""
        x, y, z = points.movedim(-1, 0)[:, :, None].contiguous()
        return [
            ball_distance((x, y, z), self.balls),
            cone_distance((x, y, z), self.cones),
            drum_distance((x, y, z), self.drums),
            ring_distance((x, y, z), self.rings),
        ]

    def __len__(self) -> int:
        return len(self.balls)

    def __getitem__(self, index: slice | Tensor) -> "Figures":
        return Figures(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, target: torch.device | torch.dtype | str) -> "Figures":
        """Move to a device or convert to a dtype."""
        return Figures(*(getattr(self, f.name).to(target) for f in fields(self)))

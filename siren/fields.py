"""The radiance fields of pi-GAN: FiLM-SIREN networks from points to colour and density.

A network holds the weights that all scenes share; `bind(w)` folds a batch of styles into it and
returns a `SirenField`, one scene per style, that the renderer calls as often as it likes. Style w:
raw frequencies of every FiLM layer, then their phase shifts; the colour layer comes last.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.registry import Registry
from ops.shapes import Bool, Float
from siren.blocks import (
    EMPTY,
    Affine,
    Scene,
    density_blocks,
    evaluate_blocks,
    prepare_scenes,
)
from siren.film import FilmLayer, affine, autocasting, initial_bound, sine_affine
from siren.fused import density_fused, evaluate_fused
from siren.kernel_trial import usable
from siren.native import compiled

FREQUENCY_SCALE, FREQUENCY_OFFSET = 15.0, 30.0  # raw style 0 means a frequency of 30

FIELDS: Registry[type["SirenNetwork"]] = Registry("model")


class SirenNetwork(nn.Module):
    """FiLM layers, a linear density head, and a colour branch that sees the view direction."""

    default_hidden_dim = 256
    default_box_side = 0.24
    default_grid_size = 0
    blocked = True  # take the device's fast path, which has no second derivatives
    compiled = False  # on a CPU, let siren/native.cpp compute

    def __init__(
        self,
        *,
        hidden_dim: int | None = None,
        num_layers: int = 8,
        box_side: float | None = None,
        view_direction: bool = True,
        density_gain: float = 1.0,
        bound_radius: float = 0.0,
        grid_size: int | None = None,
    ) -> None:
        """`hidden_dim`, `box_side` and `grid_size` default to the class's.

        `box_side` is the side of the cube that is mapped to [-1, 1]; 0 leaves points as they are.
        Without `view_direction` colours do not depend on where they are seen from.
        `density_gain` scales the density head's output. Beyond `bound_radius` of the origin, in
        world units, nothing is, and nothing is computed; 0 leaves space unbounded. `grid_size` is
        for embedding fields only.
        """
        super().__init__()
        if grid_size is not None and not self.default_grid_size:
            raise ValueError(f"{type(self).__name__} has no feature grid: grid_size must be None")
        self.hidden_dim = self.default_hidden_dim if hidden_dim is None else hidden_dim
        self.num_layers = num_layers
        side = self.default_box_side if box_side is None else box_side
        self.coordinate_scale = 2 / side if side else 1.0
        self.view_direction = view_direction
        self.density_gain = density_gain
        self.bound_radius = bound_radius
        hidden = self.hidden_dim
        encoded = self._build_encoding(grid_size or self.default_grid_size)
        widths = [encoded] + [hidden] * num_layers
        self.network = nn.ModuleList(
            FilmLayer(widths[i], widths[i + 1], first=i == 0) for i in range(num_layers)
        )
        self.final_layer = nn.Linear(hidden, 1)
        self.color_layer_sine = FilmLayer(hidden + (3 if view_direction else 0), hidden)
        self.color_layer_linear = nn.Sequential(nn.Linear(hidden, 3))
        for head in (self.final_layer, self.color_layer_linear[0]):
            assert isinstance(head, nn.Linear)
            bound = initial_bound(hidden)
            nn.init.uniform_(head.weight, -bound, bound)

    @property
    def style_dim(self) -> int:
        """Numbers in one style w."""
        return 2 * (self.num_layers + 1) * self.hidden_dim

    def bind(self, w: Float[Tensor, "batch styles"]) -> "SirenField":
        """Fold styles into the weights: one scene per style."""
        if w.shape[-1] != self.style_dim:
            raise ValueError(f"styles must have {self.style_dim} numbers, got {w.shape[-1]}")
        frequency, phase = w.chunk(2, dim=-1)
        frequency = FREQUENCY_SCALE * frequency + FREQUENCY_OFFSET
        layers = [*self.network, self.color_layer_sine]
        folded = [
            layer.fold(f, p)
            for layer, f, p in zip(
                layers,
                frequency.split(self.hidden_dim, dim=-1),
                phase.split(self.hidden_dim, dim=-1),
                strict=True,
            )
        ]
        return SirenField(self, folded)

    def encode(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n features"]:
        """What the first layer sees of a point: its place in the box."""
        return points * self.coordinate_scale

    def inside(self, points: Float[Tensor, "batch n 3"]) -> Bool[Tensor, "batch n"] | None:
        """Which points lie where something can be; None if all do."""
        if not self.bound_radius:
            return None
        return points.square().sum(-1) <= self.bound_radius**2

    def _build_encoding(self, grid_size: int) -> int:
        """Create what `encode` needs, ahead of the layers' own, and return its features."""
        return 3


@FIELDS.register("TallSiren", "TALLSIREN")
class TallSiren(SirenNetwork):
    """The network of pi-GAN's CARLA model: world coordinates as they are."""

    default_box_side = 0


@FIELDS.register("SpatialSiren", "SPATIALSIRENBASELINE")
class SpatialSiren(SirenNetwork):
    """The network of pi-GAN's CelebA and Cats models: coordinates in a box of side 0.24."""


class EmbeddingSiren(SirenNetwork):
    """Also reads a learned feature grid, trilinearly, at the point's place in the box."""

    grid_channels = 32
    grid_std: float
    spatial_embeddings: nn.Parameter

    def encode(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n features"]:
        """Grid features, then the place in the box; features fade to zero outside it."""
        place = super().encode(points)
        with torch.autocast(points.device.type, enabled=False):
            features = F.grid_sample(
                self.spatial_embeddings.float(),
                place.float().reshape(1, 1, 1, -1, 3),
                mode="bilinear",
                padding_mode="zeros",
                align_corners=True,
            )
        features = features.reshape(self.grid_channels, *place.shape[:2]).permute(1, 2, 0)
        return torch.cat([features.to(place.dtype), place], dim=-1)

    def _build_encoding(self, grid_size: int) -> int:
        shape = (1, self.grid_channels, grid_size, grid_size, grid_size)
        self.spatial_embeddings = nn.Parameter(torch.randn(shape) * self.grid_std)
        return self.grid_channels + 3


@FIELDS.register("EmbeddingSiren128", "EmbeddingPiGAN128")
class EmbeddingSiren128(EmbeddingSiren):
    """128 wide, with a 96^3 feature grid."""

    default_hidden_dim = 128
    default_grid_size = 96
    grid_std = 0.01


@FIELDS.register("EmbeddingSiren256", "EmbeddingPiGAN256")
class EmbeddingSiren256(EmbeddingSiren):
    """256 wide, with a 64^3 feature grid."""

    default_grid_size = 64
    grid_std = 0.1


class SirenField:
    """A batch of scenes: callable on points and directions, and cheaper on density alone."""

    def __init__(self, network: SirenNetwork, folded: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._network = network
        self._layers = folded[:-1]
        self._color = folded[-1]
        self._prepared: dict[tuple[torch.dtype, bool], list[Scene]] = {}

    def __call__(
        self, points: Float[Tensor, "batch n 3"], directions: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n 3"], Float[Tensor, "batch n 1"]]:
        """Colour in 0..1 and raw density."""
        if self._takes_blocks:
            return self._fast(points, directions, partial(evaluate_blocks, scenes=self._scenes()))
        if self._network.blocked and usable(points, self._layers):
            return self._fast(points, directions, evaluate_fused)
        hidden = self._hidden(points)
        radiance, inside = self._radiance(hidden, directions), self._network.inside(points)
        if inside is not None:
            radiance = torch.where(inside[..., None], radiance, 0)
        return radiance, self._density(hidden, points)

    def density(self, points: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 1"]:
        """Raw density without the colour branch."""
        network = self._network
        if network.blocked and not torch.is_grad_enabled():
            if self._takes_blocks:
                x, inside = network.encode(points), self._inside(points)
                return density_blocks(x, inside, self._scenes()) * network.density_gain
            if usable(points, self._layers):
                layers = [*self._layers, self._color]
                density = density_fused(network.encode(points), layers, self._heads[0])
                return self._bounded(density, points)
        return self._density(self._hidden(points), points)

    @property
    def _takes_blocks(self) -> bool:
        return self._network.blocked and self._color[0].device.type == "cpu"

    @property
    def _heads(self) -> tuple[Affine, Affine]:
        density, color = self._network.final_layer, self._network.color_layer_linear[0]
        assert isinstance(color, nn.Linear)
        return (density.weight, density.bias), (color.weight, color.bias)

    def _scenes(self) -> list[Scene]:
        """Weights ready for blocks, in the precision that is asked for; made once for each.

        Of the 16-bit kinds only bf16 is fast on a CPU: with fp16, products keep full precision.
        """
        network, weight = self._network, self._color[0]
        dtype = weight.dtype
        if autocasting(weight) and torch.get_autocast_dtype("cpu") == torch.bfloat16:
            dtype = torch.bfloat16
        kind = (dtype, network.compiled)
        if kind not in self._prepared:
            self._prepared[kind] = prepare_scenes(
                [*self._layers, self._color],
                *self._heads,
                view_direction=network.view_direction,
                dtype=dtype,
                library=compiled() if network.compiled else None,
            )
        return self._prepared[kind]

    def _fast(
        self, points: Tensor, directions: Tensor, evaluate: Callable[..., tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The same numbers, faster and with first derivatives only."""
        network = self._network
        radiance, density = evaluate(
            network.encode(points),
            directions if network.view_direction else None,
            [*self._layers, self._color],
            *self._heads,
            self._inside(points),
        )
        return radiance, density * network.density_gain

    def _inside(self, points: Tensor) -> Tensor | None:
        """Which points are within bounds; None if all are known to be."""
        inside = self._network.inside(points)
        if inside is not None and inside.device.type == "cpu" and inside.all():
            return None  # slices, which cost nothing, in place of picked points
        return inside

    def _hidden(self, points: Tensor) -> Tensor:
        x = self._network.encode(points)
        with torch.autocast(points.device.type, enabled=False):  # coordinates need all their bits
            x = sine_affine(x, *self._layers[0])
        for weight, bias in self._layers[1:]:
            x = sine_affine(x, weight, bias)
        return x

    def _density(self, hidden: Tensor, points: Tensor) -> Tensor:
        return self._bounded(self._network.final_layer(hidden), points)

    def _bounded(self, density: Tensor, points: Tensor) -> Tensor:
        """Raw density from the head's, with nothing beyond the bounds."""
        inside = self._network.inside(points)
        if inside is not None:
            density = torch.where(inside[..., None], density, EMPTY)
        return density * self._network.density_gain

    def _radiance(self, hidden: Tensor, directions: Tensor) -> Tensor:
        weight, bias = self._color
        if self._network.view_direction:
            # W'[d, h] = W'_d d + W'_h h: no concatenated copy of the activations
            with torch.autocast(directions.device.type, enabled=False):
                bias = affine(directions, weight[:, :, :3], bias)
            x = torch.sin(torch.bmm(hidden, weight[:, :, 3:].transpose(1, 2)) + bias)
        else:
            x = sine_affine(hidden, weight, bias)
        return torch.sigmoid(self._network.color_layer_linear(x))

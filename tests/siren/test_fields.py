"""Radiance fields against a literal, unfolded FiLM-SIREN, and their initial weights."""

import math
from typing import Any

import oracles
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from siren.fields import FIELDS, EmbeddingSiren, SirenNetwork

BOX_SIDES = {"TallSiren": 2.0, "SpatialSiren": 0.24, "EmbeddingSiren128": 0.24}
BOX_SIDES["EmbeddingSiren256"] = 0.24  # 2: coordinates as they are
ALL = pytest.mark.parametrize("name", list(FIELDS))
BLOCKED = pytest.mark.parametrize(
    "blocked", [True, False]
)  # the CPU's fast path, and the plain one


def tiny(name: str, **changes: Any) -> SirenNetwork:
    """A field of two layers, 6 wide, in float64; a grid of 4^3 where it has one."""
    grid = {"grid_size": 4} if issubclass(FIELDS[name], EmbeddingSiren) else {}
    network = FIELDS[name](**{"hidden_dim": 6, "num_layers": 2, **grid, **changes})
    if isinstance(network, EmbeddingSiren):
        nn.init.normal_(network.spatial_embeddings)
    return network.double()


def scene(network: SirenNetwork, batch: int = 2, points: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Styles, points in a box of side 0.24, and unit view directions."""
    w = 0.5 * torch.randn(batch, network.style_dim, dtype=torch.float64)
    place = 0.24 * torch.rand(batch, points, 3, dtype=torch.float64) - 0.12
    views = torch.nn.functional.normalize(torch.randn_like(place), dim=-1)
    return w, place, views


def unfolded(
    name: str, network: SirenNetwork, w: Tensor, points: Tensor, views: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The oracle, point by point."""
    weights = dict(network.named_parameters())
    colours, raws = [], []
    for b in range(len(w)):
        for n in range(points.shape[1]):
            encoded = points[b, n] * 2 / BOX_SIDES[name]
            if isinstance(network, EmbeddingSiren):
                grid = weights["spatial_embeddings"][0].detach().numpy()
                features = oracles.trilinear(grid, encoded.tolist())
                encoded = torch.cat([torch.from_numpy(features), encoded])
            view = None if views is None else views[b, n]
            colour, raw = oracles.film_siren(weights, w[b], encoded, view, network.density_gain)
            colours.append(colour)
            raws.append(raw)
    shape = points.shape[:2]
    return torch.stack(colours).reshape(*shape, 3), torch.stack(raws).reshape(*shape, 1)


# -- values


@ALL
@BLOCKED
@pytest.mark.parametrize("view_direction", [True, False])
def test_a_folded_field_is_the_unfolded_one(name: str, blocked: bool, view_direction: bool) -> None:
    network = tiny(name, view_direction=view_direction, density_gain=3.0)
    network.blocked = blocked
    w, points, views = scene(network)
    colour, raw = network.bind(w)(points, views)
    reference = unfolded(name, network, w, points, views if view_direction else None)
    # grid features are always looked up in single precision
    tolerance = 1e-4 if isinstance(network, EmbeddingSiren) else 1e-9
    assert_close(colour, reference[0], atol=tolerance, rtol=0)
    assert_close(raw, reference[1], atol=tolerance, rtol=0)
    assert reference[1].std() > 0.01


@BLOCKED
@pytest.mark.parametrize("name", ["TallSiren", "SpatialSiren"])
def test_a_folded_field_has_the_gradients_of_the_unfolded_one(name: str, blocked: bool) -> None:
    network = tiny(name)
    network.blocked = blocked
    w, points, views = (v.requires_grad_() for v in scene(network))
    inputs = [w, points, views, *network.parameters()]
    mix = torch.randn(2, 3, 4, dtype=torch.float64)
    gradients = []
    for colour, raw in (
        network.bind(w)(points, views),
        unfolded(name, network, w, points, views),
    ):
        total = (torch.cat([colour, raw], dim=-1) * mix).sum()
        gradients.append(torch.autograd.grad(total, inputs))
    for ours, reference in zip(*gradients, strict=True):
        assert reference.abs().max() > 1e-6
        assert_close(ours, reference, atol=1e-9, rtol=1e-7)


@ALL
def test_density_alone_is_the_density_of_the_whole(name: str) -> None:
    network = tiny(name)
    w, points, views = scene(network)
    field = network.bind(w)
    assert_close(field.density(points), field(points, views)[1])


@ALL
def test_each_style_is_a_scene_of_its_own(name: str) -> None:
    network = tiny(name)
    w, points, views = scene(network)
    both, _ = network.bind(w)(points, views)
    alone, _ = network.bind(w[1:])(points[1:], views[1:])
    assert_close(both[1:], alone)
    swapped, _ = network.bind(w.flip(0))(points, views)
    assert (swapped - both).abs().max() > 1e-3


@ALL
def test_points_are_independent_of_their_neighbours(name: str) -> None:
    network = tiny(name)
    w, points, views = scene(network, points=5)
    order = torch.randperm(5)
    colour, raw = network.bind(w)(points, views)
    moved_colour, moved_raw = network.bind(w)(points[:, order], views[:, order])
    assert_close(moved_colour, colour[:, order])
    assert_close(moved_raw, raw[:, order])


@pytest.mark.parametrize("view_direction", [True, False])
def test_colour_follows_the_view_and_density_never_does(view_direction: bool) -> None:
    network = tiny("SpatialSiren", view_direction=view_direction)
    w, points, views = scene(network)
    colour, raw = network.bind(w)(points, views)
    other_colour, other_raw = network.bind(w)(points, -views)
    assert_close(raw, other_raw, atol=0, rtol=0)
    assert ((colour - other_colour).abs().max() > 1e-3) == view_direction


def test_colour_lies_between_nought_and_one() -> None:
    network = tiny("TallSiren")
    nn.init.normal_(network.get_parameter("color_layer_linear.0.weight"), std=20)
    w, points, views = scene(network, points=200)
    colour, _ = network.bind(w)(points, views)
    assert colour.min() < 0.01 and colour.max() > 0.99
    assert colour.min() >= 0 and colour.max() <= 1


def test_density_gain_scales_density_alone() -> None:
    torch.manual_seed(4)
    plain = tiny("TallSiren")
    torch.manual_seed(4)
    gained = tiny("TallSiren", density_gain=10.0)
    w, points, views = scene(plain)
    colour, raw = plain.bind(w)(points, views)
    gained_colour, gained_raw = gained.bind(w)(points, views)
    assert_close(gained_colour, colour)
    assert_close(gained_raw, 10 * raw)


def test_the_box_scales_coordinates_as_if_the_points_had_moved() -> None:
    torch.manual_seed(4)
    boxed = tiny("SpatialSiren", box_side=0.5)
    torch.manual_seed(4)
    bare = tiny("TallSiren")
    w, points, views = scene(boxed)
    assert_close(boxed.bind(w).density(points), bare.bind(w).density(4 * points))


# -- the feature grid


def test_features_are_interpolated_and_fade_to_zero_outside_the_grid() -> None:
    network = tiny("EmbeddingSiren128", box_side=2.0)
    assert isinstance(network, EmbeddingSiren)
    grid = network.spatial_embeddings[0].detach().numpy()
    places = torch.rand(1, 40, 3, dtype=torch.float64) * 3.6 - 1.8
    ours = network.encode(places)
    for n in range(40):
        expected = torch.from_numpy(oracles.trilinear(grid, places[0, n].tolist()))
        assert_close(ours[0, n, :32], expected, atol=1e-5, rtol=0)
    assert_close(ours[..., 32:], places)
    outside = places.abs().amax(-1) > 1 + 2 / 3  # a voxel is 2/3 wide
    assert outside.any() and not ours[..., :32][outside].any()


def test_x_indexes_the_last_axis_of_the_grid() -> None:
    network = tiny("EmbeddingSiren256", box_side=2.0)
    assert isinstance(network, EmbeddingSiren)
    with torch.no_grad():
        network.spatial_embeddings.zero_()
        network.spatial_embeddings[0, 7, 3, 0, 1] = 1.0  # z last, y first, x second voxel
    corner = torch.tensor([[[-1 / 3, -1.0, 1.0]]], dtype=torch.float64)
    assert_close(network.encode(corner)[0, 0, 7].item(), 1.0, atol=1e-6, rtol=0)


def test_scenes_share_the_grid_and_look_it_up_each_at_their_points() -> None:
    network = tiny("EmbeddingSiren128")
    _, points, _ = scene(network)
    both = network.encode(points)
    assert_close(both[1:], network.encode(points[1:]))
    assert (both[0] - both[1]).abs().max() > 0.01


# -- precision


@ALL
def test_mixed_precision_stays_close_to_full(name: str) -> None:
    network = tiny(name, hidden_dim=32, num_layers=4).float()
    w, points, views = (v.float() for v in scene(network, points=50))
    field = network.bind(w)
    colour, raw = field(points, views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed_colour, mixed_raw = field(points, views)
    # an error of the phase of 1/10 radian, in hidden layers whose sines average it out
    assert (mixed_colour - colour).abs().max() < 0.02
    assert (mixed_raw - raw).abs().mean() < 0.1 * raw.std()


def test_coordinates_are_never_rounded_to_16_bits() -> None:
    # one layer: a pure function of the coordinates, whose head is made exact
    network = tiny("TallSiren", num_layers=1, hidden_dim=4).float()
    with torch.no_grad():
        network.final_layer.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
        network.final_layer.bias.zero_()
    w, _, _ = (v.float() for v in scene(network))
    points = 1 + torch.rand(2, 50, 3) / 100
    exact = network.bind(w).density(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network.bind(w).density(points)
    # only the head's output is rounded: at most one part in 256
    assert_close(mixed.float(), exact, atol=1e-3, rtol=1 / 256)


# -- initial weights


@ALL
def test_initial_weights_have_the_bounds_of_the_paper(name: str) -> None:
    network = tiny(name, hidden_dim=64, num_layers=3).float()
    hidden = math.sqrt(6 / 64) / 25
    bounds = {
        "network.0.layer": 1 / 3,
        "network.1.layer": hidden,
        "network.2.layer": hidden,
        "final_layer": hidden,
        "color_layer_sine.layer": math.sqrt(6 / 67) / 25,
        "color_layer_linear.0": hidden,
    }
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    assert set(layers) == set(bounds)
    for key, bound in bounds.items():
        weight, bias = layers[key].weight, layers[key].bias
        assert 0.9 * bound < weight.abs().max() <= bound, key
        assert abs(weight.std() / (bound / math.sqrt(3)) - 1) < 0.15, key
        limit = 1 / math.sqrt(weight.shape[1])
        assert bias.abs().max() <= limit, key
        assert len(bias) < 60 or bias.abs().max() > 0.8 * limit, key


@pytest.mark.parametrize(
    ("name", "side", "std"), [("EmbeddingSiren128", 96, 0.01), ("EmbeddingSiren256", 64, 0.1)]
)
def test_the_grid_starts_as_small_noise_of_its_own_size(name: str, side: int, std: float) -> None:
    network = FIELDS[name](num_layers=1)
    assert isinstance(network, EmbeddingSiren)
    grid = network.spatial_embeddings
    assert grid.shape == (1, 32, side, side, side)
    assert_close(float(grid.detach().std()), std, rtol=0.01, atol=0)
    assert next(iter(network.state_dict())) == "spatial_embeddings"


# -- names and refusals


def test_every_field_answers_to_the_name_old_curricula_use() -> None:
    old = ["TALLSIREN", "SPATIALSIRENBASELINE", "EmbeddingPiGAN128", "EmbeddingPiGAN256"]
    assert [FIELDS.canonical(name) for name in old] == list(FIELDS)


@pytest.mark.parametrize("name", ["TallSiren", "SpatialSiren"])
def test_a_grid_size_without_a_grid_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has no feature grid"):
        FIELDS[name](grid_size=8)


def test_styles_of_another_width_are_refused() -> None:
    network = tiny("TallSiren")
    with pytest.raises(ValueError, match="styles must have 36 numbers, got 37"):
        network.bind(torch.zeros(1, 37, dtype=torch.float64))

"""Triangles in pixels, against the rays that the renderer casts through the same pixels."""

import math

import pytest
import torch
from analytic_shapes import ball
from torch import Tensor

from rendering.cameras import Cameras
from rendering.grid import voxel_lattice
from rendering.raster import project, rasterize
from rendering.surface import level_surface

CAMERA = Cameras.from_angles(1.1, 1.3, 40.0, 1.2, roll=0.3)
SIZE = 33


def ball_mesh(centre: tuple[float, float, float], radius: float) -> tuple[Tensor, Tensor]:
    volume = -ball(centre, radius)(voxel_lattice(48, 1.0)).reshape(48, 48, 48)
    return level_surface(volume, 0.0, 1.0)


def card(distance: float, half: float, camera: Cameras = CAMERA) -> tuple[Tensor, Tensor]:
    """A square across the viewing axis, so far from the camera."""
    right, up, back = camera.cam2world[0, :3, :3].unbind(1)
    corners = [(-half, -half), (half, -half), (half, half), (-half, half)]
    middle = camera.origin[0] - distance * back
    vertices = torch.stack([middle + x * right + y * up for x, y in corners])
    return vertices, torch.tensor([[0, 1, 2], [0, 2, 3]])


def test_a_point_on_a_pixels_ray_is_projected_to_the_pixel(rng: torch.Generator) -> None:
    origins, directions = CAMERA.rays(SIZE, SIZE)
    t = 0.5 + torch.rand(SIZE**2, 1, generator=rng)
    column, row, forward = project(origins[0] + t * directions[0], CAMERA, SIZE).unbind(-1)
    pixel = torch.arange(SIZE**2)
    torch.testing.assert_close(column, (pixel % SIZE).float(), atol=2e-3, rtol=0)
    torch.testing.assert_close(row, (pixel // SIZE).float(), atol=2e-3, rtol=0)
    axis = -CAMERA.cam2world[0, :3, 2]
    torch.testing.assert_close(forward, t[:, 0] * (directions[0] @ axis))


def test_depth_is_the_distance_along_the_pixels_ray() -> None:
    centre, radius = torch.tensor([0.05, 0.1, -0.05]), 0.3
    raster = rasterize(*ball_mesh((0.05, 0.1, -0.05), radius), CAMERA, SIZE)
    origins, directions = (part[0].double() for part in CAMERA.rays(SIZE, SIZE))
    offset = origins - centre.double()
    b = (offset * directions).sum(-1)
    inside = b.square() - offset.square().sum(-1) + radius**2
    depth = (-b - inside.clamp(min=0).sqrt()).reshape(SIZE, SIZE)
    closest = (offset - b[:, None] * directions).norm(dim=-1).reshape(SIZE, SIZE)
    for sure, covered in ((closest < 0.29, True), (closest > 0.305, False)):
        assert ((raster.face >= 0)[sure] == covered).all() and sure.sum() > 50
    sure = closest < 0.25
    torch.testing.assert_close(raster.depth[sure].double(), depth[sure], atol=2e-3, rtol=0)
    assert raster.depth[closest > 0.305].isinf().all()


def test_what_is_interpolated_is_correct_in_perspective() -> None:
    """Places, interpolated over tilted triangles, are those where the rays end."""
    vertices = torch.tensor([[0.4, -0.3, 0.2], [-0.4, -0.2, 0.3], [0.1, 0.4, -0.4]])
    camera = Cameras.from_angles(1.4, 1.2, 50.0)
    raster = rasterize(vertices, torch.tensor([[0, 1, 2]]), camera, SIZE)
    places = raster.interpolate(vertices, torch.tensor([[0, 1, 2]]))
    origins, directions = (part[0].reshape(SIZE, SIZE, 3) for part in camera.rays(SIZE, SIZE))
    hit = raster.face == 0
    assert hit.sum() > 50
    ends = origins + raster.depth[..., None] * directions
    torch.testing.assert_close(places[hit], ends[hit], atol=1e-5, rtol=0)
    assert (places[~hit] == 0).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_of_two_is_seen_whatever_their_order(order: tuple[int, int]) -> None:
    cards = [card(0.8, 1.0), card(1.0, 1.0)]
    vertices = torch.cat([cards[i][0] for i in order])
    faces = torch.cat([cards[order[0]][1], cards[order[1]][1] + 4])
    raster = rasterize(vertices, faces, CAMERA, SIZE)
    nearer = 2 * order.index(0)
    assert ((raster.face == nearer) | (raster.face == nearer + 1)).all()
    assert raster.depth[SIZE // 2, SIZE // 2].item() == pytest.approx(0.8, abs=1e-5)


def test_a_card_covers_the_pixels_that_it_should() -> None:
    half = math.tan(math.radians(20)) * 0.9 * 0.5  # half of the picture's side, at 0.9
    raster = rasterize(*card(0.9, half * 1.0001), CAMERA, SIZE)
    covered = raster.face >= 0
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[8:25, 8:25] = True
    assert torch.equal(covered, expected)


def test_what_is_behind_the_camera_is_not_seen() -> None:
    assert (rasterize(*card(-0.5, 1.0), CAMERA, SIZE).face == -1).all()


def test_parts_of_the_list_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = ball_mesh((0.05, 0.1, -0.05), 0.3)
    whole = rasterize(*mesh, CAMERA, SIZE)
    monkeypatch.setattr("rendering.raster.CANDIDATES", 50)
    parts = rasterize(*mesh, CAMERA, SIZE)
    assert torch.equal(whole.face, parts.face) and torch.equal(whole.depth, parts.depth)


def test_one_camera_takes_one_picture() -> None:
    two = Cameras.from_angles(torch.tensor([0.0, 1.0]), 1.5, 40.0)
    with pytest.raises(ValueError, match="by one camera, got 2"):
        rasterize(*card(0.5, 1.0), two, SIZE)

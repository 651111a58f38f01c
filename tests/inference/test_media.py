"""Pictures as bytes, in grids, on disk, and depth as a picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import BallField, integrate_ray
from PIL import Image
from torch.testing import assert_close

from inference.media import depth_image, save_png, tile, to_uint8
from rendering.cameras import Cameras
from rendering.renderer import render
from rendering.settings import RenderSettings


def test_bytes_are_rounded_to_the_nearest_and_cut_at_black_and_white() -> None:
    values = torch.tensor([-7.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0])
    pixels = to_uint8(values.reshape(1, 1, 1, 7))
    assert pixels.dtype == torch.uint8 and pixels.shape == (1, 1, 7, 1)
    assert pixels.flatten().tolist() == [0, 0, 64, 128, 159, 255, 255]


def test_every_byte_survives_the_way_to_the_network_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    images = (levels.float() / 127.5 - 1).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(images).flatten(), levels)


def test_a_picture_of_little_contrast_is_not_stretched() -> None:
    assert to_uint8(torch.full((1, 3, 2, 2), 0.1)).unique().tolist() == [140]


def test_channels_come_last() -> None:
    images = torch.zeros(2, 3, 4, 5)
    images[1, 2, 3, 0] = 1
    pixels = to_uint8(images)
    assert pixels.shape == (2, 4, 5, 3)
    assert pixels[1, 3, 0].tolist() == [128, 128, 255]


def test_tiles_run_along_rows_and_what_is_missing_is_white() -> None:
    images = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1).expand(5, 2, 3, 1)
    grid = tile(images, columns=2)
    assert grid.shape == (6, 6, 1)
    assert grid[::2, ::3, 0].tolist() == [[0, 1], [2, 3], [4, 255]]
    assert grid[1::2, 2::3, 0].tolist() == [[0, 1], [2, 3], [4, 255]]


def test_a_tile_keeps_its_pixels_in_place() -> None:
    images = torch.arange(2 * 3 * 2 * 3, dtype=torch.uint8).reshape(2, 3, 2, 3)
    assert torch.equal(tile(images, columns=2), torch.cat(list(images), dim=1))
    assert torch.equal(tile(images, columns=1), torch.cat(list(images), dim=0))


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_a_picture_is_written_without_loss(tmp_path: Path, channels: int, mode: str) -> None:
    pixels = torch.randint(256, (4, 5, channels), dtype=torch.uint8)
    file = tmp_path / "new" / "folder" / "a.png"
    save_png(file, pixels)
    with Image.open(file) as image:
        assert (image.mode, image.size) == (mode, (5, 4))
        assert np.array_equal(np.asarray(image).reshape(4, 5, channels), pixels.numpy())


def test_depth_is_white_near_and_black_far_and_where_nothing_is() -> None:
    distance = torch.tensor([[[1.0, 1.5, 2.0, 1.5, 0.0]]])
    opacity = torch.tensor([[[1.0, 1.0, 1.0, 0.5, 0.0]]])
    depth = distance * opacity
    picture = depth_image(depth, opacity, 1.0, 2.0)
    assert picture.shape == (1, 1, 1, 5)
    assert picture.flatten().tolist() == [1, 0, -1, -0.5, -1]


@pytest.mark.parametrize("last_back", [False, True])
def test_what_stands_for_the_background_has_no_part_in_the_nearness(last_back: bool) -> None:
    """A half transparent ray looks the same however the background is filled."""
    density, t = [0.0, 3.0, 0.0], [1.0, 1.2, 2.0]
    _, depth, opacity, weights = integrate_ray([[0.0]] * 3, density, t, last_back=last_back)
    assert 0.85 < opacity < 0.95 and abs(sum(weights) - (1 if last_back else opacity)) < 1e-9
    picture = depth_image(
        torch.full((1, 1, 1), depth), torch.full((1, 1, 1), opacity), 1.0, 2.0, last_back=last_back
    )
    assert_close(picture.item(), 2 * 0.8 * opacity - 1, atol=1e-6, rtol=0)


@pytest.mark.parametrize("last_back", [False, True])
def test_a_ball_bulges_in_its_depth_picture(last_back: bool) -> None:
    settings = RenderSettings(
        9, 40, 0.5, 1.5, hierarchical=False, jitter=False, last_back=last_back
    )
    seen = render(BallField(0.3), Cameras.from_angles(1.0, 1.2, 50.0), settings)
    assert seen.depth is not None and seen.opacity is not None
    picture = depth_image(seen.depth, seen.opacity, 0.5, 1.5, last_back=last_back)[0, 0]
    # the nearest point is at distance 0.7: nearness 0.8, shown as 0.6
    assert picture[4, 4].item() == pytest.approx(0.6, abs=0.06)
    assert picture[4, 4] == picture.max() and picture[4, 4] > picture[4, 6] > picture[4, 8]
    assert picture[0, 0] == -1

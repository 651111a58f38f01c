"""The pyramid, the patches and the distance against closed forms and slow oracles."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from metrics.sliced_wasserstein import PatchSet, laplacian_pyramid, sliced_wasserstein, swd


def pictures(count: int = 6, size: int = 32, seed: int = 0) -> Tensor:
    """Smooth random pictures in bytes with some detail."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, size // 8, size // 8, generator=rng)
    smooth = F.interpolate(coarse, size=size, mode="bicubic")
    return (128 + 40 * smooth + 8 * torch.randn(count, 3, size, size, generator=rng)).clamp(0, 255)


def patches(images: Tensor, seed: int = 0) -> PatchSet:
    held = PatchSet(seed)
    held.add(images)
    return held


# -- the pyramid


@pytest.mark.parametrize(
    ("size", "levels"), [(8, [8]), (16, [16]), (32, [32, 16]), (128, [128, 64, 32, 16])]
)
def test_levels_halve_down_to_16_pixels(size: int, levels: list[int]) -> None:
    pyramid = laplacian_pyramid(torch.rand(2, 3, size, size))
    assert [tuple(level.shape) for level in pyramid] == [(2, 3, n, n) for n in levels]


def test_a_flat_picture_has_no_detail_and_is_its_own_rest() -> None:
    *bands, rest = laplacian_pyramid(torch.full((1, 3, 64, 64), 7.0))
    for band in bands:
        assert_close(band, torch.zeros_like(band), atol=1e-5, rtol=0)
    assert_close(rest, torch.full_like(rest, 7.0))


def test_a_ramp_has_no_detail_away_from_the_border() -> None:
    """What a band keeps of a slope would be a shift between it and the coarser level."""
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    fine, coarse, _ = laplacian_pyramid(ramp + ramp.mT)
    assert fine[..., 4:-4, 4:-4].abs().max() < 1e-5
    assert coarse[..., 6:-6, 6:-6].abs().max() < 1e-5


def smooth_oracle(image: np.ndarray) -> np.ndarray:
    """The 5 x 5 binomial mean of every pixel, mirrored at the border, one pixel at a time."""
    taps = np.array([1, 4, 6, 4, 1]) / 16
    padded = np.pad(image, 2, mode="reflect")
    result = np.empty_like(image)
    for y, x in np.ndindex(image.shape):
        result[y, x] = taps @ padded[y : y + 5, x : x + 5] @ taps
    return result


def test_a_level_is_the_picture_less_its_blurred_half() -> None:
    image = torch.randn(32, 32, dtype=torch.float64)
    band, rest = laplacian_pyramid(image[None, None])
    low = smooth_oracle(image.numpy())[::2, ::2]
    spread = np.zeros((32, 32))
    spread[::2, ::2] = low
    assert_close(rest[0, 0], torch.from_numpy(low))
    assert_close(band[0, 0], image - torch.from_numpy(4 * smooth_oracle(spread)))


def test_the_pyramid_can_be_put_together_again() -> None:
    image = torch.rand(1, 1, 32, 32)
    band, rest = laplacian_pyramid(image)
    blank = laplacian_pyramid(torch.zeros(1, 1, 32, 32))[0]
    assert not blank.any()
    spread = torch.zeros(32, 32)
    spread[::2, ::2] = rest[0, 0]
    assert_close(band[0, 0] + 4 * torch.from_numpy(smooth_oracle(spread.numpy())), image[0, 0])


def test_coarse_and_fine_structure_fall_into_their_own_levels() -> None:
    x = torch.arange(64) / 64
    wave = {n: torch.sin(math.tau * n * x).expand(1, 1, 64, 64) for n in (2, 28)}
    energy = {n: [float(v.square().mean()) for v in laplacian_pyramid(w)] for n, w in wave.items()}
    assert energy[2][-1] > 20 * max(energy[2][:-1])
    assert energy[28][0] > 20 * max(energy[28][1:])


# -- the distance


def test_a_set_has_no_distance_to_itself_in_any_order() -> None:
    a = torch.randn(50, 6)
    assert sliced_wasserstein(a, a) == 0
    assert sliced_wasserstein(a, a[torch.randperm(50)]) == 0


def test_in_one_dimension_a_shift_is_its_own_distance() -> None:
    a = torch.randn(40, 1)
    assert sliced_wasserstein(a, a[torch.randperm(40)] + 0.25) == pytest.approx(250, rel=1e-5)


def test_a_shift_costs_its_mean_projection() -> None:
    """A shift by v costs the mean of |v . direction|: |v| times 2/pi in two dimensions."""
    a = torch.randn(30, 2)
    distance = sliced_wasserstein(a, a + torch.tensor([0.3, -0.4]))
    assert distance == pytest.approx(1000 * 0.5 * 2 / math.pi, rel=0.05)


def test_stretching_a_uniform_line_costs_half_the_stretch() -> None:
    a = torch.linspace(0, 1, 201)[:, None]
    assert sliced_wasserstein(a, 3 * a[torch.randperm(201)]) == pytest.approx(1000, rel=1e-5)


def test_the_distance_is_the_mean_of_sorted_differences_over_directions() -> None:
    rng = torch.Generator().manual_seed(4)
    a, b = torch.randn(9, 4, generator=rng), torch.rand(9, 4, generator=rng)
    rng.manual_seed(11)
    total, count = 0.0, 0
    for _ in range(4):
        directions = torch.randn(4, 128, generator=rng).double()
        for direction in directions.T:
            unit = direction / math.sqrt(sum(float(d) ** 2 for d in direction))
            left = sorted(float(p.double() @ unit) for p in a)
            right = sorted(float(p.double() @ unit) for p in b)
            total += sum(abs(p - q) for p, q in zip(left, right, strict=True)) / 9
            count += 1
    assert count == 512
    assert sliced_wasserstein(a, b, seed=11) == pytest.approx(1000 * total / count, rel=1e-5)


def test_the_distance_is_symmetric_and_the_larger_set_is_cut() -> None:
    a, b = torch.randn(20, 3), torch.randn(30, 3) + 1
    assert sliced_wasserstein(a, b) == sliced_wasserstein(b, a)
    assert sliced_wasserstein(a, b) == sliced_wasserstein(a, b[:20])


def test_an_empty_set_has_no_distance() -> None:
    with pytest.raises(ValueError, match="empty set"):
        sliced_wasserstein(torch.zeros(0, 3), torch.zeros(4, 3))


# -- sets of pictures


def test_patches_are_windows_of_the_picture_normalised_by_channel() -> None:
    x = torch.arange(16.0)
    image = torch.stack([x[:, None] * 16 + x, 1000 - x.expand(16, 16), (x**2).expand(16, 16)])
    (found,) = patches(image[None]).descriptors()
    assert found.shape == (128, 3 * 7 * 7)
    windows = found.reshape(128, 3, 7, 7)
    assert_close(windows.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    assert_close(windows.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    # undo the normalisation: steps of 1 to the right and of 16 down, wherever the window is
    steps = windows[:, 0, :, 1:] - windows[:, 0, :, :-1]
    unit = steps.mean()
    assert_close(steps / unit, torch.ones_like(steps), atol=1e-3, rtol=0)
    down = (windows[:, 0, 1:] - windows[:, 0, :-1]) / unit
    assert_close(down, torch.full_like(down, 16.0), atol=1e-2, rtol=0)
    assert len(torch.unique(windows[:, 0, 0, 0])) > 50  # of 100 places


def test_equal_sets_have_distance_nought_at_every_level() -> None:
    result = swd(patches(pictures()), patches(pictures()))
    assert result == {"swd_32": 0, "swd_16": 0, "swd": 0}


def test_the_seed_chooses_the_places() -> None:
    result = swd(patches(pictures(), seed=0), patches(pictures(), seed=1))
    assert all(0 < value < 200 for value in result.values())


def test_more_noise_is_farther_at_the_finest_level_first() -> None:
    real, noise = pictures(), torch.randn(6, 3, 32, 32)
    close, far = (swd(patches(real), patches(real + s * noise)) for s in (8, 24))
    assert 0 < close["swd_32"] < far["swd_32"]
    assert far["swd_32"] > far["swd_16"]


def test_blur_is_seen_in_the_detail_and_a_change_of_shape_in_the_rest() -> None:
    real = pictures()
    blurred = F.avg_pool2d(F.pad(real, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    shape = real + 60 * torch.linspace(-1, 1, 32)
    fine, coarse = swd(patches(real), patches(blurred)), swd(patches(real), patches(shape))
    assert fine["swd_32"] > 3 * fine["swd_16"]
    assert coarse["swd_16"] > 3 * coarse["swd_32"]


def test_the_mean_is_over_levels() -> None:
    result = swd(patches(pictures(size=64)), patches(pictures(size=64, seed=5)))
    assert list(result) == ["swd_64", "swd_32", "swd_16", "swd"]
    assert result["swd"] == pytest.approx(sum(list(result.values())[:3]) / 3)


def test_levels_of_small_pictures_have_their_own_names() -> None:
    assert list(swd(patches(pictures(size=8)), patches(pictures(size=8)))) == ["swd_8", "swd"]


def test_sets_of_several_processes_are_one() -> None:
    images = pictures()
    whole, first, second = PatchSet(), PatchSet(), PatchSet()
    whole.add(images)
    first.add(images[:2])
    second.add(images[2:])
    joined = PatchSet()
    joined.extend([PatchSet(), first, PatchSet(), second])  # some had no picture to look at
    assert joined.sizes == whole.sizes
    assert [len(d) for d in joined.descriptors()] == [6 * 128, 6 * 128]
    same = patches(images[:2])
    one, two = PatchSet(), PatchSet()
    one.extend([first])
    two.extend([same])
    assert swd(one, two)["swd"] == 0


def test_pictures_come_in_batches() -> None:
    images, batches = pictures(), PatchSet()
    for part in images.split(2):
        batches.add(part)
    assert [len(d) for d in batches.descriptors()] == [6 * 128, 6 * 128]
    assert swd(patches(images), batches)["swd"] < 150


def test_impossible_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 7 pixels per side, got 4"):
        PatchSet().add(torch.zeros(1, 3, 4, 4))
    held = patches(pictures())
    with pytest.raises(ValueError, match="pictures must all have 32 pixels, got 16"):
        held.add(pictures(size=16))
    with pytest.raises(ValueError, match="two sets of pictures of one size"):
        swd(held, patches(pictures(size=64)))
    with pytest.raises(ValueError, match="two sets of pictures of one size"):
        swd(PatchSet(), PatchSet())

"""Random numbers that depend on seed, index and purpose alone."""

import pytest
import torch

from toys.draws import MAX_SEED, uniforms


def test_a_figures_numbers_do_not_depend_on_its_neighbours() -> None:
    together = uniforms(3, [0, 7, 2], 5, "figure")
    alone = uniforms(3, [7], 5, "figure")
    assert torch.equal(together[1:2], alone)


def test_asking_for_more_numbers_changes_none_of_the_first() -> None:
    few, many = uniforms(3, [4], 5, "figure"), uniforms(3, [4], 50, "figure")
    assert torch.equal(few, many[:, :5])


def test_seeds_indices_and_purposes_give_unrelated_numbers() -> None:
    rows = [
        uniforms(0, [0], 64, "figure"),
        uniforms(1, [0], 64, "figure"),
        uniforms(0, [1], 64, "figure"),
        uniforms(0, [0], 64, "pose"),
    ]
    correlation = torch.corrcoef(torch.cat(rows)) - torch.eye(4)
    assert correlation.abs().max() < 0.4  # three standard deviations
    assert torch.cat(rows).unique().numel() == 4 * 64


def test_numbers_are_uniform_between_0_and_1() -> None:
    numbers = uniforms(5, range(500), 20, "pose").flatten().sort().values
    assert 0 <= numbers[0] and numbers[-1] < 1
    expected = (torch.arange(len(numbers)) + 0.5) / len(numbers)
    assert (numbers - expected).abs().max() < 1.95 / len(numbers) ** 0.5  # Kolmogorov, 0.1 %


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10, section 3.3 of the paper, in Python's integers."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (
            (second >> 64) ^ b ^ k,
            second & MAX_SEED,
            (first >> 64) ^ d ^ m,
            first & MAX_SEED,
        )
        k, m = (k + 0x9E3779B97F4A7C15) & MAX_SEED, (m + 0xBB67AE8584CAA73B) & MAX_SEED
    return [a, b, c, d]


@pytest.mark.parametrize(("seed", "index"), [(0, 0), (2**40 + 3, 12345)])
def test_the_stream_is_philox_with_the_seed_as_key(seed: int, index: int) -> None:
    # numpy counts up the first word before each block of four
    words = [word for block in (1, 2) for word in philox([block, 0, index, 1], [seed, 0])]
    expected = torch.tensor([(word >> 11) / 2**53 for word in words], dtype=torch.float64)
    assert torch.equal(uniforms(seed, [index], 8, "pose")[0], expected)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (MAX_SEED + 1, 0), (0, -1)])
def test_numbers_out_of_range_are_refused(seed: int, index: int) -> None:
    with pytest.raises(ValueError, match="must"):
        uniforms(seed, [index], 1, "figure")

"""Named random streams."""

import logging

import pytest
import torch

from training.random import PURPOSES, Streams, derive_seed

CPU = torch.device("cpu")


def draws(streams: Streams) -> dict[str, torch.Tensor]:
    return {p: torch.rand(4, generator=getattr(streams, p)) for p in PURPOSES}


def test_a_derived_seed_is_the_same_everywhere_and_forever() -> None:
    assert derive_seed(0, "weights") == 5147875554478041081
    assert derive_seed(0, "data", 3) == 513486681255873077


def test_derived_seeds_are_63_bits_and_do_not_collide() -> None:
    seeds = {derive_seed(s, p, r) for s in (-1, 0, 1, 2**70) for p in PURPOSES for r in range(50)}
    assert len(seeds) == 4 * len(PURPOSES) * 50
    assert all(0 <= s < 2**63 for s in seeds) and max(seeds) > 2**62


def test_every_seed_rank_and_purpose_has_a_stream_of_its_own() -> None:
    rows = [draws(Streams(seed, rank, CPU)) for seed in (0, 1) for rank in (0, 1)]
    every = torch.stack([v for row in rows for v in row.values()])
    assert len(torch.unique(every, dim=0)) == 4 * len(PURPOSES)
    again = draws(Streams(1, 1, CPU))
    assert all(torch.equal(again[p], rows[-1][p]) for p in PURPOSES)


def test_what_one_stream_draws_moves_no_other() -> None:
    calm, busy = Streams(0, 0, CPU), Streams(0, 0, CPU)
    torch.rand(1000, generator=busy.latents)
    torch.rand(1000)
    for purpose in ("poses", "rendering"):
        assert torch.equal(draws(calm)[purpose], draws(busy)[purpose])


def test_streams_go_on_where_a_saved_state_stopped() -> None:
    streams = Streams(0, 0, CPU)
    draws(streams)
    state = streams.state_dict()
    expected = draws(streams)
    other = Streams(7, 3, CPU)
    other.load_state_dict(state)
    assert all(torch.equal(v, expected[p]) for p, v in draws(other).items())


def test_a_run_from_another_kind_of_device_starts_its_streams_anew_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A GPU's generator has 16 bytes of state, a CPU's some 5,000."""
    streams, fresh = Streams(0, 0, CPU), draws(Streams(0, 0, CPU))
    with caplog.at_level(logging.WARNING, "perigan"):
        streams.load_state_dict({p: torch.zeros(16, dtype=torch.uint8) for p in PURPOSES})
    assert all(torch.equal(v, fresh[p]) for p, v in draws(streams).items())
    assert "another kind of device" in caplog.text and "latents" in caplog.text

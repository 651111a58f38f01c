"""The stream of real pictures: order, ranks, resuming, prefetching."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import ImageBatch, ImageDataset
from training.data import DataStream, Prefetch


def numbered(count: int, mirror: float = 0.5, size: int = 2) -> ImageDataset:
    """Pictures whose label is their number and whose left half is darker."""
    images = np.zeros((count, size, size, 3), np.uint8)
    images[:, :, size // 2 :] = 255
    return ImageDataset(images, labels=torch.arange(count), mirror=mirror)


def shown(batch: ImageBatch) -> list[tuple[int, bool]]:
    """Number and flip of each picture."""
    assert batch.labels is not None
    flips = (batch.images[:, 0, 0, 0] > 0).tolist()
    return list(zip(batch.labels.tolist(), flips, strict=True))


def take(stream: DataStream | Prefetch, count: int) -> list[list[tuple[int, bool]]]:
    return [shown(next(stream)) for _ in range(count)]


def test_an_epoch_shows_every_picture_once_in_a_new_order():
    stream = DataStream(numbered(12, mirror=0), 4, seed=0)
    epochs = [[n for batch in take(stream, 3) for n, _ in batch] for _ in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(12))


def test_the_ragged_end_of_an_epoch_is_dropped():
    stream = DataStream(numbered(11), 4, seed=0)
    assert stream.state_dict() == {"epoch": 0, "position": 0}
    first = take(stream, 1)[0]
    assert stream.state_dict() == {"epoch": 0, "position": 4}
    second = take(stream, 1)[0]
    assert stream.epoch == 1 and stream.state_dict() == {"epoch": 1, "position": 0}
    assert len({n for n, _ in first + second}) == 8


def test_the_seed_decides_order_and_flips():
    draw = {seed: take(DataStream(numbered(50), 10, seed=seed), 7) for seed in (0, 1, -1)}
    assert draw[0] == take(DataStream(numbered(50), 10, seed=0), 7)
    assert draw[0] != draw[1] != draw[-1]


@pytest.mark.parametrize("mirror", [0.0, 0.25, 1.0])
def test_pictures_are_flipped_with_the_data_set_s_probability(mirror):
    flips = [
        flip
        for batch in take(DataStream(numbered(500, mirror), 500, seed=3), 8)
        for _, flip in batch
    ]
    # five standard deviations of a mean of 4,000 tosses
    assert abs(np.mean(flips) - mirror) <= 5 * (mirror * (1 - mirror) / 4000) ** 0.5


def test_a_picture_is_flipped_anew_in_every_epoch():
    stream = DataStream(numbered(16), 16, seed=0)
    epochs = [dict(take(stream, 1)[0]) for _ in range(8)]
    assert all(len({epoch[n] for epoch in epochs}) == 2 for n in range(16))


@settings(max_examples=60, deadline=None)
@given(
    world=st.integers(1, 5),
    batch=st.integers(1, 4),
    extra=st.integers(0, 30),
    seed=st.integers(-(2**70), 2**70),
    start=st.fixed_dictionaries({"epoch": st.integers(0, 9), "position": st.integers(0, 60)}),
)
def test_ranks_share_out_what_one_process_with_the_whole_batch_sees(
    world, batch, extra, seed, start
):
    dataset = numbered(world * batch + extra)
    whole = DataStream(dataset, world * batch, seed=seed, state=start)
    ranks = [
        DataStream(dataset, batch, seed=seed, rank=r, world_size=world, state=start)
        for r in range(world)
    ]
    for _ in range(6):
        shares = [shown(next(rank)) for rank in ranks]
        assert sum(shares, []) == shown(next(whole))
        assert all(rank.state_dict() == whole.state_dict() for rank in ranks)


@settings(max_examples=40, deadline=None)
@given(before=st.integers(0, 20), after=st.integers(1, 10), count=st.integers(3, 17))
def test_a_resumed_stream_goes_on_exactly(before, after, count):
    dataset = numbered(count)
    stream = DataStream(dataset, 3, seed=5)
    take(stream, before)
    state = stream.state_dict()
    expected = take(stream, after)
    assert take(DataStream(dataset, 3, seed=5, state=state), after) == expected
    stream.load_state_dict(state)
    assert take(stream, after) == expected


def test_a_new_stage_goes_on_at_the_same_picture():
    whole = [
        picture for batch in take(DataStream(numbered(24), 1, seed=2), 48) for picture in batch
    ]
    stream = DataStream(numbered(24), 4, seed=2)
    seen = sum(take(stream, 2), [])
    stream = DataStream(numbered(24, size=4), 6, seed=2, state=stream.state_dict())
    seen += sum(take(stream, 2), [])
    assert seen == whole[:20] and stream.epoch == 1  # the last 4 do not fill a batch of 6
    assert sum(take(stream, 1), []) == whole[24:30]
    # what is left of an epoch is dropped where it is too little for the new batch
    stream = DataStream(numbered(24), 20, seed=2, state={"epoch": 0, "position": 8})
    assert sum(take(stream, 1), []) == whole[24:44]


def test_impossible_streams_are_refused():
    with pytest.raises(ValueError, match="batch_size is 9, but the data set has only 8 images"):
        DataStream(numbered(8), 9, seed=0)
    with pytest.raises(ValueError, match="batch_size is 3 in each of 3 processes, .* only 8"):
        DataStream(numbered(8), 3, seed=0, world_size=3)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        DataStream(numbered(8), 0, seed=0)
    with pytest.raises(ValueError, match="rank must be from 0 to 1, got 2"):
        DataStream(numbered(8), 1, seed=0, rank=2, world_size=2)
    for state in ({}, {"epoch": 1}, {"epoch": -1, "position": 0}, {"epoch": 0, "position": 1.5}):
        with pytest.raises(ValueError, match="an epoch and a position, got"):
            DataStream(numbered(8), 1, seed=0, state=state)


def test_prefetching_changes_nothing_that_is_seen():
    prefetch = Prefetch(DataStream(numbered(10), 4, seed=1), "cpu")
    plain = DataStream(numbered(10), 4, seed=1)
    for _ in range(7):
        assert prefetch.state_dict() == plain.state_dict() and prefetch.epoch == plain.epoch
        assert shown(next(prefetch)) == shown(next(plain))
    prefetch.close()


def test_a_prefetched_stream_resumes_after_the_last_batch_handed_out():
    prefetch = Prefetch(DataStream(numbered(10), 4, seed=1), "cpu")
    take(prefetch, 3)
    state = prefetch.state_dict()
    expected = take(prefetch, 4)
    prefetch.load_state_dict(state)
    assert prefetch.state_dict() == state
    assert take(prefetch, 4) == expected
    prefetch.close()
    assert take(DataStream(numbered(10), 4, seed=1, state=state), 4) == expected


def test_closing_gives_the_stream_back_where_it_was_left():
    stream = DataStream(numbered(10), 4, seed=1)
    prefetch = Prefetch(stream, "cpu")
    take(prefetch, 1)
    prefetch.close()
    expected = take(DataStream(numbered(10), 4, seed=1), 3)
    assert take(stream, 2) == expected[1:]


def test_a_failure_while_prefetching_reaches_the_caller():
    class Broken(ImageDataset):
        def batch(self, indices, flip=None):
            raise OSError("disk gone")

    prefetch = Prefetch(DataStream(Broken(np.zeros((4, 2, 2, 3), np.uint8)), 2, seed=0), "cpu")
    with pytest.raises(OSError, match="disk gone"):
        next(prefetch)


@pytest.mark.gpu
def test_prefetched_batches_arrive_on_the_gpu():
    prefetch = Prefetch(DataStream(numbered(64), 16, seed=1), "cuda")
    plain = DataStream(numbered(64), 16, seed=1)
    for _ in range(10):
        batch = next(prefetch)
        assert batch.images.is_cuda
        assert shown(batch.to("cpu")) == shown(next(plain))
    prefetch.close()

"""Distances of features: closed forms, the libraries' own numbers, and what does not matter."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics.distances import (
    FeatureFile,
    InceptionScore,
    Moments,
    frechet_distance,
    kernel_distance,
    precision_recall,
)

library = pytest.importorskip("torch_fidelity")


def cloud(n: int, width: int = 5, seed: int = 0, shift: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=rng) + shift


def moments(features: Tensor, batch: int = 7) -> Moments:
    result = Moments()
    for part in features.split(batch):
        result.add(part)
    return result


def test_streamed_moments_are_those_of_the_whole() -> None:
    x = cloud(40, shift=3.0)
    kept = moments(x)
    assert np.allclose(kept.mean(), x.double().mean(0), rtol=1e-12)
    assert np.allclose(kept.covariance(), np.cov(x.double(), rowvar=False), rtol=1e-9)
    population = np.cov(x.double(), rowvar=False, bias=True)
    assert np.allclose(kept.covariance(population=True), population, rtol=1e-9)


def test_moments_survive_being_kept() -> None:
    kept, again = moments(cloud(9)), Moments()
    again.load_state_dict(kept.state_dict())
    assert torch.equal(kept.covariance(), again.covariance()) and again.count == 9


def test_one_picture_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 pictures, got 1"):
        moments(cloud(1)).covariance()


def test_fid_of_shifted_and_scaled_gaussians_is_the_closed_form() -> None:
    x = cloud(50)
    assert frechet_distance(moments(x), moments(x)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(moments(x + 2), moments(x)) == pytest.approx(5 * 4, rel=1e-6)
    trace, centre = float(moments(x).covariance().trace()), float(x.mean(0).square().sum())
    # covariance 9 S and S: tr(9S + S - 2 * 3S) = 4 tr S; means 3m and m
    expected = 4 * trace + 4 * centre
    assert frechet_distance(moments(3 * x), moments(x)) == pytest.approx(expected, rel=1e-6)


def test_fid_is_the_one_of_torch_fidelity() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = cloud(30, seed=1), cloud(25, seed=2, shift=0.5)
    first, second = (fid_features_to_statistics(x.double()) for x in (a, b))
    theirs = fid_statistics_to_metric(first, second, False)
    ours = frechet_distance(moments(a), moments(b))
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)


def test_kid_is_unbiased_and_makes_do_with_few_pictures() -> None:
    x, y = cloud(30, seed=1), cloud(20, seed=2)
    mean, std = kernel_distance(x, y, subsets=3)  # all 20 of y, 20 of x
    k = (y @ y.T / 5 + 1) ** 3
    inner = (k.sum() - k.diagonal().sum()) / (20 * 19)
    rng, values = np.random.RandomState(2020), []
    for _ in range(3):
        part = x[rng.choice(30, 20, replace=False)]
        rng.choice(20, 20, replace=False)
        own, cross = (part @ part.T / 5 + 1) ** 3, (part @ y.T / 5 + 1) ** 3
        same = (own.sum() - own.diagonal().sum()) / (20 * 19)
        values.append(float(same + inner - 2 * cross.mean()))
    assert mean == pytest.approx(np.mean(values), rel=1e-4)
    assert std == pytest.approx(np.std(values), rel=1e-3)


def test_score_is_one_for_certainty_about_nothing_and_n_for_n_certain_classes() -> None:
    flat, sure = InceptionScore(20, splits=2), InceptionScore(20, splits=2, rng_seed=None)
    flat.add(torch.zeros(20, 4))
    assert flat.score() == pytest.approx((1, 0))
    logits = 200 * torch.eye(5)[torch.arange(20) % 5]
    for part in logits.split(3):
        sure.add(part)
    assert sure.score() == pytest.approx((5, 0))


@pytest.mark.parametrize("splits", [1, 3])
def test_score_is_the_one_of_torch_fidelity(splits: int) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 2 * cloud(32, 6)
    score = InceptionScore(32, splits=splits)
    for part in logits.split(5):
        score.add(part)
    theirs = isc_features_to_metric(logits, splits, True, 2020)
    assert score.score() == pytest.approx(tuple(theirs.values()), rel=1e-9)


def test_a_score_wants_the_pictures_that_were_announced() -> None:
    with pytest.raises(ValueError, match="needs as many"):
        InceptionScore(5)
    score = InceptionScore(12)
    score.add(cloud(11))
    with pytest.raises(ValueError, match="12 pictures were announced, got 11"):
        score.score()


def test_precision_and_recall_of_the_same_and_of_strangers() -> None:
    x = cloud(20)
    for half in (False, True):
        assert precision_recall(x, x.clone(), half=half) == (1, 1)
        assert precision_recall(x + 100, x, half=half) == (0, 0)


def test_precision_and_recall_see_who_covers_whom() -> None:
    wide, narrow = cloud(60, 3), cloud(60, 3, seed=1) * 0.05
    for half in (False, True):
        precision, recall = precision_recall(narrow, wide, half=half)
        assert precision == 1 and recall < 0.2
        assert precision_recall(wide, narrow, half=half)[1] == 1


def test_precision_and_recall_are_those_of_torch_fidelity() -> None:
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    a, b = cloud(40, seed=3), cloud(50, seed=4, shift=0.7)
    assert precision_recall(a, b) == calculate_precision_recall_full(a, b)


def test_too_few_pictures_have_no_neighbours() -> None:
    with pytest.raises(ValueError, match="more than 3 pictures, got 3"):
        precision_recall(cloud(3), cloud(10))


def test_features_in_a_file_come_back_in_order(tmp_path: Path) -> None:
    x, file = cloud(10), FeatureFile()
    for part in x.split(4):
        file.add(part)
    assert torch.equal(file.tensor(), x)
    assert torch.equal(file.tensor(3), x[:3])
    file.copy_to(tmp_path / "kept.f32")
    again = FeatureFile.open(tmp_path / "kept.f32", 5)
    assert again.count == 10 and torch.equal(again.tensor(7), x[:7])
    with pytest.raises(ValueError, match="does not hold features of 7 numbers"):
        FeatureFile.open(tmp_path / "kept.f32", 7)

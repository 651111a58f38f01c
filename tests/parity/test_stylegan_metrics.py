"""Metric formulas, path lengths and equivariance against the official numbers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.stylegan_support import Recorded, assert_outputs
from parity.support import Case, cases_of
from torch import Tensor

import interop
from generators.stylegan2 import StyleGAN2
from generators.stylegan3 import StyleGAN3
from metrics.distances import (
    FeatureFile,
    InceptionScore,
    Moments,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from metrics.equivariance import (
    SquaredError,
    band_limit_filter,
    compare_fractional,
    compare_integer,
    compare_rotated,
    pseudo_rotate,
    rotate,
    translate_fractional,
    translate_integer,
)
from metrics.path_length import path_distances, trimmed_mean

NOISE = "noise_const"


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def streamed(features: Tensor) -> tuple[Moments, FeatureFile]:
    moments, file = Moments(), FeatureFile()
    for part in features.split(64):
        moments.add(part)
        file.add(part)
    return moments, file


@pytest.mark.parametrize("case", cases_of("stylegan-metrics", "fid/kid/pr/is"))
def test_distances_of_given_features(case: Case) -> None:
    config, probs = case.config, case.tensor("in/probs")
    (real, real_file), (fake, fake_file) = (
        streamed(case.tensor(f"in/{name}")) for name in ("real", "gen")
    )
    score = InceptionScore(len(probs), splits=config["is_num_splits"], rng_seed=None)
    for part in probs.log().split(64):
        score.add(part)
    is_mean, is_std = score.score()
    kid, _ = kernel_distance(
        fake_file.tensor(),
        real_file.tensor(),
        subsets=config["kid_num_subsets"],
        subset_size=config["kid_max_subset_size"],
        rng_seed=config["kid_numpy_legacy_seed"],
    )
    assert config["pr_nhood_size"] == 3
    precision, recall = precision_recall(fake_file.tensor(), real_file.tensor(), half=True)
    numbers = {
        "fid": frechet_distance(fake, real, population=True),
        "kid": kid,
        "precision": precision,
        "recall": recall,
        "is_mean": is_mean,
        "is_std": is_std,
    }
    actual = {name: scalar(value) for name, value in numbers.items()}
    for name, moments in (("real", real), ("gen", fake)):
        actual[f"mu_{name}"] = moments.mean()
        actual[f"sigma_{name}"] = moments.covariance(population=True)
    assert_outputs(case, actual)


@pytest.mark.parametrize("case", cases_of("stylegan-metrics", "equivariance_ops"))
def test_moved_pictures_and_their_masks(case: Case) -> None:
    x, actual = case.tensor("in/x"), {}

    def keep(name: str, result: tuple[Tensor, Tensor]) -> None:
        actual[f"{name}/img"], actual[f"{name}/mask"] = result

    for translation in case.config["translations"]:
        name, move = translation["name"], torch.tensor(translation["t"])
        keep(f"int_{name}", translate_integer(x, move))
        keep(f"frac_{name}", translate_fractional(x, move))
    for i, angle in enumerate(case.config["angles"]):
        keep(f"rot_{i}", rotate(x, angle))
        keep(f"pseudo_{i}", pseudo_rotate(x, angle))
        actual[f"filter_up4_{i}"] = band_limit_filter(angle, up=4)
        actual[f"filter_up1_{i}"] = band_limit_filter(-angle, up=1)  # the pseudo-rotation's
    assert_outputs(case, actual)


@pytest.mark.parametrize("case", cases_of("stylegan-metrics", "eqt_int/eqt_frac/eqr"))
def test_equivariance_of_a_tiny_stylegan3(case: Case) -> None:
    generator = interop.convert("stylegan3", "generator", case.tensors("weights/"), case.config)
    assert isinstance(generator, StyleGAN3)
    generator.eval().requires_grad_(False)
    recorded, config = Recorded(case), case.config
    errors = [SquaredError() for _ in range(3)]
    for _ in range(config["num_samples"] // config["batch_size"]):
        w = generator.mapping(recorded.take())

        def picture(transform: Tensor, w: Tensor = w) -> Tensor:
            return generator.synthesis_network(w, transform, force_fp32=True)

        original = picture(torch.eye(3))
        for compare, error in zip((compare_integer, compare_fractional), errors, strict=False):
            move = (recorded.take() * 2 - 1) * config["translate_max"]
            compare(picture, original, move, error)
        angle = float((recorded.take() * 2 - 1) * config["rotate_max"] * math.pi)
        compare_rotated(picture, original, angle, errors[2])
    recorded.assert_used_up()
    names = ("eqt_int", "eqt_frac", "eqr")
    assert_outputs(case, {n: scalar(e.psnr()) for n, e in zip(names, errors, strict=True)})


def pooled(images: Tensor) -> Tensor:
    """The case's stand-in for a perceptual network."""
    return F.avg_pool2d(images, 8).flatten(1) * 0.01


@pytest.mark.parametrize("case", cases_of("stylegan-metrics", "ppl"))
def test_path_lengths_of_a_tiny_stylegan2(case: Case) -> None:
    config, recorded = case.config, Recorded(case)
    generator = interop.convert("stylegan2", "generator", case.tensors("weights/"), config)
    assert isinstance(generator, StyleGAN2)
    generator.eval().requires_grad_(False)
    network = generator.synthesis_network
    actual = {"percentile_ppl": scalar(trimmed_mean(case.tensor("in/dist")))}
    for subcase in config["subcases"]:
        t, z = recorded.take(), recorded.take()
        noise: Any = recorded.take_many(len(network.layers))
        actual[f"{subcase['name']}/dist"] = path_distances(
            generator.mapping,
            lambda w, noise=noise: network(w, noise, force_fp32=True),
            lambda a, b: (pooled(a) - pooled(b)).square().sum(1),
            (z[: len(z) // 2], z[len(z) // 2 :]),
            t * (subcase["sampling"] == "full"),
            space=subcase["space"],
            epsilon=config["epsilon"],
            crop=subcase["crop"],
        )
    recorded.assert_used_up()
    assert_outputs(case, actual)


def test_the_recorded_subsets_are_those_that_are_drawn() -> None:
    """What makes KID comparable: which generator draws, and in which order."""
    for param in cases_of("stylegan-metrics", "fid/kid/pr/is"):
        (case,) = param.values
        config = case.config
        rng = np.random.RandomState(config["kid_numpy_legacy_seed"])
        sizes = {"gen": config["num_gen"], "real": config["num_real"]}
        n = min(*sizes.values(), config["kid_max_subset_size"])
        for i in range(config["kid_num_subsets"]):
            for name, size in sizes.items():
                drawn = rng.choice(size, n, replace=False)
                assert drawn.tolist() == case.tensor(f"in/kid_idx_{name}")[i].tolist()

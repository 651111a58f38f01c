"""Facts and weights of genuine pickled checkpoints of the original."""

import pytest
import torch
from parity.support import Case, assert_checksums, cases_of

import interop
from interop.pickles import read_original_checkpoint, read_original_ema

AVERAGES = {"raw": None, "ema": "ema.pth", "ema2": "ema2.pth"}


@pytest.mark.parametrize("case", cases_of("pigan", "checkpoint"))
def test_weights_have_the_originals_names_order_and_sums(case: Case) -> None:
    rtol = case.suggested["checksums"]["rtol"]
    for name, checksums in case.config["checksums"].items():
        weights, _ = read_original_checkpoint(case.path.parent, AVERAGES[name])
        assert list(weights) == case.config["parameter_order"]
        assert_checksums(weights, checksums, rtol)


@pytest.mark.parametrize("case", cases_of("pigan", "checkpoint"))
def test_facts_are_read_without_running_anything(case: Case) -> None:
    expected = case.config["facts"]
    weights, facts = read_original_checkpoint(case.path.parent)
    assert facts["field"] == case.config["field"]
    for name in ("step", "epoch", "z_dim"):
        assert facts[name] == expected[name]
    for name in ("frequencies", "phase_shifts"):
        assert torch.equal(facts[f"avg_{name}"], case.tensor(f"in/stored_avg_{name}"))
    for name in ("ema", "ema2"):
        averages, average_facts = read_original_ema(case.path.parent / AVERAGES[name])
        assert len(averages) == expected[name]["n_shadow"] == len(weights)
        for fact in ("decay", "num_updates"):
            assert average_facts[f"ema_{fact}"] == expected[name][fact]


@pytest.mark.parametrize("case", cases_of("pigan", "checkpoint"))
def test_a_checkpoint_survives_the_way_into_our_module_and_back(case: Case) -> None:
    weights, facts = read_original_checkpoint(case.path.parent, "ema.pth")
    generator = interop.convert("pigan", "generator", weights, facts)
    exported = interop.export("pigan", "generator", generator)
    assert list(exported) == list(weights)
    assert all(torch.equal(exported[key], weights[key]) for key in weights)

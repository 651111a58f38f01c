"""Metrics by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from metrics.protocols import PROTOCOLS, find_protocols


def test_every_metric_gives_numbers_of_its_own() -> None:
    keys = [key for protocol in PROTOCOLS.values() for key in protocol.keys]
    assert len(keys) == len(set(keys))
    for key in ("fid", "kid", "is", "precision", "recall", "ppl", "swd", "is50k_mean",
                "pr50k3_full_precision", "kid50k_full", "eqt50k_int", "fid2k_full"):  # fmt: skip
        assert key in keys


def test_names_with_a_number_say_how_many_pictures() -> None:
    for name, protocol in PROTOCOLS.items():
        stated = 50_000 if "50k" in name or name == "ppl2_wend" else 2048
        assert protocol.num_fakes == stated


def test_names_are_found_in_order_and_once() -> None:
    assert [p.name for p in find_protocols(["kid", "fid", "kid"])] == ["kid", "fid"]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [(["fid50kfull"], "unknown metric 'fid50kfull', did you mean 'fid50k_full'"),
     (["x"], "known: fid"), ([], "no metric is asked for")],
)  # fmt: skip
def test_other_names_are_refused(names: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        find_protocols(names)


def test_names_are_read_without_torch() -> None:
    program = "import sys; sys.modules.update(torch=None, numpy=None); import metrics.protocols"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)

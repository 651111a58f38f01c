"""The numbers of `python -m pytorch_fid` and of torch-fidelity's command line, from one file.

Slow: Inception and VGG16 of random weights run on a few pictures, several times over.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from random_weights import write_inception, write_lpips, write_noise, write_vgg

from metrics.features import Lpips

pytest.importorskip("torch_fidelity")
pytest.importorskip("pytorch_fid")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of pictures and weights under their published names."""
    place = tmp_path_factory.mktemp("reference")
    write_noise(place / "fake", 12, seed=0)
    write_noise(place / "real", 14, seed=1, tint=40)
    hub = place / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    write_inception(hub / "pt_inception-2015-12-05-6726825d.pth")
    return place


def run(place: Path, *command: str) -> str:
    """What a command prints, run as a user would."""
    cache, home = place / "cache", place / "torch"
    known = {"PERIGAN_CACHE": str(cache), "TORCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=place, env=os.environ | known, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return done.stdout


def ours(place: Path, *arguments: str) -> dict[str, Any]:
    run(
        place, str(ROOT / "eval_metrics.py"), "--generated_image_dir", "fake", "--real_image_dir",
        "real", "--json", "numbers.json", "--device", "cpu", *arguments,
    )  # fmt: skip
    return json.loads((place / "numbers.json").read_text())


def theirs(place: Path, arguments: Sequence[str], weights: Path) -> dict[str, float]:
    out = run(
        place, "-m", "torch_fidelity.fidelity", "--input1", "fake", "--input2", "real", "--cpu",
        "--no-cache", "--json", "--feature-extractor-weights-path", str(weights), *arguments,
    )  # fmt: skip
    return json.loads(out[out.index("{") :])


def test_fid_is_the_one_of_pytorch_fid(place: Path) -> None:
    weights = place / "torch" / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    out = run(place, "-m", "pytorch_fid", "fake", "real", "--device", "cpu", "--num-workers", "0")
    numbers = ours(place, "--metrics", "fid", "--backend", "pytorch-fid", "--inception_weights",
                   str(weights))  # fmt: skip
    assert numbers["fid"] == pytest.approx(float(out.split()[-1]), rel=1e-4)


def test_fid_kid_and_score_are_those_of_torch_fidelity(place: Path) -> None:
    weights = place / "torch" / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    expected = theirs(place, ["--fid", "--kid", "--isc", "--kid-subset-size", "12"], weights)
    numbers = ours(place, "--metrics", "fid,kid,is", "--inception_weights", str(weights))
    assert numbers["fid"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
    assert numbers["kid"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)
    assert numbers["kid_std"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-5)
    assert numbers["is"] == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert numbers["is_std"] == pytest.approx(expected["inception_score_std"], rel=1e-6)


def test_precision_and_recall_are_those_of_torch_fidelity(place: Path) -> None:
    weights = write_vgg(place / "vgg.pth")
    expected = theirs(place, ["--prc"], weights)
    numbers = ours(place, "--metrics", "pr", "--vgg_weights", str(weights))
    assert numbers["precision"] == expected["precision"]
    assert numbers["recall"] == expected["recall"]


def test_lpips_is_the_sum_of_weighted_squared_differences_of_unit_features(
    tmp_path: Path, rng: torch.Generator
) -> None:
    from torchvision.models import vgg16

    vgg, heads = write_vgg(tmp_path / "vgg.pth"), write_lpips(tmp_path / "lpips.pth")
    distance = Lpips(vgg, heads)
    a, b = 255 * torch.rand(2, 2, 3, 32, 32, generator=rng)
    network, weights = vgg16(init_weights=False).eval(), torch.load(heads)
    network.load_state_dict(torch.load(vgg))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x, expected, level = (torch.cat([a, b]) / 255 - mean) / std, torch.zeros(2), 0
    with torch.no_grad():
        for i, layer in enumerate(network.features.children()):
            x = layer(x)
            if i in (3, 8, 15, 22, 29):  # the last activation of each size
                unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
                difference = (unit[:2] - unit[2:]).square()
                head = weights[f"lin{level}.model.1.weight"]
                expected += (difference * head).sum(1).mean((1, 2))
                level += 1
        found = distance(a, b)
    assert torch.allclose(found, expected, rtol=1e-3)

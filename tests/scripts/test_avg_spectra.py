"""avg_spectra.py from the command line."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, run_main, write_pictures

from curriculums import stage_at
from inference.checkpoint import build_generator, network_state, save_files
from metrics.spectra import AverageSpectrum

SCRIPT = "avg_spectra.py"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the script; returns its exit code and what it said."""

    def run(*arguments: object) -> tuple[int, str]:
        code = run_main(SCRIPT, [str(a) for a in arguments], monkeypatch)
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if "it/s" not in line]
        return code, said.out + "\n".join(lines)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures", count=5, size=12)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    generator, record = build_generator(stage_at(TINY, 0))
    state = network_state(generator, record, 3)
    save_files(tmp_path / "run", {"generator.pth": {**state, "curriculum": TINY}, "ema.pth": state})
    return tmp_path / "run"


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(p)) for p in sorted(folder.iterdir())]).astype(float)


def test_statistics_then_a_spectrum(call: Any, pictures: Path, tmp_path: Path) -> None:
    code, said = call("stats", "--source", pictures)
    found = re.fullmatch(r"--mean=(\S+) --std=(\S+)", said.strip())
    assert code == 0 and found
    values = pixels(pictures)
    assert float(found[1]) == pytest.approx(values.mean(), rel=1e-4)
    assert float(found[2]) == pytest.approx(values.std(), rel=1e-4)
    file = tmp_path / "new" / "real.npz"
    code, said = call("calc", "--source", pictures, "--dest", file, *said.split(), "--interp", 2)
    assert code == 0 and str(file) in said
    expected = AverageSpectrum(mean=float(found[1]), std=float(found[2]), interp=2)
    expected.add(torch.from_numpy(values).permute(0, 3, 1, 2))
    with np.load(file) as data:
        assert set(data) == {"spectrum", "image_size"} and data["image_size"] == 12
        np.testing.assert_allclose(data["spectrum"], expected.result().numpy(), rtol=1e-9)


def test_fewer_pictures_are_chosen_by_the_seed(call: Any, pictures: Path) -> None:
    said = {
        (num, seed): call("stats", "--source", pictures, "--num", num, "--seed", seed)[1]
        for num, seed in ((2, 0), (2, 0), (2, 5), ("all", 0), (5, 3))
    }
    assert said[2, 0] != said[2, 5]
    assert said["all", 0] == said[5, 3]


def test_a_generator_is_a_source(call: Any, run: Path, tmp_path: Path) -> None:
    options = ("--mean", 128, "--std", 60, "--device", "cpu")
    for name, source, seed in (("a", run, 0), ("b", run / "generator.pth", 0), ("c", run, 1)):
        file = tmp_path / f"{name}.npz"
        code, said = call("calc", "--source", source, "--num", 2, "--seed", seed, "--dest", file,
                          *options)  # fmt: skip
        assert code == 0, said
    a, b, c = (np.load(tmp_path / f"{n}.npz")["spectrum"] for n in "abc")
    assert a.shape == (32, 32)
    assert (a == b).all() and not (a == c).all()


def test_pictures_of_spectra_are_saved(call: Any, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one", "two"):
        file = tmp_path / f"{name}.npz"
        call("calc", "--source", pictures, "--dest", file, "--mean", 100, "--std", 50)
    code, said = call("heatmap", tmp_path / "one.npz", "--dpi", 40)
    assert code == 0 and str(tmp_path / "heatmap.png") in said
    with Image.open(tmp_path / "heatmap.png") as image:
        assert image.size == (240, 200)
        assert len(image.convert("RGB").getcolors(100_000) or []) > 10
    target = tmp_path / "deep" / "s.png"
    code, said = call("slices", tmp_path / "one.npz", tmp_path / "two.npz", "--save", target)
    assert code == 0 and target.is_file()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("stats", "--source", "{empty}"), "nothing there is an image file"),
        (("stats", "--source", "{pictures}", "--num", "9"), "has 5 pictures, --num asks for 9"),
        (("stats", "--source", "{run}"), "--num is needed of a generator"),
        (("calc", "--source", "{odd}", "--dest", "x", "--mean", "0", "--std", "1"), "square"),
        (("calc", "--source", "{pictures}", "--dest", "x", "--mean", "0", "--std", "0"), "std"),
        (("heatmap", "{run}/generator.pth"), "is not a spectrum of avg_spectra.py calc"),
        (("heatmap", "{empty}/no.npz"), "No such file"),
        (("slices", "{run}/generator.pth", "--smooth", "-1"), "must not be negative"),
    ],
)
def test_bad_input_is_one_line(
    call: Any, run: Path, pictures: Path, tmp_path: Path, arguments: Any, complaint: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    Image.new("RGB", (4, 6)).save(tmp_path / "odd" / "a.png")
    places = {"empty": tmp_path / "empty", "odd": tmp_path / "odd", "run": run}
    words = [a.format(pictures=pictures, **places) for a in arguments]
    code, said = call(*words)
    assert code == 2
    (line,) = [part for part in said.splitlines() if part.startswith("error: ")]
    assert complaint in line

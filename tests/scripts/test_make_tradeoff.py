"""docs/make_tradeoff.py draws several runs below each other."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import run_main, write_run

SCRIPT = "docs/make_tradeoff.py"
FEW = ["--seeds", "0", "--views", "2", "--image_size", "8", "--cell", "16"]


def test_runs_stand_below_each_other_each_pixel_a_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, page = write_run(tmp_path / "run"), tmp_path / "page.png"
    words = [f"one={run}", f"two={run}", "--output", str(page), *FEW]
    assert run_main(SCRIPT, words, monkeypatch) == 0
    with Image.open(page) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (2 * (16 + 16) + 6, 2 * 16 + 2 * 6, 3)
    first, second = pixels[16:32, 6:38], pixels[48:64, 6:38]
    assert np.array_equal(first, second) and first.std() > 0
    assert np.array_equal(first, first[::2, ::2].repeat(2, 0).repeat(2, 1))
    assert (pixels[:16] < 128).any(), "a title"


@pytest.mark.parametrize(
    ("word", "complaint"), [("runs/toys", "must be NAME=RUN"), ("a=nowhere", "no such checkpoint")]
)
def test_what_is_not_a_named_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], word: str,
    complaint: str,
) -> None:  # fmt: skip
    output = tmp_path / "page.png"
    assert run_main(SCRIPT, [word, "--output", str(output)], monkeypatch) == 2
    assert complaint in capfd.readouterr().err and not output.exists()

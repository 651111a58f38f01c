"""--compile and --precision from the command line: the same pictures, or a clear refusal."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import run_main, tiny_curriculum, write_flat_run, write_pictures, write_run

from generators.pigan import PiGAN
from generators.stylegan2 import StyleGAN2
from inference.checkpoint import read_file
from siren import native


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The types of the products that compiled fields are run with."""
    types: list[torch.dtype] = []
    original = native.Library.run

    def count(self: native.Library, dtype: torch.dtype, *rest: object) -> None:
        types.append(dtype)
        return original(self, dtype, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(native.Library, "run", count)
    return types


def picture(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> np.ndarray:
    arguments = [str(run), "--output_dir", str(folder), "--image_size", "8", *words]
    assert run_main("render_multiview_images.py", arguments, monkeypatch) == 0
    with Image.open(folder / "overview.png") as image:
        return np.asarray(image).astype(int)


def test_compiled_and_mixed_pictures_are_the_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[torch.dtype]
) -> None:
    run = write_run(tmp_path / "run")
    words = ["--seeds", "0", "--device", "cpu"]
    plain = picture(run, tmp_path / "plain", monkeypatch, *words)
    assert calls == [] and plain.std() > 1
    fast = picture(run, tmp_path / "fast", monkeypatch, *words, "--compile")
    assert set(calls) == {torch.float32} and np.abs(fast - plain).max() <= 1
    calls.clear()
    mixed = picture(run, tmp_path / "m", monkeypatch, *words, "--compile", "--precision", "bf16")
    assert np.abs(mixed - plain).mean() < 1
    # what the processor cannot multiply in 16 bits is left to torch
    assert (torch.bfloat16 in calls) == (torch.bfloat16 in native.compiled().dtypes)


def test_training_with_compiled_layers_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[torch.dtype]
) -> None:
    file = tmp_path / "tiny.json"
    file.write_text(json.dumps(tiny_curriculum(write_pictures(tmp_path / "pictures"))))
    weights = []
    for name, words in {"plain": [], "compiled": ["--compile"]}.items():
        arguments = ["--curriculum", str(file), "--output_dir", str(tmp_path / name), *words]
        stop = ["--n_steps", "2", "--eval_freq", "0", "--num_workers", "0", "--device", "cpu"]
        assert run_main("train.py", [*arguments, *stop], monkeypatch) == 0
        state = read_file(tmp_path / name / "generator.pth")["state_dict"]
        weights.append(torch.cat([v.flatten() for v in state.values()]))
    assert calls and torch.allclose(*weights, atol=1e-4)


def test_without_a_compiler_training_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    native.compiled.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    arguments = ["--curriculum", "Toys", "--output_dir", str(tmp_path / "run"), "--compile"]
    assert run_main("train.py", [*arguments, "--device", "cpu"], monkeypatch) == 2
    assert "no-such-compiler was not found" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_compiled_says_so() -> None:
    with pytest.raises(ValueError, match="a StyleGAN2 has nothing to compile"):
        StyleGAN2.compile_field(StyleGAN2.__new__(StyleGAN2))
    generator = PiGAN(latent_dim=4, hidden_dim=8, num_layers=2, mapping_dim=4).to("meta")
    with pytest.raises(ValueError, match="--compile is for the CPU"):
        generator.compile_field()


def test_a_precision_for_a_2d_generator_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_flat_run(tmp_path / "run")
    arguments = [str(run), "--seeds", "0", "--precision", "bf16", "--device", "cpu"]
    assert run_main("render_multiview_images.py", arguments, monkeypatch) == 2
    assert "--precision: a 2D generator chooses its own" in capsys.readouterr().err

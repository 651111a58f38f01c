"""eval_geometry.py and plot_metrics.py from the command line, on a tiny generator."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY, run_main, write_pictures

from curriculums import stage_at, with_overrides
from inference.checkpoint import build_generator, network_state, save_files
from inference.latents import save_latents
from toys.dataset import POSES, write_toys

LAW = [
    "dataset='Toys'",
    "dataset_options={}",
    "sample_dist='uniform'",
    f"h_stddev={POSES.h_stddev}",
    f"fov={POSES.fov}",
    "white_back=True",
]
QUICK = (
    *("--num_images", 2, "--views", 2, "--device", "cpu"),
    *("--pose_steps", 2, "--num_figures", 2),
)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toys") / "toys.zip"
    write_toys(path, 24, 8, seed=3)
    return path


def write_run(directory: Path, *changes: str, gain: float = 100.0) -> Path:
    curriculum = with_overrides(TINY, [*LAW, *changes])
    torch.manual_seed(0)
    generator, record = build_generator(stage_at(curriculum, 0))
    with torch.no_grad():
        generator.get_parameter("siren.final_layer.weight").mul_(gain)
        generator.get_parameter("siren.final_layer.bias").add_(gain)
    state = network_state(generator, record, 3)
    save_files(directory, {"generator.pth": {**state, "curriculum": curriculum}, "ema.pth": state})
    return directory


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    """Runs a script; returns its exit code and what it said."""
    monkeypatch.setenv("PERIGAN_CACHE", str(tmp_path / "cache"))

    def run(script: str, *arguments: object) -> tuple[int, str, str]:
        code = run_main(script, [str(a) for a in arguments], monkeypatch)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_run_is_measured_against_its_data(call: Any, toys: Path, tmp_path: Path) -> None:
    run, file = (
        write_run(tmp_path / "run", f"dataset_path={str(toys)!r}"),
        tmp_path / "a" / "g.json",
    )
    code, said, _ = call("eval_geometry.py", run, *QUICK, "--image_size", 16, "--json", file)
    assert code == 0
    numbers = json.loads(file.read_text())
    assert numbers["step"] == 3
    assert numbers["protocol"] == "2 scenes, 2 views, 16 px, 8 steps"
    wanted = {
        "view_consistency",
        "solid",
        "identity_drift",
        "yaw_error",
        "yaw_chance",
        "silhouette",
    }
    assert wanted <= set(numbers)
    for name in wanted:
        (line,) = [line for line in said.splitlines() if line.startswith(f"{name} ")]
        assert f"{numbers[name]:.4g}" in line
    if numbers["solid"] > 0:  # a scene with a surface has a nearest figure
        assert {"chamfer", "coverage", "silhouette_iou"} <= set(numbers)


def test_several_runs_stand_side_by_side(call: Any, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, gain=gain) for name, gain in (("a", 100.0), ("b", -100.0))]
    file = tmp_path / "g.json"
    code, said, _ = call("eval_geometry.py", *runs, *QUICK, "--no_dataset", "--json", file)
    assert code == 0
    first, second = json.loads(file.read_text())["results"]
    assert [first["name"], second["name"]] == [str(r) for r in runs]
    assert first["solid"] != second["solid"]
    assert "yaw_error" not in first and "yaw_error" not in said


def test_data_that_is_not_here_is_said_and_the_rest_measured(call: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "dataset_path='/no/such/place/*.png'")
    code, said, _ = call("eval_geometry.py", run, *QUICK)
    assert code == 0
    assert "the scenes alone: dataset_path" in said and "view_consistency" in said


def test_a_style_is_held_against_its_figure(call: Any, toys: Path, tmp_path: Path) -> None:
    run, file = write_run(tmp_path / "run", f"dataset_path={str(toys)!r}"), tmp_path / "g.json"
    style = torch.zeros(1, *build_generator(stage_at(TINY, 0))[0].w_avg.shape)
    save_latents(tmp_path / "w.npz", style)
    code, _, _ = call("eval_geometry.py", run, *QUICK, "--latent", tmp_path / "w.npz", "--toy", 7,
                      "--json", file)  # fmt: skip
    assert code == 0
    numbers = json.loads(file.read_text())
    assert "as figure 7" in numbers["protocol"]
    assert 0 <= numbers["silhouette_iou"] <= 1 and "yaw_error" not in numbers


class FakeLpips(torch.nn.Module):
    """Looks at bytes as LPIPS does; all pictures are equally far apart."""

    def __init__(self, *weights: Path | None) -> None:
        super().__init__()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        for images in (a, b):
            assert 0 <= float(images.min()) and 2 < float(images.max()) <= 255.001
        return torch.ones(len(a))


def test_lpips_sees_what_it_expects(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrics.features.Lpips", FakeLpips)
    file = tmp_path / "g.json"
    code, _, said = call("eval_geometry.py", write_run(tmp_path / "run"), *QUICK, "--no_dataset",
                         "--lpips", "--json", file)  # fmt: skip
    assert code == 0, said
    assert json.loads(file.read_text())["identity_perceptual"] == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("{tmp}/nothing",), "no such checkpoint file"),
        (("{run}", "--dataset_path", "{tmp}/nothing/*.png"), "nothing there is an image file"),
        (("{run}", "--dataset_path", "{pictures}", "--num_images", "1"), "two or more scenes"),
        (("{run}", "--latent", "{run}/ema.pth", "--toy", "0"), "is not a latent file"),
        (("{run}", "--lpips", "--vgg_weights", "{tmp}/no.pth"), "no such weights file"),
        (("{run}", "--toy", "0"), "--latent and --toy go together"),
        (("{run}", "--curriculum", "Toyz"), "Toyz"),
        (("{fixed}", "--no_dataset"), "pose law that varies yaw"),
    ],
)
def test_bad_input_is_one_line(
    call: Any, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    places = {
        "tmp": tmp_path,
        "run": write_run(tmp_path / "run"),
        "fixed": write_run(tmp_path / "fixed", "sample_dist='fixed'"),
        "pictures": write_pictures(tmp_path / "pictures", 4),
    }
    words = [a.format(**places) for a in arguments]
    code, _, said = call("eval_geometry.py", *words, "--device", "cpu")
    assert code == 2
    (line,) = [part for part in said.splitlines() if "error: " in part]
    assert complaint in line


def test_curves_are_drawn_and_told(call: Any, tmp_path: Path) -> None:
    lines = [{"step": s, "swd": v, "view_consistency": s / 10} for s, v in ((1, 9.0), (5, 4.5))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    code, said, _ = call("plot_metrics.py", tmp_path)
    assert code == 0
    assert "swd: 9 at step 1, 4.5 at step 5" in said
    assert "view_consistency: 0.1 at step 1, 0.5 at step 5" in said
    assert (tmp_path / "metrics.png").is_file()
    code, _, said = call("plot_metrics.py", tmp_path / "none")
    assert code == 2 and said.startswith("error: ")

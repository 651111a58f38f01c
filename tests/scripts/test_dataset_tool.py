"""The command line of dataset_tool.py."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import dataset_tool
from inference.options import run_script
from toys.dataset import write_toys

SCRIPT = Path(dataset_tool.__file__)
Run = Callable[..., None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the script in this process, in an empty folder."""

    def call(*arguments: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["dataset_tool.py", *arguments])
        run_script(dataset_tool.main)

    return call


def test_the_command_writes_the_data_set(tmp_path: Path) -> None:
    command = "toys --num 2 --img_size 8 --output new/toys.zip --seed 3".split()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    write_toys(tmp_path / "expected.zip", 2, 8, seed=3)
    made = tmp_path / "new" / "toys.zip"
    assert made.read_bytes() == (tmp_path / "expected.zip").read_bytes()
    assert list(made.parent.iterdir()) == [made]


def test_the_cameras_can_be_chosen(run: Run, tmp_path: Path) -> None:
    flags = "--fov 40 --radius 1.2 --h_mean 0 --h_stddev 0.1 --v_mean 1 --v_stddev 0"
    run("toys", "--num", "4", "--img_size", "4", "--output", "toys.zip", *flags.split())
    with zipfile.ZipFile(tmp_path / "toys.zip") as archive:
        table = json.loads(archive.read("dataset.json"))
    assert (table["camera"]["fov"], table["camera"]["radius"]) == (40, 1.2)
    for _, (yaw, pitch, _) in table["camera_angles"]:
        assert abs(yaw) <= 0.1 and pitch == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num 0 --img_size 8 --output toys.zip", "num must be at least 1, got 0"),
        ("--num 1 --img_size 3 --output toys.zip", "img_size must be at least 4, got 3"),
        ("--num 1 --img_size 8 --output toys.zip --seed -1", "seed must be in"),
        ("--num 1 --img_size 8 --output toys.zip --fov 180", "fov must be between 0 and 180"),
        ("--num 1 --img_size 8 --output toys.zip --radius 0.2", "farther away than 0.42"),
        ("--num 1 --img_size 8 --output file/toys.zip", "file"),
        ("--num 1 --img_size 8 --output .", "Is a directory"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    flags: str, message: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as exit_info:
        run("toys", *flags.split())
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("first", ["convert ", ""])
@pytest.mark.parametrize("underscore", ["_", "-"])
def test_convert_writes_a_data_set_and_says_what_became_of_the_source(
    first: str, underscore: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 6), (i, 0, 0)).save(tmp_path / "in" / f"{i}.png")
    (tmp_path / "in" / "0.png").write_bytes(b"broken")
    flags = f"--source in --dest out.zip --resolution 4x4 --max{underscore}images 2"
    run(*f"{first}{flags} --transform center-crop --num_workers 1".split())
    assert capsys.readouterr().out.splitlines() == [
        "wrote 1 pictures of 4x4",
        "left out 1 of 3 pictures (max_images)",
        "skipped 1, not readable (UnidentifiedImageError): 0.png",
    ]
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["00000/img00000000.png", "dataset.json"]


def test_check_tells_classes_cameras_and_what_is_wrong(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{i}.png" for i in range(3)]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    angles = {name: [0.1 * i - 0.1, 1.5, 0.0] for i, name in enumerate(names)}
    table = {"labels": dict(zip(names, [0, 3, 3], strict=True)), "camera_angles": angles}
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    run("check", ".", "--frontal_yaw", "0")
    assert capsys.readouterr().out.splitlines() == [
        "3 pictures, 0 other files",
        "4 classes, 2 of them empty; class 0 has 1 pictures, class 3 has 2",
        "3 cameras: yaw 0.000 +- 0.082 (-0.100 to 0.100), pitch 1.500 +- 0.000 (1.500 to 1.500), "
        "roll 0.000 +- 0.000 (0.000 to 0.000)",
    ]
    with pytest.raises(SystemExit) as exit_info:
        run("check", ".")
    assert exit_info.value.code == 1
    assert "set frontal_yaw to 0" in capsys.readouterr().out


def test_an_lmdb_is_refused_in_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cat_lmdb").mkdir()
    with pytest.raises(SystemExit) as exit_info:
        run(*"--source cat_lmdb --dest out.zip".split())
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "is an LMDB" in lines[0] and "folder" in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "convert --source in",
        "--source in --dest out.zip --resolution 4x4x4",
        "--source in --dest out.zip --resolution big",
        "--source in --dest out.zip --transform crop",
        "--source in --dest out.zip --max_images 0",
        "toy --num 1",
        "toys --num 1 --img_size 8",
        "toys --num one --img_size 8 --output toys.zip",
        "toys --num 1 --img_size 8 --output toys.zip --device warp",
    ],
)
def test_a_wrong_command_line_is_exit_code_2(
    arguments: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*arguments.split())
    assert exit_info.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())

"""Finding picture files, and reading their dataset.json."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from image_files import find_images, read_annotations


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Empty files in a folder: two pictures in subfolders, one on top, and things to pass over."""
    for name in ("b.png", "x/a b.jpg", "x/ü/c.WEBP", "notes.txt", ".hidden.png", ".git/d.png"):
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "tree"


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    """Zip a folder's files, hidden ones included."""
    with zipfile.ZipFile(archive, "w") as output:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                output.write(file, prefix + file.relative_to(folder).as_posix())
    return archive


def annotate(folder: Path, content: object) -> None:
    (folder / "dataset.json").write_text(json.dumps(content))


def test_a_folder_gives_its_pictures_at_all_depths_sorted(tree):
    files = find_images(str(tree))
    assert files.names == ["b.png", "x/a b.jpg", "x/ü/c.WEBP"]
    (tree / "x/ü/c.WEBP").write_bytes(b"pixels")
    assert files.read("x/ü/c.WEBP") == b"pixels"


def test_a_glob_gives_what_it_matches(tree, monkeypatch):
    assert find_images(f"{tree}/**/*.jpg").names == ["x/a b.jpg"]
    assert find_images(f"{tree}/x*/*").names == ["x/a b.jpg"]
    assert find_images(f"{tree}/**").names == ["b.png", "x/a b.jpg", "x/ü/c.WEBP"]
    assert find_images(f"{tree}/b.png").names == ["b.png"]
    monkeypatch.chdir(tree)
    assert find_images("*.png").names == ["b.png"]
    assert find_images("x/*.jpg").names == ["a b.jpg"]


def test_wildcards_in_a_folder_s_own_name_are_taken_literally(tree):
    odd = tree.rename(tree.parent / "tree [v1]")
    assert len(find_images(str(odd)).names) == 3


def test_the_home_folder_may_be_written_as_a_tilde(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree.parent))
    assert find_images("~/tree").names == find_images(str(tree)).names


def test_a_zip_gives_the_same_as_its_folder(tree, tmp_path):
    (tree / "b.png").write_bytes(b"pixels")
    files = find_images(str(pack(tree, tmp_path / "tree.zip")))
    assert files.names == ["b.png", "x/a b.jpg", "x/ü/c.WEBP"]
    assert files.read("b.png") == b"pixels"


def test_nothing_found_is_an_error_that_names_the_path(tree, tmp_path):
    with pytest.raises(ValueError, match=r"'/nowhere/\*\.jpg': nothing there"):
        find_images("/nowhere/*.jpg")
    with pytest.raises(ValueError, match="'/nowhere/faces': nothing there"):
        find_images("/nowhere/faces")
    with pytest.raises(ValueError, match="none of the 1 entries there is an image"):
        find_images(f"{tree}/*.txt")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK not really")
    with pytest.raises(ValueError, match="broken.zip' is not a readable zip"):
        find_images(str(broken))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(ValueError, match="empty.zip' holds no image"):
        find_images(str(tmp_path / "empty.zip"))


def test_stamps_change_with_a_file_and_only_then(tree, tmp_path):
    def stamps(path: Path) -> list:
        files = find_images(str(path))
        return files.stamps(files.names)

    archive = pack(tree, tmp_path / "tree.zip")
    before = stamps(tree), stamps(archive)
    assert (stamps(tree), stamps(archive)) == before
    (tree / "b.png").write_bytes(b"other")
    assert stamps(tree) != before[0]
    pack(tree, archive)
    assert stamps(archive) != before[1]


# ---- dataset.json

ANGLES = {"b.png": [0.1, 1.2, 0.0], "x/a b.jpg": [-3, 1.5, 0.25], "x/ü/c.WEBP": [2.5, 0, -1]}
LABELS = {"b.png": 4, "x/a b.jpg": 0, "x/ü/c.WEBP": 2}
SPELLINGS = {
    "as dictionaries": lambda entries: entries,
    "as pairs": lambda entries: [[name, value] for name, value in entries.items()],
    "in another order": lambda entries: dict(reversed(entries.items())),
    "without extension": lambda e: {name.rsplit(".", 1)[0]: value for name, value in e.items()},
    "with another extension": lambda e: {n.rsplit(".", 1)[0] + ".tif": v for n, v in e.items()},
    "below the folder's name": lambda e: {f"tree/{name}": value for name, value in e.items()},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("packed", [False, True])
def test_angles_and_labels_reach_their_pictures_however_they_are_spelt(
    tree, tmp_path, spelling, packed
):
    spell = SPELLINGS[spelling]
    annotate(tree, {"camera_angles": spell(ANGLES), "labels": spell(LABELS)})
    notes = read_annotations(
        find_images(str(pack(tree, tmp_path / "tree.zip") if packed else tree))
    )
    expected = np.array([[0.1, 1.2, 0], [-3, 1.5, 0.25], [2.5, 0, -1]], np.float32)
    np.testing.assert_array_equal(notes.camera_angles, expected)
    np.testing.assert_array_equal(notes.labels, [4, 0, 2])


def test_names_may_count_from_the_folder_of_the_table(tree, tmp_path):
    annotate(tree, {"labels": LABELS})
    notes = read_annotations(find_images(str(pack(tree, tmp_path / "z.zip", prefix="data/v1/"))))
    np.testing.assert_array_equal(notes.labels, [4, 0, 2])


def test_the_table_nearest_to_the_root_counts(tree):
    annotate(tree, {"labels": LABELS})
    annotate(tree / "x", {"labels": {"a b.jpg": 9}})
    np.testing.assert_array_equal(read_annotations(find_images(str(tree))).labels, [4, 0, 2])
    (tree / "dataset.json").unlink()
    (tree / "y").mkdir()
    annotate(tree / "y", {})
    with pytest.raises(ValueError, match=r"x/dataset.json or y/dataset.json"):
        read_annotations(find_images(str(tree)))


def test_a_glob_takes_the_entries_of_the_pictures_that_it_matches(tree):
    annotate(tree, {"labels": LABELS})
    notes = read_annotations(find_images(f"{tree}/x*/**"))
    np.testing.assert_array_equal(notes.labels, [0, 2])
    (tree / "dataset.json").unlink()
    assert read_annotations(find_images(f"{tree}/x*/**")).labels is None


def test_one_hot_vectors_are_classes_and_say_how_many_there_are(tree):
    vectors = {name: np.eye(7)[i].tolist() for name, i in LABELS.items()}
    annotate(tree, {"labels": vectors})
    notes = read_annotations(find_images(str(tree)))
    np.testing.assert_array_equal(notes.labels, [4, 0, 2])
    assert notes.labels is not None and notes.labels.dtype == np.int64
    assert notes.num_classes == 7 and notes.camera_labels is None
    annotate(tree, {"labels": LABELS})
    assert read_annotations(find_images(str(tree))).num_classes == 5


def test_twenty_five_numbers_are_a_camera_unless_they_are_one_hot(tree):
    rows = np.random.default_rng(0).normal(size=(3, 25))
    annotate(tree, {"labels": dict(zip(ANGLES, rows.tolist(), strict=True))})
    notes = read_annotations(find_images(str(tree)))
    np.testing.assert_array_equal(notes.camera_labels, rows.astype(np.float32))
    assert notes.labels is None and notes.num_classes == 0
    annotate(tree, {"labels": {name: np.eye(25)[15].tolist() for name in ANGLES}})
    notes = read_annotations(find_images(str(tree)))
    assert notes.num_classes == 25 and notes.camera_labels is None


def test_what_the_table_says_of_all_cameras_is_kept(tree):
    annotate(tree, {"camera": {"frontal_yaw": 0, "up": "z", "lens": "long"}})
    notes = read_annotations(find_images(str(tree)))
    assert notes.camera == {"frontal_yaw": 0, "up": "z", "lens": "long"}


def test_files_that_are_passed_over_are_known(tree, tmp_path):
    annotate(tree, {})
    assert find_images(str(tree)).others == ["notes.txt"]
    assert find_images(str(pack(tree, tmp_path / "tree.zip"))).others == ["notes.txt"]
    assert find_images(f"{tree}/*").others == ["notes.txt"]


def test_absent_and_null_tables_mean_none(tree):
    assert read_annotations(find_images(str(tree))).labels is None
    annotate(tree, {"labels": None, "comment": "made by hand"})
    notes = read_annotations(find_images(str(tree)))
    assert notes.labels is None and notes.camera_angles is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], r"must hold a dictionary, got \[1\]"),
        ({"labels": "abc"}, "labels must be a dictionary or a list, got 'abc'"),
        ({"labels": [["b.png", 1, 2]]}, r"labels holds \['b.png', 1, 2\] in place of a pair"),
        ({"labels": [[3, 1]]}, r"labels holds \[3, 1\] in place of a pair"),
        (
            {"labels": LABELS | {"d.png": 1}},
            "'d.png', and there is no such .* .4 entries, 3 images",
        ),
        (
            {"labels": {"b.png": 1}},
            r"has 1 entries for 3 images; it lacks 2 of the images: x/a b.jpg, x/ü/c.WEBP",
        ),
        ({"labels": LABELS | {"tree/b.png": 1}}, "labels has two entries for b.png"),
        ({"labels": LABELS | {"b.png": -1}}, "labels of 'b.png' must be a class .*, got -1"),
        ({"labels": LABELS | {"b.png": 1.5}}, "labels of 'b.png' must be a class .*, got 1.5"),
        ({"labels": LABELS | {"b.png": True}}, "labels of 'b.png' must be a class .*, got True"),
        (
            {"labels": LABELS | {"b.png": [0.0] * 25}},
            r"'b.png' is 25 numbers, and that of 'x/a b.jpg' a class",
        ),
        (
            {"labels": {name: [0.0, 1.0, 0.0][i:] for i, name in enumerate(LABELS)}},
            "labels of 'b.png' is 3 numbers, and that of 'x/a b.jpg' 2 numbers: all must be",
        ),
        (
            {"labels": {name: [0.5, 0.5] for name in LABELS}},
            "labels of 'b.png' is 2 numbers, which must be a one-hot vector .* or the 25 numbers",
        ),
        ({"labels": LABELS | {"b.png": []}}, r"'b.png' must be a class .*, got \[\]"),
        ({"camera": 3}, "camera must be a dictionary, got 3"),
        ({"camera": {"frontal_yaw": "left"}}, "camera.frontal_yaw must be a number, got 'left'"),
        ({"camera": {"up": "x"}}, r"camera.up must be one of \('y', 'z'\), got 'x'"),
        (
            {"camera_angles": ANGLES | {"b.png": [1, 2]}},
            r"angles of 'b.png' must be three .*\[1, 2",
        ),
        ({"camera_angles": ANGLES | {"b.png": 7}}, "angles of 'b.png' must be three .*got 7"),
        ({"camera_angles": ANGLES | {"b.png": [0, float("nan"), 0]}}, "'b.png' must be three fin"),
        ({"camera_angles": ANGLES | {"b.png": [float("inf"), 1, 0]}}, "'b.png' must be three fin"),
        ({"camera_angles": ANGLES | {"b.png": [10**400, 1, 0]}}, "'b.png' must be three fin"),
        ({"camera_angles": ANGLES | {"b.png": [0, 90, 0]}}, "'b.png' must have a pitch between"),
        ({"camera_angles": ANGLES | {"b.png": [0, "1", 0]}}, "'b.png' must be three finite"),
    ],
)
def test_a_wrong_table_is_refused_with_its_name_and_the_entry(tree, content, message):
    annotate(tree, content)
    with pytest.raises(ValueError, match=message) as refusal:
        read_annotations(find_images(str(tree)))
    assert str(tree) in str(refusal.value) and "dataset.json" in str(refusal.value)


def test_a_table_that_is_no_json_is_refused(tree):
    (tree / "dataset.json").write_text('{"labels": ')
    with pytest.raises(ValueError, match="dataset.json is not valid JSON: Expecting value"):
        read_annotations(find_images(str(tree)))


def test_an_extensionless_name_with_two_candidates_is_refused(tree):
    (tree / "b.jpg").write_bytes(b"")
    annotate(tree, {"labels": {"b": 1}})
    with pytest.raises(ValueError, match="names 'b', which may be b.jpg and b.png"):
        read_annotations(find_images(str(tree)))

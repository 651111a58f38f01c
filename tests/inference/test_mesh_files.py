"""Meshes and volumes on disk, read back by other people's programs."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from plyfile import PlyData

from inference.mesh import Mesh
from inference.mesh_files import save_mesh, write_mrc

VERTICES = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
FACES = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
NORMALS = torch.nn.functional.normalize(VERTICES - torch.tensor([0.3, 0.5, 0.6]), dim=-1)
COLOURS = torch.tensor([[0.0, 0.2, 1.0], [1, 1, 1], [0.5, 0.25, 0.75], [0.1, 0.6, 0.9]])
FULL = Mesh(VERTICES, FACES, NORMALS, COLOURS)
BARE = Mesh(VERTICES, FACES)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
@pytest.mark.parametrize("mesh", [FULL, BARE], ids=["full", "bare"])
def test_trimesh_reads_the_same_solid(mesh: Mesh, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / "new" / f"mesh{suffix}"
    save_mesh(file, mesh)
    read = trimesh.load(file, force="mesh", process=False)
    assert isinstance(read, trimesh.Trimesh)
    np.testing.assert_allclose(read.vertices, VERTICES)
    np.testing.assert_array_equal(read.faces, FACES)
    assert read.is_watertight and read.volume == pytest.approx(1.0)


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_trimesh_reads_the_colours(suffix: str, tmp_path: Path) -> None:
    save_mesh(tmp_path / f"mesh{suffix}", FULL)
    read = trimesh.load(tmp_path / f"mesh{suffix}", force="mesh", process=False)
    assert isinstance(read, trimesh.Trimesh)
    colours: Any = read.visual
    np.testing.assert_allclose(colours.vertex_colors[:, :3] / 255, COLOURS, atol=1 / 255)


def test_a_ply_is_binary_and_says_what_its_columns_are(tmp_path: Path) -> None:
    save_mesh(tmp_path / "mesh.ply", FULL)
    data = PlyData.read(str(tmp_path / "mesh.ply"))
    assert not data.text and data.byte_order == "<"
    names = [p.name for p in data["vertex"].properties]
    assert names == ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    normals = np.stack([data["vertex"][name] for name in ("nx", "ny", "nz")], axis=1)
    np.testing.assert_array_equal(normals, NORMALS)
    red = np.asarray(data["vertex"]["red"])
    assert red.dtype == np.uint8 and red.tolist() == [0, 255, 128, 26]
    assert [list(f) for f in data["face"]["vertex_indices"]] == FACES.tolist()


def test_a_glb_has_normals_colours_in_linear_light_and_no_lamp(tmp_path: Path) -> None:
    file = tmp_path / "mesh.glb"
    save_mesh(file, FULL)
    assert file.stat().st_size % 4 == 0
    magic, version, length = struct.unpack("<4sII", file.read_bytes()[:12])
    assert (magic, version, length) == (b"glTF", 2, file.stat().st_size)
    scene = trimesh.load(file, process=False)
    assert isinstance(scene, trimesh.Scene)
    (mesh,) = scene.geometry.values()
    np.testing.assert_allclose(mesh.vertex_normals, NORMALS, atol=1e-6)
    linear = mesh.visual.vertex_attributes["color"][:, :3] / 65535
    assert linear[0].tolist() == [0.0, pytest.approx(0.0331, abs=1e-4), 1.0]
    assert linear[2, 0] == pytest.approx(0.2140, abs=1e-4)
    assert b"KHR_materials_unlit" in file.read_bytes()


def test_an_obj_counts_from_one(tmp_path: Path) -> None:
    save_mesh(tmp_path / "mesh.obj", FULL)
    lines = (tmp_path / "mesh.obj").read_text().splitlines()
    assert [line for line in lines if line.startswith("f ")][0] == "f 1//1 3//3 2//2"
    assert lines[2] == "v 1 0 0 1 1 1"
    normals = [line.split()[1:] for line in lines if line.startswith("vn ")]
    np.testing.assert_allclose(np.array(normals, float), NORMALS, atol=1e-4)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of .ply, .obj, .glb, got 'mesh.stl'"):
        save_mesh(tmp_path / "mesh.stl", FULL)


def test_an_mrc_is_the_volume_after_its_header(tmp_path: Path) -> None:
    volume = torch.randn(5, 5, 5)
    write_mrc(tmp_path / "volume.mrc", iter(volume), 5, 0.3)
    data = (tmp_path / "volume.mrc").read_bytes()
    assert len(data) == 1024 + 4 * 125
    body = np.frombuffer(data, "<f4", offset=1024).reshape(5, 5, 5)
    np.testing.assert_array_equal(body, volume)
    words, reals = np.frombuffer(data[:1024], "<i4"), np.frombuffer(data[:1024], "<f4")
    assert words[:4].tolist() == [5, 5, 5, 2]
    assert words[7:10].tolist() == [5, 5, 5]
    np.testing.assert_allclose(reals[10:13] / words[7:10], 0.3 / 4)  # a voxel's side
    assert words[16:19].tolist() == [3, 2, 1]
    statistics = [volume.min(), volume.max(), volume.mean()]
    np.testing.assert_allclose(reals[19:22], statistics, atol=1e-6)
    assert data[208:212] == b"MAP " and data[212:216] == bytes([0x44, 0x44, 0, 0])
    np.testing.assert_allclose(reals[49:52], -0.15)
    np.testing.assert_allclose(reals[54], volume.std(unbiased=False), rtol=1e-5)

"""Meshes and volumes on disk: .ply, .obj, .glb and .mrc.

All of them in world coordinates, +y up and right-handed, which is what glTF asks for; the other
mesh formats leave it open. Needs plyfile, for .ply only.
"""

import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from torch import Tensor

from inference.mesh import Mesh
from ops.shapes import Float

_FLOAT, _UINT, _USHORT = 5126, 5125, 5123  # glTF's component types
_ARRAY, _INDEX = 34962, 34963  # glTF's buffer targets


def save_mesh(path: Path, mesh: Mesh) -> None:
    """Write a mesh in the format of the path's suffix; the folder is made if need be."""
    if path.suffix not in WRITERS:
        raise ValueError(f"a mesh is written as one of {', '.join(WRITERS)}, got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[path.suffix](path, mesh)


def write_ply(path: Path, mesh: Mesh) -> None:
    """Binary PLY: normals and 8-bit colours are properties of the vertices."""
    from plyfile import PlyData, PlyElement

    fields = [(name, "<f4") for name in ("x", "y", "z")]
    columns = [_array(mesh.vertices)]
    if mesh.normals is not None:
        fields += [(name, "<f4") for name in ("nx", "ny", "nz")]
        columns.append(_array(mesh.normals))
    if mesh.colours is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        columns.append(_bytes(mesh.colours))
    vertices = np.empty(len(mesh.vertices), dtype=fields)
    for (name, _), values in zip(fields, (c for group in columns for c in group.T), strict=True):
        vertices[name] = values
    faces = np.empty(len(mesh.faces), dtype=[("vertex_indices", "<i4", (3,))])
    faces["vertex_indices"] = mesh.faces.cpu().numpy()
    elements = [PlyElement.describe(vertices, "vertex"), PlyElement.describe(faces, "face")]
    PlyData(elements, text=False, byte_order="<").write(str(path))


def write_obj(path: Path, mesh: Mesh) -> None:
    """Wavefront OBJ: colours follow the coordinates, as most programs expect them."""
    vertices = _array(mesh.vertices)
    if mesh.colours is not None:
        vertices = np.concatenate([vertices, _array(mesh.colours)], axis=1)
    faces = mesh.faces.cpu().numpy() + 1
    with open(path, "w", encoding="ascii") as stream:
        stream.write("# PeriGAN\n")
        _write_rows(stream.write, "v" + " %.7g" * vertices.shape[1] + "\n", vertices)
        if mesh.normals is None:
            _write_rows(stream.write, "f %d %d %d\n", faces)
            return
        _write_rows(stream.write, "vn %.5g %.5g %.5g\n", _array(mesh.normals))
        _write_rows(stream.write, "f %d//%d %d//%d %d//%d\n", faces.repeat(2, axis=1))


def _write_rows(write: Callable[[str], object], line: str, rows: np.ndarray) -> None:
    for start in range(0, len(rows), 4096):
        part = rows[start : start + 4096]
        write((line * len(part)) % tuple(part.ravel().tolist()))


def write_glb(path: Path, mesh: Mesh) -> None:
    """Binary glTF 2.0: a JSON chunk that describes the binary chunk after it.

    Colours become linear light, which glTF has its vertex colours in, and the material unlit, so
    that viewers show them as the generator made them.
    """
    parts = _glb_parts(mesh)
    views, accessors, offset = [], [], 0
    for i, (array, kind, target) in enumerate(parts.values()):
        view = {"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target}
        views.append(view)
        accessors.append({"bufferView": i, "count": len(array), **kind})
        offset += array.nbytes  # all of them multiples of 4
    places = {name: i for i, name in enumerate(parts)}
    indices = places.pop("indices")
    document = {
        "asset": {"version": "2.0", "generator": "PeriGAN"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": places, "indices": indices, "material": 0}]}],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}}],
        "buffers": [{"byteLength": offset}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    with open(path, "wb") as stream:
        stream.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + offset))
        stream.write(struct.pack("<I4s", len(text), b"JSON") + text)
        stream.write(struct.pack("<I4s", offset, b"BIN\0"))
        for array, _, _ in parts.values():
            stream.write(array.tobytes())


def _glb_parts(mesh: Mesh) -> dict[str, tuple[np.ndarray, dict[str, object], int]]:
    """The binary chunk by glTF's names: numbers, what they are, and what they are for."""
    vertices, vector = _array(mesh.vertices), {"componentType": _FLOAT, "type": "VEC3"}
    corners = {"min": vertices.min(0).tolist(), "max": vertices.max(0).tolist()}
    parts = {"POSITION": (vertices, {**vector, **corners}, _ARRAY)}
    if mesh.normals is not None:
        parts["NORMAL"] = (_array(mesh.normals), vector, _ARRAY)
    if mesh.colours is not None:
        linear = np.ones((len(vertices), 4))  # a fourth number keeps rows on multiples of 4 bytes
        linear[:, :3] = _to_linear(_array(mesh.colours).astype(np.float64))
        shorts = np.round(linear * 65535).astype("<u2")
        kind = {"componentType": _USHORT, "type": "VEC4", "normalized": True}
        parts["COLOR_0"] = (shorts, kind, _ARRAY)
    indices = mesh.faces.cpu().numpy().astype("<u4").reshape(-1)
    parts["indices"] = (indices, {"componentType": _UINT, "type": "SCALAR"}, _INDEX)
    return parts


WRITERS: dict[str, Callable[[Path, Mesh], None]] = {
    ".ply": write_ply,
    ".obj": write_obj,
    ".glb": write_glb,
}


def write_mrc(
    path: Path, slabs: Iterable[Float[Tensor, "y z"]], resolution: int, cube_size: float
) -> None:
    """MRC2014 volume, float32, written slab by slab from -x to +x; z varies fastest.

    That is the order of the original's files, and their only content: here the header also says
    which axis is which, how large a voxel is (in world units, where the format has angstroms) and
    where the first one lies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count, total, squares = 0, 0.0, 0.0
    low, high = np.inf, -np.inf
    with open(path, "wb") as stream:
        stream.write(bytes(1024))
        for slab in slabs:
            values = slab.cpu().numpy().astype("<f4")
            stream.write(values.tobytes())
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            count += values.size
            total += float(values.sum(dtype=np.float64))
            squares += float(np.square(values, dtype=np.float64).sum())
        assert count == resolution**3
        mean = total / count
        deviation = max(squares / count - mean**2, 0.0) ** 0.5
        stream.seek(0)
        stream.write(_mrc_header(resolution, cube_size, (low, high, mean, deviation)))


def _mrc_header(
    resolution: int, cube_size: float, statistics: tuple[float, float, float, float]
) -> bytes:
    low, high, mean, deviation = statistics
    cell = cube_size / (resolution - 1) * resolution
    header = struct.pack(
        "<10i6f3i3f2i8s4si84s3f4s4Bfi",
        *(resolution,) * 3,  # columns, rows, sections
        2,  # mode: 32-bit reals
        *(0,) * 3,  # index of the first column, row, section
        *(resolution,) * 3,  # intervals along the cell
        *(cell,) * 3,
        *(90.0,) * 3,  # angles of the cell
        *(3, 2, 1),  # columns run along z, rows along y, sections along x
        *(low, high, mean),
        1,  # space group: a volume, not a stack of pictures
        0,  # bytes of extended header
        bytes(8),
        bytes(4),
        20140,  # version of the format
        bytes(84),
        *(-cube_size / 2,) * 3,  # place of the first voxel
        b"MAP ",
        *(0x44, 0x44, 0, 0),  # little-endian
        deviation,
        1,  # labels
    )
    return (header + b"PeriGAN: raw density".ljust(80)).ljust(1024, b"\0")


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().astype("<f4")


def _bytes(colours: Tensor) -> np.ndarray:
    return np.round(_array(colours).clip(0, 1) * 255).astype(np.uint8)


def _to_linear(colours: np.ndarray) -> np.ndarray:
    """From sRGB's gamma to linear light (IEC 61966-2-1)."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)

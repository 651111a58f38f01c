"""One image's folded field in `native.cpp`, compiled for the processor at hand.

Compiling takes seconds, happens when it is first asked for, and leaves nothing on the disk. Any
compiler that knows GNU's vectors (g++, clang++) will do; CXX names another one than g++.
"""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.shapes import Float
from siren.layers import Weights

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=fast")
TARGETS = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
BLOCK_SIZE = 1 << 16  # points per call
POINTER, COUNT = ctypes.c_void_p, ctypes.c_int64


class _Field(ctypes.Structure):
    """As in native.cpp: sizes, then where a field's tensors lie."""

    _fields_ = [
        *((name, COUNT) for name in ("depth", "width", "features", "views")),
        *((name, POINTER) for name in ("first", "to_views", "biases")),
        *((name, POINTER) for name in ("radiance", "density", "head_biases")),
        *((name, POINTER) for name in ("weights", "transposed")),
    ]


class _Points(ctypes.Structure):
    """As in native.cpp: inputs, and outputs or gradients."""

    _fields_ = [
        ("count", COUNT),
        *((name, POINTER) for name in ("x", "views", "radiance", "density")),
        *((name, POINTER) for name in ("grad_x", "grad_views", "sums")),
        ("size", COUNT),
    ]


class Library:
    """The compiled code, and the order in which it wants its matrices."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.panel: int = library.panel_width()
        self.rows: int = library.tile_rows()  # few rows of sums are filled up to these
        self._run = {torch.float32: library.run_float}
        if hasattr(library, "run_bf16"):
            self._run[torch.bfloat16] = library.run_bf16
        for run in self._run.values():
            run.restype = None

    @property
    def dtypes(self) -> set[torch.dtype]:
        """What products it knows."""
        return set(self._run)

    def takes(self, weights: Weights, dtype: torch.dtype) -> bool:
        """Whether a field with products of `dtype` can be computed here."""
        full = all(tensor.dtype == torch.float32 for pair in weights.layers for tensor in pair)
        return full and dtype in self._run

    def pack(self, matrix: Float[Tensor, "rows columns"], dtype: torch.dtype) -> Tensor:
        """(panels, rows, width), for 16-bit numbers (panels, rows / 2, width, 2)."""
        rows, columns = matrix.shape
        pair, panels = 2 if dtype == torch.bfloat16 else 1, -(-columns // self.panel)
        filled = F.pad(matrix, (0, panels * self.panel - columns)).to(dtype)
        shape = (rows // pair, pair, panels, self.panel)
        return filled.reshape(shape).permute(2, 0, 3, 1).contiguous()

    def unpack(self, packed: Tensor, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        """The upper left of the matrix that lies in a flat tensor's panels."""
        panels = -(-columns // self.panel)
        return packed.reshape(panels, -1, self.panel).transpose(0, 1).flatten(1)[:rows, :columns]

    def run(self, dtype: torch.dtype, field: _Field, points: _Points, threads: int) -> None:
        """Evaluate, or differentiate where there are sums, one for each thread."""
        self._run[dtype](ctypes.byref(field), ctypes.byref(points), threads)


class NativeScene:
    """One image's field on blocks of points: what `TorchScene` computes, and its interface."""

    block_size = BLOCK_SIZE

    def __init__(
        self, weights: Weights, *, view_direction: bool, dtype: torch.dtype, library: Library
    ) -> None:
        self._library, self._dtype = library, dtype
        (first, _), *others = weights.layers
        self._hidden, self._features = first.shape
        self._views = 3 if view_direction else 0
        filled = -self._hidden % library.panel
        self._width = self._hidden + filled
        *squares, color = [weight for weight, _ in others]
        self._squares = [*squares, color[:, self._views :]]

        def few(matrix: Tensor) -> Tensor:
            return library.pack(matrix, torch.float32)

        self._tensors = {
            "first": few(first.t()),
            "to_views": few(color[:, : self._views].t()),
            "biases": torch.stack([F.pad(bias, (0, filled)) for _, bias in weights.layers]),
            "radiance": few(weights.radiance[0]),
            "density": few(weights.density[0]),
            "head_biases": torch.cat([weights.radiance[1], weights.density[1]]),
            "weights": self._pack_all([matrix.t() for matrix in self._squares]),
        }
        self._field = _Field(
            depth=len(self._squares),
            width=self._width,
            features=self._features,
            views=self._views,
            **{name: tensor.data_ptr() for name, tensor in self._tensors.items()},
        )

    def evaluate(
        self, x: Float[Tensor, "n in"], views: Float[Tensor, "n 3"] | None
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 1"]]:
        """Radiance in 0..1 and linear density."""
        radiance, density = x.new_empty(len(x), 3), x.new_empty(len(x), 1)
        self._run(x=x, views=views, radiance=radiance, density=density)
        return radiance, density

    def density(self, x: Float[Tensor, "n in"]) -> Float[Tensor, "n 1"]:
        """The density alone, without the colour layer."""
        density = x.new_empty(len(x), 1)
        self._run(x=x, density=density)
        return density

    def backward(
        self,
        x: Float[Tensor, "n in"],
        views: Float[Tensor, "n 3"] | None,
        grad_radiance: Float[Tensor, "n 3"],
        grad_density: Float[Tensor, "n 1"],
        sums: Weights,
        *,
        points_too: bool,
        views_too: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Recompute points, add their share to the gradient sums, and return those of inputs."""
        if "transposed" not in self._tensors:  # kept for the next block
            self._tensors["transposed"] = self._pack_all(self._squares)
            self._field.transposed = self._tensors["transposed"].data_ptr()
        grad_x = x.new_empty(x.shape) if points_too else None
        grad_views = x.new_empty(len(x), 3) if views_too and views is not None else None
        rows, width, depth = self._library.rows, self._width, self._field.depth
        features = -(-self._features // rows) * rows
        sizes = [(depth + 1) * width, rows, *[rows * width] * 3]  # biases; heads, views
        sizes += [*[width * width] * depth, features * width]  # other layers; the first
        totals = x.new_zeros(torch.get_num_threads(), sum(sizes))
        self._run(
            x=x,
            views=views,
            radiance=grad_radiance,
            density=grad_density,
            grad_x=grad_x,
            grad_views=grad_views,
            sums=totals,
        )
        self._add(totals.sum(0).split(sizes), sums)
        return grad_x, grad_views

    def _pack_all(self, squares: list[Tensor]) -> Tensor:
        rows = (0, 0, 0, self._width - self._hidden)
        packed = [self._library.pack(F.pad(matrix, rows), self._dtype) for matrix in squares]
        return torch.stack(packed)

    def _add(self, parts: tuple[Tensor, ...], sums: Weights) -> None:
        """Sums of gradients from where native.cpp has put them."""
        hidden = self._hidden
        biases, head_biases, radiance, density, views, *squares, first = parts

        def unpack(part: Tensor, rows: int) -> Tensor:
            return self._library.unpack(part, rows, hidden)

        sums.radiance[0].add_(unpack(radiance, 3))
        sums.density[0].add_(unpack(density, 4)[3:])
        sums.radiance[1].add_(head_biases[:3])
        sums.density[1].add_(head_biases[3:4])
        sums.layers[0][0].add_(unpack(first, self._features).t())
        for k, part in enumerate(squares):
            offset = self._views if k + 1 == len(squares) else 0
            sums.layers[k + 1][0][:, offset:].add_(unpack(part, hidden).t())
        sums.layers[-1][0][:, : self._views].add_(unpack(views, self._views).t())
        for (_, bias), own in zip(sums.layers, biases.reshape(-1, self._width), strict=True):
            bias.add_(own[:hidden])

    def _run(self, x: Tensor, sums: Tensor | None = None, **others: Tensor | None) -> None:
        tensors = {"x": x, "sums": sums, **others}
        ready = {name: t.contiguous() for name, t in tensors.items() if t is not None}
        assert all(tensor.dtype == torch.float32 for tensor in ready.values())
        assert x.shape[1] == self._features
        pointers = {name: tensor.data_ptr() for name, tensor in ready.items()}
        threads, size = (torch.get_num_threads(), 0) if sums is None else sums.shape
        points = _Points(count=len(x), size=size, **pointers)
        self._library.run(self._dtype, self._field, points, threads)


@functools.cache
def compiled() -> Library:
    """The library, compiled once per process; ValueError if there is no compiler or it fails."""
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None:
        raise ValueError(
            f"compiling the field needs a C++ compiler, and {compiler} was not found: install it, "
            "or name another one in the environment's CXX"
        )
    with tempfile.TemporaryDirectory() as folder:
        path, complaint = Path(folder) / "native.so", ""
        for target in TARGETS:
            command = [compiler, *FLAGS, *target, str(SOURCE), "-o", str(path)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode == 0:
                return Library(path)
            complaint = complaint or result.stderr.strip()
    raise ValueError(f"{compiler} cannot compile {SOURCE.name}: {complaint[:500]}")

"""`native.cpp`, compiled for the processor at hand and called: one sine layer, fused.

Compiling takes a second, happens when it is first asked for, and leaves nothing on the disk. Any
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
from torch import Tensor

from ops.shapes import Float

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=fast")
TARGETS = (("-march=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
POINTER, COUNT = ctypes.c_void_p, ctypes.c_int64
ARGUMENTS = (POINTER, POINTER, POINTER, COUNT, POINTER, POINTER, COUNT, COUNT, COUNT, ctypes.c_int)


class Library:
    """The compiled layer; what it `takes` are weights of its types and sizes."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._width: int = library.panel_width()
        self.has_bf16 = bool(library.has_bf16())
        single, half = torch.float32, torch.bfloat16
        self._layers = {
            (single, single): library.sine_float_float,
            (single, half): library.sine_float_bf16,
        }
        if self.has_bf16:
            self._layers[half, half] = library.sine_bf16_bf16
        for layer in self._layers.values():
            layer.argtypes, layer.restype = ARGUMENTS, None

    def takes(self, weight: Tensor) -> bool:
        """Whether products with this weight can be computed here."""
        if weight.dtype == torch.bfloat16:
            return self.has_bf16 and weight.shape[1] % 2 == 0
        return weight.dtype == torch.float32

    def pack(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "panels pairs width pair"]:
        """A weight in the order that the layer reads it in; `pair` is 2 for 16-bit numbers."""
        outputs, inputs = weight.shape
        panels = -(-outputs // self._width)
        pair = 2 if weight.dtype == torch.bfloat16 else 1
        padded = weight.new_zeros(panels * self._width, inputs)
        padded[:outputs] = weight
        grouped = padded.reshape(panels, self._width, inputs // pair, pair)
        return grouped.transpose(1, 2).contiguous()

    def sine(self, x: Tensor, packed: Tensor, start: Tensor, dtype: torch.dtype) -> Tensor:
        """sin(x W' + start) as `dtype`."""
        return self._run(x, packed, start, dtype, None)

    def sine_and_cosine(
        self, x: Tensor, packed: Tensor, start: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """The same, and the cosine in single precision."""
        cosine = start.new_empty(len(x), start.shape[-1])
        return self._run(x, packed, start, dtype, cosine), cosine

    def _run(
        self,
        x: Float[Tensor, "n in"],
        packed: Tensor,
        start: Tensor,
        dtype: torch.dtype,
        cosine: Tensor | None,
    ) -> Float[Tensor, "n out"]:
        x, start, outputs = x.contiguous(), start.contiguous(), start.shape[-1]
        assert x.dtype == packed.dtype and start.dtype == torch.float32
        assert x.shape[1] == packed.shape[1] * packed.shape[3]
        assert packed.shape[0] == -(-outputs // self._width)
        y = torch.empty(len(x), outputs, dtype=dtype)
        self._layers[x.dtype, dtype](
            x.data_ptr(),
            packed.data_ptr(),
            start.data_ptr(),
            outputs if start.ndim == 2 else 0,
            y.data_ptr(),
            None if cosine is None else cosine.data_ptr(),
            len(x),
            x.shape[1],
            outputs,
            torch.get_num_threads(),
        )
        return y


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

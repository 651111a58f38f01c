"""The SIREN field on a GPU: Triton kernels in the forward pass, recomputed in the backward pass.

The same contract as siren/blocks.py, `evaluate_blocks`: only points are kept, activations are
recomputed a chunk at a time, and points whose gradients are exactly zero are left out. What is left
out is decided on the device; nothing here waits for it.

First derivatives only, like the blocks. siren/kernel_trial.py says when this path is taken.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from siren.blocks import EMPTY
from siren.compaction import Picked, pick
from siren.film import autocasting

FORWARD_NUMBERS = 2**23  # activations of a layer at once in the forward pass: 16 MB, in the cache
BACKWARD_NUMBERS = 2**26  # and in the backward pass, which keeps all layers of a chunk
POINTS_PER_SPLIT = 1024  # at least, where sums over a chunk's points are split among programs


class Tiling(NamedTuple):
    """How much a program of a kernel computes at once."""

    points: int = 128
    channels: int = 128
    inner: int = 64  # channels multiplied at a time
    warps: int = 8
    stages: int = 3  # steps of the product whose inputs are in flight
    fused: bool = True  # one launch takes a tile through all layers; else one launch per layer

    def fit(self, hidden: int) -> "Tiling":
        """No wider than the layers; 16 is the least that a product takes."""
        width = max(16, 1 << (hidden - 1).bit_length())
        channels, inner = min(self.channels, width), min(self.inner, width)
        return self._replace(channels=channels, inner=inner)


def tiling_for(device: torch.device, dtype: torch.dtype) -> Tiling:
    """What fits a device's shared memory."""
    if device.type != "cuda":
        return Tiling(16, 16, 16)  # for the interpreter
    properties = torch.cuda.get_device_properties(device)
    memory = getattr(properties, "shared_memory_per_block_optin", 0)
    if dtype == torch.float32:
        return Tiling(64, 64, 32, warps=4, stages=2)
    return Tiling() if memory >= 160 * 1024 else Tiling(64, 64, 32, warps=4, stages=2)


class Packed(NamedTuple):
    """Folded weights of all layers as the kernels read them; siren/kernels.py gives the shapes."""

    first: Tensor
    weights: Tensor  # in the dtype of the products, all others in fp32
    views: Tensor  # empty without view directions
    biases: Tensor
    heads: Tensor


def evaluate_fused(
    x: Tensor,
    directions: Tensor | None,
    layers: Sequence[tuple[Tensor, Tensor]],
    density_head: tuple[Tensor, Tensor],
    radiance_head: tuple[Tensor, Tensor],
    inside: Tensor | None = None,
    *,
    tiling: Tiling | None = None,  # None: by the device
) -> tuple[Tensor, Tensor]:
    """Radiance (batch, n, 3) in 0..1 and linear density (batch, n, 1), as `evaluate_blocks`.

    Products are in autocast's dtype where it is on, otherwise in fp32.
    """
    dtype = product_dtype(x)
    tiling = (tiling or tiling_for(x.device, dtype)).fit(layers[0][0].shape[1])
    flat = [tensor for pair in (*layers, density_head, radiance_head) for tensor in pair]
    result = _FusedSiren.apply(x, directions, inside, dtype, tiling, *flat)
    return result  # pyright: ignore[reportReturnType]


def density_fused(
    x: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
    density_head: tuple[Tensor, Tensor],
) -> Tensor:
    """Linear density (batch, n, 1) alone, without the colour branch and without derivatives."""
    dtype = product_dtype(x)
    tiling = tiling_for(x.device, dtype).fit(layers[0][0].shape[1])
    weight, bias = density_head
    no_radiance = (weight.new_zeros(3, weight.shape[1]), bias.new_zeros(3))
    flat = [tensor for pair in (*layers, density_head, no_radiance) for tensor in pair]
    with torch.no_grad():
        with_views = layers[-1][0].shape[2] > layers[-1][0].shape[1]
        passes = _Passes(_rows(x, None), None, _pack(flat, dtype, with_views), tiling)
        return passes.forward(_counts(x, None), last=passes.depth - 1)[..., 3:]


def product_dtype(x: Tensor) -> torch.dtype:
    """What matrix products on this tensor's device are asked to be computed in."""
    return torch.get_autocast_dtype(x.device.type) if autocasting(x) else torch.float32


class _FusedSiren(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        directions: Tensor | None,
        inside: Tensor | None,
        dtype: torch.dtype,
        tiling: Tiling,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.dtype, ctx.tiling = dtype, tiling
        packed = _pack(flat, dtype, directions is not None)
        picked = None if inside is None else pick(inside)
        outputs = _Passes(_rows(x, picked), _rows(directions, picked), packed, tiling).forward(
            _counts(x, picked)
        )
        if picked is not None:
            nothing = F.pad(outputs.new_full((1,), EMPTY), (3, 0))  # no copy from the host
            outputs = picked.spread(outputs, nothing)
        radiance, density = outputs[..., :3], outputs[..., 3:]
        ctx.save_for_backward(x, directions, inside, radiance, *flat)
        return radiance, density

    @staticmethod
    def backward(ctx: Any, *grads: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():  # create_graph=True: the result is to be differentiated
            raise RuntimeError(
                "a fused field has first derivatives only: set its network's `blocked` to False"
            )
        x, directions, inside, radiance, *flat = ctx.saved_tensors
        packed = _pack(flat, ctx.dtype, directions is not None)
        to_radiance = grads[0].float() * (radiance - radiance * radiance)  # through the sigmoid
        heads = torch.cat([to_radiance, grads[1].float()], dim=-1)
        teaches = (grads[0] != 0).any(-1) | (grads[1][..., 0] != 0)
        picked = pick(teaches if inside is None else teaches & inside)
        passes = _Passes(picked.gather(x.float()), _rows(directions, picked), packed, ctx.tiling)
        want_x, want_views = ctx.needs_input_grad[:2]
        sums = passes.backward(picked.counts, picked.gather(heads), want_x, want_views)
        zero = heads.new_zeros(())
        grad_x = None if sums.x is None else picked.spread(sums.x, zero).to(x.dtype)
        grad_views = None if sums.views is None else picked.spread(sums.views, zero)
        flat_grads = [g.to(t.dtype) for g, t in zip(sums.flat(), flat, strict=True)]
        return grad_x, grad_views, None, None, None, *flat_grads


def _rows(values: Tensor | None, picked: Picked | None) -> Tensor | None:
    """Inputs of the points that are computed, in fp32."""
    if values is None:
        return None
    return values.float().contiguous() if picked is None else picked.gather(values.float())


def _counts(x: Tensor, picked: Picked | None) -> Tensor:
    if picked is not None:
        return picked.counts
    return torch.full((len(x),), x.shape[1], dtype=torch.int32, device=x.device)


def _pack(flat: Sequence[Tensor], dtype: torch.dtype, with_views: bool) -> Packed:
    """The kernels' view of a flat list of layers and heads."""
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    *layers, density, radiance = pairs
    color, offset = layers[-1][0], 3 if with_views else 0
    weights = [*(weight for weight, _ in layers[1:-1]), color[:, :, offset:]]
    heads = [radiance[0].flatten(), density[0].flatten(), radiance[1], density[1]]
    return Packed(
        first=layers[0][0].float().contiguous(),
        weights=torch.stack([weight.to(dtype) for weight in weights], dim=1),
        views=color[:, :, :offset].float().contiguous(),
        biases=torch.cat([bias.float() for _, bias in layers], dim=1),
        heads=torch.cat([head.float() for head in heads]),
    )


class Sums:
    """Gradients while they are being added up: of each layer, per image and split of its points."""

    def __init__(self, packed: Packed, features: int, splits: int) -> None:
        batch, depth, hidden = packed.weights.shape[:3]
        new, self.packed = packed.biases.new_zeros, packed

        def pair(out: int, width: int) -> tuple[Tensor, Tensor]:
            return new(batch, splits, out, width), new(batch, splits, out)

        self.layers = [pair(hidden, features)] + [pair(hidden, hidden) for _ in range(depth)]
        self.from_views, self.density, self.radiance = (
            pair(hidden, 3),
            pair(4, hidden),
            pair(4, hidden),
        )
        self.x: Tensor | None = None
        self.views: Tensor | None = None

    def flat(self) -> list[Tensor]:
        """In the order of the flat list of weights and biases."""
        pairs = [(weight.sum(1), bias.sum(1)[:, None]) for weight, bias in self.layers]
        if self.packed.views.shape[-1]:
            weight, bias = pairs[-1]
            pairs[-1] = (torch.cat([self.from_views[0].sum(1), weight], dim=-1), bias)
        density, radiance = (
            (pair[0].sum((0, 1)), pair[1].sum((0, 1))) for pair in (self.density, self.radiance)
        )
        pairs += [(density[0][3:], density[1][3:]), (radiance[0][:3], radiance[1][:3])]
        return [tensor for pair in pairs for tensor in pair]


class _Passes:
    """Launches of the kernels over chunks of points; inputs are contiguous and in fp32."""

    def __init__(
        self, x: Tensor | None, views: Tensor | None, packed: Packed, tiling: Tiling
    ) -> None:
        assert x is not None
        self.x, self.views, self.packed, self.tiling = x, views, packed, tiling
        self.batch, self.n, self.features = x.shape
        self.depth, self.hidden = packed.weights.shape[1:3]
        dtype = packed.weights.dtype
        self.precision = "tf32x3" if dtype == torch.float32 else "ieee"
        on_nvidia = x.is_cuda and torch.version.cuda is not None
        self.approximate = on_nvidia and dtype != torch.float32

    def chunk_size(self, numbers: int) -> int:
        """Points per image so that a layer of all images has about so many activations."""
        tile = self.tiling.points
        size = numbers // self.hidden // self.batch // tile * tile
        return min(max(size, tile), -(-self.n // tile) * tile)

    def tiles(self, chunk: int) -> int:
        """Tiles of points in a chunk of an image."""
        return -(-chunk // self.tiling.points)

    def buffer(self, slots: int, chunk: int) -> Tensor:
        """Room for activations, of the products' dtype."""
        return self.packed.weights.new_empty(slots, self.batch, chunk, self.hidden)

    def forward(self, counts: Tensor, last: int | None = None) -> Tensor:
        """(batch, n, 4): radiance and density; radiance is empty if `last` is not the colour's."""
        outputs = self.x.new_empty(self.batch, self.n, 4)
        chunk = self.chunk_size(FORWARD_NUMBERS)
        activations = self.buffer(2, chunk)
        for offset in range(0, self.n, chunk):
            self.layers(counts, offset, chunk, activations, None, outputs, last)
        return outputs

    def layers(
        self,
        counts: Tensor,
        offset: int,
        chunk: int,
        activations: Tensor,
        slopes: Tensor | None,
        outputs: Tensor,
        last: int | None = None,
    ) -> None:
        """A chunk through layers 0 to `last`, in one launch or in one per layer."""
        last = self.depth if last is None else last
        t, views, packed = self.tiling, self.views, self.packed
        spans = [(0, last)] if t.fused else [(i, i) for i in range(last + 1)]
        for first, end in spans:
            self.launch(
                "forward_kernel", (self.tiles(chunk), self.batch),
                self.x, self.x if views is None else views, packed.first, packed.weights,
                packed.views, packed.biases, packed.heads, counts, activations,
                activations if slopes is None else slopes, outputs,
                self.n, offset, chunk, first, end,
                FEATURES=self.features, HIDDEN=self.hidden, DEPTH=self.depth,
                SLOTS=len(activations), VIEWS=views is not None, SLOPES=slopes is not None,
                APPROXIMATE=self.approximate, PRECISION=self.precision,
                BLOCK_M=t.points, BLOCK_N=t.channels, BLOCK_K=t.inner,
            )  # fmt: skip

    def backward(self, counts: Tensor, heads: Tensor, want_x: bool, want_views: bool) -> Sums:
        """Gradients of weights, and of inputs where they are wanted.

        `heads` (batch, n, 4) are those of what the heads give, radiance before its sigmoid.
        """
        chunk = self.chunk_size(BACKWARD_NUMBERS)
        splits = max(1, min(chunk // POINTS_PER_SPLIT, 64 // self.batch))
        sums = Sums(self.packed, self.features, splits)
        if want_x:
            sums.x = torch.empty_like(self.x)
        if want_views and self.views is not None:
            sums.views = torch.empty_like(self.views)
        activations, slopes = (self.buffer(self.depth + 1, chunk) for _ in range(2))
        outputs = torch.empty_like(heads)
        for offset in range(0, self.n, chunk):
            self.layers(counts, offset, chunk, activations, slopes, outputs)
            self.chunk_backward(counts, offset, heads, activations, slopes, sums)
        return sums

    def chunk_backward(
        self,
        counts: Tensor,
        offset: int,
        heads: Tensor,
        waves: Tensor,
        slopes: Tensor,
        sums: Sums,
    ) -> None:
        """Add a chunk's share to the gradients of all weights."""
        part, depth = slice(offset, offset + waves.shape[2]), self.depth
        add = self.adder(counts, offset, waves.shape[2])
        add(heads[:, part], waves[depth], sums.radiance)
        add(heads[:, part], waves[depth - 1], sums.density)
        gradient = None
        for layer in reversed(range(depth + 1)):
            gradient = self.through_layer(counts, offset, gradient, heads, slopes, layer)
            inputs = waves[layer - 1] if layer > 0 else self.x[:, part]
            add(gradient, inputs, sums.layers[layer])
            if layer == depth and self.views is not None:
                add(gradient, self.views[:, part], sums.from_views)
                if sums.views is not None:
                    sums.views[:, part] = _narrow(gradient, self.packed.views, self.n - offset)
        if sums.x is not None and gradient is not None:
            sums.x[:, part] = _narrow(gradient, self.packed.first, self.n - offset)

    def through_layer(
        self,
        counts: Tensor,
        offset: int,
        following: Tensor | None,
        heads: Tensor,
        slopes: Tensor,
        layer: int,
    ) -> Tensor:
        """The gradient of a layer's phase, from that of the next layer's."""
        t, chunk = self.tiling, slopes.shape[2]
        result = self.buffer(1, chunk)[0]
        weights = self.packed.weights[:, min(layer, self.depth - 1)]
        follows = {self.depth: (0, 3), self.depth - 1: (3, 4)}.get(layer, (0, 0))
        grid = (self.tiles(chunk) * -(-self.hidden // t.channels), self.batch)
        self.launch(
            "backward_kernel", grid,
            result if following is None else following, weights, heads, self.packed.heads,
            slopes[layer], result, counts, self.n, offset, chunk, weights.stride(0),
            HIDDEN=self.hidden, PRODUCT=following is not None, HEADS_FROM=follows[0],
            HEADS_TO=follows[1], PRECISION=self.precision,
            BLOCK_M=t.points, BLOCK_N=t.channels, BLOCK_K=t.inner,
        )  # fmt: skip
        return result

    def adder(
        self, counts: Tensor, offset: int, chunk: int
    ) -> Callable[[Tensor, Tensor, tuple[Tensor, Tensor]], None]:
        """What adds a chunk's gradients, times inputs, to the sums of a weight and its bias."""

        def add(gradients: Tensor, inputs: Tensor, sums: tuple[Tensor, Tensor]) -> None:
            _, splits, out, width = sums[0].shape
            block_out, block_in = self.tiling.fit(out).channels, self.tiling.fit(width).channels
            wide = torch.float32 in (gradients.dtype, inputs.dtype)
            tiles = -(-out // block_out) * -(-width // block_in)
            self.launch(
                "weight_gradient_kernel", (tiles, splits, self.batch),
                gradients, inputs, *sums, counts, offset, chunk, -(-chunk // splits),
                gradients.stride(0), inputs.stride(0), OUT=out, IN=width, WIDE=wide,
                PRECISION="tf32x3" if wide else "ieee", BLOCK_OUT=block_out, BLOCK_IN=block_in,
                BLOCK_P=self.tiling.inner,
            )  # fmt: skip

        return add

    def launch(self, kernel: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        """Start a kernel on the points' device."""
        from siren import kernels  # here, because it needs Triton

        options = {"num_warps": self.tiling.warps, "num_stages": self.tiling.stages}
        options["enable_fp_fusion"] = True  # products and sums in one instruction
        with torch.cuda.device_of(self.x):
            getattr(kernels, kernel)[grid](*arguments, **constants, **options)


def _narrow(gradient: Tensor, weight: Tensor, n: int) -> Tensor:
    """Gradient of a layer's few inputs, in fp32; a chunk's places beyond n are left out."""
    with torch.autocast(weight.device.type, enabled=False):
        return torch.bmm(gradient[:, :n].float(), weight)

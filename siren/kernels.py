"""Triton kernels of the FiLM-SIREN field: matrix products whose epilogue is the sine.

Points come in tiles of one image; W' is that image's folded weight (siren/film.py). Products take
16-bit inputs in mixed precision and single precision as three TF32 products otherwise; sums,
phases and gradients of weights are always fp32, and so is the first layer, which sees coordinates.
How the kernels follow each other stands in siren/fused.py, the only module that imports this one.

Buffers of activations are (slot, image, place, channel). `counts` says how many places of an image
are in use from the call's first on, `offset` where a chunk of them begins; a tile past the end
does nothing. Plain pointers and masks only: what runs in Triton's interpreter is what is compiled.
"""

# the language of kernels is not quite Python's:
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

# 2 pi in two parts, of which the first has 9 bits: its multiples are exact (Cody and Waite)
TWO_PI_HIGH: tl.constexpr = tl.constexpr(6.28125)
TWO_PI_LOW: tl.constexpr = tl.constexpr(0.0019353071795864769)
TURNS: tl.constexpr = tl.constexpr(0.15915494309189535)
ROUND: tl.constexpr = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it leaves whole numbers


@triton.jit
def _within_a_turn(phase):
    """The angle within [-pi, pi], where the hardware's sine is good to 5e-7."""
    turns = phase * TURNS + ROUND - ROUND
    return (phase - turns * TWO_PI_HIGH) - turns * TWO_PI_LOW


@triton.jit
def _sine(phase, APPROXIMATE: tl.constexpr):
    if APPROXIMATE:
        return tl.inline_asm_elementwise(
            "sin.approx.f32 $0, $1;", "=f,f", [_within_a_turn(phase)], tl.float32, True, 1
        )
    else:
        return tl.sin(phase)


@triton.jit
def _cosine(phase, APPROXIMATE: tl.constexpr):
    if APPROXIMATE:
        return tl.inline_asm_elementwise(
            "cos.approx.f32 $0, $1;", "=f,f", [_within_a_turn(phase)], tl.float32, True, 1
        )
    else:
        return tl.cos(phase)


@triton.jit
def _add_narrow(phase, rows, weight, columns, valid, inside, WIDTH: tl.constexpr):
    """Phase plus x W'^T for inputs of a few features, in fp32; `rows` points at each input."""
    for k in range(WIDTH):
        x = tl.load(rows + k, mask=valid, other=0.0)
        w = tl.load(weight + columns * WIDTH + k, mask=inside, other=0.0)
        phase += x[:, None] * w[None, :]
    return phase


@triton.jit
def _product(
    rows,  # the left matrix, its WIDTH channels one after the other
    weight,  # of the right matrix, element (k, c) at k * stride_k + c * stride_c
    columns,
    stride_k,
    stride_c,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(BLOCK_M, BLOCK_N) of a matrix product over WIDTH channels, in fp32."""
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, WIDTH, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a_at = rows + tl.arange(0, BLOCK_M)[:, None] * WIDTH + k[None, :]
        b_at = weight + k[:, None] * stride_k + columns[None, :] * stride_c
        if WIDTH % BLOCK_K == 0 and WIDTH % BLOCK_N == 0:
            a, b = tl.load(a_at), tl.load(b_at)
        else:
            a = tl.load(a_at, mask=(k < WIDTH)[None, :], other=0.0)
            both = (k < WIDTH)[:, None] & (columns < WIDTH)[None, :]
            b = tl.load(b_at, mask=both, other=0.0)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    return sums


@triton.jit
def _store_wave(
    phase,
    activations,
    slopes,
    columns,
    BLOCK_M: tl.constexpr,
    WIDTH: tl.constexpr,
    SLOPES: tl.constexpr,
    APPROXIMATE: tl.constexpr,
):
    """Write a tile's sine, and its derivative if SLOPES; returns the sine in fp32."""
    at = tl.arange(0, BLOCK_M)[:, None] * WIDTH + columns[None, :]
    inside = (columns < WIDTH)[None, :]
    wave = _sine(phase, APPROXIMATE)
    tl.store(activations + at, wave.to(activations.dtype.element_ty), mask=inside)
    if SLOPES:
        slope = _cosine(phase, APPROXIMATE)
        tl.store(slopes + at, slope.to(slopes.dtype.element_ty), mask=inside)
    return wave


@triton.jit
def _head(wave, weight, columns, inside):
    """These columns' share of one head's output."""
    return tl.sum(wave * tl.load(weight + columns, mask=inside, other=0.0)[None, :], 1)


@triton.jit(do_not_specialize=["first", "last", "offset", "chunk", "n"])
def forward_kernel(
    x,  # (image, n, FEATURES) encoded points
    views,  # (image, n, 3) directions, if VIEWS
    first_weight,  # (image, HIDDEN, FEATURES)
    weights,  # (image, DEPTH, HIDDEN, HIDDEN): layers 1, 2, ..., then the colour layer
    views_weight,  # (image, HIDDEN, 3)
    biases,  # (image, DEPTH + 1, HIDDEN)
    heads,  # (4, HIDDEN) weights, then 4 biases: radiance, density
    counts,
    activations,  # layer l in slot l % SLOTS
    slopes,  # likewise
    outputs,  # (image, n, 4): radiance in 0..1, density
    n,
    offset,
    chunk,  # places per image in the buffers
    first,  # layers first, ..., last are computed; DEPTH is the colour layer
    last,
    FEATURES: tl.constexpr,
    HIDDEN: tl.constexpr,
    DEPTH: tl.constexpr,
    SLOTS: tl.constexpr,
    VIEWS: tl.constexpr,
    SLOPES: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Layers of the field for a tile of points; the heads with the layers that they follow.

    A tile reads nothing but what it has written itself, so that one launch may take it through
    all layers, or one launch per layer may.
    """
    image, place = tl.program_id(1).to(tl.int64), tl.program_id(0) * BLOCK_M
    left = tl.load(counts + image) - offset - place
    if left <= 0:
        return
    ours = tl.arange(0, BLOCK_M)
    valid = ours < left
    point = image * n + offset + place
    x, views, outputs = x + point * FEATURES, views + point * 3, outputs + point * 4
    size = tl.num_programs(1).to(tl.int64) * chunk * HIDDEN  # of a slot
    activations += (image * chunk + place) * HIDDEN
    slopes += (image * chunk + place) * HIDDEN
    biases += image * (DEPTH + 1) * HIDDEN
    if first == 0:
        for start in range(0, HIDDEN, BLOCK_N):
            columns = start + tl.arange(0, BLOCK_N)
            inside = columns < HIDDEN
            bias = tl.load(biases + columns, mask=inside, other=0.0)
            phase = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32) + bias[None, :]
            weight = first_weight + image * HIDDEN * FEATURES
            phase = _add_narrow(
                phase, x + ours * FEATURES, weight, columns, valid, inside, FEATURES
            )
            _store_wave(phase, activations, slopes, columns, BLOCK_M, HIDDEN, SLOPES, APPROXIMATE)
    for layer in range(tl.maximum(first, 1), last + 1):
        tl.debug_barrier()  # the tile's activations were written by other threads
        red = tl.zeros((BLOCK_M,), dtype=tl.float32)
        green, blue, density = red, red, red
        inputs = activations + ((layer - 1) % SLOTS) * size
        weight = weights + (image * DEPTH + layer - 1) * HIDDEN * HIDDEN
        slot = (layer % SLOTS) * size
        for start in range(0, HIDDEN, BLOCK_N):
            columns = start + tl.arange(0, BLOCK_N)
            inside = columns < HIDDEN
            phase = _product(
                inputs, weight, columns, 1, HIDDEN, HIDDEN, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION
            )
            phase += tl.load(biases + layer * HIDDEN + columns, mask=inside, other=0.0)[None, :]
            if VIEWS:
                if layer == DEPTH:
                    to_views = views_weight + image * HIDDEN * 3
                    phase = _add_narrow(
                        phase, views + ours * 3, to_views, columns, valid, inside, 3
                    )
            wave = _store_wave(
                phase,
                activations + slot,
                slopes + slot,
                columns,
                BLOCK_M,
                HIDDEN,
                SLOPES,
                APPROXIMATE,
            )
            if layer == DEPTH - 1:
                density += _head(wave, heads + 3 * HIDDEN, columns, inside)
            if layer == DEPTH:
                red += _head(wave, heads, columns, inside)
                green += _head(wave, heads + HIDDEN, columns, inside)
                blue += _head(wave, heads + 2 * HIDDEN, columns, inside)
        head_biases, at = heads + 4 * HIDDEN, outputs + ours * 4
        if layer == DEPTH - 1:
            tl.store(at + 3, density + tl.load(head_biases + 3), mask=valid)
        if layer == DEPTH:
            tl.store(at, tl.sigmoid(red + tl.load(head_biases)), mask=valid)
            tl.store(at + 1, tl.sigmoid(green + tl.load(head_biases + 1)), mask=valid)
            tl.store(at + 2, tl.sigmoid(blue + tl.load(head_biases + 2)), mask=valid)


@triton.jit(do_not_specialize=["offset", "chunk", "n"])
def backward_kernel(
    following,  # (image, place, HIDDEN) gradient of the next layer's phase, if PRODUCT
    weights,  # (image, HIDDEN, HIDDEN) of the next layer, images image_stride apart
    head_gradients,  # (image, n, 4) of what the heads give, before the sigmoid
    heads,  # (4, HIDDEN)
    slopes,  # (image, place, HIDDEN) of this layer's sine
    gradients,  # (image, place, HIDDEN) of this layer's phase: the result
    counts,
    n,
    offset,
    chunk,
    image_stride,
    HIDDEN: tl.constexpr,
    PRODUCT: tl.constexpr,
    HEADS_FROM: tl.constexpr,  # heads HEADS_FROM, ..., HEADS_TO - 1 follow this layer
    HEADS_TO: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Gradient of a layer's phase from that of the next one's and of the heads that follow it."""
    tiles: tl.constexpr = (HIDDEN + BLOCK_N - 1) // BLOCK_N
    image, place = tl.program_id(1).to(tl.int64), tl.program_id(0) // tiles * BLOCK_M
    left = tl.load(counts + image) - offset - place
    if left <= 0:
        return
    ours = tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = columns < HIDDEN
    tile = (image * chunk + place) * HIDDEN
    if PRODUCT:
        weight = weights + image * image_stride
        sums = _product(
            following + tile,
            weight,
            columns,
            HIDDEN,
            1,
            HIDDEN,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            PRECISION,
        )
    else:
        sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    head_gradients += (image * n + offset + place) * 4
    for head in tl.static_range(HEADS_FROM, HEADS_TO):
        gradient = tl.load(head_gradients + ours * 4 + head, mask=ours < left, other=0.0)
        row = tl.load(heads + head * HIDDEN + columns, mask=inside, other=0.0)
        sums += gradient[:, None] * row[None, :]
    at = ours[:, None] * HIDDEN + columns[None, :]
    sums *= tl.load(slopes + tile + at, mask=inside[None, :], other=0.0).to(tl.float32)
    tl.store(gradients + tile + at, sums.to(gradients.dtype.element_ty), mask=inside[None, :])


@triton.jit(do_not_specialize=["offset", "chunk", "share"])
def weight_gradient_kernel(
    gradients,  # (image, place, OUT), images gradients_stride numbers apart
    inputs,  # (image, place, IN), images inputs_stride numbers apart
    sums,  # (image, split, OUT, IN): added to
    bias_sums,  # (image, split, OUT): likewise
    counts,
    offset,
    chunk,
    share,  # places of a chunk per split
    gradients_stride,
    inputs_stride,
    OUT: tl.constexpr,
    IN: tl.constexpr,
    WIDE: tl.constexpr,  # products of fp32 numbers whatever the inputs are
    PRECISION: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Sums over places of gradient times input, in fp32: a weight's gradient, and its bias's."""
    tiles: tl.constexpr = (IN + BLOCK_IN - 1) // BLOCK_IN
    split, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    outs = tl.program_id(0) // tiles * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    ins = tl.program_id(0) % tiles * BLOCK_IN + tl.arange(0, BLOCK_IN)
    begin = split * share
    used = tl.minimum(tl.load(counts + image) - offset, chunk)
    end = tl.minimum(begin + share, used)
    if begin >= end:
        return
    total = tl.zeros((BLOCK_OUT, BLOCK_IN), dtype=tl.float32)
    bias_total = tl.zeros((BLOCK_OUT,), dtype=tl.float32)
    gradients += image * gradients_stride
    inputs += image * inputs_stride
    for start in range(begin, end, BLOCK_P):
        places = start + tl.arange(0, BLOCK_P)
        valid = places < end
        a = tl.load(
            gradients + places[None, :] * OUT + outs[:, None],
            mask=valid[None, :] & (outs < OUT)[:, None],
            other=0.0,
        )
        b = tl.load(
            inputs + places[:, None] * IN + ins[None, :],
            mask=valid[:, None] & (ins < IN)[None, :],
            other=0.0,
        )
        if WIDE:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        bias_total += tl.sum(a.to(tl.float32), 1)
    where = (image * tl.num_programs(1) + split) * OUT
    at = sums + where * IN + outs[:, None] * IN + ins[None, :]
    inside = (outs < OUT)[:, None] & (ins < IN)[None, :]
    tl.store(at, tl.load(at, mask=inside, other=0.0) + total, mask=inside)
    if tl.program_id(0) % tiles == 0:
        bias_at = bias_sums + where + outs
        before = tl.load(bias_at, mask=outs < OUT, other=0.0)
        tl.store(bias_at, before + bias_total, mask=outs < OUT)

"""Counter-based random numbers: what figure i looks like depends on (seed, i) and on nothing else.

A sequential generator would tie a figure to how many were drawn before it. Philox (Salmon et al.,
"Parallel Random Numbers: As Easy as 1, 2, 3", 2011) is a keyed block cipher of a counter: the seed
is the key, the index and the purpose of the draw are the counter. Its raw stream is fixed by the
paper, and so outlives versions of numpy.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ops.shapes import Float

PURPOSES = {"figure": 0, "pose": 1}
MAX_SEED = 2**64 - 1


def uniforms(
    seed: int, indices: Sequence[int], count: int, purpose: str
) -> Float[Tensor, "batch count"]:
    """`count` numbers in [0, 1) for each index, in double precision."""
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be in 0..{MAX_SEED}, got {seed}")
    draws = np.empty((len(indices), count))
    for row, index in zip(draws, indices, strict=True):
        if index < 0:
            raise ValueError(f"indices must not be negative, got {index}")
        counter = np.array([0, 0, index, PURPOSES[purpose]], dtype=np.uint64)
        raw = np.random.Philox(counter=counter, key=seed).random_raw(count)
        row[:] = (raw >> np.uint64(11)) * 2.0**-53
    return torch.from_numpy(draws)

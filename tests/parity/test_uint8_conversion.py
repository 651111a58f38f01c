"""StyleGAN's two rules for bytes are ours: `to_uint8` rounds as both do, `tile` lays out grids."""

import pytest
import torch
from parity.support import Case, cases_of

from inference.media import tile, to_uint8


@pytest.mark.parametrize("case", cases_of("stylegan-tools", "uint8_conversion"))
def test_bytes_are_those_of_the_original(case: Case) -> None:
    pixels = to_uint8(case.tensor("in/img"))
    assert torch.equal(pixels.permute(0, 3, 1, 2).float(), case.tensor("out/gen"))
    columns, _ = case.config["grid"]
    assert torch.equal(tile(pixels, columns).float(), case.tensor("out/grid"))

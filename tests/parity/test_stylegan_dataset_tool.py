"""The data set tool's transforms against the official tool's pictures."""

import numpy as np
import pytest
import torch
from parity.stylegan_support import assert_outputs
from parity.support import Case, cases_of
from PIL import Image

from image_windows import transformed


@pytest.mark.parametrize("case", cases_of("stylegan-tools", "dataset_tool"))
def test_pictures_are_cut_and_resized_as_the_original_does(case: Case) -> None:
    image = Image.fromarray(case.tensor("in/img").numpy().astype(np.uint8))
    actual = {}
    for subcase in case.config["subcases"]:
        target = subcase["width"], subcase["height"]
        pixels = transformed(image, subcase["transform"], target).pixels
        assert pixels is not None
        actual[subcase["name"]] = torch.from_numpy(np.asarray(pixels).astype(np.float32))
    assert_outputs(case, actual)

"""2D generators named by a curriculum: rebuilt from their file, refused in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_plugins import TINY_GENERATORS
from tiny_runs import TINY

from curriculums import Curriculum, stage_at
from inference.checkpoint import build_generator, load_generator, network_state, save_files
from rendering.cameras import Cameras

NAMES = ("StyleGAN2", "StyleGAN3")


def curriculum_of(name: str, **options: Any) -> Curriculum:
    """A stage of TINY at 16 pixels, with a small StyleGAN; latent_dim comes from the curriculum."""
    tiny = {k: v for k, v in TINY_GENERATORS[name][0].items() if k != "latent_dim"}
    stage = {0: {**TINY[0], "img_size": 16}}
    keys = {key: value for key, value in TINY.items() if not isinstance(key, int)}
    return {**stage, **keys, "generator": name, "generator_options": {**tiny, **options}}


@pytest.mark.parametrize("name", NAMES)
def test_a_flat_generator_is_rebuilt_from_its_file_alone(name: str, tmp_path: Path) -> None:
    curriculum = curriculum_of(name)
    stage = stage_at(curriculum, 0)
    generator, record = build_generator(stage)
    generator.eval()
    assert generator.latent_dim == stage.latent_dim == record["arguments"]["latent_dim"] == 6
    state = {**network_state(generator, record, 3), "curriculum": curriculum}
    save_files(tmp_path, {"generator.pth": state})
    again, _ = load_generator(tmp_path, ema=None)
    z, cameras = torch.randn(2, 6), Cameras.from_angles(torch.ones(2), 1.3, 40.0)
    with torch.no_grad():
        pictures = [g(z, cameras, stage.eval_settings()).image for g in (generator, again)]
    assert pictures[0].shape == (2, 3, 16, 16)
    assert torch.equal(*pictures)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"resolution": 24}, "24"),
        ({"resolutoin": 16}, "no option 'resolutoin', did you mean 'resolution'"),
        ({"w_dim": "wide"}, "cannot make a StyleGAN"),
    ],
)
def test_options_that_make_no_such_network_are_refused_in_one_line(
    name: str, option: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        build_generator(stage_at(curriculum_of(name, **option), 0))
    assert "\n" not in str(error.value)

"""What every test gets: shapes checked on each call, one thread, a fixed seed, tiny generators.

The import hook must stand before anything of the core is imported: from then on jaxtyping and
beartype compare every annotated argument and result with its type and shape. rendering.settings is
left out: it refuses wrong types itself, in words for users, which tests should see; and so is
siren.kernels, which is Triton's language.
"""

from collections.abc import Callable
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

ROOT = Path(__file__).parents[1]
UNCHECKED = ("__init__", "settings", "kernels")
CHECKED = [
    "ops",
    "generators",
    "discriminators",
    *(
        f"{room}.{p.stem}"
        for room in ("rendering", "siren")
        for p in (ROOT / room).glob("*.py")
        if p.stem not in UNCHECKED
    ),
]
jaxtyping.install_import_hook(
    CHECKED,
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",  # an int is a float
)

import torch  # noqa: E402

from generators.pigan import PiGAN  # noqa: E402
from rendering.settings import RenderSettings  # noqa: E402

torch.set_num_threads(1)

# the same examples on every run: a failure is always the code's doing
hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def rng() -> torch.Generator:
    """A generator for whatever a test draws itself."""
    return torch.Generator().manual_seed(1)


@pytest.fixture
def tiny_pigan() -> Callable[..., PiGAN]:
    """Builds a pi-GAN of a few thousand weights, with any of its arguments changed."""

    def build(**options: object) -> PiGAN:
        tiny = {"latent_dim": 6, "hidden_dim": 8, "num_layers": 3, "mapping_dim": 10}
        generator = PiGAN(**{**tiny, **options})  # type: ignore[arg-type]
        generator.update_w_avg()
        return generator

    return build


@pytest.fixture
def tiny_settings() -> RenderSettings:
    """A deterministic picture of 6 x 6 pixels, without a fine pass."""
    return RenderSettings(6, 5, 0.7, 1.3, hierarchical=False, jitter=False)

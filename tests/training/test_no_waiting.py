"""What a step on a GPU needs from the host: nothing, not even a number to look at."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graph_emulator import NoWaiting
from tiny_runs import TINY
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from curriculums import stage_at, with_overrides
from generators.pigan import PiGAN
from inference.checkpoint import build_generator
from ops.conv import coordinate_grid
from rendering.cameras import Cameras
from rendering.settings import PoseLaw
from siren import fields, fused
from training import losses, steps
from training.build import build_discriminator
from training.distributed import World
from training.regularizers import blur


@pytest.mark.parametrize("kind", ["gaussian", "hybrid", "truncated_gaussian", "spherical_uniform"])
def test_drawing_cameras_waits_for_nothing(kind: str) -> None:
    law = PoseLaw(kind, 1.5, 0.3, 1.5, 0.2, 12.0, 1.0)
    with NoWaiting():
        Cameras.sample(law, 3, torch.Generator().manual_seed(0))
        with pytest.raises(RuntimeError, match="synchronizing"):
            torch.tensor([1.0, 2.0])  # what would wait, and once did here


class OnTheHost(TorchDispatchMode):
    """Notes every op with a tensor of the CPU's, for instance one that is copied from there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        if str(func) != "prim.device.default" and any(x.device.type == "cpu" for x in tensors):
            self.found.append(str(func))
        return out


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[OnTheHost]:
    """A pretended GPU, whose tensors have shapes but no numbers, and kernels that do nothing."""
    monkeypatch.setattr(fields, "usable", lambda points, layers: True)
    monkeypatch.setattr(fused, "tiling_for", lambda device, dtype: fused.Tiling())
    monkeypatch.setattr(fused._Passes, "launch", lambda *_, **__: None)
    coordinate_grid.cache_clear()
    with FakeTensorMode(), OnTheHost() as host, torch.device("cuda"):
        yield host
    coordinate_grid.cache_clear()


def test_on_a_gpu_pictures_and_judgements_need_nothing_from_the_host(on_cuda: OnTheHost) -> None:
    """Nor does any of it look at a number: a pretended GPU has none."""
    changes = ["generator_options.bound_radius=0.3", "0.img_size=16"]
    stage = stage_at(with_overrides(TINY, changes), 0)
    generator, discriminator = build_generator(stage)[0], build_discriminator(stage)[0]
    on_cuda.found.clear()
    yaw = torch.randn(4)
    cameras = Cameras.from_angles(yaw, yaw, stage.fov, stage.radius)
    z = torch.randn(4, stage.latent_dim)
    pictures = generator.synthesis(generator.mapping(z), cameras, stage.render_settings(3)).image
    judged = discriminator(blur(pictures, 1.5), 0.5)
    loss = losses.generator_loss(judged.logits, 0.6) + losses.real_loss(judged.logits)
    loss = loss + losses.identity_loss(judged, z, cameras, stage)
    assert loss.device.type == "cuda" and loss.requires_grad
    assert on_cuda.found == []
    torch.tensor([0.0, 1.0])
    assert on_cuda.found != []


def test_on_a_gpu_the_fields_backward_pass_needs_nothing_from_the_host(on_cuda: OnTheHost) -> None:
    field = PiGAN(hidden_dim=16, num_layers=2, mapping_dim=8).field
    on_cuda.found.clear()
    x, seen, widths = torch.randn(2, 50, 3), torch.rand(2, 50, 4), field(torch.randn(2, 96))
    weights = [t for pair in (*widths._layers, widths._color, *widths._heads) for t in pair]
    context = SimpleNamespace(
        saved_tensors=(x, x, seen[..., 0] < 0.5, seen[..., :3], *weights),
        needs_input_grad=(True, True),
        tiling=fused.Tiling().fit(16),
        dtype=torch.float16,
    )
    with torch.no_grad():
        found = fused._FusedSiren.backward(context, seen[..., :3], seen[..., 3:])
    shapes = [x.shape, x.shape, None, None, None, *(t.shape for t in weights)]
    assert [None if t is None else t.shape for t in found] == shapes
    assert on_cuda.found == []


@pytest.mark.parametrize("scaled", [False, True])
def test_on_a_gpu_an_update_needs_nothing_from_the_host(on_cuda: OnTheHost, scaled: bool) -> None:
    """Clipping, the skip of gradients that are not finite, Adam, and the loss scale."""
    stage = stage_at(TINY, 0)
    network = build_discriminator(stage)[0]
    parameters = list(network.parameters())
    optimizer = steps.make_optimizer([{"params": parameters}], stage, torch.device("cuda"))
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)  # "cuda" is off where there is none
    scaler._device = "cuda"
    players: Any = SimpleNamespace(world=World(0, 1, torch.device("cuda")), scaler=scaler)
    on_cuda.found.clear()
    for _ in range(2):
        for p in parameters:
            p.grad = torch.randn_like(p)
        scaler.scale(torch.ones(()))
        assert steps._update(players, optimizer, parameters, 0.3).device.type == "cuda"
        scaler.update()
    assert len(optimizer.state) == len(parameters)
    assert on_cuda.found == []

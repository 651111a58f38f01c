"""Stand-ins for the original pi-GAN's modules, pickled as its training script pickles them."""

import sys
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def originals(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes stand-ins of the original's classes, which pickle under its module names."""

    def make(name: str, base: type = nn.Module) -> type:
        module, _, leaf = name.rpartition(".")
        made = type(leaf, (base,), {"__module__": module})
        for package in (module.partition(".")[0], module):
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        monkeypatch.setattr(sys.modules[module], leaf, made, raising=False)
        return made

    return make


@pytest.fixture
def save() -> Callable[[Any, Path], Path]:
    """Pickles a whole object into a file of the original's form."""

    def write(module: Any, path: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(module, path, pickle_protocol=2)
        return path

    return write


@pytest.fixture
def fill() -> Callable[[nn.Module, Mapping[str, Tensor]], Any]:
    """Hangs weights into a module under their dotted names."""

    def hang(root: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
        for key, value in weights.items():
            *path, leaf = key.split(".")
            module = root
            for name in path:
                if name not in module._modules:
                    module.register_module(name, nn.ModuleList())
                module = module.get_submodule(name)
            module.register_parameter(leaf, nn.Parameter(value.clone()))
        return root

    return hang

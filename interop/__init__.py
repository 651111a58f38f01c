"""Weights of the original systems, made into our modules and back.

Parity is proven through this door: fixtures hold an original's weights under its own key names;
tests convert them and compare what our modules compute.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from interop import epigraf, pigan, projected, raycond, stylegan
from interop.weights import SYSTEMS, Role
from ops.registry import nearest

__all__ = ["SYSTEMS", "convert", "epigraf", "export", "pigan", "projected", "raycond", "stylegan"]


def convert(
    system: str, role: str, state_dict: Mapping[str, Tensor], config: Mapping[str, Any]
) -> nn.Module:
    """Make our module of an original's weights.

    `config` names the original's classes; sizes are read from the weights. ValueError for an
    unknown system, role or class, and for weights that are missing, unexpected or of other shapes.
    """
    return _role(system, role).convert(state_dict, config)


def export(system: str, role: str, module: nn.Module) -> dict[str, Tensor]:
    """Our module's weights under the original's key names, in its order."""
    exporter = _role(system, role).export
    if exporter is None:
        raise ValueError(f"weights of {system}'s {role} can only be read, not written")
    return exporter(module)


def _role(system: str, role: str) -> Role:
    roles = SYSTEMS[system]
    if role not in roles:
        raise ValueError(f"unknown role {role!r} of system {system!r}{nearest(role, roles)}")
    return roles[role]

"""Poses that generators are told, which need not be those that their pictures are taken from.

A generator that knows the camera could hide the pose in the scene; told a wrong one now and then,
it cannot rely on it (EG3D, section 4.3).
"""

import torch
from torch import Tensor

from ops.shapes import Float
from rendering.cameras import Cameras


def spoofed(cameras: Cameras, probability: float, u: Float[Tensor, " batch"]) -> Cameras:
    """Cameras of which those with u below `probability` take their predecessor's place.

    The first of them takes the last one's, so that the same cameras remain.
    """
    chosen = torch.nonzero(u < probability)[:, 0].to(cameras.fov.device)
    order = torch.arange(len(cameras), device=chosen.device)
    order[chosen] = chosen.roll(1)
    return cameras[order]

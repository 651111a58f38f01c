"""The mapping network of the StyleGANs: latents and labels to styles (StyleGAN, section 2).

Generators map z, or z and a label, to w; the discriminator maps its label alone (`latent_dim` 0) to
the direction in feature space that it projects on (StyleGAN2-ADA, appendix C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.linear import EqualizedLinear
from ops.norm import normalize_2nd_moment
from ops.shapes import Float


class MappingNetwork(nn.Module):
    """Normalise, embed the label, and pass through leaky-ReLU layers at a low learning rate."""

    def __init__(
        self,
        *,
        latent_dim: int,  # numbers in z; 0: the label is the only input
        label_dim: int = 0,  # numbers in a label vector; 0: unconditional
        w_dim: int = 512,  # width of the layers and of w
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        if latent_dim == label_dim == 0:
            raise ValueError("a mapping network needs a latent_dim or a label_dim above 0")
        self.latent_dim, self.label_dim = latent_dim, label_dim
        self.embed = EqualizedLinear(label_dim, w_dim) if label_dim else None
        widths = [latent_dim + (w_dim if label_dim else 0)] + [w_dim] * num_layers
        self.layers = nn.Sequential(
            *(
                EqualizedLinear(a, b, activation="lrelu", lr_multiplier=lr_multiplier)
                for a, b in zip(widths[:-1], widths[1:], strict=True)
            )
        )

    def forward(
        self,
        z: Float[Tensor, "batch latent"] | None,
        label: Tensor | None = None,
    ) -> Float[Tensor, "batch w_dim"]:
        """One style per latent; `label` holds class numbers or one vector per latent."""
        parts = [] if z is None else [normalize_2nd_moment(z)]
        weight = next(self.layers.parameters())
        label = label_vectors(label, self.label_dim)
        if self.embed is not None and label is not None:
            parts.append(normalize_2nd_moment(self.embed(label.to(weight))))
        return self.layers(torch.cat(parts, dim=1))


def label_vectors(label: Tensor | None, label_dim: int) -> Float[Tensor, "batch label"] | None:
    """Labels as a conditional network's input: classes (integers) one-hot, vectors as they are."""
    width = 0 if label is None else label_dim if label.ndim == 1 else label.shape[-1]
    if label is None or (label_dim == 0 and width == 0 and label.ndim == 2):
        if label_dim:
            raise ValueError(f"this network is conditional: it needs labels of size {label_dim}")
        return None
    if label_dim == 0:
        raise ValueError("this network is unconditional: label must be None")
    if label.ndim == 1:
        if label.is_floating_point():
            raise ValueError("class labels must be integers, or one vector per picture")
        on_cpu = label.device.type == "cpu"  # elsewhere looking at the numbers would stall
        if on_cpu and len(label) and not 0 <= int(label.min()) <= int(label.max()) < label_dim:
            raise ValueError(f"class labels must lie in 0..{label_dim - 1}, got {label.tolist()}")
        return F.one_hot(label.long(), label_dim).float()
    if width != label_dim:
        raise ValueError(f"labels must have {label_dim} numbers, got {width}")
    return label

"""Discriminators: pictures in, judgements out. Importing the package fills the registry."""

from discriminators import patch, progressive, projected, strided, stylegan2
from discriminators.base import DISCRIMINATORS, Discriminator, Judgement

__all__ = [
    "DISCRIMINATORS",
    "Discriminator",
    "Judgement",
    "patch",
    "progressive",
    "projected",
    "strided",
    "stylegan2",
]

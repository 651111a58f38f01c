"""Generators: latents and cameras in, pictures out. Importing the package fills the registry."""

from generators import epigraf, fastgan, pigan, ray_conditioned, stylegan2, stylegan3
from generators.base import GENERATORS, Generator, RadianceGenerator

__all__ = [
    "GENERATORS",
    "Generator",
    "RadianceGenerator",
    "epigraf",
    "fastgan",
    "pigan",
    "ray_conditioned",
    "stylegan2",
    "stylegan3",
]

"""Styles to look at: of seeds, or fitted to a picture and kept in a file.

A latent file is an .npz of plain numbers: `w` (n, ...), and where it was fitted to a picture, the
camera that sees the picture: `yaw`, `pitch` (radians), `fov` (degrees) and `radius` (n,). Whatever
else is in it is for the reader. Scripts take it with --latent in place of seeds.
"""

import argparse
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generators import Generator
from inference.options import add_seeds
from inference.views import seeded_labels, seeded_latents
from rendering.cameras import Cameras

SUFFIX = ".npz"


def add_latents(parser: argparse.ArgumentParser, default_seeds: str = "0-2") -> None:
    """Add --seeds, its singular, and --latent, which replaces them."""
    add_seeds(parser, default_seeds)
    parser.add_argument(
        "--latent",
        type=Path,
        metavar="FILE",
        help="a style that inverse_render.py saved, in place of seeds; --psi leaves it alone",
    )


def named_styles(
    generator: Generator,
    seeds: Sequence[int],
    *,
    latent: Path | None = None,
    psi: float = 1.0,
    cutoff: int | None = None,
    z_dist: str = "gaussian",
    label: int | None = None,
    camera: Cameras | None = None,
) -> list[tuple[str, Tensor]]:
    """Styles (1, ...) on the generator's device, each with the name that its files get.

    Those of the file `latent` if there is one, as they are; else those of the seeds, truncated. A
    generator with classes makes all of the class `label`, or each seed of its own, as training's
    samples are; one that is told of cameras, for the one `camera`.
    """
    device = generator.w_avg.device
    check_label(generator, label)
    if latent is None:
        z = seeded_latents(seeds, generator.latent_dim, z_dist).to(device)
        classes = seeded_labels(generator, seeds if label is None else [label] * len(seeds))
        styles = []
        for i, seed in enumerate(seeds):
            own = None if classes is None else classes[i : i + 1]
            styles.append((str(seed), _style(generator, z[i : i + 1], own, camera, psi, cutoff)))
        return styles
    w = load_latents(latent).to(device)
    check_styles(generator, w, latent)
    stem = latent.stem
    return [(stem if len(w) == 1 else f"{stem}_{i}", w[i : i + 1]) for i in range(len(w))]


@torch.no_grad()
def _style(
    generator: Generator,
    z: Tensor,
    label: Tensor | None,
    camera: Cameras | None,
    psi: float,
    cutoff: int | None,
) -> Tensor:
    """A style, truncated towards what its generator has as the average."""
    if label is None or psi == 1 or not generator.truncates_by_class:
        return generator.mapping(z, label, camera, psi=psi, cutoff=cutoff)
    average = generator.class_average(label, camera)
    return generator.truncated(generator.style(z, label, camera), average, psi, cutoff)


def check_label(generator: Generator, label: int | None) -> None:
    """Refuse a class that a generator does not have."""
    classes = generator.label_dim
    if label is not None and not 0 <= label < classes:
        allowed = f"must be one of 0 to {classes - 1}, got {label}"
        raise ValueError(f"--class: {allowed if classes else 'this generator has no classes'}")


def check_styles(generator: Generator, w: Tensor, path: Path) -> None:
    """Refuse styles that another kind of generator made."""
    wanted = tuple(generator.w_avg.shape)
    if w.ndim <= len(wanted) or tuple(w.shape[w.ndim - len(wanted) :]) != wanted:
        raise ValueError(
            f"{path} is from another generator: its styles have shape {tuple(w.shape[1:])}, "
            f"this {type(generator).__name__} takes {wanted}"
        )


def save_latents(
    path: Path,
    w: Tensor,
    cameras: Cameras | None = None,
    facts: Mapping[str, float | str] | None = None,
) -> None:
    """Write styles (n, ...), the cameras that see their pictures, and single facts about them."""
    arrays: dict[str, np.ndarray] = {"w": w.detach().float().cpu().numpy()}
    if cameras is not None:
        if len(cameras) != len(w):
            raise ValueError(f"need a camera per style, got {len(w)} and {len(cameras)}")
        yaw, pitch = cameras.yaw_pitch.detach().double().cpu().numpy().T
        radius = cameras.origin.detach().double().norm(dim=-1).cpu().numpy()
        fov = cameras.fov.detach().double().cpu().numpy()
        arrays |= {"yaw": yaw, "pitch": pitch, "fov": fov, "radius": radius}
    for name, fact in (facts or {}).items():
        if name in arrays:
            raise ValueError(f"{name!r} is taken in a latent file")
        arrays[name] = np.asarray(fact)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:  # numpy would add its suffix to a path that lacks it
        np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]


def load_latents(path: Path) -> Tensor:
    """Styles (n, ...) of a latent file; nothing in it is ever executed.

    Raises ValueError if it is not one, OSError if it cannot be read.
    """
    w = _read(path).get("w")
    if w is None:
        raise ValueError(f"{path} is not a latent file: it has no 'w'")
    if w.ndim < 2 or not len(w) or not np.issubdtype(w.dtype, np.floating):
        raise ValueError(f"{path}: 'w' must be floating, (n, ...), got {w.dtype} {w.shape}")
    if not np.isfinite(w).all():
        raise ValueError(f"{path}: 'w' is not finite")
    return torch.from_numpy(w.astype(np.float32))


def load_cameras(path: Path) -> Cameras | None:
    """The cameras of a latent file, one per style; None if it has none."""
    arrays = _read(path)
    if "yaw" not in arrays:
        return None
    missing = {"pitch", "fov", "radius"} - arrays.keys()
    if missing:
        raise ValueError(f"{path} has a yaw but no {min(missing)}")
    angles = (torch.from_numpy(arrays[k]).float() for k in ("yaw", "pitch", "fov", "radius"))
    return Cameras.from_angles(*angles)


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.is_dir():
        raise ValueError(f"{path} is a directory, not a latent file")
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it holds a single array without a name")
        with archive:
            return dict(archive)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a latent file (.npz): {error}") from error

"""Projected GAN with FastGAN, FastGAN-lite or StyleGAN2 (Sauer et al. 2021), official values.

And, ours, with pi-GAN: a radiance field that learns from what frozen features see of its pictures.

Pictures from small data sets in hours: hinge loss, DiffAugment always on, no R1, no path lengths.
FastGAN-lite is for small data sets (below some 5,000 pictures); if training gets worse after an
early best, as it may on them, best/ holds the best. `batch_size` is per process.

The originals' discriminator runs Adam with the constants of a lazy regulariser that does nothing:
its rate is 16/17 of what is written, which `disc_lr` has here, and its second beta 0.9906, which
shares the generator's 0.99.
"""

from typing import Any

from recipes.stylegan import NO_CAMERAS

Curriculum = dict[int | str, Any]

PI = 3.141592653589793
WHOLE = 64  # pixels per side of a field's pictures that are rendered whole
LAZY = 16 / 17  # what the original's discriminator makes of its learning rate


def fastgan(
    *, img_size: int = 256, batch_size: int = 64, num_processes: int = 1
) -> dict[int | str, Any]:
    """FastGAN under the projected discriminator."""
    return _common(img_size, batch_size, num_processes) | {
        "generator": "FastGAN",
        "latent_dim": 256,
        "gen_lr": 0.0002,
        "disc_lr": 0.0002 * LAZY,
        "precision": "fp32",
    }


def fastgan_lite(
    *, img_size: int = 256, batch_size: int = 64, num_processes: int = 1
) -> dict[int | str, Any]:
    """FastGAN-lite under the projected discriminator: for small data sets."""
    made = fastgan(img_size=img_size, batch_size=batch_size, num_processes=num_processes)
    return made | {"generator": "FastGANLite"}


def projected_stylegan2(
    *, img_size: int = 256, batch_size: int = 64, num_processes: int = 1
) -> dict[int | str, Any]:
    """StyleGAN2 with a small latent under the projected discriminator, with separable heads."""
    return _common(img_size, batch_size, num_processes) | {
        "generator": "StyleGAN2",
        "generator_options": {"w_dim": 128, "mapping_layers": 2},
        "latent_dim": 64,
        "discriminator_options": {"separable": True},
        "gen_lr": 0.002,
        "disc_lr": 0.002 * LAZY,
    }


def projected_pigan(
    *, img_size: int = 64, batch_size: int = 32, num_processes: int = 1
) -> dict[int | str, Any]:
    """pi-GAN's field for faces, whose pictures, or above 64 pixels windows, are projected.

    What is known of a picture's camera reaches no projected discriminator: only the pose law
    says how often which side is seen.
    """
    batch = batch_size * num_processes
    faces = _common(img_size, batch_size, num_processes) | {
        0: {"batch_size": batch_size, "img_size": img_size},
        "fov": 12,
        "ray_start": 0.88,
        "ray_end": 1.12,
        "sample_dist": "gaussian",
        "h_mean": 0.5 * PI,
        "h_stddev": 0.3,
        "v_mean": 0.5 * PI,
        "v_stddev": 0.155,
        "num_steps": 12,
        "hierarchical_sample": True,
        "nerf_noise": 1.0,
        "nerf_noise_steps": 5_000,
        "generator": "PiGAN",
        "model": "SPATIALSIRENBASELINE",
        "latent_dim": 256,
        "gen_lr": 6e-5,
        "disc_lr": 0.0002 * LAZY,
        "grad_clip": 10,
        "eval_last_back": True,
        "total_kimg": 10_000,
    }
    if img_size <= WHOLE:
        return faces
    return faces | {
        "patch_size": WHOLE,
        "patch_options": {"anneal_kimg": batch * 1000 / 32},
    }


def _common(img_size: int, batch_size: int, num_processes: int) -> Curriculum:
    batch = batch_size * num_processes
    return NO_CAMERAS | {
        0: {"batch_size": batch_size, "img_size": img_size},
        "discriminator": "ProjectedDiscriminator",
        "adversarial_loss": "hinge",
        "diffaugment": "color,translation,cutout",
        "betas": (0.0, 0.99),
        "grad_clip": None,
        "fade_steps": 0,
        "ema_kimg": batch * 10 / 32,
        "ema2_kimg": batch * 100 / 32,
        "total_kimg": 25_000,
        "dataset": "ImageFolder",
        "dataset_path": "",
    }


RECIPES = {
    "FastGAN": fastgan,
    "FastGANLite": fastgan_lite,
    "ProjectedStyleGAN2": projected_stylegan2,
    "ProjectedPiGAN": projected_pigan,
}

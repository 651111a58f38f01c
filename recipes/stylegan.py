"""StyleGAN2 and StyleGAN3 with the defaults that the originals derive (Karras et al. 2020, 2021).

`batch_size` is per process, as everywhere; what depends on the batch depends on all processes'.
The weight of R1 is the setting that matters most, and no rule knows it: if training diverges or
collapses, try twice, four times, a half, a quarter.
"""

from typing import Any

Curriculum = dict[int | str, Any]

# what no 2D network looks at, but a stage has
NO_CAMERAS: Curriculum = {
    "fov": 12,
    "sample_dist": "fixed",
    "h_mean": 0.5 * 3.141592653589793,
    "h_stddev": 0,
    "v_mean": 0.5 * 3.141592653589793,
    "v_stddev": 0,
    "num_steps": 2,
    "ray_start": 0.88,
    "ray_end": 1.12,
    "hierarchical_sample": False,
    "nerf_noise": 0,
}


def stylegan2(
    *, img_size: int = 256, batch_size: int = 32, num_processes: int = 1
) -> dict[int | str, Any]:
    """StyleGAN2 with ADA, path length regularisation and style mixing."""
    batch = batch_size * num_processes
    return _common(img_size, batch_size, batch) | {
        "generator": "StyleGAN2",
        "gen_lr": 0.002,
        "r1_lambda": 0.0002 * img_size**2 / batch,
        "pl_lambda": 2,
        "pl_interval": 4,
        "style_mixing": 0.9,
    }


def stylegan3t(
    *, img_size: int = 256, batch_size: int = 32, num_processes: int = 1
) -> dict[int | str, Any]:
    """StyleGAN3-T: pictures that translate with their content."""
    return _stylegan3(img_size, batch_size, num_processes, {"config": "T"})


def stylegan3r(
    *, img_size: int = 256, batch_size: int = 32, num_processes: int = 1
) -> dict[int | str, Any]:
    """StyleGAN3-R: pictures that translate and rotate with their content, and a young blur."""
    wide = {"config": "R", "channel_base": 65536, "channel_max": 1024}
    batch = batch_size * num_processes
    return _stylegan3(img_size, batch_size, num_processes, wide) | {
        "blur_init_sigma": 10,
        "blur_fade_kimg": batch * 200 / 32,
    }


def _stylegan3(
    img_size: int, batch_size: int, num_processes: int, options: dict[str, Any]
) -> Curriculum:
    batch = batch_size * num_processes
    tracking = {"mapping_layers": 2, "magnitude_ema_beta": 0.5 ** (batch / 20_000)}
    return _common(img_size, batch_size, batch) | {
        "generator": "StyleGAN3",
        "generator_options": tracking | options,
        "gen_lr": 0.0025,
        "r1_lambda": 2 * (img_size / 256) ** 2 * 32 / batch,
    }


def _common(img_size: int, batch_size: int, batch: int) -> Curriculum:
    """What all of them share, for `batch` images per step of all processes."""
    return NO_CAMERAS | {
        0: {"batch_size": batch_size, "img_size": img_size},
        "latent_dim": 512,
        "disc_lr": 0.002,
        "betas": (0.0, 0.99),
        "grad_clip": None,
        "r1_interval": 16,
        "ema_kimg": batch * 10 / 32,
        "ema2_kimg": batch * 100 / 32,
        "total_kimg": 25_000,
        "augment": "ada",
        "discriminator": "StyleGAN2Discriminator",
        "dataset": "ImageFolder",
        "dataset_path": "",
    }

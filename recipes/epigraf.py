"""EpiGRAF with the values of the original's configurations (Skorokhodov et al. 2022).

Tri-planes of 512 texels, trained on patches of 64 pixels whose windows shrink from whole images
over the first ten million pictures. Yaw 0 is frontal. `batch_size` is per process; what depends on
the batch depends on all processes'.
"""

from typing import Any

Curriculum = dict[int | str, Any]

PI = 3.141592653589793
PATCH_SIZE = 64
MBSTD_GROUP = 4  # pictures that share a window, because they are compared with each other


def ffhq(*, img_size: int = 512, batch_size: int = 64, num_processes: int = 1) -> Curriculum:
    """Faces, with the poses that dataset.json gives; a larger weight of R1 than the others'."""
    return _faces(img_size, batch_size, num_processes) | {"r1_lambda": 0.1}


def cats(*, img_size: int = 256, batch_size: int = 64, num_processes: int = 1) -> Curriculum:
    """Cats' faces, with the poses that dataset.json gives."""
    return _faces(img_size, batch_size, num_processes)


def megascans_plants(
    *, img_size: int = 256, batch_size: int = 64, num_processes: int = 1
) -> Curriculum:
    """Plants of 198 classes on white, seen from everywhere."""
    return _objects(img_size, batch_size, num_processes, classes=198)


def megascans_food(
    *, img_size: int = 256, batch_size: int = 64, num_processes: int = 1
) -> Curriculum:
    """Food of 10 classes on white, seen from everywhere."""
    return _objects(img_size, batch_size, num_processes, classes=10)


def _faces(img_size: int, batch_size: int, num_processes: int) -> Curriculum:
    """Near frontal views: a narrow lens, a small cube around the origin."""
    return _common(img_size, batch_size, num_processes, cube_scale=0.2) | {
        "fov": 12,
        "ray_start": 0.88,
        "ray_end": 1.12,
        "sample_dist": "dataset",
        "h_mean": 0.0,
        "h_stddev": 0.3,
        "v_mean": PI / 2,
        "v_stddev": 0.155,
    }


def _objects(img_size: int, batch_size: int, num_processes: int, *, classes: int) -> Curriculum:
    """Views from all around of labelled objects on white."""
    return _common(img_size, batch_size, num_processes, cube_scale=0.475) | {
        "fov": 30,
        "ray_start": 0.75,
        "ray_end": 1.25,
        "sample_dist": "spherical_uniform",
        "h_mean": 0.0,
        "h_stddev": PI,
        "v_mean": PI / 2,
        "v_stddev": PI / 2,
        "white_back": True,
        "label_dim": classes,
    }


def _common(img_size: int, batch_size: int, num_processes: int, *, cube_scale: float) -> Curriculum:
    """What all of them share."""
    batch = batch_size * num_processes
    return {
        0: {"batch_size": batch_size, "img_size": img_size},
        "latent_dim": 512,
        "generator": "EpiGRAF",
        "generator_options": {"cube_scale": cube_scale},
        "discriminator": "PatchDiscriminator",
        "discriminator_options": {"mbstd_group_size": MBSTD_GROUP},
        "patch_size": PATCH_SIZE,
        "patch_options": {
            "kind": "beta",
            "anneal_kimg": 10_000,
            "beta_start": 0.001,
            "beta_end": 0.8,
        },
        "num_steps": 48,
        "hierarchical_sample": True,
        "bounded_jitter": True,
        "clamp_mode": "softplus",
        "nerf_noise": 1.0,
        "nerf_noise_steps": 5_000_000 // batch,
        "gen_lr": 0.0025,
        "disc_lr": 0.002,
        "betas": (0.0, 0.99),
        "grad_clip": None,
        "r1_lambda": 0.05,
        "r1_interval": 16,
        "blur_init_sigma": 10,
        "blur_fade_kimg": 200,
        "ema_kimg": batch * 10 / 32,
        "ema2_kimg": batch * 100 / 32,
        "total_kimg": 50_000,
        "augment": "ada",
        "eval_metrics": ("fid2k_full",),
        "dataset": "ImageFolder",
        "dataset_path": "",
    }


# What is left to the generator's and the discriminator's own defaults is the original's, too.
RECIPES = {
    "EpiGRAF_FFHQ": ffhq,
    "EpiGRAF_Cats": cats,
    "EpiGRAF_MegascansPlants": megascans_plants,
    "EpiGRAF_MegascansFood": megascans_food,
}

"""Curricula of the embedded data set: every generator, in minutes on a laptop.

The figures of Toys are seen from all round and from 60 to 90 degrees below the zenith, on white.
"""

import math
from typing import Any

from recipes.stylegan import NO_CAMERAS

Curriculum = dict[int | str, Any]

# where the figures are seen from
VIEWS: Curriculum = {
    "fov": 50,
    "ray_start": 0.5,
    "ray_end": 1.5,
    "sample_dist": "uniform",
    "h_mean": math.pi / 2,
    "h_stddev": math.pi,
    "v_mean": math.radians(75),
    "v_stddev": math.radians(15),
}

# What those share whose figures have a third dimension.
_TURNING: Curriculum = VIEWS | {
    "fade_steps": 100,
    "betas": (0.0, 0.9),
    "weight_decay": 0,
    "r1_lambda": 1,
    "grad_clip": 10,
    "ema_decay": 0.998,
    "ema2_decay": 0.9995,
    "z_dist": "gaussian",
    "generator": "PiGAN",
    "model": "SpatialSiren",
    "discriminator": "ProgressiveDiscriminator",
    "dataset": "Toys",
    "dataset_path": "",
    "clamp_mode": "relu",
    "hierarchical_sample": False,
    "white_back": True,
    "nerf_noise_steps": 400,
    "eval_scenes": 16,
}

# In minutes on a laptop: what `make demo` trains.
Toys: Curriculum = _TURNING | {
    0: {"batch_size": 16, "num_steps": 12, "img_size": 16, "gen_lr": 5e-4, "disc_lr": 1e-3},
    1_200: {"batch_size": 16, "num_steps": 12, "img_size": 32, "gen_lr": 5e-4, "disc_lr": 1e-3},
    1_550: {"batch_size": 16, "num_steps": 12, "img_size": 32, "gen_lr": 2e-4, "disc_lr": 5e-4},
    1_700: {},
    "latent_dim": 64,
    "generator_options": {
        "hidden_dim": 64,
        "num_layers": 4,
        "box_side": 1.0,
        "view_direction": False,
        "density_gain": 10.0,
        "bound_radius": 0.48,
        "mapping_dim": 128,
    },
    "discriminator_options": {
        "base": 1024,
        "max_channels": 96,
        "max_size": 64,
        "pose_conditioning": True,
    },
    "dataset_options": {"toys_num": 4000},
    "eval_images": 512,
}

# The same on a GPU: more of everything, in about the same time.
ToysGPU: Curriculum = _TURNING | {
    0: {"batch_size": 32, "num_steps": 24, "img_size": 32, "gen_lr": 5e-4, "disc_lr": 1e-3},
    2_000: {"batch_size": 32, "num_steps": 24, "img_size": 64, "batch_split": 2,
            "gen_lr": 4e-4, "disc_lr": 8e-4},
    5_000: {"batch_size": 16, "num_steps": 32, "img_size": 128, "batch_split": 4,
            "gen_lr": 2e-4, "disc_lr": 4e-4},
    7_000: {},
    "latent_dim": 128,
    "generator_options": Toys["generator_options"] | {"hidden_dim": 128, "mapping_dim": 256},
    "discriminator_options": Toys["discriminator_options"]
    | {"base": 4096, "max_channels": 256, "max_size": 128},
    "dataset_options": {"toys_num": 10_000},
}  # fmt: skip

# In minutes on a laptop: high learning rates, much R1 and no noise inputs make up for few steps.
ToysStyleGAN2: Curriculum = NO_CAMERAS | {
    0: {"batch_size": 8, "img_size": 32, "gen_lr": 0.005, "disc_lr": 0.005},
    2_000: {"batch_size": 8, "img_size": 32, "gen_lr": 0.002, "disc_lr": 0.002},
    2_600: {},
    "latent_dim": 64,
    "generator": "StyleGAN2",
    "generator_options": {
        "w_dim": 64,
        "mapping_layers": 2,
        "channel_base": 1024,
        "channel_max": 96,
        "use_noise": False,
    },
    "discriminator": "StyleGAN2Discriminator",
    "discriminator_options": {"channel_base": 1024, "channel_max": 96},
    "betas": (0.0, 0.99),
    "grad_clip": None,
    "r1_lambda": 1,
    "r1_interval": 8,
    "ema_kimg": 2,
    "ema2_kimg": 10,
    "dataset": "Toys",
    "dataset_path": "",
    "dataset_options": {"toys_num": 4000},
    "eval_images": 512,
}

# The same with rays: the figures turn with the camera.
ToysRayCond: Curriculum = (
    ToysStyleGAN2
    | VIEWS
    | {
        "generator": "RayConditionedStyleGAN2",
        "discriminator_options": ToysStyleGAN2["discriminator_options"]
        | {"condition_on_cameras": True},
    }
)

# Tri-planes on patches of 16 pixels, of pictures of 64.
ToysEpiGRAF: Curriculum = VIEWS | {
    0: {"batch_size": 8, "img_size": 64, "gen_lr": 0.005, "disc_lr": 0.005},
    1_600: {"batch_size": 8, "img_size": 64, "gen_lr": 0.002, "disc_lr": 0.002},
    2_000: {},
    "latent_dim": 64,
    "num_steps": 12,
    "hierarchical_sample": False,
    "bounded_jitter": True,
    "clamp_mode": "relu",  # where softplus would fill what should stay white
    "white_back": True,
    "nerf_noise_steps": 400,
    "generator": "EpiGRAF",
    "generator_options": {
        "w_dim": 64,
        "plane_resolution": 32,
        "feature_dim": 8,
        "channel_base": 1024,
        "channel_max": 64,
        "decoder_width": 32,
        "cube_scale": 0.5,
        "density_gain": 10.0,
        "bound_radius": 0.48,
        "use_noise": False,
    },
    "discriminator": "PatchDiscriminator",
    "discriminator_options": {
        "channel_base": 1024,
        "channel_max": 96,
        "condition_on_cameras": True,
        # few and smooth waves: a short training has no time to learn many codes
        "window_periods": 4.0,
        "window_table_dim": 0,
        "pose_periods": 4.0,
    },
    "patch_size": 16,
    "patch_options": {"anneal_kimg": 20},
    "betas": (0.0, 0.99),
    "grad_clip": None,
    "r1_lambda": 1,
    "r1_interval": 8,
    "ema_kimg": 2,
    "ema2_kimg": 10,
    "dataset": "Toys",
    "dataset_path": "",
    "dataset_options": {"toys_num": 4000},
    "eval_images": 256,
    "eval_scenes": 8,
}

# Features of an untrained network: the shallow ones, each scale for itself, since those of its
# depths are noise. Four thousand pictures are not learned by heart in so few steps: no DiffAugment.
_RANDOM_FEATURES: Curriculum = {
    "discriminator": "ProjectedDiscriminator",
    "discriminator_options": {
        "input_size": 64,
        "mixing": "channels",
        "num_discs": 2,
        "head_size": 128,
        "head_width": 64,
    },
    "backbone_weights": "random",
    "adversarial_loss": "hinge",
}

# At last with shifts: features stride over pixels, and their gradients leave a grid otherwise.
_SHIFTED: Curriculum = {"batch_size": 16, "img_size": 32, "diffaugment": "translation"}

ToysFastGANLite: Curriculum = (
    NO_CAMERAS
    | _RANDOM_FEATURES
    | {
        0: {"batch_size": 8, "img_size": 32, "gen_lr": 0.002, "disc_lr": 0.001},
        600: {"batch_size": 16, "img_size": 32, "gen_lr": 0.001, "disc_lr": 0.001},
        900: _SHIFTED | {"gen_lr": 0.001, "disc_lr": 0.001},
        1_300: _SHIFTED | {"gen_lr": 0.0005, "disc_lr": 0.0005},
        1_600: {},
        "latent_dim": 64,
        "generator": "FastGANLite",
        "generator_options": {"width": 16},
        "betas": (0.0, 0.99),
        "grad_clip": None,
        "fade_steps": 0,
        "ema_kimg": 2,
        "ema2_kimg": 10,
        "dataset": "Toys",
        "dataset_path": "",
        "dataset_options": {"toys_num": 4000},
        "eval_images": 512,
    }
)

# The figures as pi-GAN's field, under the same features in place of pi-GAN's own discriminator.
ToysProjectedPiGAN: Curriculum = (
    _TURNING
    | _RANDOM_FEATURES
    | {key: value for key, value in Toys.items() if isinstance(key, int)}
    | {key: Toys[key] for key in ("latent_dim", "generator_options", "dataset_options")}
    | {"r1_lambda": 0, "eval_images": 512}
)

"""One stage of a curriculum: every key it may hold, its meaning, and what values make sense.

A `Stage` is what the trainer and the scripts consume: frozen and checked. The comments below are
the reference of the keys; docs/curricula.md says more.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, get_args, get_origin

from ops.registry import nearest
from rendering.settings import CLAMP_MODES, POSE_KINDS, PoseLaw, RenderSettings

PRECISIONS = ("auto", "fp32", "fp16", "bf16")
FROM_DATA = "dataset"  # the pose law that is the data's own cameras
AUGMENTATIONS = ("noaug", "ada", "fixed")
DIFFAUGMENTS = ("color", "translation", "cutout")
COMPAT = {
    "summed_chunks": "generator losses of the batch's chunks are summed, not averaged",
    "batch_coin": "the hybrid pose law tosses one coin for a whole batch",
    "nearest_resize": "training pictures are resized by nearest neighbour, aliasing and all",
    "double_background": "white_back and last_back may both be set: the background counts twice",
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The settings in force from step `start` on."""

    start: int  # the step from which this stage applies
    # -- batches and sizes
    batch_size: int  # images per process and step
    img_size: int  # pixels per side, a power of two
    batch_split: int = 1  # chunks that a batch is computed in, to save memory
    dataset: str  # pre-processing, by its name in datasets.DATASETS
    dataset_path: str = ""  # glob, folder or zip of the pictures
    dataset_options: Mapping[str, Any] = field(default_factory=dict)  # the data set's own
    # -- networks
    generator: str  # by its name in generators.GENERATORS
    model: str = "SpatialSiren"  # pi-GAN's field, by its name in siren.fields.FIELDS
    discriminator: str  # by its name in discriminators.DISCRIMINATORS
    generator_options: Mapping[str, Any] = field(default_factory=dict)  # constructor arguments
    discriminator_options: Mapping[str, Any] = field(default_factory=dict)  # likewise
    latent_dim: int = 256  # numbers in z
    label_dim: int = 0  # classes, as many as the data's labels have; 0: unconditional
    backbone_weights: str = "timm"  # of a projected discriminator: "timm", a path, or "random"
    z_dist: str = "gaussian"  # or "uniform" on (-1, 1)
    # -- cameras
    fov: float  # full field of view, degrees
    radius: float = 1.0  # distance of the cameras from the origin
    sample_dist: str  # pose law: one of rendering.settings.POSE_KINDS, or "dataset"
    h_mean: float  # yaw, radians; pi/2 is frontal
    h_stddev: float  # its standard deviation, or half width for the uniform laws
    v_mean: float  # pitch, radians from straight above
    v_stddev: float  # its standard deviation, or half width
    sample_dist_eval: str | None = None  # pose law of metrics; None: the training one
    h_stddev_eval: float | None = None  # yaw's spread in metrics; None: as in training
    v_stddev_eval: float | None = None  # pitch's
    # -- rendering
    num_steps: int  # coarse samples per ray; hierarchical_sample adds as many
    ray_start: float  # distance of the nearest sample from the camera, along the ray
    ray_end: float  # distance of the farthest
    hierarchical_sample: bool = True  # sample again where the coarse pass found mass
    clamp_mode: str = "relu"  # raw density to density: "relu" or "softplus"
    white_back: bool = False  # where nothing is, white
    last_back: bool = False  # where nothing is, the last sample's colour
    eval_last_back: bool | None = None  # last_back in scripts and metrics; None: as in training
    nerf_noise: float = 1.0  # std of the density noise at step 0
    nerf_noise_steps: int = 5000  # it fades linearly to 0 until this step
    bounded_jitter: bool = False  # random samples stay between ray_start and ray_end
    # -- patches: training looks at windows of the pictures
    patch_size: int | None = None  # pixels per side of a window; None: whole pictures
    patch_options: Mapping[str, Any] = field(default_factory=dict)  # training.patches.PatchLaw's
    # -- cameras that the generator is told
    spoof_p: float = 0.0  # probability that it is another picture's camera
    spoof_kimg: float = 0.0  # thousand images in which it falls to that from 1
    # -- optimisation
    gen_lr: float  # learning rate of the generator
    disc_lr: float  # learning rate of the discriminator
    betas: tuple[float, float] = (0.0, 0.9)  # Adam's
    weight_decay: float = 0.0  # Adam's
    unique_lr: bool = False  # the mapping network learns at mapping_lr_mul x gen_lr
    mapping_lr_mul: float = 0.05  # ... if unique_lr is set
    grad_clip: float | None = 0.3  # largest total gradient norm, per network; None: any
    precision: str = "auto"  # "fp32", "fp16", "bf16"; "auto": fp16 on a GPU, fp32 elsewhere
    disable_scaler: bool = False  # fp16 without loss scaling
    ema_decay: float = 0.999  # of ema.pth
    ema2_decay: float = 0.9999  # of ema2.pth
    ema_kimg: float | None = None  # in place of ema_decay: half-life in thousand images
    ema2_kimg: float | None = None  # in place of ema2_decay
    ema_rampup: float | None = 0.05  # half-lives are at most this share of the images seen
    total_kimg: float | None = None  # training ends after so many thousand images, of all processes
    # -- losses
    adversarial_loss: str = "logistic"  # or "hinge"
    fade_steps: int = 10_000  # steps over which a new image size is faded in
    r1_lambda: float = 0.0  # weight of R1: half of it times the squared gradient norm
    r1_interval: int = 1  # steps between R1 penalties, each so many times heavier (lazy)
    pl_lambda: float = 0.0  # weight of path length regularisation
    pl_interval: int = 4  # steps between these, likewise
    pl_batch_shrink: int = 2  # of a chunk's latents, one in so many is regularised
    pl_decay: float = 0.01  # how fast the mean path length moves
    style_mixing: float = 0.0  # probability that a batch's fine layers take another latent's style
    blur_init_sigma: float = 0.0  # blur of what the discriminator sees at first, pixels
    blur_fade_kimg: float = 0.0  # ... gone after so many thousand images
    topk_interval: float | None = None  # the kept share of a batch falls by 1% every so many steps
    topk_v: float | None = None  # ... down to this share; 1, or either key absent: off
    z_lambda: float = 0.0  # weight of the latent identity loss
    pos_lambda: float = 0.0  # weight of the pose identity loss
    # -- augmentation of what the discriminator sees
    augment: str = "noaug"  # "ada": as much as overfitting asks for; "fixed": with augment_p
    augment_preset: str = "bgc"  # transformations, a name of training.augment.PRESETS
    augment_p: float = 0.2  # probability of each, if "fixed"
    ada_target: float = 0.6  # mean sign of the logits on reals that "ada" holds
    ada_interval: int = 4  # steps between its adjustments
    ada_kimg: float = 500.0  # thousand images in which the probability can rise from 0 to 1
    diffaugment: tuple[str, ...] = ()  # always: "color", "translation", "cutout"; "": none
    # -- looking
    sample_images: int = 25  # pictures per sample grid, five to a row
    sample_size: int | None = None  # their pixels per side; None: img_size
    eval_images: int = 2048  # pictures that a measurement compares
    eval_scenes: int = 0  # scenes whose views are held against each other; 0: none
    eval_metrics: tuple[str, ...] = ("swd",)  # its metrics; by the first one best/ is chosen
    compat: tuple[str, ...] = ()  # the original's quirks to reproduce, by their names in COMPAT

    def network_values(self) -> dict[str, Any]:
        """What networks may be made of: every key, and pictures' size as `resolution`."""
        seen = self.patch_size or self.img_size
        return dataclasses.asdict(self) | {"resolution": self.img_size, "patch_size": seen}

    def render_settings(self, step: int | None = None, **changes: Any) -> RenderSettings:
        """Settings of training pictures at `step`, or without density noise if it is None.

        Keyword arguments replace fields, for instance `resolution=256, jitter=False`.
        """
        settings = RenderSettings(
            resolution=self.img_size,
            num_steps=self.num_steps,
            ray_start=self.ray_start,
            ray_end=self.ray_end,
            hierarchical=self.hierarchical_sample,
            clamp_mode=self.clamp_mode,
            noise_std=0.0 if step is None else self.noise_std(step),
            white_back=self.white_back,
            last_back=self.last_back,
            bounded_jitter=self.bounded_jitter,
        )
        return dataclasses.replace(settings, **changes)

    def eval_settings(self, **changes: Any) -> RenderSettings:
        """Settings for looking and measuring: deterministic, `eval_last_back` in force."""
        last_back = self.last_back if self.eval_last_back is None else self.eval_last_back
        return self.render_settings(**{"last_back": last_back, "jitter": False, **changes})

    def pose_law(self, *, evaluation: bool = False) -> PoseLaw:
        """The law that cameras are drawn from, in training or for metrics.

        Where they are the data's own, this is the normal law that stands for them without the data.
        """

        def choose(training: Any, metrics: Any) -> Any:
            return metrics if evaluation and metrics is not None else training

        kind = choose(self.sample_dist, self.sample_dist_eval)
        return PoseLaw(
            kind="gaussian" if kind == FROM_DATA else kind,
            h_mean=self.h_mean,
            h_stddev=choose(self.h_stddev, self.h_stddev_eval),
            v_mean=self.v_mean,
            v_stddev=choose(self.v_stddev, self.v_stddev_eval),
            fov=self.fov,
            radius=self.radius,
            batch_coin="batch_coin" in self.compat,
        )

    def noise_std(self, step: int) -> float:
        """Standard deviation of the density noise at a step."""
        if self.nerf_noise_steps == 0:
            return 0.0
        return self.nerf_noise * max(0.0, 1 - step / self.nerf_noise_steps)

    def kept_share(self, step: int) -> float:
        """Share of the generator's pictures, best first, that top-k training learns from."""
        if self.topk_interval is None or self.topk_v is None:
            return 1.0
        return max(0.99 ** (step / self.topk_interval), self.topk_v)


_FIELDS = {f.name: f for f in dataclasses.fields(Stage) if f.name != "start"}
KEYS = (*_FIELDS, "learnable_dist")
_REQUIRED = [
    name
    for name, f in _FIELDS.items()
    if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
]
_CHOICES = {
    "clamp_mode": CLAMP_MODES,
    "sample_dist": (*POSE_KINDS, FROM_DATA),
    "sample_dist_eval": (*POSE_KINDS, FROM_DATA),
    "z_dist": ("gaussian", "uniform"),
    "precision": PRECISIONS,
    "adversarial_loss": ("logistic", "hinge"),
    "augment": AUGMENTATIONS,
}
_POSITIVE = {
    "batch_size", "batch_split", "img_size", "num_steps", "latent_dim", "fov", "radius",
    "topk_interval", "topk_v", "grad_clip", "sample_images", "sample_size", "eval_images",
    "mapping_lr_mul", "ema_kimg", "ema2_kimg", "ema_rampup", "total_kimg", "r1_interval",
    "patch_size", "pl_interval", "pl_batch_shrink", "ada_interval", "ada_kimg",
}  # fmt: skip
_SIGNED = {"h_mean", "v_mean", "ada_target"}
_LARGEST = 1e18  # no setting comes near; beyond it Python's own conversions fail

# what networks, optimisers and averages are made with, once for a run
FIXED_KEYS = (
    "generator", "model", "discriminator", "generator_options", "discriminator_options",
    "latent_dim", "label_dim", "precision", "disable_scaler", "ema_decay", "ema2_decay",
    "ema_kimg", "ema2_kimg", "ema_rampup", "total_kimg", "augment", "augment_preset", "augment_p",
    "ada_target", "ada_interval", "ada_kimg", "patch_size", "backbone_weights",
)  # fmt: skip


def make_stage(start: int, values: Mapping[str, Any]) -> Stage:
    """Check the values of a stage that begins at step `start`.

    Raises ValueError naming the key, the stage, what was given and what is allowed.
    """
    where = f"(stage {start})"
    for key in values:
        if key not in KEYS:
            raise ValueError(f"unknown curriculum key {key!r} {where}{nearest(key, KEYS)}")
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ValueError(f"missing curriculum key {missing[0]!r} {where}")
    if values.get("learnable_dist"):
        raise ValueError(f"learnable_dist never had an effect: only False is accepted {where}")
    checked = {
        key: _check(key, value, where) for key, value in values.items() if key != "learnable_dist"
    }
    stage = Stage(start=start, **checked)
    _check_together(stage, where)
    return stage


def _check(key: str, value: Any, where: str) -> Any:
    """One value, converted to its field's type if that loses nothing."""
    kind, optional = _kind(_FIELDS[key].type)
    if value is None:
        if optional:
            return None
        raise ValueError(f"{key} must not be None {where}")
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            allowed = nearest(value, _CHOICES[key])
            raise ValueError(f"{key} cannot be {value!r} {where}{allowed}")
        return value
    if key == "betas":
        return _check_betas(value, where)
    if key == "compat":
        return _check_compat(value, where)
    if key == "diffaugment":
        return _check_policies(value, where)
    if key == "eval_metrics":
        return _check_names(key, value, where)
    if kind is Mapping:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ValueError(f"{key} must be a dictionary of options, got {value!r} {where}")
        return dict(value)
    if kind in (str, bool):
        if not isinstance(value, kind):
            wanted = "text" if kind is str else "True or False"
            raise ValueError(f"{key} must be {wanted}, got {value!r} {where}")
        return value
    return _check_number(key, value, kind, where)


def _kind(annotation: Any) -> tuple[type, bool]:
    """The class behind a field's type, without its arguments, and whether None is allowed."""
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return get_origin(options[0]) or options[0], type(None) in options


def _check_number(key: str, value: Any, kind: type, where: str) -> int | float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not -_LARGEST < value < _LARGEST:
        raise ValueError(f"{key} must be a number, got {value!r} {where}")
    if kind is int and value != int(value):
        raise ValueError(f"{key} must be a whole number, got {value!r} {where}")
    value = kind(value)
    if key in _POSITIVE and value <= 0:
        raise ValueError(f"{key} must be positive, got {value!r} {where}")
    if key not in _SIGNED and value < 0:
        raise ValueError(f"{key} must not be negative, got {value!r} {where}")
    return value


def _check_betas(value: Any, where: str) -> tuple[float, float]:
    numbers = isinstance(value, (tuple, list)) and all(isinstance(b, (int, float)) for b in value)
    if not numbers or len(value) != 2 or not all(0 <= b < 1 for b in value):
        raise ValueError(f"betas must be two numbers in [0, 1), got {value!r} {where}")
    return float(value[0]), float(value[1])


def _check_names(key: str, value: Any, where: str) -> tuple[str, ...]:
    """Names in a list or separated by commas."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (tuple, list)) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{key} must be a list of names, got {value!r} {where}")
    if not names or not all(name.strip() for name in names):
        raise ValueError(f"{key} must name at least one, got {value!r} {where}")
    return tuple(name.strip() for name in names)


def _check_policies(value: Any, where: str) -> tuple[str, ...]:
    names = _check_names("diffaugment", value, where) if value not in ("", (), []) else ()
    for name in names:
        if name not in DIFFAUGMENTS:
            near = nearest(name, DIFFAUGMENTS)
            raise ValueError(f"unknown diffaugment policy {name!r} {where}{near}")
    return names


def _check_compat(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, (tuple, list)):
        raise ValueError(f"compat must be a list of names, got {value!r} {where}")
    for name in value:
        if not isinstance(name, str) or name not in COMPAT:
            raise ValueError(f"unknown compat name {name!r} {where}{nearest(name, COMPAT)}")
    return tuple(value)


def _check_together(stage: Stage, where: str) -> None:
    """What only shows when keys are seen side by side."""
    if stage.img_size & (stage.img_size - 1):
        raise ValueError(f"img_size must be a power of two, got {stage.img_size} {where}")
    if stage.batch_size % stage.batch_split:
        raise ValueError(
            f"batch_size must be a multiple of batch_split, got {stage.batch_size} and "
            f"{stage.batch_split} {where}"
        )
    if stage.fov >= 180:
        raise ValueError(f"fov must be below 180 degrees, got {stage.fov} {where}")
    if stage.topk_v is not None and stage.topk_v > 1:
        raise ValueError(f"topk_v must be at most 1, got {stage.topk_v} {where}")
    if stage.patch_size is not None and stage.patch_size > stage.img_size:
        raise ValueError(
            f"patch_size must be at most img_size, got {stage.patch_size} and {stage.img_size} "
            f"{where}"
        )
    if stage.patch_options and stage.patch_size is None:
        raise ValueError(f"patch_options need patch_size {where}")
    if bool(stage.blur_init_sigma) != bool(stage.blur_fade_kimg):
        raise ValueError(f"blur_init_sigma and blur_fade_kimg need each other {where}")
    for key in ("style_mixing", "spoof_p", "augment_p", "ada_target", "pl_decay"):
        if getattr(stage, key) > 1:
            raise ValueError(f"{key} must be at most 1, got {getattr(stage, key)} {where}")
    if max(stage.ema_decay, stage.ema2_decay) >= 1:
        raise ValueError(f"ema_decay and ema2_decay must be below 1 {where}")
    law = stage.pose_law(evaluation=True)
    if stage.eval_scenes and (law.kind == "fixed" or not law.h_stddev):
        raise ValueError(f"eval_scenes need cameras whose yaw varies, h_stddev is 0 {where}")
    if stage.eval_scenes == 1:
        raise ValueError(f"eval_scenes must be 0, or 2 and more, got 1 {where}")
    both = stage.white_back and (stage.last_back or stage.eval_last_back)
    if both and "double_background" not in stage.compat:
        raise ValueError(
            "white_back and last_back exclude each other: the background would count twice "
            f"(compat 'double_background' allows it) {where}"
        )
    try:
        stage.render_settings()
    except ValueError as error:
        raise ValueError(f"{error} {where}") from error

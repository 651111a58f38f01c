"""How a picture is made and from where: what trainer, scripts, metrics and viewer share.

Torch-free on purpose: curricula, which nothing heavy should slow down, derive their settings here.
"""

from dataclasses import dataclass

CLAMP_MODES = ("relu", "softplus")
POSE_KINDS = (
    "uniform",
    "normal",
    "gaussian",
    "hybrid",
    "truncated_gaussian",
    "spherical_uniform",
    "fixed",
)


@dataclass(frozen=True)
class RenderSettings:
    """Resolution, samples along a ray, density activation and background of a rendering."""

    resolution: int  # pixels per side; pictures are square
    num_steps: int  # coarse samples per ray; a hierarchical pass adds as many again
    ray_start: float  # distance of the first sample from the camera, along the unit ray
    ray_end: float  # distance of the last one
    hierarchical: bool = True  # resample where the coarse pass found mass (NeRF, section 5.2)
    clamp_mode: str = "relu"  # raw density -> density: "relu" or "softplus"
    noise_std: float = 0.0  # std of the normal noise added to raw density, a regulariser
    white_back: bool = False  # light that nothing absorbs is white
    last_back: bool = False  # light that nothing absorbs has the last sample's colour
    jitter: bool = True  # random sample positions; False makes the picture a pure function
    bounded_jitter: bool = False  # random positions stay between ray_start and ray_end
    lock_view_dependence: bool = False  # feed the field a fixed view direction, (0, 0, -1)
    max_batch_size: int | None = None  # field points evaluated at once; None: all

    def __post_init__(self) -> None:
        """Refuse values that no picture can be made with."""
        for name in ("resolution", "num_steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        points = self.max_batch_size
        if points is not None and (not isinstance(points, int) or points < 1):
            raise ValueError(f"max_batch_size must be a positive integer or None, got {points!r}")
        if not 0 <= self.ray_start < self.ray_end:
            raise ValueError(
                f"need 0 <= ray_start < ray_end, got {self.ray_start!r} and {self.ray_end!r}"
            )
        if self.clamp_mode not in CLAMP_MODES:
            raise ValueError(f"clamp_mode must be one of {CLAMP_MODES}, got {self.clamp_mode!r}")
        if not self.noise_std >= 0:
            raise ValueError(f"noise_std must not be negative, got {self.noise_std!r}")
        if self.hierarchical and self.num_steps < 3:
            raise ValueError(
                f"hierarchical sampling needs num_steps of at least 3, got {self.num_steps}"
            )
        if self.num_steps < 2:
            raise ValueError(f"num_steps must be at least 2, got {self.num_steps}")


@dataclass(frozen=True)
class PoseLaw:
    """The distribution that training and metric cameras are drawn from.

    `kind` is one of POSE_KINDS; `mean` and `stddev` of yaw (`h_`) and pitch (`v_`) in radians. For
    "uniform" and "spherical_uniform" the stddev is the half width of the interval; the latter draws
    pitch uniformly by area on the sphere. `batch_coin` reproduces the original's "hybrid": one coin
    for a whole batch in place of one per camera.
    """

    kind: str
    h_mean: float
    h_stddev: float
    v_mean: float
    v_stddev: float
    fov: float
    radius: float = 1.0
    batch_coin: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        if self.kind not in POSE_KINDS:
            raise ValueError(f"sample_dist must be one of {POSE_KINDS}, got {self.kind!r}")

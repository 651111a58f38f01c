"""How a picture is made: the one description that trainer, scripts, metrics and viewer share.

Torch-free on purpose: curricula, which nothing heavy should slow down, derive their settings here.
"""

from dataclasses import dataclass

CLAMP_MODES = ("relu", "softplus")


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
    lock_view_dependence: bool = False  # feed the field a fixed view direction, (0, 0, -1)
    max_batch_size: int | None = None  # field points evaluated at once; None: all

    def __post_init__(self) -> None:
        """Refuse values that no picture can be made with."""
        for name in ("resolution", "num_steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise ValueError(f"max_batch_size must be at least 1, got {self.max_batch_size!r}")
        if not 0 <= self.ray_start < self.ray_end:
            raise ValueError(
                f"need 0 <= ray_start < ray_end, got {self.ray_start!r} and {self.ray_end!r}"
            )
        if self.clamp_mode not in CLAMP_MODES:
            raise ValueError(f"clamp_mode must be one of {CLAMP_MODES}, got {self.clamp_mode!r}")
        if self.noise_std < 0:
            raise ValueError(f"noise_std must not be negative, got {self.noise_std!r}")
        if self.hierarchical and self.num_steps < 3:
            raise ValueError(
                f"hierarchical sampling needs num_steps of at least 3, got {self.num_steps}"
            )
        if self.num_steps < 2:
            raise ValueError(f"num_steps must be at least 2, got {self.num_steps}")

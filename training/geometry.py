"""Measuring what a 3D-aware generator has learned of shape: scenes seen from several sides.

Every scene has a latent and cameras of its own, which depend on its number alone, so that the
number of processes does not matter. The cameras of a scene are spread evenly over the yaws of the
evaluation pose law, all the way round if the law covers that; pitches are drawn from the law.
`measure_geometry` says what the numbers mean.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generators import Generator
from inference.views import seeded_labels, seeded_latents
from metrics.appearance import (
    APART,
    appearance,
    appearance_distance,
    colour_histogram,
    identity_drift,
)
from metrics.geometry import (
    Consistency,
    Views,
    billboard_share,
    flatness,
    view_consistency,
)
from metrics.pose import pose_errors
from metrics.shapes import SurfaceErrors, chamfer, match_shapes, surface_errors, surface_points
from metrics.stereo import Seen, stereo_consistency
from rendering.cameras import Cameras
from rendering.renderer import Rendering
from rendering.settings import PoseLaw, RenderSettings
from stages import Stage
from training.distributed import World
from training.random import derive_seed
from training.reference import CLOUD, Reference, exact_views, place_surface

SEED = 30_000_000  # far from the latents that people look at
Distance = Callable[[Tensor, Tensor], Tensor]
ALONE = World(0, 1, torch.device("cpu"))
FULL_TURN = math.pi - 1e-3  # half width of yaws from which on cameras stand all around


@dataclass(frozen=True)
class SceneScore:
    """What is kept of one scene, on the CPU; the first five are of a generator with depth."""

    consistency: Consistency | None
    flatness: float | None
    billboard: float | None
    histograms: Tensor  # (views, bins)
    looks: Tensor  # (views, 11)
    poses: Tensor  # (views, 2)
    stereo: float | None = None
    stereo_still: float | None = None
    images: Tensor | None = None  # (views, 3, height, width), for a perceptual distance
    predicted: Tensor | None = None  # (views, 2)
    chamfer: list[float] | None = None  # to every known shape
    errors: SurfaceErrors | None = None  # against the nearest known shape


@torch.no_grad()
def measure_geometry(
    generator: Generator,
    stage: Stage,
    *,
    num_images: int = 32,  # scenes
    views: int = 8,  # pictures of each
    psi: float = 1.0,  # truncation; 1 is none
    settings: RenderSettings | None = None,  # None: the stage's, with twice its samples per ray
    reference: Reference | None = None,  # what is known of the data set
    perceptual: Distance | None = None,  # of two batches of pictures, such as LPIPS
    world: World = ALONE,  # the processes that share the work; all must call
) -> dict[str, float]:
    """Numbers by name, the same in every process; those that nothing can be said of are missing.

    Of the scenes alone: `view_consistency` (share of the colours' variance that one view foretells
    of the next: 1 solid, 0 none), `stereo_consistency` (likewise, with the surface that explains
    most, so also without depth; beside `stereo_still`, of pictures that do not turn),
    `reprojection_error` (mean colour difference, a share of the range), `looked_through` (share of
    one view's surface that the next looks through), `solid` (share of pixels that show a surface),
    `flatness` (1 a billboard, 0 a ball), `billboard` (share of the surface that faces one way),
    `identity_drift` (views' difference in colours as a share of that between scenes), and with a
    `perceptual` distance `identity_perceptual`, likewise.

    With a regressor: `yaw_error`, `pitch_error` in degrees, `yaw_chance`, `pitch_chance`,
    `yaw_offset`, `yaw_aligned` (see `metrics.pose`), and its own errors on pictures of the data
    set, `yaw_floor` and `pitch_floor`. With looks: `silhouette` and `colour`, distances of the sets
    in standard deviations. With Toys: `chamfer` (minimum matching distance) and `coverage`, and of
    each scene against the figure that is most like it, as no figure is its partner: `depth_error`
    in world units, `normal_error` in degrees, `silhouette_iou`.
    """
    if num_images < 2 or views < 2:
        raise ValueError(f"need two or more scenes and views, got {num_images} and {views}")
    if not generator.sees_cameras:
        raise ValueError(
            f"geometry needs a generator that sees cameras: {type(generator).__name__}"
        )
    if settings is None:
        settings = stage.eval_settings(num_steps=2 * stage.num_steps)
    reference = reference or Reference()
    look = _Look(generator, stage, views, psi, settings, reference, perceptual is not None)
    own = [look.score(number) for number in range(world.rank, num_images, world.size)]
    shares = world.gather(own)
    scores = [shares[n % world.size][n // world.size] for n in range(num_images)]
    numbers = _summary(scores)
    if perceptual is not None:
        items = torch.stack([s.images for s in scores if s.images is not None])
        items = items.to(generator.w_avg.device)
        numbers["identity_perceptual"] = identity_drift(items, perceptual)
    return numbers | _comparison(scores, reference)


@torch.no_grad()
def measure_reconstruction(
    generator: Generator,
    stage: Stage,
    w: Tensor,
    seed: int,
    index: int,
    *,
    views: int = 8,
    settings: RenderSettings | None = None,
) -> dict[str, float]:
    """Errors of the scene of style `w` (1, ...), fitted to a picture of figure `index` of Toys.

    Here geometry has a partner: `depth_error` and `chamfer` in world units, `normal_error` in
    degrees, `silhouette_iou`, over views from all around; those of nothing visible are missing.
    """
    if settings is None:
        settings = stage.eval_settings(num_steps=2 * stage.num_steps)
    cameras, _ = scene_cameras(stage.pose_law(evaluation=True), 0, views)
    cameras = cameras.to(generator.w_avg.device)
    scene = place_surface(photograph(generator, w, cameras, settings), cameras, settings)
    exact, normals = exact_views(seed, index, cameras, scene.image.shape[-1])
    errors = surface_errors(scene, exact.distance, exact.opacity, normals)
    clouds = surface_points(scene, CLOUD), surface_points(exact, CLOUD)
    return _means(
        depth_error=[errors.depth],
        normal_error=[errors.normal],
        silhouette_iou=[errors.silhouette],
        chamfer=[chamfer(*clouds)] if len(clouds[0]) else [],
    )


def scene_cameras(law: PoseLaw, number: int, views: int) -> tuple[Cameras, bool]:
    """Cameras around scene `number`, and whether the last has the first for its neighbour."""
    rng = torch.Generator().manual_seed(derive_seed("geometry", number))
    pitch = Cameras.sample(law, views, rng).yaw_pitch[:, 1]
    half = law.h_stddev if law.kind in ("uniform", "spherical_uniform") else 2 * law.h_stddev
    if half <= 0 or law.kind == "fixed":
        raise ValueError(
            f"views of a scene need a pose law that varies yaw, got {law.kind!r} with h_stddev "
            f"{law.h_stddev}"
        )
    if half >= FULL_TURN:
        start = 2 * math.pi * torch.rand(1, generator=rng)
        yaw = start + torch.arange(views) * (2 * math.pi / views)
    else:
        yaw = law.h_mean + half * torch.linspace(-1, 1, views)
    return Cameras.from_angles(yaw, pitch, law.fov, law.radius), half >= FULL_TURN


@dataclass(frozen=True)
class _Look:
    """How scenes are looked at and scored."""

    generator: Generator
    stage: Stage
    views: int
    psi: float
    settings: RenderSettings
    reference: Reference
    keep_images: bool

    def score(self, number: int) -> SceneScore:
        """Render one scene from all its cameras and score it."""
        generator, regressor = self.generator, self.reference.regressor
        device = generator.w_avg.device
        law = self.stage.pose_law(evaluation=True)
        cameras, closed = scene_cameras(law, number, self.views)
        cameras = cameras.to(device)
        seeds = [SEED + number]
        z = seeded_latents(seeds, generator.latent_dim, self.stage.z_dist).to(device)
        label = seeded_labels(generator, seeds)
        w = generator.mapping(z, label, cameras[0], psi=self.psi)
        rendering = photograph(generator, w, cameras, self.settings)
        order = torch.arange(self.views)
        source, target = (order, order.roll(-1)) if closed else (order[:-1], order[1:])
        image, opacity = rendering.image, rendering.opacity
        own: dict[str, Any] = {"consistency": None, "flatness": None, "billboard": None}
        if opacity is not None:
            scene = place_surface(rendering, cameras, self.settings)
            distances, errors = _against_toys(scene, cameras, self.reference)
            own = {
                "consistency": view_consistency(scene[source], scene[target]),
                "flatness": flatness(scene),
                "billboard": billboard_share(scene),
                "chamfer": distances,
                "errors": errors,
            }
        middle, neighbours = _neighbours(order, closed)
        return SceneScore(
            histograms=colour_histogram(image, silhouette(image, opacity)).cpu(),
            looks=appearance(image).cpu(),
            poses=cameras.yaw_pitch.cpu(),
            stereo=self._stereo(image, cameras, middle, neighbours),
            stereo_still=self._stereo(image, cameras, middle, neighbours, still=True),
            images=image.cpu() if self.keep_images else None,
            predicted=None if regressor is None else regressor(image).cpu(),
            **own,
        )

    def _stereo(
        self,
        images: Tensor,
        cameras: Cameras,
        source: Tensor,
        neighbours: Sequence[Tensor],
        still: bool = False,
    ) -> float | None:
        """Stereo consistency of views with their neighbours, or with themselves in their place."""
        origins, directions = cameras[source].rays(images.shape[-1], images.shape[-1])
        return stereo_consistency(
            images[source],
            [
                Seen(images[source if still else i], cameras.cam2world[i], cameras.fov[i])
                for i in neighbours
            ],
            origins,
            directions,
            self.settings.ray_start,
            self.settings.ray_end,
            ground=1.0 if self.settings.white_back else None,
        )


def photograph(
    generator: Generator, w: Tensor, cameras: Cameras, settings: RenderSettings
) -> Rendering:
    """The scene of one style (1, ...) from all cameras, in colours that can be shown."""
    made = generator.synthesis(w.expand(len(cameras), *w.shape[1:]), cameras, settings)
    return Rendering(made.image.clamp(-1, 1), made.depth, made.opacity)


def _neighbours(order: Tensor, closed: bool) -> tuple[Tensor, list[Tensor]]:
    """Views that have a view on either side, and those; of two in a row, one with the other."""
    if closed:
        return order, [order.roll(-1), order.roll(1)]
    if len(order) == 2:
        return order[:1], [order[1:]]
    return order[1:-1], [order[2:], order[:-2]]


def silhouette(images: Tensor, opacity: Tensor | None) -> Tensor:
    """Opacity, or where there is none, whatever is not white."""
    if opacity is not None:
        return opacity
    return ((images - 1).abs().amax(1) > 2 * APART).to(images)


def _against_toys(
    scene: Views, cameras: Cameras, reference: Reference
) -> tuple[list[float] | None, SurfaceErrors | None]:
    """Chamfer distances to the known figures, and errors against the nearest one."""
    cloud = surface_points(scene, CLOUD).cpu()
    if not reference.clouds or reference.toy_seed is None or not len(cloud):
        return None, None
    distances = [chamfer(cloud, known) for known in reference.clouds]
    nearest = distances.index(min(distances))
    size = scene.image.shape[-1]
    exact, normals = exact_views(reference.toy_seed, nearest, cameras, size)
    return distances, surface_errors(scene, exact.distance, exact.opacity, normals)


def _summary(scores: Sequence[SceneScore]) -> dict[str, float]:
    """Means over scenes of what they tell alone."""
    found = [s.consistency for s in scores if s.consistency is not None]
    return _means(
        view_consistency=[c.r2 for c in found],
        reprojection_error=[c.error for c in found],
        looked_through=[c.missing for c in found if c.error is not None],
        solid=[c.solid for c in found],
        flatness=[s.flatness for s in scores],
        billboard=[s.billboard for s in scores],
        stereo_consistency=[s.stereo for s in scores],
        stereo_still=[s.stereo_still for s in scores],
        identity_drift=[identity_drift(torch.stack([s.histograms for s in scores]))],
    )


def _comparison(scores: Sequence[SceneScore], reference: Reference) -> dict[str, float]:
    """Whatever needs knowledge of the data set."""
    numbers: dict[str, float] = {}
    predicted = [s.predicted for s in scores if s.predicted is not None]
    if predicted and reference.regressor_errors is not None:
        errors = pose_errors(torch.cat(predicted), torch.cat([s.poses for s in scores]))
        numbers |= {
            "yaw_error": errors.yaw,
            "pitch_error": errors.pitch,
            "yaw_chance": errors.yaw_chance,
            "pitch_chance": errors.pitch_chance,
            "yaw_floor": reference.regressor_errors.yaw,
            "pitch_floor": reference.regressor_errors.pitch,
            "yaw_offset": errors.yaw_offset,
            "yaw_aligned": errors.yaw_aligned,
        }
    if reference.looks is not None:
        numbers |= appearance_distance(reference.looks, torch.cat([s.looks for s in scores]))
    rows = [s.chamfer for s in scores if s.chamfer is not None]
    if rows:
        match = match_shapes(torch.tensor(rows))
        errors = [s.errors for s in scores if s.errors is not None]
        numbers |= {"chamfer": match.distance, "coverage": match.coverage}
        numbers |= _means(
            depth_error=[e.depth for e in errors],
            normal_error=[e.normal for e in errors],
            silhouette_iou=[e.silhouette for e in errors],
        )
    return numbers


def _means(**lists: Sequence[float | None]) -> dict[str, float]:
    """Mean of the values that there are, for each name that has any."""
    kept = {name: [v for v in values if v is not None] for name, values in lists.items()}
    return {name: sum(values) / len(values) for name, values in kept.items() if values}

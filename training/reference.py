"""What is known of a data set, to hold a generator's geometry against.

Of any data set with exact cameras: a network that tells the pose of a picture. Of pictures on white
ground: their silhouettes and colours. Of Toys: the figures themselves.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datasets import ImageDataset
from image_files import find_images
from inference.views import front_pitch
from metrics.appearance import appearance
from metrics.geometry import Views
from metrics.pose import STEPS, PoseErrors, PoseRegressor, shrink, train_pose_regressor
from metrics.shapes import surface_points
from ops.shapes import Float
from rendering.cameras import Cameras
from rendering.renderer import Rendering
from rendering.settings import RenderSettings
from stages import Stage
from toys.render import render_figures
from toys.scenes import Figures

LESSONS = 4096  # pictures that poses are learned from, at most
CLOUD = 512  # points of a shape
BATCH = 256


@dataclass(frozen=True)
class Reference:
    """What there is to compare with; None or empty where the data set does not tell."""

    regressor: PoseRegressor | None = None
    regressor_errors: PoseErrors | None = None  # of the regressor itself, on unseen pictures
    looks: Float[Tensor, "pictures 11"] | None = None  # `appearance` of the data set's pictures
    toy_seed: int | None = None
    clouds: tuple[Float[Tensor, "points 3"], ...] = ()  # surfaces of the first figures of Toys


def make_reference(
    dataset: ImageDataset,
    stage: Stage,
    device: torch.device | str = "cpu",
    *,
    views: int = 8,
    figures: int = 64,  # of Toys, to compare shapes with
    steps: int = STEPS,  # of learning poses
) -> Reference:
    """Learn and collect all that the data set tells; takes half a minute on a CPU."""
    count = min(len(dataset), LESSONS)
    images = torch.cat(
        [shrink(dataset.batch(part).images) for part in torch.arange(count).split(BATCH)]
    )
    regressor = errors = None
    if dataset.camera_angles is not None:
        poses = dataset.camera_angles[:count, :2].to(device)
        regressor, errors = train_pose_regressor(images.to(device), poses, steps=steps)
    looks = appearance(images) if stage.white_back else None
    seed = toy_seed(stage)
    clouds = () if seed is None else tuple(toy_cloud(seed, i, stage, views) for i in range(figures))
    return Reference(regressor, errors, looks, seed, clouds)


def toy_seed(stage: Stage) -> int | None:
    """The seed of the figures that a stage learns from; None if its pictures are not Toys."""
    if not stage.dataset_path:
        return stage.dataset_options.get("toys_seed", 0) if stage.dataset == "Toys" else None
    files = find_images(stage.dataset_path)
    for table in files.tables[:1]:
        content: Any = json.loads(files.read(table))
        toys = content.get("toys") if isinstance(content, dict) else None
        if isinstance(toys, dict) and isinstance(toys.get("seed"), int):
            return toys["seed"]
    return None


def toy_cloud(seed: int, index: int, stage: Stage, views: int) -> Float[Tensor, "points 3"]:
    """Points of a figure's surface that are seen from all around, at the stage's mean pitch."""
    yaw = torch.arange(views) * (2 * math.pi / views)
    cameras = Cameras.from_angles(yaw, front_pitch(stage), stage.fov, stage.radius)
    return surface_points(exact_views(seed, index, cameras, 32)[0], CLOUD)


def exact_views(
    seed: int, index: int, cameras: Cameras, resolution: int
) -> tuple[Views, Float[Tensor, "views height width 3"]]:
    """A figure of Toys as `cameras` see it, and its exact normals."""
    figure = Figures.sample(seed, [index] * len(cameras)).to(cameras.cam2world.device)
    exact = render_figures(figure, cameras, resolution, samples=1)
    rendering = Rendering(exact.image, exact.depth, exact.opacity)
    return place_surface(rendering, cameras), exact.normals.movedim(1, -1)


def place_surface(
    rendering: Rendering, cameras: Cameras, settings: RenderSettings | None = None
) -> Views:
    """Where in the world the surface lies that a rendering shows.

    The renderer's depth is the sum of weight x distance over the ray; with the `last_back` of
    `settings`, what nothing absorbs has the distance `ray_end`.
    """
    depth, opacity = rendering.depth, rendering.opacity
    if depth is None or opacity is None:
        raise ValueError("geometry needs a radiance generator, this is a 2D one")
    if settings is not None and settings.last_back:
        depth = depth - (1 - opacity) * settings.ray_end
    distance = depth / opacity.clamp(min=1e-6)
    size = rendering.image.shape[-1]
    origins, directions = cameras.rays(size, size)
    points = origins + directions * distance.flatten(1)[..., None]
    points = points.reshape(*opacity.shape, 3)
    return Views(rendering.image, points, opacity, cameras.cam2world, cameras.fov)

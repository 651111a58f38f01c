"""Geometry of generators whose scenes are known: Toys themselves, and impostors."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from tiny_plugins import ALL_GENERATORS, build_generator, settings_of
from tiny_runs import TINY, write_pictures
from torch import Tensor

from curriculums import stage_at, with_overrides
from datasets import ImageDataset
from generators import Generator, RadianceGenerator
from metrics.pose import train_pose_regressor
from rendering.cameras import Cameras
from rendering.renderer import Rendering
from rendering.settings import PoseLaw, RenderSettings
from stages import Stage
from toys.dataset import POSES, camera_angles, toy_cameras, write_toys
from toys.render import render_figures
from toys.scenes import Figures
from training.distributed import World
from training.geometry import measure_geometry, measure_reconstruction, scene_cameras
from training.reference import Reference, make_reference, place_surface, toy_cloud, toy_seed

SIZE = 24
SCENES: dict[str, Any] = {"num_images": 4, "views": 6}


class Toys(Generator):
    """A generator that shows figure w of Toys; scene n has figure n."""

    sees_cameras = True

    def __init__(self) -> None:
        super().__init__(latent_dim=6, w_shape=(1,))
        self.made = 0

    def style(self, z: Tensor, label: Tensor | None, cameras: Cameras | None) -> Tensor:
        self.made += len(z)
        return torch.full((len(z), 1), float(self.made - 1))

    def look(self, w: Tensor, cameras: Cameras, size: int) -> Rendering:
        figures = Figures.sample(0, [round(float(x)) for x in w[:, 0]])
        exact = render_figures(figures, cameras, size, samples=1)
        return Rendering(exact.image, exact.depth, exact.opacity)

    def synthesis(
        self, w: Tensor, cameras: Cameras, settings: RenderSettings, **unused: Any
    ) -> Rendering:
        return self.look(w, cameras, settings.resolution)


class Stuck(Toys):
    """One that ignores the yaw that it is asked for."""

    def look(self, w: Tensor, cameras: Cameras, size: int) -> Rendering:
        pitch = cameras.yaw_pitch[:, 1]
        return super().look(w, Cameras.from_angles(1.0, pitch, cameras.fov), size)


class Still(Toys):
    """One whose picture is the same from all sides."""

    def look(self, w: Tensor, cameras: Cameras, size: int) -> Rendering:
        return super().look(w, Cameras.from_angles(1.0, 1.3, cameras.fov), size)


class Fickle(Toys):
    """One that shows another figure from every side."""

    def look(self, w: Tensor, cameras: Cameras, size: int) -> Rendering:
        return super().look(w + torch.arange(len(w))[:, None], cameras, size)


class Fog(Toys):
    """One that shows grey fog everywhere."""

    def look(self, w: Tensor, cameras: Cameras, size: int) -> Rendering:
        half = torch.full((len(w), size, size), 0.5)
        return Rendering(torch.zeros(len(w), 3, size, size), half, half)


class Flat(Toys):
    """One without depth, and so it says without sides."""

    sees_cameras = False

    def look(self, w: Tensor, cameras: Cameras, size: int) -> Rendering:
        return Rendering(super().look(w, cameras, size).image)


@pytest.fixture(scope="module")
def stage() -> Stage:
    changes = ["dataset='Toys'", "dataset_options={}", "sample_dist='uniform'", "white_back=True"]
    law = POSES
    changes += [f"h_mean={law.h_mean}", f"h_stddev={law.h_stddev}", f"fov={law.fov}"]
    changes += [f"v_mean={law.v_mean}", f"v_stddev={law.v_stddev}", f"0.img_size={SIZE}"]
    return stage_at(with_overrides(TINY, [c for c in changes if "img_size" not in c]), 0)


@pytest.fixture(scope="module")
def settings() -> RenderSettings:
    return RenderSettings(SIZE, 4, 0.5, 1.5, white_back=True, jitter=False)


@pytest.fixture(scope="module")
def reference(stage: Stage) -> Reference:
    """Poses of the first four figures, and their shapes."""
    cameras = toy_cameras(0, range(320))
    figures = Figures.sample(0, [i % 4 for i in range(320)])
    images = render_figures(figures, cameras, SIZE, samples=1).image
    poses = camera_angles(0, range(320)).float()
    regressor, errors = train_pose_regressor(images, poses, steps=80)
    clouds = tuple(toy_cloud(0, i, stage, 6) for i in range(5))
    return Reference(regressor, errors, None, 0, clouds)


@pytest.fixture(scope="module")
def good(stage: Stage, settings: RenderSettings, reference: Reference) -> dict[str, float]:
    """The numbers of Toys."""
    return measure_geometry(Toys(), stage, settings=settings, reference=reference, **SCENES)


def test_toys_are_solid_and_exact(good: dict[str, float]) -> None:
    numbers = good  # for short
    assert numbers["view_consistency"] > 0.75  # arms and buttons are thinner than pixels
    assert numbers["reprojection_error"] < 0.08
    assert numbers["looked_through"] < 0.02
    assert 0.1 < numbers["solid"] < 0.4
    assert numbers["flatness"] < 0.3 and numbers["billboard"] < 0.6
    assert numbers["identity_drift"] < 1
    assert numbers["yaw_error"] < 45 and numbers["yaw_chance"] > 75
    assert 0 < numbers["yaw_floor"] < 45
    assert numbers["chamfer"] < 0.035 and numbers["coverage"] == 0.8  # four of five figures
    assert numbers["depth_error"] < 1e-5
    assert numbers["silhouette_iou"] == 1
    assert numbers["normal_error"] < 25


def test_a_generator_that_ignores_yaw_fails(
    stage: Stage, settings: RenderSettings, reference: Reference, good: dict[str, float]
) -> None:
    bad = measure_geometry(Stuck(), stage, settings=settings, reference=reference, **SCENES)
    assert bad["view_consistency"] < 0.2 < good["view_consistency"] - 0.4
    assert bad["reprojection_error"] > 3 * good["reprojection_error"]
    assert bad["looked_through"] > 5 * good["looked_through"]
    assert bad["yaw_error"] == pytest.approx(bad["yaw_chance"], rel=0.15)
    assert bad["yaw_aligned"] > 60


def test_fog_has_no_geometry(stage: Stage, settings: RenderSettings, reference: Reference) -> None:
    numbers = measure_geometry(Fog(), stage, settings=settings, reference=reference, **SCENES)
    assert numbers["view_consistency"] == 0 and numbers["solid"] == 0
    assert numbers["identity_drift"] == 1
    absent = {"reprojection_error", "looked_through", "flatness", "billboard", "chamfer"}
    assert not absent & set(numbers)
    assert numbers["yaw_error"] == pytest.approx(numbers["yaw_chance"], rel=0.1)


def test_without_a_reference_scenes_speak_for_themselves(
    stage: Stage, settings: RenderSettings
) -> None:
    numbers = measure_geometry(Toys(), stage, settings=settings, **SCENES)
    assert set(numbers) == {
        "view_consistency",
        "reprojection_error",
        "looked_through",
        "solid",
        "flatness",
        "billboard",
        "stereo_consistency",
        "stereo_still",
        "identity_drift",
    }


def test_identity_is_measured_by_any_distance(stage: Stage, settings: RenderSettings) -> None:
    """The mean colour's distance: of scenes a and b, seen twice each."""

    def distance(a: Tensor, b: Tensor) -> Tensor:
        assert a.shape[1:] == b.shape[1:] == (3, SIZE, SIZE)
        return (a.mean(dim=(2, 3)) - b.mean(dim=(2, 3))).norm(dim=1)

    options: Any = {"settings": settings, "num_images": 2, "views": 2}
    numbers = measure_geometry(Toys(), stage, perceptual=distance, **options)
    looks = []
    for n in (0, 1):
        cameras, _ = scene_cameras(stage.pose_law(evaluation=True), n, 2)
        looks.append(Toys().look(torch.full((2, 1), float(n)), cameras, SIZE).image.mean((2, 3)))
    within = sum(float((x[0] - x[1]).norm()) for x in looks) / 2
    between = float((looks[0] - looks[1]).norm(dim=1).mean())
    assert numbers["identity_perceptual"] == pytest.approx(within / between, rel=1e-5)


def test_a_generator_blind_to_cameras_is_refused(stage: Stage, settings: RenderSettings) -> None:
    with pytest.raises(ValueError, match="needs a generator that sees cameras"):
        measure_geometry(Flat(), stage, settings=settings, **SCENES)
    with pytest.raises(ValueError, match="two or more scenes and views, got 1 and 6"):
        measure_geometry(Toys(), stage, settings=settings, num_images=1, views=6)


class Painted(Flat):
    """One without depth that has sides all the same."""

    sees_cameras = True


def test_what_has_sides_but_no_depth_is_measured_by_its_pictures(
    stage: Stage, settings: RenderSettings, reference: Reference
) -> None:
    options: Any = {"settings": settings, "reference": reference, "num_images": 2, "views": 8}
    painted, solid = (measure_geometry(g(), stage, **options) for g in (Painted, Toys))
    for name in ("stereo_consistency", "stereo_still", "yaw_error"):
        assert painted[name] == pytest.approx(solid[name])
    assert not {"view_consistency", "flatness", "chamfer"} & set(painted)
    fickle = measure_geometry(Fickle(), stage, **options)
    assert solid["stereo_consistency"] > fickle["stereo_consistency"] + 0.3


def test_still_pictures_are_the_measure_of_stereo(stage: Stage, settings: RenderSettings) -> None:
    """A generator whose pictures do not turn at all scores what they are said to."""
    options: Any = {"settings": settings, "num_images": 2, "views": 8}
    still = measure_geometry(Still(), stage, **options)
    assert still["stereo_consistency"] == pytest.approx(still["stereo_still"], abs=1e-6)


class Numbered(Toys):
    """Shows the figure that a latent stands for, whoever asks first."""

    def style(self, z: Tensor, label: Tensor | None, cameras: Cameras | None) -> Tensor:
        return (100 * z[:, :1]).abs().round()


def test_two_processes_give_the_numbers_of_one(
    stage: Stage, settings: RenderSettings, reference: Reference
) -> None:
    options: Any = {"settings": settings, "reference": reference, "num_images": 3, "views": 3}
    alone = measure_geometry(Numbered(), stage, **options)
    handed_in: list[Any] = []

    class Second(World):
        def gather(self, value: Any) -> list[Any]:
            handed_in.append(value)
            return [handed_in[0], value] if len(handed_in) == 2 else [value, value]

    cpu = torch.device("cpu")
    measure_geometry(Numbered(), stage, world=Second(0, 2, cpu), **options | {"num_images": 2})
    handed_in.clear()

    class Collecting(World):
        def gather(self, value: Any) -> list[Any]:
            handed_in.append(value)
            raise InterruptedError

    for rank in (0, 1):
        with pytest.raises(InterruptedError):
            measure_geometry(Numbered(), stage, world=Collecting(rank, 2, cpu), **options)
    assert [len(part) for part in handed_in] == [2, 1]

    class Gathered(World):
        def gather(self, value: Any) -> list[Any]:
            return handed_in

    assert measure_geometry(Numbered(), stage, world=Gathered(1, 2, cpu), **options) == alone


@pytest.mark.parametrize(("name", "options"), ALL_GENERATORS)
def test_every_generator_with_depth_is_measured(name: str, options: Any, stage: Stage) -> None:
    generator = build_generator(name, options)
    looks: Any = {"settings": settings_of(generator), "num_images": 2, "views": 2}
    if not generator.sees_cameras:
        with pytest.raises(ValueError, match="needs a generator that sees cameras"):
            measure_geometry(generator, stage, **looks)
        return
    numbers = measure_geometry(generator, stage, **looks)
    assert "identity_drift" in numbers
    with_depth = {"view_consistency", "solid"} <= set(numbers)
    assert with_depth == isinstance(generator, RadianceGenerator)
    assert all(math.isfinite(value) for value in numbers.values())


# -- reconstructions


def test_a_reconstruction_is_held_against_its_own_figure(
    stage: Stage, settings: RenderSettings
) -> None:
    def errors(style: float, figure: int) -> dict[str, float]:
        w = torch.tensor([[style]])
        return measure_reconstruction(Toys(), stage, w, 0, figure, views=4, settings=settings)

    right, wrong = errors(2.0, 2), errors(2.0, 3)
    assert right["depth_error"] < 1e-6 and right["silhouette_iou"] == 1
    assert right["chamfer"] < 1e-3 < wrong["chamfer"]
    assert wrong["depth_error"] > 0.005 and wrong["silhouette_iou"] < 0.95
    assert wrong["normal_error"] > right["normal_error"]
    assert "depth_error" not in measure_reconstruction(
        Fog(), stage, torch.zeros(1, 1), 0, 2, views=4, settings=settings
    )


# -- cameras and depth


def law(kind: str, spread: float) -> PoseLaw:
    return PoseLaw(kind, math.pi / 2, spread, 1.4, 0.1, 30.0)


def test_cameras_stand_all_around_where_the_law_does() -> None:
    cameras, closed = scene_cameras(law("uniform", math.pi), 3, 4)
    yaw = cameras.yaw_pitch[:, 0]
    assert closed
    torch.testing.assert_close(yaw.diff(), torch.full((3,), math.pi / 2))
    other, _ = scene_cameras(law("uniform", math.pi), 4, 4)
    assert not torch.allclose(yaw[0], other.yaw_pitch[0, 0])
    assert torch.equal(yaw, scene_cameras(law("uniform", math.pi), 3, 4)[0].yaw_pitch[:, 0])


def test_cameras_keep_within_the_law() -> None:
    for kind, spread, reach in (("gaussian", 0.3, 0.6), ("uniform", 0.5, 0.5)):
        cameras, closed = scene_cameras(law(kind, spread), 0, 5)
        assert not closed
        expected = math.pi / 2 + reach * torch.linspace(-1, 1, 5)
        torch.testing.assert_close(cameras.yaw_pitch[:, 0], expected)
        assert len(cameras.yaw_pitch[:, 1].unique()) == 5
    with pytest.raises(ValueError, match="pose law that varies yaw, got 'fixed'"):
        scene_cameras(law("fixed", 0.3), 0, 5)


@pytest.mark.parametrize("last_back", [False, True])
def test_surfaces_lie_where_the_light_comes_from(last_back: bool) -> None:
    """Half of the light from distance 0.8, the rest from nothing or the far end."""
    cameras = Cameras.from_angles(0.4, 1.0, 40.0)
    settings = RenderSettings(4, 4, 0.5, 1.5, last_back=last_back)
    half = torch.full((1, 4, 4), 0.5)
    depth = 0.8 * half + (1.5 * (1 - half) if last_back else 0)
    views = place_surface(Rendering(torch.zeros(1, 3, 4, 4), depth, half), cameras, settings)
    torch.testing.assert_close(views.distance, torch.full((1, 4, 4), 0.8))
    origins, directions = cameras.rays(4, 4)
    expected = (origins + 0.8 * directions).reshape(1, 4, 4, 3)
    torch.testing.assert_close(views.points, expected)


# -- what a data set tells


def test_a_data_set_tells_what_it_knows(stage: Stage) -> None:
    pixels = torch.randint(0, 256, (30, SIZE, SIZE, 3), dtype=torch.uint8).numpy()
    angles = torch.cat([camera_angles(0, range(30)).float(), torch.zeros(30, 1)], dim=1)
    known = ImageDataset(pixels, camera_angles=angles)
    told = make_reference(known, stage, views=2, figures=2, steps=2)
    assert told.regressor is not None and told.regressor_errors is not None
    assert told.looks is not None and told.looks.shape == (30, 11)
    assert told.toy_seed == 0 and [c.shape for c in told.clouds] == [(512, 3)] * 2
    gap = Figures.sample(0, [1]).distance(told.clouds[1][None]).abs()
    assert float(gap.max()) < 1e-3
    faces = dataclasses.replace(stage, dataset="ImageFolder", white_back=False)
    silent = make_reference(ImageDataset(pixels), faces)
    assert silent == Reference()


def test_toys_are_known_by_their_files(stage: Stage, tmp_path: Any) -> None:
    assert toy_seed(stage) == 0
    assert toy_seed(dataclasses.replace(stage, dataset_options={"toys_seed": 5})) == 5
    write_toys(tmp_path / "a.zip", 1, 8, seed=7)
    assert toy_seed(dataclasses.replace(stage, dataset_path=str(tmp_path / "a.zip"))) == 7
    path = str(write_pictures(tmp_path / "pictures", 1))
    assert toy_seed(dataclasses.replace(stage, dataset_path=path)) is None
    assert toy_seed(dataclasses.replace(stage, dataset="ImageFolder")) is None

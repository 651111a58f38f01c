"""Styles, cameras and weights that are found again from a picture of them."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from generators.pigan import PiGAN
from generators.stylegan2 import StyleGAN2
from inference.inversion import (
    SCHEDULES,
    Schedule,
    average_style,
    coordinates,
    fit_style,
    principal_directions,
    psnr,
    tune_weights,
)
from rendering.cameras import Cameras
from rendering.settings import RenderSettings

Build = Callable[..., PiGAN]
SETTINGS = RenderSettings(16, 8, 0.7, 1.3, hierarchical=False, jitter=False, white_back=True)
CAMERA = Cameras.from_angles(1.9, 1.3, 25.0)
SHORT = Schedule(steps=200)


@pytest.fixture
def generator(tiny_pigan: Build) -> PiGAN:
    """Something that looks different from every side, in a box that the camera sees."""
    torch.manual_seed(3)
    generator = tiny_pigan(hidden_dim=16, box_side=1.5, density_gain=60.0, bound_radius=0.25)
    with torch.no_grad():
        generator.get_parameter("siren.color_layer_linear.0.weight").mul_(8)
        generator.get_parameter("mapping_network.network.6.weight").mul_(2)
    generator.update_w_avg()
    return generator.requires_grad_(False)


@torch.no_grad()
def picture(generator: PiGAN, w: Tensor, cameras: Cameras = CAMERA) -> Tensor:
    return generator.synthesis(w, cameras, SETTINGS).image


@pytest.fixture
def w(generator: PiGAN, rng: torch.Generator) -> Tensor:
    return generator.mapping(torch.randn(1, 6, generator=rng))


# -- styles


def test_a_style_is_found_again_and_so_are_its_other_sides(generator: PiGAN, w: Tensor) -> None:
    target = picture(generator, w)
    start = average_style(generator)
    assert psnr(picture(generator, start), target) < 22
    rng = torch.Generator().manual_seed(0)
    fitted, cameras = fit_style(generator, target, CAMERA, SETTINGS, schedule=SHORT, rng=rng)
    assert cameras is CAMERA
    assert psnr(picture(generator, fitted), target) > 30
    for yaw in (1.6, 2.2):
        aside = Cameras.from_angles(yaw, 1.3, 25.0)
        before = psnr(picture(generator, start, aside), picture(generator, w, aside))
        assert psnr(picture(generator, fitted, aside), picture(generator, w, aside)) > before + 8


def test_the_average_style_is_the_stored_one(generator: PiGAN) -> None:
    assert torch.equal(average_style(generator), generator.w_avg[None])


def test_natural_directions_fit_the_sides_that_nobody_saw_better_than_free_offsets(
    tiny_pigan: Build,
) -> None:
    torch.manual_seed(3)
    options = {"hidden_dim": 16, "num_layers": 2, "mapping_dim": 8, "box_side": 1.5}
    generator = tiny_pigan(**options, density_gain=60.0, bound_radius=0.25).requires_grad_(False)
    generator.get_parameter("siren.final_layer.bias").add_(0.5)
    generator.get_parameter("siren.color_layer_linear.0.weight").mul_(8)
    generator.get_parameter("mapping_network.network.6.weight").mul_(2)
    generator.update_w_avg()
    directions = principal_directions(generator)
    w = average_style(generator) + directions[:1]
    target = picture(generator, w)
    sides = [Cameras.from_angles(yaw, 1.3, 25.0) for yaw in (0.4, 3.4, 5.0)]

    def fit(space: str, along: Tensor | None) -> tuple[float, float]:
        schedule = replace(SCHEDULES[space], steps=100)
        rng = torch.Generator().manual_seed(0)
        fitted, _ = fit_style(
            generator, target, CAMERA, SETTINGS, schedule=schedule, directions=along, rng=rng
        )
        worst = min(psnr(picture(generator, fitted, s), picture(generator, w, s)) for s in sides)
        return psnr(picture(generator, fitted), target), worst

    seen, natural = fit("principal", directions)
    _, free = fit("free", None)
    assert seen > 30 and natural > 28 and natural > free + 3


def test_a_prior_keeps_styles_near_the_average_wherever_they_start(
    generator: PiGAN, w: Tensor
) -> None:
    directions = principal_directions(generator)
    target = picture(generator, w).flip(-1).contiguous()  # what no style shows invites large ones
    far = average_style(generator) + directions.sum(0, keepdim=True)

    def distance(prior: float, start: Tensor | None) -> float:
        schedule = replace(SCHEDULES["principal"], steps=60, noise=0.0, prior=prior)
        fitted, _ = fit_style(
            generator, target, CAMERA, SETTINGS,
            schedule=schedule, directions=directions, start=start,
        )  # fmt: skip
        return float(coordinates(fitted - average_style(generator), directions).square().mean())

    for start in (None, far):
        loose, held, tied = (distance(prior, start) for prior in (0.0, 0.1, 100.0))
        assert tied < 0.3 * held and held < 0.7 * loose


def test_a_prior_adds_its_share_of_the_squared_coordinates_to_the_loss() -> None:
    """Where the picture does not matter, every step is Adam's on the prior alone."""

    class Plain:
        w_avg = torch.tensor([0.5, -1.0])
        latent_dim, label_dim = 2, 0

        def mapping(self, z: Tensor, label: None, psi: float) -> Tensor:
            return self.w_avg + psi * z

        def parameters(self) -> list[Tensor]:
            return []

        def synthesis(self, w: Tensor, cameras: Cameras, settings: RenderSettings) -> object:
            return type("Rendering", (), {"image": w})

    directions = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    schedule = Schedule(steps=1, lr=0.1, weight_decay=0.0, noise=0.0, prior=0.4)
    fitted, _ = fit_style(
        Plain(),  # type: ignore[arg-type]
        torch.zeros(1, 2),
        CAMERA,
        SETTINGS,
        loss=lambda image, target: 0 * image.sum(),
        schedule=schedule,
        directions=directions,
        start=torch.tensor([[0.5 + 2.0 * 3.0, -1.0]]),  # coordinates 3 and 0
    )
    assert coordinates(fitted - Plain.w_avg, directions)[0].tolist() == pytest.approx([2.9, 0.0])
    with pytest.raises(ValueError, match="free offsets have none"):
        fit_style(Plain(), torch.zeros(1, 2), CAMERA, SETTINGS, schedule=schedule)  # type: ignore[arg-type]


def test_principal_directions_are_orthogonal_and_as_long_as_the_styles_spread(
    generator: PiGAN,
) -> None:
    directions = principal_directions(generator, samples=400)
    z = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    w = generator.mapping(z)
    centred = w - w.mean(0)
    gram = directions @ directions.T
    torch.testing.assert_close(gram, gram.diag().diag(), atol=1e-4, rtol=0)
    along = centred @ directions.T / gram.diag()
    torch.testing.assert_close(along.std(0), torch.ones(len(directions)), atol=1e-3, rtol=0)
    assert (gram.diag().diff() <= 0).all()
    torch.testing.assert_close(along @ directions, centred, atol=1e-2, rtol=0)
    assert torch.equal(directions, principal_directions(generator, samples=400))


def test_directions_of_a_generator_with_classes_cover_them_and_all_slots() -> None:
    generator = StyleGAN2(
        resolution=8, latent_dim=4, w_dim=6, channel_base=64, channel_max=8, label_dim=3,
        mapping_layers=1,
    )  # fmt: skip
    directions = principal_directions(generator, samples=50)
    assert directions.shape[1:] == generator.w_avg.shape and len(directions) <= 6
    torch.testing.assert_close(directions, directions[:, :1].expand_as(directions))
    assert torch.equal(average_style(generator), generator.w_avg[None])


def test_a_generator_of_one_style_has_no_directions(generator: PiGAN) -> None:
    for parameter in generator.mapping_network.parameters():
        parameter.zero_()
    with pytest.raises(ValueError, match="one style only"):
        principal_directions(generator, samples=8)


def test_cameras_are_trials_that_know_nothing_of_each_other(generator: PiGAN, w: Tensor) -> None:
    target = picture(generator, w)
    pair = Cameras.from_angles(torch.tensor([1.9, 0.3]), 1.3, 25.0)
    few = Schedule(steps=5, noise=0.0)
    together, places = fit_style(generator, target, pair, SETTINGS, schedule=few, fit_pose=True)
    for i, camera in enumerate(pair):
        alone, place = fit_style(generator, target, camera, SETTINGS, schedule=few, fit_pose=True)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(places[i].yaw_pitch, place.yaw_pitch, atol=1e-4, rtol=1e-3)


def test_a_fit_repeats_itself_and_starts_where_it_is_told(generator: PiGAN, w: Tensor) -> None:
    target = picture(generator, w)
    few = Schedule(steps=3)

    def run(seed: int, start: Tensor | None = None) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return fit_style(generator, target, CAMERA, SETTINGS, schedule=few, start=start, rng=rng)[0]

    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))
    near = run(0, start=w)
    assert (near - w).abs().max() < 0.04 < (run(0) - w).abs().max()


def test_steps_are_those_of_adam_with_decay_and_falling_rates() -> None:
    """One number is fitted to 1; every step is done again by hand."""

    class Plain:
        w_avg = torch.tensor([0.25])

        def parameters(self) -> list[Tensor]:
            return []

        def synthesis(self, w: Tensor, cameras: Cameras, settings: RenderSettings) -> object:
            return type("Rendering", (), {"image": w})

    schedule = Schedule(steps=8, lr=0.05, weight_decay=0.3, decay=0.5, decay_times=4, noise=0.2)
    seen: list[float] = []
    fit_style(
        Plain(),  # type: ignore[arg-type]
        torch.ones(1, 1),
        CAMERA,
        SETTINGS,
        loss=lambda image, target: (image - target).square().mean(),
        schedule=schedule,
        start=torch.tensor([[0.25]]),
        rng=torch.Generator().manual_seed(5),
        watch=lambda step, w, cameras: seen.append(w.item()),
    )
    noise = torch.Generator().manual_seed(5)
    x = mean = square = 0.0
    for i in range(8):
        shake = 0.2 * (8 - i) / 8 * torch.randn(1, 1, generator=noise).item()
        slope = 2 * (0.25 + x + shake - 1) + 0.3 * x
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        step = 0.05 * 0.5 ** (i // 2)
        x -= (
            step * mean / (1 - 0.9 ** (i + 1)) / (math.sqrt(square / (1 - 0.999 ** (i + 1))) + 1e-8)
        )
        assert seen[i] == pytest.approx(0.25 + x, rel=1e-4)


def test_weights_stay_and_cost_nothing_while_a_style_is_fitted(generator: PiGAN, w: Tensor) -> None:
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    generator.requires_grad_(True)
    fit_style(generator, picture(generator, w), CAMERA, SETTINGS, schedule=Schedule(steps=2))
    assert all(p.requires_grad and p.grad is None for p in generator.parameters())
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())


# -- cameras


def test_the_camera_is_fitted_along_with_the_style(generator: PiGAN, w: Tensor) -> None:
    start = Cameras.from_angles(1.8, 1.38, 25.0)
    target = picture(generator, w)
    fitted, cameras = fit_style(
        generator, target, start, SETTINGS, schedule=SHORT, fit_pose=True, start=w
    )
    assert (start.yaw_pitch - CAMERA.yaw_pitch).abs().max() > 0.07
    assert (cameras.yaw_pitch - CAMERA.yaw_pitch).abs().max() < 0.03
    assert psnr(picture(generator, fitted, cameras), target) > 30
    assert not cameras.cam2world.requires_grad
    assert torch.equal(cameras.fov, start.fov)


# -- weights


def test_tuning_shows_what_no_style_does_and_leaves_the_mapping_alone(
    generator: PiGAN, w: Tensor
) -> None:
    target = picture(generator, w).flip(-1).contiguous()  # a mirror image: not of this world
    mapping = {k: v.clone() for k, v in generator.mapping_network.state_dict().items()}
    before = psnr(picture(generator, w), target)
    steps: list[int] = []
    tune_weights(
        generator,
        target,
        w,
        CAMERA,
        SETTINGS,
        steps=60,
        lr=2e-3,
        watch=lambda step, style, cameras: steps.append(step),
    )
    assert psnr(picture(generator, w), target) > before + 6
    assert steps == list(range(1, 61))
    after = generator.mapping_network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in mapping.items())
    assert all(not p.requires_grad and p.grad is None for p in generator.parameters())


def test_sides_that_are_held_change_less(generator: PiGAN, w: Tensor) -> None:
    target = picture(generator, w).flip(-1).contiguous()
    sides = Cameras.from_angles(torch.tensor([0.2, 3.5, 5.0]), 1.3, 25.0)
    before = [picture(generator, w, side) for side in sides]
    start = {k: v.clone() for k, v in generator.state_dict().items()}

    def tuned(held: Cameras | None) -> tuple[float, float]:
        generator.load_state_dict(start)
        tune_weights(
            generator, target, w, CAMERA, SETTINGS, steps=40, lr=2e-3, sides=held, locality=1.0
        )
        after = [picture(generator, w, side) for side in sides]
        changed = sum(float((a - b).square().mean()) for a, b in zip(after, before, strict=True))
        return psnr(picture(generator, w), target), changed

    (free, loose), (held, kept) = tuned(None), tuned(sides)
    assert kept < 0.6 * loose
    assert free > held > 30


def test_the_loss_that_is_given_is_the_one_that_falls(generator: PiGAN, w: Tensor) -> None:
    calls: list[float] = []

    def red_alone(image: Tensor, target: Tensor) -> Tensor:
        value = (image[:, 0] - target[:, 0]).abs().mean()
        calls.append(value.item())
        return value

    fit_style(
        generator,
        picture(generator, w),
        CAMERA,
        SETTINGS,
        loss=red_alone,
        schedule=Schedule(steps=40, noise=0.0),
    )
    assert len(calls) == 40 and calls[-1] < 0.5 * calls[0]


def test_psnr_is_in_decibels_of_the_range_from_minus_one_to_one() -> None:
    image = torch.zeros(1, 3, 4, 4)
    assert psnr(image, image) == math.inf
    assert psnr(image, image + 0.2) == pytest.approx(20.0)  # 2 / 0.2 is a factor of ten
    assert psnr(image - 1, image + 1) == pytest.approx(0.0)

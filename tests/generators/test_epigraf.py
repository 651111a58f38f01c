"""EpiGRAF: planes are painted once, patches are windows of pictures, with their gradients."""

import dataclasses
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from generators.epigraf import EpiGRAF
from rendering.cameras import Cameras, Patch
from rendering.field import Field, background_of
from rendering.renderer import render
from rendering.settings import RenderSettings
from training.regularizers import path_lengths

SETTINGS = RenderSettings(
    9, 6, 0.6, 1.4, clamp_mode="softplus", jitter=False, bounded_jitter=True, hierarchical=False
)
# windows on pixels of a picture of 9 x 9, and their first rows and columns
WINDOW = Patch(torch.tensor([0.5, 0.5]), torch.tensor([[0.0, 0.5], [0.25, 0.375]]))
CORNERS = [(0, 0), (1, 2)]


@pytest.fixture
def tiny() -> Callable[..., EpiGRAF]:
    def build(**options: object) -> EpiGRAF:
        small = {
            **{"latent_dim": 4, "w_dim": 8, "channel_base": 64, "channel_max": 12},
            **{"plane_resolution": 8, "feature_dim": 4, "decoder_width": 8, "cube_scale": 0.5},
            **{"background_channel_base": 64, "background_steps": 4},
        }
        return EpiGRAF(**{**small, **options})  # type: ignore[arg-type]

    return build


def views(batch: int = 2) -> Cameras:
    return Cameras.from_angles(torch.linspace(0.3, 1.1, batch), 1.3, 40.0)


BACKGROUNDS = pytest.mark.parametrize("background", ["none", "plane", "sphere"])


# -- patches


@BACKGROUNDS
@pytest.mark.parametrize("hierarchical", [False, True])
def test_the_gradient_of_a_patch_is_that_of_the_crop(
    tiny: Callable[..., EpiGRAF], background: str, hierarchical: bool
) -> None:
    generator = tiny(background=background).double()
    settings = dataclasses.replace(SETTINGS, hierarchical=hierarchical)
    z, cotangent = torch.randn(2, 4).double(), torch.randn(2, 3, 5, 5).double()
    cameras = views().to(torch.float64)
    w = generator.mapping(z)
    small = dataclasses.replace(settings, resolution=5)
    part = generator.synthesis(w, cameras, small, patch=WINDOW).image
    whole = generator.synthesis(w, cameras, settings).image
    crops = [whole[i, :, r : r + 5, c : c + 5] for i, (r, c) in enumerate(CORNERS)]
    crop = torch.stack(crops)
    assert_close(part, crop)
    names = [n for n, _ in generator.named_parameters() if not n.endswith("noise_strength")]
    wanted = [w] + [generator.get_parameter(n) for n in names]
    found, expected = (
        torch.autograd.grad((image * cotangent).sum(), wanted, retain_graph=True)
        for image in (part, crop)
    )
    for name, a, b in zip(["w", *names], found, expected, strict=True):
        assert b.any(), name
        assert_close(a, b, atol=1e-9, rtol=1e-7, msg=name)


@BACKGROUNDS
def test_the_window_of_scale_one_is_the_picture_bit_for_bit(
    tiny: Callable[..., EpiGRAF], background: str
) -> None:
    generator = tiny(background=background)
    w = generator.mapping(torch.randn(2, 4))
    settings = dataclasses.replace(SETTINGS, hierarchical=True, resolution=7)
    for jitter in (False, True):
        settings = dataclasses.replace(settings, jitter=jitter, noise_std=float(jitter))

        def picture(patch: Patch | None, settings: RenderSettings = settings) -> Tensor:
            rng = torch.Generator().manual_seed(4)
            return generator.synthesis(w, views(), settings, patch=patch, generator=rng).image

        assert torch.equal(picture(Patch.whole(2)), picture(None))


@BACKGROUNDS
def test_path_lengths_can_be_regularised(tiny: Callable[..., EpiGRAF], background: str) -> None:
    generator = tiny(background=background)
    generator.allow_second_derivatives()
    w = generator.mapping(torch.randn(2, 4))
    images = generator.synthesis(w, views(), SETTINGS).image
    path_lengths(images, w, torch.randn_like(images)).square().sum().backward()
    dead = [n for n, p in generator.painter.named_parameters() if p.grad is None]
    assert not [name for name in dead if not name.endswith("bias")]


# -- planes


def test_a_field_paints_its_planes_once_for_all_pictures(tiny: Callable[..., EpiGRAF]) -> None:
    generator = tiny()
    w = generator.mapping(torch.randn(1, 4))
    with mock.patch.object(generator.painter, "forward", wraps=generator.painter.forward) as paint:
        field = generator.field(w)
        for camera in views(3):
            render(field, camera, SETTINGS)
        field.density(torch.rand(1, 5, 3))
    assert paint.call_count == 1


def test_raw_planes_are_parameters_and_know_no_style(tiny: Callable[..., EpiGRAF]) -> None:
    generator = tiny(backbone="raw_planes")
    w = generator.mapping(torch.randn(2, 4))
    image = generator.synthesis(w, Cameras.cat([views()[0]] * 2), SETTINGS).image
    assert torch.equal(image[0], image[1])
    image.sum().backward()
    assert generator.get_parameter("painter.planes").grad.any()  # type: ignore[union-attr]


def test_noise_is_the_layers_own_without_jitter(tiny: Callable[..., EpiGRAF]) -> None:
    generator = tiny()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.5)
    w = generator.mapping(torch.randn(1, 4))
    own = generator.planes(w)
    assert torch.equal(generator.drawn_field(w, SETTINGS).planes, own)
    random = dataclasses.replace(SETTINGS, jitter=True)
    drawn = [
        generator.drawn_field(w, random, torch.Generator().manual_seed(s)).planes for s in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], own)


# -- backgrounds


def see(field: Field, settings: RenderSettings = SETTINGS) -> Tensor:
    return render(field, views(1), settings).image


def test_nothing_in_front_shows_the_background(tiny: Callable[..., EpiGRAF]) -> None:
    for background in ("plane", "sphere"):
        generator = tiny(background=background, density_shift=-100.0)
        w = generator.mapping(torch.randn(1, 4))
        field = generator.field(w)
        behind = background_of(field)
        assert behind is not None
        alone = behind(
            *views(1).rays(9, 9), positions(9), None, white_back=False
        )  # as the rays see it
        assert_close(see(field), alone.transpose(1, 2).unflatten(2, (9, 9)))


def positions(size: int) -> Tensor:
    x = torch.linspace(-1, 1, size)
    return torch.stack(torch.broadcast_tensors(x, -x[:, None]), dim=-1).reshape(1, -1, 2)


def test_something_opaque_in_front_hides_the_background(tiny: Callable[..., EpiGRAF]) -> None:
    for background in ("plane", "sphere"):
        generator = tiny(background=background, density_shift=1e4)
        w = generator.mapping(torch.randn(1, 4))
        field = generator.field(w)
        with_it = see(field)
        field.background = None
        assert_close(with_it, see(field))


def test_a_plane_stays_when_the_camera_moves_and_a_sphere_does_not(
    tiny: Callable[..., EpiGRAF],
) -> None:
    for background, moves in (("plane", False), ("sphere", True)):
        generator = tiny(background=background, density_shift=-100.0)
        w = generator.mapping(torch.randn(1, 4)).expand(2, -1, -1)
        image = generator.synthesis(w, views(), SETTINGS).image
        assert bool((image[0] - image[1]).abs().max() > 1e-4) == moves


# -- what styles know


def test_styles_know_the_pose_and_the_mean_pose_where_none_is_given(
    tiny: Callable[..., EpiGRAF],
) -> None:
    generator = tiny(pose_conditioning=True, mean_pose=(0.7, 1.1))
    z = torch.randn(1, 4).expand(2, -1)
    w = generator.mapping(z, cameras=views())
    assert (w[0] - w[1]).abs().max() > 1e-4
    mean = Cameras.from_angles(torch.tensor([0.7, 0.7]), 1.1, 40.0)
    assert_close(generator.mapping(z), generator.mapping(z, cameras=mean))


def test_without_pose_conditioning_styles_know_no_pose(tiny: Callable[..., EpiGRAF]) -> None:
    generator = tiny()
    z = torch.randn(2, 4)
    assert torch.equal(generator.mapping(z, cameras=views()), generator.mapping(z))


def test_dropped_poses_are_dropped_in_training_only(tiny: Callable[..., EpiGRAF]) -> None:
    generator = tiny(pose_conditioning=True, pose_drop_p=0.5)
    z = torch.randn(1, 4).expand(2, -1)
    assert generator.pose is not None
    generator.pose.rng = torch.Generator().manual_seed(0)
    in_training = [generator.mapping(z, cameras=views()) for _ in range(8)]
    assert any(not torch.equal(w, in_training[0]) for w in in_training)
    generator.eval()
    calm = [generator.mapping(z, cameras=views()) for _ in range(2)]
    assert torch.equal(calm[0], calm[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"background": "spere"}, "unknown background 'spere'.*sphere"),
        ({"backbone": "stylegan4"}, "unknown backbone 'stylegan4'.*stylegan2"),
        ({"background": "sphere", "background_modulation": "tan"}, "'tan'.*tanh"),
        ({"background": "sphere", "background_blocks": 0}, "at least 1 block"),
    ],
)
def test_unknown_options_are_refused(
    tiny: Callable[..., EpiGRAF], changes: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)

"""pi-GAN's discriminators: sizes, heads, fade-in, blocks, initial weights, the R1 gradient."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from discriminators import DISCRIMINATORS
from discriminators.progressive import ResidualBlock
from discriminators.pyramid import PyramidDiscriminator
from discriminators.strided import StridedBlock
from ops.conv import CoordConv2d
from rendering.cameras import Cameras, Patch

# trainable numbers of the original's classes, without the pose layer that two of them never use
SIZES = {
    "ProgressiveDiscriminator": 12_412_465,
    "ProgressiveEncoderDiscriminator": 12_825_523,
    "StridedDiscriminator": 12_805_489 - 1_200,
    "CCSDiscriminator": 12_879_217 - 1_200,
    "CCSEncoderDiscriminator": 13_291_075,
}
each_class = pytest.mark.parametrize("name", SIZES)


def tiny(name: str, **options: int) -> PyramidDiscriminator:
    given = {"latent_dim": 5, "max_size": 16, "base": 64, "max_channels": 12, **options}
    discriminator = DISCRIMINATORS[name](**given)
    assert isinstance(discriminator, PyramidDiscriminator)
    return discriminator


def pictures(size: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, size, size) * 2 - 1


@each_class
def test_full_size_discriminators_have_as_many_weights_as_the_originals(name: str) -> None:
    with torch.device("meta"):
        discriminator = DISCRIMINATORS[name]()
    assert sum(p.numel() for p in discriminator.parameters()) == SIZES[name]
    largest = 512 if name.startswith("Progressive") else 256
    assert discriminator.image_sizes == tuple(2**i for i in range(1, int(math.log2(largest)) + 1))


@each_class
def test_every_size_from_2_to_the_largest_is_judged(name: str) -> None:
    discriminator = tiny(name)
    for size in (2, 4, 8, 16):
        judgement = discriminator(pictures(size), 0.5)
        assert judgement.logits.shape == (2, 1)
        assert (judgement.latent is not None) == discriminator.predicts_latent
        assert (judgement.pose is not None) == discriminator.predicts_pose
        if discriminator.predicts_latent:
            assert judgement.latent is not None and judgement.latent.shape == (2, 5)
            assert judgement.pose is not None and judgement.pose.shape == (2, 2)


def test_heads_are_known_before_a_discriminator_is_made() -> None:
    encoders = {name for name in SIZES if DISCRIMINATORS[name].predicts_pose}
    assert encoders == {"ProgressiveEncoderDiscriminator", "CCSEncoderDiscriminator"}
    assert all(DISCRIMINATORS[name].predicts_latent for name in encoders)


@each_class
def test_channels_follow_base_over_size_up_to_the_cap(name: str) -> None:
    widths = [layer.out_channels for layer in tiny(name).from_rgb.children()]
    assert widths == [4, 8, 12, 12]


@each_class
@pytest.mark.parametrize("shape", [(3, 3), (1, 1), (32, 32), (8, 4), (12, 12)])
def test_other_sizes_are_refused_with_those_allowed(name: str, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"2, 4, 8, 16; got {shape[0]}x{shape[1]}"):
        tiny(name)(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_size": 48}, "power of two"),
        ({"max_size": 1}, "power of two"),
        ({"base": 8}, r"base must be at least max_size \(16\)"),
        ({"max_channels": 0}, "max_channels at least 1"),
    ],
)
def test_impossible_widths_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny("CCSDiscriminator", **options)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_outside_of_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        tiny("CCSDiscriminator")(pictures(4), alpha)


def test_labels_and_patches_are_refused_and_cameras_make_no_difference() -> None:
    discriminator, images = tiny("CCSDiscriminator"), pictures(8)
    with pytest.raises(ValueError, match="labels"):
        discriminator(images, label=torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="patches"):
        discriminator(images, patch=Patch(torch.ones(2), torch.zeros(2, 2)))
    cameras = Cameras.from_angles(torch.rand(2), torch.rand(2), 12.0)
    seen = discriminator(images, cameras=cameras).logits
    assert torch.equal(seen, discriminator(images).logits)


@each_class
def test_at_alpha_0_only_the_top_left_pixel_of_each_cell_counts(name: str) -> None:
    discriminator, images = tiny(name), pictures(16)
    faded = discriminator(images, 0.0)
    small = discriminator(images[:, :, ::2, ::2].contiguous(), 1.0)
    assert_close(faded.logits, small.logits, rtol=0, atol=0)


@each_class
def test_fade_in_is_continuous_up_to_alpha_1(name: str) -> None:
    discriminator, images = tiny(name).double(), pictures(16).double()
    whole = discriminator(images, 1.0).logits
    almost = discriminator(images, 1 - 1e-9).logits
    half = discriminator(images, 0.5).logits
    assert_close(almost, whole, rtol=0, atol=1e-8)
    assert (half - whole).abs().min() > 1e-6


@each_class
def test_fade_in_blends_ahead_of_the_second_block(name: str) -> None:
    discriminator, images = tiny(name), pictures(16)
    alpha = 0.3

    def enter(x: Tensor, i: int) -> Tensor:
        return F.leaky_relu(discriminator.from_rgb[i](x), 0.2)

    x = discriminator.blocks[0](enter(images, 0))
    x = alpha * x + (1 - alpha) * enter(F.interpolate(images, scale_factor=0.5), 1)
    for block in list(discriminator.blocks)[1:]:
        x = block(x)
    expected = discriminator.head(x).flatten(1)[:, :1]
    assert_close(discriminator(images, alpha).logits, expected)


@each_class
def test_layers_that_a_picture_does_not_pass_get_no_gradient(name: str) -> None:
    discriminator = tiny(name)
    discriminator(pictures(8), 1.0).logits.sum().backward()
    idle = {n for n, p in discriminator.named_parameters() if p.grad is None}
    entries = {f"from_rgb.{i}.{leaf}" for i in (0, 2, 3) for leaf in ("weight", "bias")}
    assert idle == entries | {n for n, _ in discriminator.named_parameters() if "blocks.0." in n}


def as_plain(conv: nn.Module, x: Tensor, stride: int = 1) -> Tensor:
    """A block's 3x3 convolution by its definition, coordinates as channels."""
    assert isinstance(conv, CoordConv2d | nn.Conv2d)
    weight = conv.weight
    if isinstance(conv, CoordConv2d):
        n = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
        rows, columns = n[:, None].expand(len(n), -1), n[None].expand(len(n), -1)
        extra = torch.stack([rows.expand(len(n), len(n)), columns])[None]
        x = torch.cat([x, extra.expand(len(x), -1, -1, -1)], dim=1)
        weight = torch.cat([weight, conv.coordinate_weight], dim=1)
    return F.conv2d(x, weight, conv.bias, stride, padding=1)


@pytest.mark.parametrize("channels", [(3, 3), (3, 5)])
def test_residual_blocks_average_both_paths_over_2x2_cells(channels: tuple[int, int]) -> None:
    block = ResidualBlock(*channels).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    main = F.leaky_relu(as_plain(block.conv1, F.leaky_relu(as_plain(block.conv0, x), 0.2)), 0.2)
    cells = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    skip = sum(cells[1:], cells[0]) / 4
    cells = [main[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    main = sum(cells[1:], cells[0]) / 4
    assert (block.skip is None) == (channels[0] == channels[1])
    if block.skip is not None:
        skip = block.skip(skip)
    assert_close(block(x), (main + skip) / 2**0.5)


@pytest.mark.parametrize("coordinates", [False, True])
def test_strided_blocks_halve_by_their_second_convolution(coordinates: bool) -> None:
    block = StridedBlock(3, 4, coordinates=coordinates).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    main = F.leaky_relu(as_plain(block.conv0, x), 0.2)
    main = F.leaky_relu(as_plain(block.conv1, main, stride=2), 0.2)
    weight, bias = block.skip.weight[:, :, 0, 0], block.skip.bias
    assert bias is not None
    skip = torch.einsum("oc,bchw->bohw", weight, x[:, :, ::2, ::2]) + bias[:, None, None]
    assert_close(block(x), (main + skip) / 2**0.5)


def test_only_strided_classes_start_from_kaiming_weights() -> None:
    for name in SIZES:
        discriminator = tiny(name, base=256, max_channels=64)
        for block in discriminator.blocks:
            weight = block.get_parameter("conv1.weight")
            inputs = weight[0].numel()
            if hasattr(block.get_submodule("conv1"), "coordinate_weight"):
                inputs += 18
            if name.startswith("Progressive"):
                assert weight.abs().max() <= inputs**-0.5
            else:
                expected = math.sqrt(2 / 1.04 / inputs)
                assert weight.std().item() == pytest.approx(expected, rel=0.1)


@each_class
def test_the_gradient_penalty_has_exact_gradients(name: str) -> None:
    discriminator = tiny(name, max_size=4, base=8, max_channels=3).double()
    images = pictures(4, batch=1).double()
    parameter = next(discriminator.blocks[0].parameters())

    def penalty() -> Tensor:
        x = images.clone().requires_grad_()
        logits = discriminator(x).logits
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return gradient.square().sum()

    (analytic,) = torch.autograd.grad(penalty(), parameter)
    step, at = 1e-6, (0,) * parameter.ndim
    with torch.no_grad():
        parameter[at] += step
    above = penalty().item()
    with torch.no_grad():
        parameter[at] -= 2 * step
    assert analytic[at].item() == pytest.approx((above - penalty().item()) / (2 * step), rel=1e-5)


def test_weights_stored_channels_last_compute_and_learn_the_same(tmp_path: Path) -> None:
    rows = tiny("ProgressiveEncoderDiscriminator")
    last = copy.deepcopy(rows).to(memory_format=torch.channels_last)  # pyright: ignore
    convolution = next(m for m in last.modules() if isinstance(m, CoordConv2d))
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 16, 16)

    def learn(network: PyramidDiscriminator, optimizer: torch.optim.Optimizer) -> None:
        real = images.clone().requires_grad_()
        logits = network(real, 0.3).logits
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        (logits.mean() + slope.square().sum()).backward()
        optimizer.step()
        optimizer.zero_grad()

    optimizers = [torch.optim.Adam(n.parameters(), lr=1e-3, fused=True) for n in (rows, last)]
    for network, optimizer in zip((rows, last), optimizers, strict=True):
        learn(network, optimizer)
    for a, b in zip(rows.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)

    file = tmp_path / "state.pth"  # a checkpoint keeps numbers and goes on bit for bit
    torch.save([last.state_dict(), optimizers[1].state_dict()], file)
    again = copy.deepcopy(rows).to(memory_format=torch.channels_last)  # pyright: ignore
    resumed = torch.optim.Adam(again.parameters(), lr=1e-3, fused=True)
    weights, state = torch.load(file, weights_only=True)
    again.load_state_dict(weights)
    resumed.load_state_dict(state)
    learn(last, optimizers[1])
    learn(again, resumed)
    for a, b in zip(last.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b) and a.stride() == b.stride()

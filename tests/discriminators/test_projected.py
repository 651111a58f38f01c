"""The projected discriminator: what is frozen, what is saved, where gradients go, bad input."""

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from discriminators import efficientnet
from discriminators.efficientnet import CHANNELS, EfficientNetLite0, load_backbone
from discriminators.projected import FeatureNetwork, Head, ProjectedDiscriminator
from ops.freeze import freeze

TINY = {
    **{"resolution": 16, "backbone_weights": "random", "input_size": 64, "num_discs": 2},
    **{"channels": 4, "head_size": 64, "head_width": 8},
}


def tiny(**options: Any) -> ProjectedDiscriminator:
    torch.manual_seed(0)
    return ProjectedDiscriminator(**{**TINY, **options})


def pictures(size: int = 16, batch: int = 3) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite0:
    return load_backbone("random")


# -- frozen


def test_features_have_no_parameters_and_heads_have_them_all() -> None:
    discriminator = tiny()
    discriminator.requires_grad_(True)
    assert not list(discriminator.feature_network.parameters())
    assert all(name.startswith("heads.") for name, _ in discriminator.named_parameters())
    frozen = discriminator.feature_network.named_buffers()
    assert not any(buffer.requires_grad for _, buffer in frozen)


def test_training_moves_heads_but_no_feature() -> None:
    discriminator = tiny()
    discriminator.requires_grad_(True).train()
    assert discriminator.heads.training
    assert not any(module.training for module in discriminator.feature_network.modules())
    before = copy.deepcopy(dict(discriminator.named_buffers()))
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.1)
    discriminator(pictures()).logits.mean().backward()
    optimizer.step()
    after = dict(discriminator.named_buffers())
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved and all(name.startswith("heads.") for name in moved)


def test_a_checkpoint_holds_heads_and_random_mixing_but_no_backbone() -> None:
    first, second = tiny(), ProjectedDiscriminator(**TINY)  # type: ignore[arg-type]
    state = first.state_dict()
    assert not any("backbone" in name for name in state)
    assert any(name.startswith("feature_network.mix_scales") for name in state)
    second.load_state_dict(state)
    a, b = first.eval()(pictures()).logits, second.eval()(pictures()).logits
    assert torch.equal(a, b)


def test_frozen_features_move_with_their_module_and_into_copies() -> None:
    discriminator = copy.deepcopy(tiny()).double()
    assert discriminator(pictures().double()).logits.dtype == torch.float64


def test_freezing_keeps_what_a_module_computes() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    x = pictures()
    expected = module(x)
    for persistent in (True, False):
        frozen = freeze(copy.deepcopy(module).train(), persistent=persistent)
        assert torch.equal(frozen(x), expected) and not list(frozen.parameters())
        assert bool(frozen.state_dict()) == persistent


# -- gradients


def test_a_discriminator_step_stores_nothing_of_the_features() -> None:
    discriminator = tiny()
    features = discriminator.features(pictures())
    assert not any(x.requires_grad for x in features)
    images = pictures().requires_grad_()
    assert all(x.requires_grad for x in discriminator.features(images))


def test_a_generators_step_reaches_the_pictures_alone() -> None:
    discriminator = tiny().requires_grad_(False)
    images = pictures().requires_grad_()
    discriminator(images).logits.mean().backward()
    assert images.grad is not None and images.grad.flatten(1).any(1).all()
    assert all(p.grad is None for p in discriminator.parameters())


def test_features_are_computed_once_per_batch() -> None:
    discriminator = tiny()
    calls: list[int] = []
    discriminator.feature_network.backbone.register_forward_hook(lambda *_: calls.append(1))
    discriminator(pictures())
    assert len(calls) == 1


# -- features


def test_random_features_are_the_same_in_every_process_and_lively(
    backbone: EfficientNetLite0,
) -> None:
    state = torch.get_rng_state()
    again = load_backbone("random")
    assert torch.equal(state, torch.get_rng_state())
    smooth = nn.functional.interpolate(pictures(8, 6), 64, mode="bicubic")
    for mine, theirs, channels in zip(backbone(smooth), again(smooth), CHANNELS, strict=True):
        assert torch.equal(mine, theirs) and mine.shape[1] == channels
        assert 0.3 < mine.std() < 30
        assert (mine[0] - mine[1]).std() > 0.3
        alive = mine.transpose(0, 1).flatten(1).std(1) > 1e-3
        assert alive.all()


def test_features_are_timms() -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model(
        "tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4)
    )
    ours = EfficientNetLite0()
    state = network.state_dict()
    ours.load_state_dict(state)
    x = pictures(96, 1)
    with torch.no_grad():
        for a, b in zip(ours.eval()(x), network.eval()(x), strict=True):
            assert_close(a, b)


@pytest.mark.parametrize("expand", [True, False])
def test_mixing_in_scales_gives_features_from_half_the_size_on(expand: bool) -> None:
    network = FeatureNetwork(weights="random", channels=4, expand=expand)
    with torch.no_grad():
        features = network(pictures(64))
    assert [x.shape[-1] for x in features] == [32, 16, 8, 4]
    assert [x.shape[1] for x in features] == network.channels
    assert network.channels == ([4, 4, 8, 16] if expand else [4] * 4)


def test_features_can_be_mixed_in_channels_alone_or_not_at_all() -> None:
    with torch.no_grad():
        for mixing, channels in (("none", list(CHANNELS)), ("channels", [4, 8, 16, 32])):
            network = FeatureNetwork(weights="random", channels=4, mixing=mixing)
            assert [x.shape[1] for x in network(pictures(64))] == channels
    with pytest.raises(ValueError, match="unknown mixing 'scale', did you mean 'scales'"):
        FeatureNetwork(weights="random", mixing="scale")


def test_features_without_coarser_ones_are_cheaper_and_the_same() -> None:
    def features(count: int) -> list[Tensor]:
        torch.manual_seed(0)
        network = FeatureNetwork(weights="random", channels=4, mixing="channels", num_scales=count)
        assert len(network.backbone.blocks) == {2: 3, 4: 7}[count]
        with torch.no_grad():
            return network(pictures(64))

    fine, whole = features(2), features(4)
    assert len(fine) == 2
    assert all(torch.equal(a, b) for a, b in zip(fine, whole, strict=False))


def test_the_order_in_memory_changes_no_feature(backbone: EfficientNetLite0) -> None:
    network = FeatureNetwork(weights="random", mixing="none")
    with torch.no_grad():
        for mine, theirs in zip(network(pictures(64)), backbone(pictures(64)), strict=True):
            assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


# -- heads


def test_the_full_discriminator_has_the_published_number_of_trained_parameters() -> None:
    discriminator = ProjectedDiscriminator(backbone_weights="random")
    count = sum(p.numel() for p in discriminator.parameters())
    assert count == pytest.approx(10.33e6, rel=1e-3)
    assert [len(head.blocks) for head in discriminator.heads if isinstance(head, Head)] == [
        4,
        3,
        2,
        1,
    ]


def test_classes_change_the_judgement() -> None:
    discriminator = tiny(label_dim=3).eval()
    images = pictures()[:1].expand(3, -1, -1, -1)
    logits = discriminator(images, label=torch.arange(3)).logits
    assert not torch.allclose(logits[0], logits[1])
    assert torch.equal(logits, discriminator(images, label=torch.eye(3)).logits)
    with pytest.raises(ValueError, match="conditional: it needs labels of size 3"):
        discriminator(images)
    with pytest.raises(ValueError, match="unconditional"):
        tiny()(images, label=torch.arange(3))


@pytest.mark.parametrize("num_discs", [1, 2, 3, 4])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("label_dim", [0, 3])
def test_every_variant_has_logits_from_each_of_its_heads(
    label_dim: int, separable: bool, num_discs: int
) -> None:
    discriminator = tiny(label_dim=label_dim, separable=separable, num_discs=num_discs)
    assert len(discriminator.heads) == num_discs
    label = torch.arange(3) if label_dim else None
    logits = discriminator(pictures(), label=label).logits
    places = [25, 25, 25, 1][:num_discs]  # of 64 pixels, with heads that are deep for as many
    assert logits.shape == (3, sum(places))
    for i, part in enumerate(logits.split(places, dim=1)):
        discriminator.zero_grad(set_to_none=True)
        part.square().sum().backward(retain_graph=True)
        for j, head in enumerate(discriminator.heads):
            reached = [p.grad is not None and bool(p.grad.any()) for p in head.parameters()]
            assert all(reached) if i == j else not any(reached)


def test_pictures_may_grow_up_to_the_size_that_they_are_enlarged_to() -> None:
    discriminator = tiny().eval()
    assert discriminator.image_sizes == (8, 16, 32, 64)
    assert tiny(resolution=20).image_sizes == (8, 16, 20, 32, 64)
    assert tiny(resolution=128).image_sizes == (128,)
    small = pictures()
    large = nn.functional.interpolate(small, 64, mode="bilinear")
    assert torch.equal(discriminator(small).logits, discriminator(large).logits)
    for size in (12, 128):
        with pytest.raises(ValueError, match=f"of side 8, 16, 32, 64; got {size}x{size}"):
            discriminator(pictures(size))


def test_small_pictures_are_enlarged_and_large_ones_are_not() -> None:
    assert tiny().input_size == 64
    large = tiny(resolution=128)
    assert large.input_size == 128
    assert large(pictures(128)).logits.shape[1] > tiny()(pictures()).logits.shape[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 80}, "multiple of 32 pixels, .* got 80"),
        ({"input_size": 32, "head_size": 256}, "at least 128, got 32"),
        ({"num_discs": 5}, "num_discs must lie in 1..4, got 5"),
        ({"backbone_weights": "nowhere.pth"}, "no such file: nowhere.pth"),
    ],
)
def test_what_cannot_be_made_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


# -- weights


def whole_state(network: EfficientNetLite0) -> dict[str, Tensor]:
    """As timm saves it, the classifier included."""
    extra = {"conv_head.weight": torch.zeros(1280, 320, 1, 1), "classifier.bias": torch.zeros(1000)}
    state = {name: value + 1 for name, value in network.state_dict().items()}
    return state | extra | {"bn2.weight": torch.zeros(1280)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights_is_used(
    tmp_path: Path, suffix: str, backbone: EfficientNetLite0
) -> None:
    state, file = whole_state(backbone), tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    loaded = load_backbone(str(file)).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


def test_weights_of_another_network_are_refused(
    tmp_path: Path, backbone: EfficientNetLite0
) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(ValueError, match="another network than tf_efficientnet_lite0: .* missing"):
        load_backbone(str(tmp_path / "linear.pth"))
    state = whole_state(backbone)
    state["conv_stem.weight"] = torch.zeros(16, 3, 3, 3)
    save_file(state, tmp_path / "narrow.safetensors")
    with pytest.raises(ValueError, match=r"1 of another shape \(conv_stem.weight\)"):
        load_backbone(str(tmp_path / "narrow.safetensors"))


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"a": math.sqrt}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="could run code"):
        load_backbone(str(tmp_path / "code.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="must map names to tensors"):
        load_backbone(str(tmp_path / "list.pth"))
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    with pytest.raises(ValueError, match="cut.safetensors cannot be read"):
        load_backbone(str(tmp_path / "cut.safetensors"))


OFFLINE = "model.safetensors of timm/tf_efficientnet_lite0.*Hugging Face.*--backbone_weights"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of downloads, and a hub that nobody reaches or waits for."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for waiting in ("time.sleep", "socket.getaddrinfo", "socket.create_connection"):
        monkeypatch.setattr(waiting, lambda *_, **__: pytest.fail("it waits for a network"))
    monkeypatch.setattr(efficientnet, "hub_answers", lambda: False)
    return tmp_path


def test_offline_the_error_comes_at_once_and_names_the_file_and_the_option(hub: Path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"\(no answer in 3 s, no copy here\).*") as error:
        load_backbone("timm")
    assert re.search(OFFLINE, str(error.value))


def test_offline_a_file_that_timm_has_kept_is_used(hub: Path, backbone: EfficientNetLite0) -> None:
    timm = pytest.importorskip("timm")
    state = timm.create_model("tf_efficientnet_lite0").state_dict() | whole_state(backbone)
    folder = hub / "models--timm--tf_efficientnet_lite0.in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    save_file(state, folder / "snapshots" / ("a" * 40) / "model.safetensors")
    loaded = load_backbone("timm").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


def test_the_hub_is_asked_once_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[float] = []

    def metadata(url: str, *, timeout: float) -> None:
        asked.append(timeout)
        assert "timm/tf_efficientnet_lite0.in1k" in url
        if len(asked) > 1:
            raise OSError("no network")

    monkeypatch.setattr(hub, "get_hf_file_metadata", metadata)
    assert efficientnet.hub_answers() and not efficientnet.hub_answers()
    assert asked == [efficientnet.PATIENCE] * 2


def test_a_download_that_fails_names_the_file_its_source_and_the_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timm = pytest.importorskip("timm")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", refuse)
    monkeypatch.setattr(efficientnet, "hub_answers", lambda: True)
    with pytest.raises(ValueError, match=OFFLINE):
        load_backbone("timm")
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm.*" + OFFLINE):
        efficientnet.download()

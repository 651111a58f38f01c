"""The StyleGANs' mapping network and their labels."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from ops.mapping import MappingNetwork, label_vectors


def test_the_length_of_a_latent_does_not_matter() -> None:
    network = MappingNetwork(latent_dim=8, w_dim=12, num_layers=3)
    z = torch.randn(4, 8)
    assert_close(network(5 * z), network(z), atol=1e-4, rtol=1e-4)
    assert network(z).shape == (4, 12)


def test_classes_and_their_one_hot_vectors_are_the_same_condition() -> None:
    network = MappingNetwork(latent_dim=8, label_dim=3, w_dim=12, num_layers=2)
    z = torch.randn(3, 8)
    classes = torch.tensor([2, 0, 1])
    by_class = network(z, classes)
    assert torch.equal(by_class, network(z, torch.eye(3)[classes]))
    assert (by_class - network(z, torch.tensor([0, 0, 1]))).abs()[0].max() > 1e-3


def test_a_label_alone_can_be_mapped() -> None:
    network = MappingNetwork(latent_dim=0, label_dim=5, w_dim=6, num_layers=2)
    vectors = torch.randn(2, 5)
    assert network(None, vectors).shape == (2, 6)


def test_mapping_has_derivatives_of_every_order() -> None:
    network = MappingNetwork(latent_dim=3, label_dim=2, w_dim=4, num_layers=2).double()
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    label = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(network, (z, label))
    assert gradgradcheck(network, (z, label))


@pytest.mark.parametrize(
    ("label", "label_dim", "message"),
    [
        (None, 3, "needs labels of size 3"),
        (torch.zeros(2, 3), 0, "unconditional"),
        (torch.zeros(2, 4), 3, "must have 3 numbers, got 4"),
        (torch.tensor([0, 3]), 3, r"must lie in 0\.\.2, got \[0, 3\]"),
        (torch.tensor([0.0, 1.0]), 3, "must be integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    label: torch.Tensor | None, label_dim: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        label_vectors(label, label_dim)


def test_a_network_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="latent_dim or a label_dim"):
        MappingNetwork(latent_dim=0)

"""The multilayer perceptron of the classic first run."""

import pytest
import torch

from htr_lightning.net.mlp import MLP


@pytest.mark.parametrize(
    ("hidden", "count"),
    [([128], 784 * 128 + 128 + 128 * 10 + 10), ([128, 64], 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10)],
)
def test_the_parameters_are_those_of_its_layers(hidden: list[int], count: int) -> None:
    assert sum(p.numel() for p in MLP(10, inputs=784, hidden=hidden).parameters()) == count


def test_784_128_10_has_101_770_parameters() -> None:
    assert sum(p.numel() for p in MLP(10, inputs=784, hidden=[128]).parameters()) == 101_770


def test_scores_are_matrix_products_of_the_standardised_ink() -> None:
    torch.manual_seed(0)
    net = MLP(10, inputs=12, hidden=[5], mean=0.1, std=0.3).eval()
    images = torch.rand(4, 1, 3, 4)
    w1, b1, w2, b2 = net.parameters()
    expected = torch.relu((images.reshape(4, 12) - 0.1) / 0.3 @ w1.T + b1) @ w2.T + b2
    torch.testing.assert_close(net(images, torch.full((4,), 4)), expected)

"""The convolutional network for single characters."""

import pytest
import torch
from torch.nn import functional

from htr_lightning.net.backbone import ResidualBackbone
from htr_lightning.net.cnn import CNN


def net(classes: int = 7) -> CNN:
    torch.manual_seed(0)
    return CNN(classes, ResidualBackbone([4, 8], [1, 1], [[1, 1], [2, 2]], stem=4), dropout=0.5).eval()


def test_scores_are_a_linear_map_of_the_mean_feature() -> None:
    cnn, images = net(), torch.rand(3, 1, 16, 16)
    widths = torch.full((3,), 16)
    features, _ = cnn.backbone(images, widths)
    assert features.shape == (3, 8, 4, 4)
    expected = features.flatten(2).mean(2) @ cnn.head.weight.T + cnn.head.bias
    torch.testing.assert_close(cnn(images, widths), expected)


def test_a_character_s_scores_do_not_depend_on_its_neighbours() -> None:
    cnn, images = net(), torch.rand(5, 1, 16, 16)
    alone = torch.cat([cnn(image[None], torch.tensor([16])) for image in images])
    torch.testing.assert_close(cnn(images, torch.full((5,), 16)), alone)


@pytest.mark.parametrize("size", [28, 64])
def test_any_frame_size_fits_and_every_weight_has_a_gradient(size: int) -> None:
    cnn = net().train()
    scores = cnn(torch.rand(4, 1, size, size), torch.full((4,), size))
    functional.cross_entropy(scores, torch.tensor([0, 1, 2, 3])).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in cnn.parameters())

"""MobileNetV3 on padded lines matches torchvision's forward pass on unpadded lines."""

import pytest
import torch
from conftest import shaken
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

from htr_lightning.errors import InputError
from htr_lightning.net.backbone import strided
from htr_lightning.net.mobilenet import MobileNetBackbone

STRIDES = [[2, 2], [2, 2], [2, 1], [2, 1]]


def torchvisions(ours: MobileNetBackbone, blocks: int) -> nn.Module:
    """Return torchvision's features with the same weights and strides and a single input channel."""
    theirs = mobilenet_v3_small(weights=None).features[: blocks + 1]
    theirs[0][0] = nn.Conv2d(1, 16, 3, padding=1, bias=False)
    with torch.no_grad():
        for mine, their in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            their.copy_(mine)
    convs = [[m for m in net.modules() if isinstance(m, nn.Conv2d)] for net in (ours, theirs)]
    for mine, their in zip(*convs, strict=True):
        their.stride = mine.stride
    return theirs.train(ours.training)


@pytest.mark.parametrize("training", [False, True], ids=["folded", "training"])
@pytest.mark.parametrize(("strides", "blocks"), [(STRIDES, 8), ([[2, 2]] * 5, 11), ([[2, 2], [2, 1], [1, 2]], 3)])
@torch.inference_mode()
def test_unpadded_lines_have_the_features_of_torchvision(strides: list[list[int]], blocks: int, training: bool) -> None:
    torch.manual_seed(0)
    ours = shaken(MobileNetBackbone(strides, blocks)).train(training)
    theirs, images = torchvisions(ours, blocks), torch.rand(3, 1, 32, 77)
    features, _ = ours(images, torch.full((3,), 77))
    expected: Tensor = theirs(images)
    assert ours.channels == expected.shape[1]
    torch.testing.assert_close(features, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


@torch.inference_mode()
def test_features_have_the_stated_widths_followed_by_zeros() -> None:
    torch.manual_seed(0)
    net, widths = shaken(MobileNetBackbone(STRIDES, 8)).eval(), torch.tensor([31, 17, 1])
    features, left = net(torch.rand(3, 1, 32, 40), widths)
    assert left.tolist() == strided(strided(widths, 2), 2).tolist()
    for row, width in enumerate(left.tolist()):
        assert features[row, :, :, :width].any()
        assert not features[row, :, :, width:].any()


def test_a_stride_too_many_or_too_few_is_an_error() -> None:
    for strides in (STRIDES[:3], [*STRIDES, [2, 1]]):
        with pytest.raises(InputError, match="expected 4 pairs"):
            MobileNetBackbone(strides, 8)

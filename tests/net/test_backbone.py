"""Masks and widths of convolutional features."""

import pytest
import torch
from torch import nn

from htr_lightning.net.backbone import ConvNorm, PlainBackbone, ResidualBackbone, column_mask, strided


def test_the_mask_is_true_exactly_on_lines() -> None:
    widths = torch.tensor([0, 1, 4, 7])
    mask = column_mask(widths, 7)
    assert mask.shape == (4, 1, 1, 7)
    for row, width in enumerate(widths.tolist()):
        assert mask[row, 0, 0].tolist() == [column < width for column in range(7)]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_strided_is_the_width_of_a_convolution(stride: int, kernel: int) -> None:
    conv = nn.Conv2d(1, 1, kernel, stride, padding=kernel // 2)
    widths = torch.arange(1, 40)
    made = [conv(torch.zeros(1, 1, 4, width)).shape[-1] for width in widths.tolist()]
    assert strided(widths, stride).tolist() == made


@pytest.mark.parametrize("training", [True, False])
def test_padding_stays_zero_after_a_batch_norm_that_shifts(training: bool) -> None:
    torch.manual_seed(0)
    layer = ConvNorm(2, 3, stride=(1, 2)).train(training)
    nn.init.constant_(layer.norm.bias, 1.0)
    widths = strided(torch.tensor([9, 4]), 2)
    out = layer(torch.randn(2, 2, 5, 9), column_mask(widths, 5))
    assert out[0].any()
    assert out[1, :, :, :2].any()
    assert not out[1, :, :, 2:].any()


@pytest.mark.parametrize("stem_stride", [(1, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("stem_kernel", [3, 5])
def test_features_have_the_stated_channels_and_widths(stem_stride: tuple[int, int], stem_kernel: int) -> None:
    net = ResidualBackbone([4, 6], [1, 2], [[1, 1], [2, 2]], 4, stem_stride, stem_kernel).eval()
    widths = torch.tensor([31, 17, 1])
    features, left = net(torch.rand(3, 1, 32, 31), widths)
    assert features.shape[:2] == (3, net.channels)
    assert net.channels == 6
    expected = strided(strided(widths, stem_stride[1]), 2)
    assert left.tolist() == expected.tolist()
    assert features.shape[-1] == expected.max()
    for row, width in enumerate(left.tolist()):
        assert not features[row, :, :, width:].any()


@pytest.mark.parametrize("height", [32, 30])
@torch.inference_mode()
def test_the_plain_backbone_is_convolution_norm_relu_and_pooling_in_a_row(height: int) -> None:
    torch.manual_seed(0)
    net = PlainBackbone(height, [3, 4], [[2, 2], [2, 1]]).eval()
    for conv in net.convs:
        nn.init.normal_(conv.norm.bias)
    first, second = net.convs
    pooling = [nn.MaxPool2d((2, 2), ceil_mode=True), nn.MaxPool2d((2, 1), ceil_mode=True)]
    plain = nn.Sequential(
        first.conv, first.norm, nn.ReLU(), pooling[0], second.conv, second.norm, nn.ReLU(), pooling[1], nn.Flatten(1, 2)
    )
    images = torch.rand(2, 1, height, 41)
    features, left = net(images, torch.tensor([41, 41]))
    torch.testing.assert_close(features[:, :, 0], plain(images))
    assert features.shape[1] == net.channels
    assert left.tolist() == [21, 21]

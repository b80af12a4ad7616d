"""The logits of a line depend neither on its batch nor on padding."""

import math

import pytest
import torch
from torch import Tensor, nn

from htr_lightning.net.attention import SelfAttention
from htr_lightning.net.backbone import ResidualBackbone
from htr_lightning.net.vit import ViT


def vit(patch: int = 2, **others: float) -> ViT:
    torch.manual_seed(0)
    backbone = ResidualBackbone([8, 12], [1, 1], [[2, 2], [2, 1]], 8)
    net = ViT(7, backbone, width=24, depth=2, heads=3, patch=patch, **others)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # far from zero mean and unit variance, as after training
            nn.init.normal_(module.running_mean, 0, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.normal_(module.bias, 0, 0.5)
    return net.eval()


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("height", [16, 31])
@torch.inference_mode()
def test_a_line_alone_and_in_a_padded_batch_are_the_same(height: int, patch: int) -> None:
    net = vit(patch)
    widths = [120, 119, 77, 64, 33, 18, 5, 3, 2, 1]
    images = torch.zeros(len(widths), 1, height, 131)  # wider than the widest line, as `multiple` pads
    for row, width in enumerate(widths):
        images[row, :, :, :width] = torch.rand(1, height, width)
    together, lengths = net.heads(images, torch.tensor(widths))
    torch.testing.assert_close(net(images, torch.tensor(widths))[0], together[0], atol=0, rtol=0)
    assert [head.shape[1] for head in together] == [33, 33]
    for row, width in enumerate(widths):
        alone, frames = net.heads(images[row : row + 1, :, :, :width].contiguous(), torch.tensor([width]))
        assert lengths[row] == frames[0] == alone[0].shape[1] == math.ceil(width / 4)
        for batch, single in zip(together, alone, strict=True):
            assert (batch[row, : frames[0]] - single[0]).abs().max() <= 1e-5
            assert single.std() > 1e-3  # the comparison is not trivial


@torch.inference_mode()
def test_attention_is_torchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.in_proj_weight.copy_(ours.inputs.weight)
    theirs.in_proj_bias.copy_(ours.inputs.bias)
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, mask = torch.randn(3, 9, 12), torch.arange(9) < torch.tensor([9, 4, 1])[:, None]
    expected, _ = theirs(x, x, x, key_padding_mask=~mask, need_weights=False)
    torch.testing.assert_close(ours(x, mask), expected, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_every_frame_sees_the_whole_line() -> None:
    net, width = vit(), torch.tensor([400])
    image = torch.rand(1, 1, 16, 400)
    other = image.clone()
    other[..., :8] = 1 - other[..., :8]
    assert ((net(image, width)[0] - net(other, width)[0]).abs().amax(2) > 0).all()


@torch.inference_mode()
def test_the_order_of_the_columns_matters() -> None:
    """Attention alone would not depend on the order of the patches."""
    net, x = vit(patch=1), torch.rand(1, 20, 12)
    order = torch.randperm(20)

    def read(columns: Tensor) -> Tensor:
        features, _ = net.encode(columns, torch.tensor([20]))
        return net.label(features, 20)

    there = read(x[:, order])
    assert (there - read(x)[:, order]).abs().max() > 1e-3


def test_gradient_reaches_every_parameter_and_masking_leaves_the_shortcut_alone() -> None:
    net = vit(mask_ratio=0.4, mask_span=2, dropout=0.0).train()
    images, widths = torch.rand(2, 1, 16, 160), torch.tensor([160, 97])
    heads, _ = net.heads(images, widths)
    sum((head * torch.randn_like(head)).sum() for head in heads).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    again, _ = net.heads(images, widths)
    assert (again[0] - heads[0]).abs().max() > 1e-3  # other columns are masked
    torch.testing.assert_close(again[1], heads[1], atol=1e-5, rtol=0)


def test_without_a_shortcut_there_is_one_head() -> None:
    net = vit(shortcut=False)
    assert len(net.heads(torch.rand(1, 1, 16, 20), torch.tensor([20]))[0]) == 1

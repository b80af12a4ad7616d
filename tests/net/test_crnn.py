"""The logits of a line depend neither on its batch nor on padding."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from htr_lightning.net.backbone import ResidualBackbone
from htr_lightning.net.crnn import CRNN, BiLSTM, CTCNet
from htr_lightning.net.gated import GatedCRNN

STRIDES = [[1, 1], [2, 2], [2, 1]]
KINDS: list[Callable[..., CTCNet]] = [CRNN, partial(GatedCRNN, width=24)]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=["lstm", "gated"])


def crnn(kind: Callable[..., CTCNet], strides: list[list[int]] = STRIDES) -> CTCNet:
    torch.manual_seed(0)
    net = kind(7, ResidualBackbone([8, 12, 16], [1, 2, 1], strides, 8, (2, 2)), hidden=16, layers=2)
    for name, parameter in net.named_parameters():
        if name.endswith("neighbors"):  # zero before training
            nn.init.normal_(parameter)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # far from zero mean and unit variance, as after training
            nn.init.normal_(module.running_mean, 0, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, 0, 0.5)
    return net.eval()


@pytest.mark.parametrize("height", [16, 31, 32, 48])
@pytest.mark.parametrize("strides", [STRIDES, [[2, 2], [2, 1], [1, 2]]], ids=["default", "other"])
@every_kind
@torch.inference_mode()
def test_a_line_alone_and_in_a_padded_batch_are_the_same(
    kind: Callable[..., CTCNet], height: int, strides: list[list[int]]
) -> None:
    net = crnn(kind, strides)
    widths = [120, 119, 77, 64, 33, 18, 3, 2, 1]
    images = torch.zeros(len(widths), 1, height, 131)  # wider than the widest line, as `multiple` pads
    for row, width in enumerate(widths):
        images[row, :, :, :width] = torch.rand(1, height, width)
    together, lengths = net.heads(images, torch.tensor(widths))
    torch.testing.assert_close(net(images, torch.tensor(widths))[0], together[0], atol=0, rtol=0)
    for row, width in enumerate(widths):
        alone, frames = net.heads(images[row : row + 1, :, :, :width].contiguous(), torch.tensor([width]))
        assert lengths[row] == frames[0] == alone[0].shape[1]
        for batch, single in zip(together, alone, strict=True):
            assert (batch[row, : frames[0]] - single[0]).abs().max() <= 1e-5
            assert single.std() > 1e-3  # the comparison is not trivial


@every_kind
@torch.inference_mode()
def test_the_neighbours_in_the_batch_do_not_matter(kind: Callable[..., CTCNet]) -> None:
    net = crnn(kind)
    images, widths = torch.rand(3, 1, 32, 90), torch.tensor([90, 51, 90])
    images[1, :, :, 51:] = 0
    other = images.clone()
    other[[0, 2]] = torch.rand(2, 1, 32, 90)
    frames = net(images, widths)[1][1]
    torch.testing.assert_close(net(images, widths)[0][1, :frames], net(other, widths)[0][1, :frames], atol=1e-5, rtol=0)


def test_every_second_column_twice_over_is_a_frame() -> None:
    widths = torch.arange(1, 60)
    _, lengths = crnn(CRNN)(torch.zeros(len(widths), 1, 16, 59), widths)
    assert lengths.tolist() == [math.ceil(math.ceil(width / 2) / 2) for width in widths.tolist()]


@every_kind
def test_gradient_reaches_every_parameter_through_the_heads(kind: Callable[..., CTCNet]) -> None:
    net = crnn(kind).train()
    heads, _ = net.heads(torch.rand(2, 1, 32, 60), torch.tensor([60, 41]))
    assert len(heads) == 2
    sum((head * torch.randn_like(head)).sum() for head in heads).backward()
    untouched = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


@every_kind
@pytest.mark.parametrize("head", [0, 1])
def test_each_head_alone_trains_the_whole_backbone(kind: Callable[..., CTCNet], head: int) -> None:
    net = crnn(kind).train()
    heads, _ = net.heads(torch.rand(2, 1, 32, 60), torch.tensor([60, 41]))
    (heads[head] * torch.randn_like(heads[head])).sum().backward()
    untouched = [name for name, p in net.backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


def test_without_a_shortcut_there_is_one_head() -> None:
    net = CRNN(7, ResidualBackbone([8], [1], [[1, 1]], 8), hidden=4, layers=1, shortcut=False)
    assert len(net.heads(torch.rand(1, 1, 16, 20), torch.tensor([20]))[0]) == 1


@torch.inference_mode()
def test_bilstm_is_torchs_bidirectional_lstm_on_packed_lines() -> None:
    torch.manual_seed(0)
    ours, theirs = BiLSTM(5, 6), nn.LSTM(5, 6, batch_first=True, bidirectional=True)
    for name, weight in ours.ahead.named_parameters():
        getattr(theirs, name).copy_(weight)
    for name, weight in ours.back.named_parameters():
        getattr(theirs, f"{name}_reverse").copy_(weight)
    x, lengths = torch.randn(4, 11, 5), torch.tensor([11, 7, 3, 1])
    packed, _ = theirs(pack_padded_sequence(x, lengths, batch_first=True))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    result = ours(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(result[row, :length], expected[row, :length])

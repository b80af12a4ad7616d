"""Convolutional backbones that ignore padding, so that a line's features do not depend on the rest of its batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.parameters import Kernel, Pair, Size, Sizes, check_lengths

_UNPADDED = ContextVar("unpadded", default=False)


@contextmanager
def unpadded() -> Iterator[None]:
    """Let networks take it that lines are not padded, so that a program that is exported here contains no masks."""
    token = _UNPADDED.set(True)
    try:
        yield
    finally:
        _UNPADDED.reset(token)


def is_unpadded() -> bool:
    """Return whether networks may take it that lines are not padded."""
    return _UNPADDED.get()


def column_mask(widths: Int[Tensor, " B"], columns: int) -> Bool[Tensor, "#B 1 1 #W"]:
    """Return a mask that is True for the columns of each line and False for padding."""
    if is_unpadded():
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=widths.device)
    return (torch.arange(columns, device=widths.device) < widths[:, None])[:, None, None, :]


def strided(widths: Int[Tensor, " B"], stride: int) -> Int[Tensor, " B"]:
    """Return the widths after a layer with the given stride and "same" padding."""
    return (widths + stride - 1) // stride


class ConvNorm(nn.Module):
    """A convolution followed by batch norm, which together keep padding at zero.

    At the right end of a line, the convolution sees zeros, as it does for a line on its own. Batch norm moves padding
    away from zero, and the mask sets it back to zero.
    """

    def __init__(self, channels_in: int, channels: int, stride: tuple[int, int] = (1, 1), kernel: int = 3) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(
        self, x: Float[Tensor, "B c h w"], mask: Bool[Tensor, "#B 1 1 #w2"], relu: bool = True
    ) -> Float[Tensor, "B c2 h2 w2"]:
        x = self.norm(self.conv(x))
        return (torch.relu(x) if relu else x) * mask


class Residual(nn.Module):
    """A residual block of two convolutions (He et al., 2016, "Deep residual learning for image recognition")."""

    def __init__(self, channels_in: int, channels: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.first = ConvNorm(channels_in, channels, stride)
        self.second = ConvNorm(channels, channels)
        same = channels_in == channels and stride == (1, 1)
        self.shortcut = None if same else ConvNorm(channels_in, channels, stride, kernel=1)

    def forward(self, x: Float[Tensor, "B c h w"], mask: Bool[Tensor, "#B 1 1 #w2"]) -> Float[Tensor, "B c2 h2 w2"]:
        shortcut = x if self.shortcut is None else self.shortcut(x, mask, relu=False)
        return torch.relu(self.second(self.first(x, mask), mask, relu=False) + shortcut)


class ResidualBackbone(nn.Module):
    """A strided convolution, called the stem, followed by stages of residual blocks.

    Args:
        channels: number of channels in each stage.
        blocks: number of residual blocks in each stage.
        strides: (rows, columns) stride of the first block in each stage.
        stem: number of channels of the stem.
        stem_stride: (rows, columns) stride of the stem; with (1, 1), the first layers dominate the run time.
        stem_kernel: kernel size of the stem, in pixels.
    """

    def __init__(
        self,
        channels: Sizes,
        blocks: Sizes,
        strides: Sequence[Pair],
        stem: Size,
        stem_stride: Pair = (2, 2),
        stem_kernel: Kernel = 3,
    ) -> None:
        super().__init__()
        check_lengths("model.net.backbone", channels=channels, blocks=blocks, strides=strides)
        self.stem = ConvNorm(1, stem, (stem_stride[0], stem_stride[1]), stem_kernel)
        stages: list[Residual] = []
        self.strides: list[int] = []  # in columns
        width = stem
        for size, count, stride in zip(channels, blocks, strides, strict=True):
            for number in range(count):
                step = (stride[0], stride[1]) if number == 0 else (1, 1)
                stages.append(Residual(width, size, step))
                self.strides.append(step[1])
                width = size
        self.stages = nn.ModuleList(stages)
        self.channels = width

    def forward(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B c h w"], Int[Tensor, " B"]]:
        """Return the features and their widths in columns."""
        stride = self.stem.stride[1]
        widths = strided(widths, stride)
        columns = (images.shape[-1] + stride - 1) // stride  # not -(-x // stride), since ONNX rounds towards zero
        x = self.stem(images, column_mask(widths, columns))
        for stage, stride in zip(self.stages, self.strides, strict=True):
            columns = (x.shape[-1] + stride - 1) // stride
            widths = strided(widths, stride)
            x = stage(x, column_mask(widths, columns))
        return x, widths

    def frames(self, widths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Return the widths of the features in columns."""
        return reduce(strided, (self.stem.stride[1], *self.strides), widths)


class PlainBackbone(nn.Module):
    """The convolutions of the classic CRNN, each followed by batch norm and max-pooling.

    The remaining rows are stacked as channels of a single row.

    Args:
        height: height of the images in pixels.
        channels: number of output channels of each convolution.
        pools: (rows, columns) window of the max-pooling after each convolution.
    """

    def __init__(self, height: Size, channels: Sizes, pools: Sequence[Pair]) -> None:
        super().__init__()
        check_lengths("model.net.backbone", channels=channels, pools=pools)
        self.convs = nn.ModuleList(ConvNorm(a, b) for a, b in zip([1, *channels[:-1]], channels, strict=True))
        self.pools = [(rows, columns) for rows, columns in pools]
        for rows, _ in self.pools:
            height = -(-height // rows)
        self.channels = channels[-1] * height

    def forward(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B c 1 w"], Int[Tensor, " B"]]:
        """Return the features and their widths in columns."""
        x = images
        for conv, (rows, columns) in zip(self.convs, self.pools, strict=True):
            x = conv(x, column_mask(widths, x.shape[-1]))
            x = functional.max_pool2d(x, (rows, columns), ceil_mode=True)  # padding is zero, never above the maximum
            widths = strided(widths, columns)
        return x.flatten(1, 2).unsqueeze(2), widths

    def frames(self, widths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Return the widths of the features in columns."""
        return reduce(strided, (columns for _, columns in self.pools), widths)

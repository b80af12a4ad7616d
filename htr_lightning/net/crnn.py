"""A convolutional recurrent network with CTC heads.

The strides of the backbone, set in conf/model/crnn.yaml, determine the number of image columns per frame (by default,
four).
"""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.net.span_mask import SpanMask
from htr_lightning.parameters import BelowOne, Depth, Size


@runtime_checkable
class Backbone(Protocol):
    """A network that maps images and their widths to features, which have `channels` channels, and their widths."""

    channels: int

    def __call__(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B c h w"], Int[Tensor, " B"]]: ...

    def frames(self, widths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Return the widths of the features without computing these, on the device of the widths."""
        ...


class BiLSTM(nn.Module):
    """A bidirectional LSTM whose backward direction starts at the end of each line.

    `nn.LSTM(bidirectional=True)` would start in the padding, and packed sequences can neither be exported nor processed
    by the fast CPU kernels. Instead, each line is reversed within its own length, processed forward, and reversed back.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.ahead = nn.LSTM(inputs, hidden, batch_first=True)
        self.back = nn.LSTM(inputs, hidden, batch_first=True)

    def forward(self, x: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B T D2"]:
        batch, frames, _ = x.shape
        steps = torch.arange(frames, device=x.device)[None, :]
        reversed_ = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
        rows = (reversed_ + frames * torch.arange(batch, device=x.device)[:, None]).flatten()
        ahead, _ = self.ahead(x)
        back, _ = self.back(x.flatten(0, 1).index_select(0, rows).unflatten(0, (batch, frames)))
        back = back.flatten(0, 1).index_select(0, rows).unflatten(0, (batch, frames))
        return torch.cat([ahead, back], dim=2)


class LockedDropout(nn.Module):
    """Dropout with the same mask for all frames of a line (Gal and Ghahramani, 2016, "A theoretically grounded
    application of dropout in recurrent neural networks", arXiv:1512.05287).

    Sampling the mask is also about a hundred times faster than for ordinary dropout.

    Args:
        p: probability of dropping a channel of a line.
        frames: dimension of the frames in three-dimensional inputs.
    """

    def __init__(self, p: float, frames: int = 1) -> None:
        super().__init__()
        self.p, self.frames = p, frames

    def forward(self, x: Float[Tensor, "_ _ D"]) -> Float[Tensor, "_ _ D"]:
        if not self.training:
            return x
        shape = [1 if axis == self.frames else size for axis, size in enumerate(x.shape)]
        return x * functional.dropout(x.new_ones(shape), self.p)


class CTCNet(nn.Module, ABC):
    """A backbone, max-pooling over its rows, an encoder for the resulting columns, and CTC heads.

    Max-pooling over rows and the second head, which is applied to the columns in training (the "CTC shortcut"),
    follow Retsinas et al. (2022, "Best practices for a handwritten text recognition system", arXiv:2404.11339).
    """

    backbone: Backbone
    channels: int  # number of channels of the features returned by `encode`
    shortcut: nn.Conv1d | None

    def forward(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T C"], Int[Tensor, " B"]]:
        """Return the frame logits and the number of frames of each line."""
        columns, lengths = self.columns(images, widths)
        features, _ = self.encode(columns, lengths)
        return self.label(features, columns.shape[1]), lengths

    def heads(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]
    ) -> tuple[list[Float[Tensor, "B T C"]], Int[Tensor, " B"]]:
        """Return the logits of all heads, the main one first, and the number of frames of each line."""
        columns, lengths = self.columns(images, widths)
        features, _ = self.encode(columns, lengths)
        return self.all_labels(features, columns), lengths

    def columns(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T D"], Int[Tensor, " B"]]:
        """Return the pooled features of the backbone and the number of columns of each line."""
        features, lengths = self.backbone(images, widths)
        return features.amax(2).transpose(1, 2), lengths

    def frames(self, widths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Return the number of frames of lines of the given widths, without waiting for a GPU that computes them."""
        return self.backbone.frames(widths)

    @abstractmethod
    def encode(
        self, columns: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B S M"], Int[Tensor, " B"]]:
        """Return the encoded columns and their number for each line."""

    @abstractmethod
    def label(self, features: Float[Tensor, "B S M"], frames: int) -> Float[Tensor, "B T C"]:
        """Return the logits of the main head for the given number of frames."""

    def all_labels(
        self, features: Float[Tensor, "B S M"], columns: Float[Tensor, "B T D"]
    ) -> list[Float[Tensor, "B T C"]]:
        """Return the logits of all heads, the main one first."""
        logits = [self.label(features, columns.shape[1])]
        if self.shortcut is not None:
            logits.append(self.shortcut(columns.transpose(1, 2)).transpose(1, 2))
        return logits


class CRNN(CTCNet):
    """A CNN, max-pooling over its rows, BiLSTM layers and a linear CTC head (Shi et al., 2015, arXiv:1507.05717).

    Args:
        classes: number of labels, including the blank.
        backbone: backbone that maps images and widths to features and their widths.
        hidden: number of units per LSTM direction.
        layers: number of BiLSTM layers.
        dropout: dropout probability before each BiLSTM layer and the head.
        shortcut: whether to add a second CTC head on the columns of the backbone.
        mask_ratio: fraction of columns masked in training (see `SpanMask`); 0 for none.
        mask_span: length of a masked span in columns.
    """

    def __init__(
        self,
        classes: int,
        backbone: Backbone,
        hidden: Size,
        layers: Depth,
        dropout: BelowOne = 0.0,
        shortcut: bool = True,
        mask_ratio: BelowOne = 0.0,
        mask_span: Size = 8,
    ) -> None:
        super().__init__()
        self.backbone, self.channels = backbone, 2 * hidden
        self.mask = SpanMask(mask_ratio, mask_span)
        sizes = [backbone.channels] + [2 * hidden] * layers
        self.recurrent = nn.ModuleList(BiLSTM(size, hidden) for size in sizes[:-1])
        self.dropout = LockedDropout(dropout)
        self.head = nn.Linear(sizes[-1], classes)
        self.shortcut = nn.Conv1d(backbone.channels, classes, 3, padding=1) if shortcut else None

    def encode(
        self, columns: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T M"], Int[Tensor, " B"]]:
        x = self.mask(columns, lengths)
        for layer in self.recurrent:
            x = layer(self.dropout(x), lengths)
        return self.dropout(x), lengths

    def label(self, features: Float[Tensor, "B T M"], frames: int) -> Float[Tensor, "B T C"]:
        return self.head(features)

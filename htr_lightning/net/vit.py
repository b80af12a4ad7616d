"""A vision transformer with CTC heads."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.net.attention import SelfAttention
from htr_lightning.net.crnn import Backbone, CTCNet, LockedDropout
from htr_lightning.net.span_mask import SpanMask
from htr_lightning.parameters import BelowOne, Depth, Kernel, Size


class Position(nn.Module):
    """A depthwise convolution over the tokens that serves as a position encoding for lines of any width (Chu et al.,
    2021, "Conditional positional encodings for vision transformers", arXiv:2102.10882)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        return self.conv((x * mask[:, :, None]).transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """An encoder block: position encoding, self-attention and a two-layer perceptron.

    Each sublayer is preceded by a layer norm and has a residual connection.
    """

    def __init__(self, width: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.position = Position(width, kernel)
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = LockedDropout(dropout)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        x = x + self.dropout(self.position(self.norms[0](x), mask))
        x = x + self.dropout(self.attention(self.norms[1](x), mask))
        return x + self.dropout(self.mlp(self.norms[2](x)))


class ViT(CTCNet):
    """A convolutional stem, max-pooling over its rows, a transformer encoder (Dosovitskiy et al., 2021,
    arXiv:2010.11929) and a linear CTC head, based on HTR-VT (Li et al., 2024, arXiv:2409.08573).

    Args:
        classes: number of labels, including the blank.
        backbone: stem that maps images and widths to features and their widths.
        width: model dimension of the encoder.
        depth: number of encoder blocks.
        heads: number of attention heads per block.
        patch: number of feature columns per token; each column remains a frame of the output.
        kernel: kernel size of the position encodings, in tokens; must be odd.
        dropout: dropout probability in each block and before the head.
        mask_ratio: fraction of columns masked in training (see `SpanMask`); 0 for none.
        mask_span: length of a masked span in columns.
        shortcut: whether to add a second CTC head on the columns of the backbone.
    """

    def __init__(
        self,
        classes: int,
        backbone: Backbone,
        width: Size,
        depth: Depth,
        heads: Size,
        patch: Size = 2,
        kernel: Kernel = 9,
        dropout: BelowOne = 0.1,
        mask_ratio: BelowOne = 0.4,
        mask_span: Size = 8,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.channels = backbone, width
        self.patch = patch
        self.mask = SpanMask(mask_ratio, mask_span)
        self.embed = nn.Linear(patch * backbone.channels, width)
        self.blocks = nn.ModuleList(Block(width, heads, kernel, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = LockedDropout(dropout)
        self.head = nn.ModuleList(nn.Linear(width, classes) for _ in range(patch))  # one per column of a token
        self.shortcut = nn.Conv1d(backbone.channels, classes, 3, padding=1) if shortcut else None

    def encode(
        self, columns: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B S M"], Int[Tensor, " B"]]:
        frames = columns.shape[1]
        tokens = (frames + self.patch - 1) // self.patch
        x = functional.pad(self.mask(columns, lengths), (0, 0, 0, tokens * self.patch - frames))
        x = self.embed(x.unflatten(1, (tokens, self.patch)).flatten(2))
        mask = torch.arange(tokens, device=x.device) * self.patch < lengths[:, None]
        for block in self.blocks:
            x = block(x, mask)
        return self.dropout(self.norm(x)), (lengths + self.patch - 1) // self.patch

    def label(self, features: Float[Tensor, "B S M"], frames: int) -> Float[Tensor, "B T C"]:
        return torch.stack([head(features) for head in self.head], dim=2).flatten(1, 2)[:, :frames]

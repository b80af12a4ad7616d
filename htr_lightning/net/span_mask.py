"""Random masking of feature columns during training."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class SpanMask(nn.Module):
    """A layer that sets random spans of columns to zero in training, so that the network learns to use context (Li et
    al., 2024, "HTR-VT: Handwritten text recognition with vision transformer", arXiv:2409.08573).

    Each line gets floor(ratio * length / span) spans, which may overlap: with a ratio of 0.4, about a third of the
    columns are masked. The next linear layer maps each masked column to its own bias, which is learned, so that no mask
    token is needed and the network has the same weights with and without masking.

    Args:
        ratio: total length of the spans in a line, as a fraction of its length; 0 for no masking.
        span: length of a span in columns.
    """

    def __init__(self, ratio: float = 0.4, span: int = 8) -> None:
        super().__init__()
        self.ratio, self.span = ratio, span

    def forward(self, x: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B T D"]:
        """Return the features with random spans set to zero; in eval mode, return them unchanged."""
        if not self.training or self.ratio == 0:
            return x
        return x.masked_fill(self.draw(lengths, x.shape[1])[:, :, None], 0.0)

    def draw(self, lengths: Int[Tensor, " B"], columns: int) -> Bool[Tensor, "B T"]:
        """Draw the columns to mask.

        Args:
            lengths: line lengths in columns.
            columns: number of columns of the padded batch.
        """
        counts = (lengths * self.ratio / self.span).long()[:, None]
        max_count = int(columns * self.ratio / self.span)
        room = (lengths[:, None] - self.span + 1).clamp(min=1)
        starts = (torch.rand(len(lengths), max_count, device=lengths.device) * room).long()
        used = torch.arange(max_count, device=lengths.device) < counts
        column = torch.arange(columns, device=lengths.device)[None, :, None]
        offset = column - starts[:, None, :]
        inside = (offset >= 0) & (offset < self.span) & (column < lengths[:, None, None])
        return (inside & used[:, None, :]).any(2)

"""Masking of feature columns in training."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class SpanMask(nn.Module):
    """Sets random spans of columns to zero in training, so that context has to read them (Li et al., 2024, "HTR-VT:
    Handwritten text recognition with vision transformer", arXiv:2409.08573).

    Each line draws its own floor(ratio * length / span) spans, which may overlap: of ratio 0.4 about a third of the
    columns is masked. A zero column followed by a linear layer is that layer's bias, which is learned: no token of its
    own is needed, and a masked network has the weights of one that is not.

    Args:
        ratio: of the summed lengths of a line's spans to its length; 0 masks nothing.
        span: length of a span in columns.
    """

    def __init__(self, ratio: float = 0.4, span: int = 8) -> None:
        super().__init__()
        self.ratio, self.span = ratio, span

    def forward(self, x: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B T D"]:
        """Features with spans set to zero, padding untouched; in evaluation the features as they are."""
        if not self.training or self.ratio == 0:
            return x
        return x.masked_fill(self.draw(lengths, x.shape[1])[:, :, None], 0.0)

    def draw(
        self, lengths: Int[Tensor, " B"], columns: int, generator: torch.Generator | None = None, least: int = 0
    ) -> Bool[Tensor, "B T"]:
        """Which columns are masked.

        Args:
            lengths: of the lines.
            columns: that they are padded to.
            generator: None: torch's own.
            least: spans that every line has, however short it is.
        """
        counts = (lengths * self.ratio / self.span).long().clamp(min=least)[:, None]
        most = max(least, int(columns * self.ratio / self.span))
        room = (lengths[:, None] - self.span + 1).clamp(min=1)
        starts = (torch.rand(len(lengths), most, device=lengths.device, generator=generator) * room).long()
        drawn = torch.arange(most, device=lengths.device) < counts
        place = torch.arange(columns, device=lengths.device)[None, :, None]
        into = place - starts[:, None, :]
        return ((into >= 0) & (into < self.span) & (place < lengths[:, None, None]) & drawn[:, None, :]).any(2)

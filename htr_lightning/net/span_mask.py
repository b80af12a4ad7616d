"""Masking of feature columns in training."""

import torch
from jaxtyping import Float, Int
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
        counts = (lengths * self.ratio / self.span).long()[:, None]
        most = int(x.shape[1] * self.ratio / self.span)
        room = (lengths[:, None] - self.span + 1).clamp(min=1)
        starts = (torch.rand(len(x), most, device=x.device) * room).long()
        drawn = torch.arange(most, device=x.device) < counts
        into = torch.arange(x.shape[1], device=x.device)[None, :, None] - starts[:, None, :]
        masked = ((into >= 0) & (into < self.span) & drawn[:, None, :]).any(2, keepdim=True)
        return x.masked_fill(masked, 0.0)

"""Metrics of a run: sums over lines, batches and ranks, divided once at the end, so that results depend on neither.

The error rates themselves are defined in edits.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from htr_lightning.metrics.edits import EditTotals, count_edits


class EditCounts(Metric):
    """Summed edit counts. It equals torchmetrics' `CharErrorRate` and `WordErrorRate` where those are defined; an empty
    reference is counted instead of giving NaN."""

    full_state_update = False
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(len(EditTotals._fields), dtype=torch.int64), dist_reduce_fx="sum")

    counts: Tensor

    def update(self, references: Sequence[str], hypotheses: Sequence[str]) -> None:
        """Add lines: `references[i]` against `hypotheses[i]`."""
        self.counts += torch.tensor(count_edits(references, hypotheses)).to(self.counts)

    def compute(self) -> EditTotals:
        return EditTotals(*self.counts.tolist())


class MeanLoss(Metric):
    """Summed losses divided by summed counts; NaN if nothing was counted."""

    full_state_update = False
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    total: Tensor
    count: Tensor

    def update(self, total: Tensor, count: int) -> None:
        """Add the summed loss of a batch and the number of characters or images that it covers."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        return self.total / self.count

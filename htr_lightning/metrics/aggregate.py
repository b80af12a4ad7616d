"""Run-level metrics that do not depend on the batch size or the number of ranks.

Totals are summed over lines, batches and ranks and divided once at the end. The error rates are defined in `edits.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from htr_lightning.metrics.edits import EditTotals, count_edits


class EditCounts(Metric):
    """A metric that sums edit counts.

    Its rates equal torchmetrics' `CharErrorRate` and `WordErrorRate` wherever these are defined; empty references are
    counted instead of producing NaN.
    """

    full_state_update = False
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(len(EditTotals._fields), dtype=torch.int64), dist_reduce_fx="sum")

    counts: Tensor

    def update(self, references: Sequence[str], hypotheses: Sequence[str]) -> None:
        """Add the edit counts of lines, comparing `references[i]` with `hypotheses[i]`."""
        self.counts += torch.tensor(count_edits(references, hypotheses)).to(self.counts)

    def compute(self) -> EditTotals:
        return EditTotals(*self.counts.tolist())


class MeanLoss(Metric):
    """The mean loss: summed losses divided by summed counts, or NaN if nothing was counted."""

    full_state_update = False
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    total: Tensor
    count: Tensor

    def update(self, total: Tensor, count: int) -> None:
        """Add the summed loss of a batch and the number of characters or images in the batch."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        return self.total / self.count

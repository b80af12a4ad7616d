"""The mean loss over a whole set."""

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanLoss(Metric):
    """Losses and counts summed over batches and ranks and divided once, at the end; NaN without any count."""

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

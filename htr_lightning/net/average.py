"""Several networks as one."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.net.view import View


class Average(nn.Module):
    """The mean posterior of some networks over some views of each line, as logits.

    Args:
        nets: each gives logits, of images or of frames with their lengths; the lengths are the same for all.
        places: of each net, where its classes stand among all; a class that a net has not is impossible for it.
        classes: how many there are.
        views: of each line.
    """

    def __init__(self, nets: Sequence[nn.Module], places: Sequence[Sequence[int]], classes: int, views: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.views = nn.ModuleList(View(number) for number in range(views))
        self.places, self.classes = [list(some) for some in places], classes

    def forward(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> Any:
        total, lengths = None, None
        for view in self.views:
            seen = view(images, widths)
            for net, places in zip(self.nets, self.places, strict=True):
                output = net(seen, widths)
                logits, lengths = output if isinstance(output, tuple) else (output, None)
                log_probs = logits.new_full((*logits.shape[:-1], self.classes), -torch.inf)
                log_probs[..., places] = logits.log_softmax(-1)
                total = log_probs if total is None else torch.logaddexp(total, log_probs)
        return total if lengths is None else (total, lengths)

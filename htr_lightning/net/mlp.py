"""A multilayer perceptron for single characters."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.parameters import BelowOne, Count, Positive, Score, Size


class MLP(nn.Module):
    """Fully connected layers applied to the pixels of a fixed-size image.

    Args:
        classes: number of classes.
        inputs: number of pixels per image (height times width).
        hidden: number of units in each hidden layer.
        mean: mean pixel value, subtracted from the input; 0.1307 for MNIST.
        std: standard deviation of the pixel values, by which the input is divided; 0.3081 for MNIST.
        dropout: dropout probability after each hidden layer.
        batch_norm: whether to apply batch norm before each ReLU (Ioffe and Szegedy, 2015, arXiv:1502.03167).
    """

    def __init__(
        self,
        classes: int,
        inputs: Count,
        hidden: Sequence[Size],
        mean: Score = 0.0,
        std: Positive = 1.0,
        dropout: BelowOne = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        layers: list[nn.Module] = []
        sizes = [inputs, *hidden]
        for size_in, size_out in pairwise(sizes):
            norm = [nn.BatchNorm1d(size_out)] if batch_norm else []
            layers += [nn.Linear(size_in, size_out), *norm, nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def forward(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Return the logits; `widths` is ignored, since images are not padded."""
        return self.layers((torch.flatten(images, 1) - self.mean) / self.std)

"""A multilayer perceptron for single characters."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


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
        inputs: int,
        hidden: Sequence[int],
        mean: float = 0.0,
        std: float = 1.0,
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        layers: list[nn.Module] = []
        for size_in, size_out in zip([inputs, *hidden[:-1]], hidden, strict=True):
            norm = [nn.BatchNorm1d(size_out)] if batch_norm else []
            layers += [nn.Linear(size_in, size_out), *norm, nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], classes))

    def forward(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Return the logits; `widths` is ignored, since images are not padded."""
        return self.layers((torch.flatten(images, 1) - self.mean) / self.std)

"""A small convolutional network for single characters."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.net.backbone import ResidualBackbone
from htr_lightning.parameters import BelowOne


class CNN(nn.Module):
    """A residual backbone, global average pooling (Lin et al., 2014, "Network in network") and a linear layer.

    Args:
        classes: number of classes.
        backbone: backbone that maps images and widths to features and their widths.
        dropout: dropout probability before the linear layer.
    """

    def __init__(self, classes: int, backbone: ResidualBackbone, dropout: BelowOne = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.channels, classes)

    def forward(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Return the logits; pooling covers all columns, since images are not padded."""
        features, _ = self.backbone(images, widths)
        return self.head(self.dropout(torch.mean(features, dim=(2, 3))))

"""Single-character recognition by classification."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.data.batch import Batch, moved
from htr_lightning.decoder.argmax import ArgMax
from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.errors import InputError
from htr_lightning.model.base import Exportable, Recognizer


class Classifier(Recognizer):
    """A classifier of single characters, trained with cross-entropy.

    The CER equals the error rate, so the accuracy is 1 - CER. The confidences of n-best alternatives are the class
    probabilities.

    Args:
        alphabet: classes, one per character.
        net: factory called with the number of classes; the network maps images and widths to logits of shape (B, C).
        distort: module that augments all images in a training batch at once, such as `Distort`; None for no
            augmentation.
        others: arguments of `Recognizer`.
    """

    single_characters = True

    def __init__(
        self,
        alphabet: Iterable[str],
        net: Callable[[int], nn.Module],
        distort: nn.Module | None = None,
        **others: Any,
    ) -> None:
        super().__init__(alphabet, ArgMax(), **others)
        self.distort = distort
        self.net = net(len(self.codec))

    def target(self, text: str, sample: str) -> list[int]:
        ids = super().target(text, sample)
        if len(ids) != 1:
            raise InputError(
                f"{sample}: '{text}' has {len(ids)} characters, but a classifier expects one; use model=crnn"
            )
        return ids

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        targets = [self.target(text, id)[0] for id, text in zip(batch.ids, batch.texts, strict=True)]
        images = batch.images if self.distort is None else self.distort(batch.images)
        logits = self.net(images, moved(batch.widths, images.device)).float()
        return functional.cross_entropy(logits, moved(torch.tensor(targets), logits.device))

    def summed_loss(self, output: Float[Tensor, "B C"], batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """Return the summed cross-entropy of the images whose character is a class, and the number of these images."""
        rows = [row for row, text in enumerate(batch.texts) if len(self.codec.known(text)) == len(text) == 1]
        targets = torch.tensor([self.codec.encode(batch.texts[row], batch.ids[row])[0] for row in rows])
        return functional.cross_entropy(output[rows], targets.to(output.device).long(), reduction="sum"), len(rows)

    def scores(self, output: Float[Tensor, "B C"]) -> tuple[Float[ndarray, "B C"]]:
        return (output.detach().softmax(1).cpu().numpy(),)

    def text(self, hypothesis: Hypothesis) -> str:
        return self.codec.decode(hypothesis.ids)

    def greedy(self) -> Recognizer:
        return self

    def exportable(self) -> Exportable:
        return Exportable(_Probabilities(self.net), ("probabilities",), "classes", None, self.specials, None)

    def required_frames(self, text: str) -> int:
        return len(text)

    def frames_for(self, width: int) -> int:
        return 1


class _Probabilities(nn.Module):
    """A network that returns class probabilities instead of logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> Float[Tensor, "B C"]:
        probabilities: Tensor = self.net(images, widths).softmax(1)
        return probabilities

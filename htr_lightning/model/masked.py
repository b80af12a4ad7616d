"""Pre-training from images alone."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.data.batch import Batch
from htr_lightning.errors import InputError
from htr_lightning.model.learner import Learner
from htr_lightning.net.backbone import column_mask, strided
from htr_lightning.net.span_mask import SpanMask

MASKED = 0.5  # grey: neither ink nor paper, so that what is masked can be told from what is empty
PROBE = 1024  # columns


class MaskedColumns(Learner):
    """A network that fills in image columns which it does not see, and so learns handwriting without texts (He et al.,
    2022, "Masked autoencoders are scalable vision learners", arXiv:2111.06377; for handwriting Souibgui et al., 2023,
    "Text-DIAE", arXiv:2203.04814).

    Spans are masked in the image and not in the features, since the features beside a span have seen it. The network is
    that of a recognizer: of each frame its head draws the pixels of the columns that the frame stands for, in place of
    the scores of characters; `start=` carries over all but the head. As in the autoencoder of He et al. the loss is the
    mean squared error of the masked pixels; those of a line in validation are always the same ones.

    Args:
        net: called with the count of pixels of a frame; maps images and widths to values "B T C" and lengths "B".
        mask_ratio: of the frames that spans are drawn for, see `SpanMask`; every line has at least one.
        mask_span: length of a span in frames.
        others: see `Learner`.
    """

    def __init__(
        self, net: Callable[[int], nn.Module], mask_ratio: float = 0.5, mask_span: int = 8, **others: Any
    ) -> None:
        super().__init__(**others)
        if not 0 < mask_ratio <= 1 or mask_span < 1:
            raise InputError(
                f"model.mask_ratio={mask_ratio} model.mask_span={mask_span}: give a share of the frames above 0 and a "
                "length of 1 or more, else nothing is masked"
            )
        self.height = self.preprocess(np.full((64, 64), 255, np.uint8)).shape[0]
        with torch.no_grad():
            probe = deepcopy(net(1)).eval()  # a copy, since two nets share a backbone that the config has made
            _, lengths = probe(torch.zeros(1, 1, self.height, PROBE), torch.tensor([PROBE]))
        self.stride = PROBE // int(lengths)  # columns a frame
        self.net = net(self.height * self.stride)
        if getattr(self.net, "shortcut", None) is not None:
            raise InputError("model.net.shortcut=true: a second head has nothing to learn here; set it to false")
        self.mask = SpanMask(mask_ratio, mask_span)
        self._metrics: dict[str, dict[str, Any]] = {}

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The loss of every split, as last measured, and the masked pixels that it is the mean of."""
        return self._metrics

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The mean squared error of the masked pixels of a batch."""
        frames = strided(batch.widths, self.stride)
        masked = self.mask.draw(frames, -(-batch.images.shape[-1] // self.stride), least=1)
        total, pixels = self.summed_loss(self.filled(batch.images, batch.widths, masked), batch.images, masked)
        return total / max(1, pixels)

    def filled(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"], masked: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T C"]:
        """What the network draws into every frame, column by column, where it does not see those that are masked."""
        columns = masked.repeat_interleave(self.stride, dim=1)[:, None, None, : images.shape[-1]]
        columns = columns & column_mask(widths, images.shape[-1])  # what is behind a line stays empty
        drawn, lengths = self.net(images.masked_fill(columns, MASKED), widths)
        if not torch.equal(lengths, strided(widths, self.stride)):
            raise InputError("model.net: its frames do not all have the same columns; use another backbone")
        return drawn

    def summed_loss(
        self, drawn: Float[Tensor, "B T C"], images: Float[Tensor, "B 1 H W"], masked: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""], int]:
        """The summed squared error of the masked pixels, and their count."""
        errors = (drawn.float() - frame_pixels(images, self.stride)).square()
        return (errors * masked[:, :, None]).sum(), int(masked.sum()) * drawn.shape[2]

    def fixed_mask(self, ids: list[str], widths: Int[Tensor, " B"], columns: int) -> Bool[Tensor, "B T"]:
        """The mask by which a line is validated: it depends on the line's id and width alone."""
        frames = strided(widths.cpu(), self.stride)
        masked = torch.zeros(len(ids), -(-columns // self.stride), dtype=torch.bool)
        for row, id, length in zip(masked, ids, frames, strict=True):
            generator = torch.Generator().manual_seed(crc32(id.encode("utf-8", "surrogatepass")))
            row[: int(length)] = self.mask.draw(length[None], int(length), generator, least=1)[0]
        return masked.to(widths.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        masked = self.fixed_mask(batch.ids, batch.widths, batch.images.shape[-1])
        with self.exact():
            images = batch.images.float()
            self.losses.update(*self.summed_loss(self.filled(images, batch.widths, masked), images, masked))

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        self.losses.reset()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, split: str) -> None:
        loss = self.losses.compute()  # summed over ranks already
        self._metrics[split] = {"loss": float(loss)}
        self.log(f"{split}/loss", loss, sync_dist=True)


def frame_pixels(images: Float[Tensor, "B 1 H W"], stride: int) -> Float[Tensor, "B T C"]:
    """The pixels of each frame's columns, column by column; paper behind the end."""
    padded = functional.pad(images[:, 0], (0, -images.shape[-1] % stride))
    return padded.transpose(1, 2).unflatten(1, (-1, stride)).flatten(2)

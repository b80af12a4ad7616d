"""A callback that shows transcribed lines: as a picture after each validation, and as a table after the test."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Interval
from jaxtyping import UInt8
from lightning import Callback, LightningModule, Trainer
from numpy import ndarray
from PIL import Image

from htr_lightning.metrics.confusions import confusions
from htr_lightning.metrics.edits import line_counts
from htr_lightning.output import beside, not_fatal
from htr_lightning.picture import confusion_sheet, to_grey, transcription_sheet
from htr_lightning.text.align import edits
from htr_lightning.training.logger.guard import send
from htr_lightning.training.module import TrainingModule
from htr_lightning.transcription import Prediction

T = TypeVar("T")
Lines = Annotated[int, Interval(ge=1, le=1000)]
Rows = Annotated[int, Interval(ge=0, le=1000)]

COLUMNS = ("id", "group", "line", "reference", "transcription", "edits", "CER", "confidence")


class TranscriptionTable(Callback):
    """A callback that shows lines with their references and transcriptions, in which the edits are coloured.

    A picture is saved to the run folder and sent to the loggers after each validation and after the test. After the
    test, the loggers that have tables are sent one of more lines, and a picture of the confusions is saved and sent.

    Args:
        folder: folder in which to save the pictures.
        lines: number of lines per picture, spread evenly over the batches.
        rows: number of lines in the table, spread in the same way; 0 for no table.
    """

    def __init__(self, folder: str, lines: Lines = 12, rows: Rows = 60) -> None:
        self.folder, self.lines, self.rows = Path(folder), lines, rows
        self._shown: list[tuple[Any, Prediction]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._shown = []

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if not trainer.is_global_zero:
            return
        batches = int(sum(trainer.num_test_batches if trainer.testing else trainer.num_val_batches))
        lines = max(self.lines, self.rows) if trainer.testing else self.lines
        wanted = (batch_idx + 1) * lines // batches - batch_idx * lines // batches
        if batches < lines:  # more than needed, since later batches may be small
            wanted = lines
        for row in _spread(range(len(outputs)), wanted):
            ink = batch.images[row, 0, :, : int(batch.widths[row])].float().cpu().numpy()
            self._shown.append((to_grey(ink), outputs[row]))
        if batch_idx == batches - 1:
            self._shown = _spread(self._shown, lines)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking or not self._shown:
            return
        split = "test" if trainer.testing else "val"
        name = split if trainer.testing else f"{split}_step_{trainer.global_step:06d}"
        self._show(trainer, f"{split}/transcriptions", name, _sheet(_spread(self._shown, self.lines)))
        if trainer.testing and self.rows:
            rows = [_row(*one) for one in _spread(self._shown, self.rows)]
            send(trainer, "log_table", "test/lines", COLUMNS, rows, trainer.global_step)

    on_test_epoch_end = on_validation_epoch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the confusions, when the lines of all ranks are known."""
        assert isinstance(pl_module, TrainingModule)
        if not trainer.is_global_zero:
            return
        found = confusions(Counter(edit for one in pl_module.tested for edit in edits(one.reference, one.hypothesis)))
        if found.references:
            self._show(trainer, "test/confusions", "confusions", confusion_sheet(found))

    def _show(self, trainer: Trainer, key: str, name: str, picture: UInt8[ndarray, "H W 3"]) -> None:
        """Save a picture and send it to the loggers."""
        path = self.folder / f"{name}.png"
        with not_fatal(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with beside(path) as new:
                Image.fromarray(picture).save(new, "PNG")
        send(trainer, "log_image", key, [picture], trainer.global_step)


def _sheet(shown: Sequence[tuple[Any, Prediction]], width: int = 1000) -> UInt8[ndarray, "H W 3"]:
    images, read = zip(*shown, strict=True)
    return transcription_sheet(images, [p.reference for p in read], [p.hypothesis for p in read], width)


def _row(image: UInt8[ndarray, "_ _"], read: Prediction) -> list[Any]:
    """Return the row of a line in the table, with a picture that shows its edits."""
    counts = line_counts(read.reference, read.hypothesis)
    width = 96 if len(read.reference) == 1 else 800  # of a cell in a grid of characters
    picture = _sheet([(image, read)], width)
    return [read.id, read.group, picture, read.reference, read.hypothesis, counts.edits, counts.cer, read.confidence]


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, spread evenly over the sequence."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]

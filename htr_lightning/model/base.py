"""What every recognizer shares: steps, metrics, optimizer, and reading images."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from htr_lightning.data.batch import Batch, collate
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.decoder.ctc import Hypothesis
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import PlattScaling
from htr_lightning.metrics.edits import EditCounts, EditTotals
from htr_lightning.model.learner import Learner
from htr_lightning.optim import rates_by_depth
from htr_lightning.text.codec import Codec
from htr_lightning.text.normalize import Normalizer
from htr_lightning.transcription import Alternative, Prediction, Transcription, from_alternatives, postprocess


def readings(
    decoder: Any,
    given: Sequence[Any],
    alternatives: int,
    read: Callable[[Hypothesis], tuple[str, float]],
    normalizer: Normalizer,
) -> list[Transcription]:
    """What a decoder finds in each line, and the other readings that it is asked for, equal texts once.

    Args:
        decoder: gives a hypothesis a line, and by `n_best` several.
        given: what it is called with.
        alternatives: how many; 0 for the best alone.
        read: gives the text of a hypothesis and its confidence.
        normalizer: of the texts of alternatives; the best alone is left to `Recognizer.postprocess`.
    """
    if not alternatives:
        return [Transcription(*read(one)) for one in decoder(*given)]
    several = [[(*read(one), one.score) for one in some] for some in decoder.n_best(*given, alternatives)]
    return [from_alternatives(Alternative(normalizer(text), *rest) for text, *rest in some) for some in several]


class Recognizer(Learner, ABC):
    """A network with its codec, normaliser and preprocessing; subclasses give the loss and the reading.

    Reading is always done in float32, whatever the training precision, and a line's text does not depend on the batch
    it is in: validation, test, `htr evaluate` and `htr transcribe` give the same text.

    Args:
        alphabet: the characters it can read.
        normalizer, preprocess, optimizer, scheduler: see `Learner`; without an optimizer it only reads.
        layer_decay: of the learning rate from each layer to the one before it, see `rates_by_depth`; 1 is one for all.
        unknown: training characters outside the alphabet: "error", or "skip" to learn the text without them.
    """

    figures = ("cer", "wer", "line_accuracy", "loss")
    specials: Sequence[str] = ()

    def __init__(
        self,
        alphabet: Iterable[str],
        normalizer: Normalizer,
        preprocess: Preprocess,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        layer_decay: float = 1.0,
        unknown: str = "error",
    ) -> None:
        super().__init__(normalizer, preprocess, optimizer, scheduler)
        if unknown not in ("error", "skip"):
            raise InputError(f"model.unknown={unknown}: use error or skip")
        self.codec = Codec(alphabet, self.specials)
        self.layer_decay, self.unknown = layer_decay, unknown
        self.calibration = PlattScaling()  # of the confidences
        self.counts = EditCounts()
        self.totals: dict[str, EditTotals] = {}  # by split, as last measured

    @property
    def alphabet(self) -> list[str]:
        """The characters that it reads."""
        return self.codec.alphabet

    @property
    def outputs(self) -> int:
        """Labels that its network gives scores to."""
        return len(self.codec)

    def parameter_groups(self) -> Any:
        if self.layer_decay == 1:
            return self.parameters()
        return rates_by_depth(self.net, self.outputs, self.layer_decay)

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The counts and rates of every split, as last measured."""
        return {split: {**its._asdict(), "cer": its.cer, "wer": its.wer} for split, its in self.totals.items()}

    @abstractmethod
    def summed_loss(self, output: Any, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """The validation loss of the network's output in nats, and the count that it is divided by in the end.

        Characters outside the alphabet, and lines that have no loss for want of frames or of a known character, are
        left out of both; the CER counts them.
        """

    @abstractmethod
    def decode(self, output: Any) -> list[Transcription]:
        """The text in the network's output."""

    def set_greedy(self) -> None:
        """Read by the likeliest label each time, whatever decoder there is."""

    def transcribe(self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"]) -> list[Transcription]:
        """The text of preprocessed images."""
        return self.decode(self.net(images, widths))

    def read(self, images: Sequence[UInt8[ndarray, "_ _"]]) -> list[Transcription]:
        """The text of raw images, as one batch.

        Raises:
            ValueError: an image is too small or too wide to be a line.
        """
        if not images:
            return []
        batch, widths = self.prepare_batch(images)
        with self.exact():
            return self.postprocess(self.transcribe(batch, widths))

    def prepare_batch(
        self, images: Sequence[UInt8[ndarray, "_ _"]]
    ) -> tuple[Float[Tensor, "B 1 H W"], Int[Tensor, " B"]]:
        """Raw images as `transcribe` takes them.

        Raises:
            ValueError: an image is too small or too wide to be a line.
        """
        arrays = [self.preprocess(image) for image in images]
        none = [""] * len(images)
        batch = collate(none, arrays, none, none)
        return batch.images.to(self.device), batch.widths.to(self.device)

    def postprocess(self, read: Sequence[Transcription]) -> list[Transcription]:
        """What was decoded, with normalised texts and calibrated confidences."""
        return [postprocess(one, self.normalizer, self.calibration) for one in read]

    def predict(self, batch: Batch) -> list[Prediction]:
        """Transcriptions of a batch beside their references, in evaluation mode and float32."""
        return self._predictions(self._output(batch), batch)

    def target(self, text: str, sample: str) -> list[int]:
        """Label ids of a training text.

        Raises:
            InputError: a character is not in the alphabet and `unknown` is "error".
        """
        return self.codec.encode(self.codec.known(text) if self.unknown == "skip" else text, sample)

    def check_targets(self, ids: Sequence[str], texts: Sequence[str]) -> Counter[str]:
        """See `Learner`."""
        for sample, text in zip(ids, texts, strict=True):
            self.target(text, sample)
        known = set(self.codec.alphabet)
        return Counter(character for text in texts for character in text if character not in known)

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        output = self._output(batch)
        with self.exact():
            self.losses.update(*self.summed_loss(output, batch))
        return self._count(self._predictions(output, batch))

    def test_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        return self._count(self.predict(batch))

    def on_validation_epoch_start(self) -> None:
        self.counts.reset()
        self.losses.reset()

    def on_test_epoch_start(self) -> None:
        self.counts.reset()

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.losses.compute(), sync_dist=True)  # summed over ranks already, as the counts are
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _output(self, batch: Batch) -> Any:
        with self.exact():
            return self.net(batch.images.float(), batch.widths)

    def _predictions(self, output: Any, batch: Batch) -> list[Prediction]:
        with self.exact():
            read = self.postprocess(self.decode(output))
        return [
            Prediction(id, reference, one.text, one.confidence, group)
            for id, reference, one, group in zip(batch.ids, batch.texts, read, batch.groups, strict=True)
        ]

    def _count(self, predictions: list[Prediction]) -> list[Prediction]:
        self.counts.update([p.reference for p in predictions], [p.hypothesis for p in predictions])
        return predictions

    def _report(self, split: str) -> None:
        totals = self.counts.compute()
        self.totals[split] = totals
        rates = {f"{split}/cer": totals.cer, f"{split}/wer": totals.wer, f"{split}/line_accuracy": totals.line_accuracy}
        self.log_dict(rates, sync_dist=True)  # the same on every rank: the counts are summed already

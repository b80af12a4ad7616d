"""What every recognizer shares: steps, metrics, optimizer, and reading images."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from lightning import LightningModule
from numpy import ndarray
from torch import Tensor, nn

from htr_lightning.data.batch import Batch, collate
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.errors import InputError
from htr_lightning.metrics.edits import EditCounts, EditTotals
from htr_lightning.metrics.loss import MeanLoss
from htr_lightning.optim import progress, rates_by_depth
from htr_lightning.text.codec import Codec
from htr_lightning.text.normalize import Normalizer


class Alternative(NamedTuple):
    """One of several readings of an image; the best has the highest score, a natural logarithm."""

    text: str
    confidence: float
    score: float


class Transcription(NamedTuple):
    """What a recognizer reads in one image; the confidence is a probability per character."""

    text: str
    confidence: float
    alternatives: tuple[Alternative, ...] = ()  # the best first, where they were asked for


class Prediction(NamedTuple):
    """A transcription beside its reference."""

    id: str
    reference: str
    hypothesis: str
    confidence: float
    group: str


class Recognizer(LightningModule, ABC):
    """A network with its codec, normaliser and preprocessing; subclasses give the loss and the reading.

    Reading is always done in float32, whatever the training precision, and a line's text does not depend on the batch
    it is in: validation, test, `htr evaluate` and `htr transcribe` give the same text.

    Args:
        alphabet: the characters it can read.
        normalizer: brings references into the form that is learned and compared.
        preprocess: brings images into the form that the network sees.
        optimizer: called with the parameters; None for a recognizer that only reads.
        scheduler: called with the optimizer and `progress`, a function that gives the share of the run that is done;
            gives a scheduler that is asked at every step, or Lightning's description of another one.
        layer_decay: of the learning rate from each layer to the one before it, see `rates_by_depth`; 1 is one for all.
        unknown: training characters outside the alphabet: "error", or "skip" to learn the text without them.
    """

    specials: Sequence[str] = ()
    net: nn.Module

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
        super().__init__()
        if unknown not in ("error", "skip"):
            raise InputError(f"model.unknown={unknown}: use error or skip")
        self.codec = Codec(alphabet, self.specials)
        self.normalizer, self.preprocess = normalizer, preprocess
        self.optimizer, self.scheduler = optimizer, scheduler
        self.layer_decay, self.unknown = layer_decay, unknown
        self.card: dict[str, Any] = {}  # what the checkpoint tells of itself, plain data
        self.counts, self.losses = EditCounts(), MeanLoss()
        self.totals: dict[str, EditTotals] = {}  # by split, as last measured

    @abstractmethod
    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The training loss of a batch."""

    @abstractmethod
    def summed_loss(self, output: Any, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """The validation loss of the network's output in nats, and the count that it is divided by in the end.

        Characters outside the alphabet, and lines that have no loss for want of frames or of a known character, are
        left out of both; the CER counts them.
        """

    @abstractmethod
    def decode(self, output: Any) -> list[Transcription]:
        """The text in the network's output."""

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
        ink = [self.preprocess(image) for image in images]
        batch = collate([""] * len(ink), ink, [""] * len(ink), [""] * len(ink)).images.to(self.device)
        widths = torch.tensor([image.shape[-1] for image in ink], device=self.device)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            read = self.transcribe(batch, widths)
        return [one._replace(text=self.normalizer(one.text)) for one in read]

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
        """Refuse training texts that cannot be learned, before any time is spent.

        Returns:
            How often each character is left out, with `unknown="skip"`.

        Raises:
            InputError: a text cannot be learned; it is named by its id.
        """
        for sample, text in zip(ids, texts, strict=True):
            self.target(text, sample)
        known = set(self.codec.alphabet)
        return Counter(character for text in texts for character in text if character not in known)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        output = self._output(batch)
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

    def configure_optimizers(self) -> Any:
        if self.optimizer is None:
            raise InputError("this recognizer was built without an optimizer; it reads but cannot be trained")
        if any(p.dtype != torch.float32 for p in self.parameters()):
            raise InputError(
                f"trainer.precision={self.trainer.precision}: weights stay float32; use bf16-mixed or 16-mixed"
            )
        if self.layer_decay == 1:
            optimizer = self.optimizer(self.parameters())
        else:
            optimizer = self.optimizer(rates_by_depth(self.net, len(self.codec), self.layer_decay))
            for group in optimizer.param_groups:
                group["lr"] *= group["share"]  # before a scheduler takes it for its peak
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer, progress=lambda: progress(self.trainer))
        described = scheduler if isinstance(scheduler, dict) else {"scheduler": scheduler, "interval": "step"}
        if "monitor" in described and self.trainer.check_val_every_n_epoch != 1:
            raise InputError(
                f"scheduler: it follows {described['monitor']} from epoch to epoch; validate once in each: "
                "trainer.check_val_every_n_epoch=1 trainer.val_check_interval=1.0"
            )
        return {"optimizer": optimizer, "lr_scheduler": described}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        metrics = {split: {**totals._asdict(), "cer": totals.cer, "wer": totals.wer}
                   for split, totals in self.totals.items()}  # fmt: skip
        checkpoint["htr"] = {**self.card, "metrics": metrics}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own, loaded = self.state_dict(), checkpoint["state_dict"]
        shapes = [{name: weight.shape for name, weight in state.items()} for state in (own, loaded)]
        if checkpoint["htr"]["alphabet"] != self.codec.alphabet or shapes[0] != shapes[1]:
            raise InputError(
                "resume: the checkpoint has another alphabet or network; give the overrides of its run, which stand in "
                "its .hydra/overrides.yaml"
            )

    def _output(self, batch: Batch) -> Any:
        with torch.inference_mode(), torch.autocast(batch.images.device.type, enabled=False):
            return self.net(batch.images.float(), batch.widths)

    def _predictions(self, output: Any, batch: Batch) -> list[Prediction]:
        with torch.inference_mode():
            read = self.decode(output)
        return [
            Prediction(id, reference, self.normalizer(one.text), one.confidence, group)
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

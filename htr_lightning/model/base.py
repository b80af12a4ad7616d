"""What every recognizer shares: training and validation steps, metrics, optimizer, checkpoint, and reading images."""

import copy
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from lightning import LightningModule
from numpy import ndarray
from torch import Tensor, nn

from htr_lightning.data.batch import Batch, collate
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.decoder.hypothesis import Decoder, Hypothesis
from htr_lightning.decoder.language import Language
from htr_lightning.errors import InputError
from htr_lightning.metrics.aggregate import EditCounts, MeanLoss
from htr_lightning.metrics.calibration import PlattScaling
from htr_lightning.metrics.edits import EditTotals
from htr_lightning.model.optimization import check_fused, check_monitors, clip_gradients, configure_optimizers
from htr_lightning.model.workers import workers
from htr_lightning.text.codec import Codec
from htr_lightning.text.normalize import Normalizer
from htr_lightning.transcription import Prediction, Read, Transcription, transcriptions


class Recognizer(LightningModule, ABC):
    """A network with its codec, normaliser, preprocessing and decoder; subclasses provide the loss and its scores.

    Reading is always done in float32, whatever the training precision, and the text of a line does not depend on its
    batch: validation, test, `htr evaluate` and `htr transcribe` give the same text. A recognizer is set up by its
    arguments; what reads otherwise is another one, see `greedy` and `with_language`, which shares its weights.

    Args:
        alphabet: the characters it can read.
        decoder: turns `scores` into hypotheses.
        normalizer: brings references into the form that is learned and compared.
        preprocess: brings images into the form that the network sees.
        optimizer: called with the parameters; None for a recognizer that only reads.
        scheduler: called with the optimizer and `progress`, a function that gives the completed fraction of the run;
            gives a scheduler that is stepped at every step, or Lightning's description of another one.
        layer_decay: of the learning rate from each layer to the one before it, see `rates_by_depth`; 1 is one for all.
        unknown: training characters outside the alphabet: "error", or "skip" to learn the text without them.

    Attributes:
        card: what the checkpoint says about itself, plain data.
        parts: plain data that it is built from besides config and alphabet.
        calibration: of the confidences.
        single_characters: whether it reads one character per image rather than a line.
    """

    specials: Sequence[str] = ()
    single_characters: bool = False
    net: nn.Module

    def __init__(
        self,
        alphabet: Iterable[str],
        decoder: Decoder,
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
        self.decoder = decoder
        self.normalizer, self.preprocess = normalizer, preprocess
        self.optimizer, self.scheduler, self.layer_decay = optimizer, scheduler, layer_decay
        self.unknown = unknown
        self.card: dict[str, Any] = {}
        self.parts: dict[str, Any] = {}
        self.calibration = PlattScaling()
        self.losses, self.counts = MeanLoss(), EditCounts()
        self.totals: dict[str, EditTotals] = {}  # by split, as last measured

    # ---- what a kind of recognizer provides

    @abstractmethod
    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The training loss of a batch."""

    @abstractmethod
    def summed_loss(self, output: Any, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """The validation loss of the network's output in nats, and the count that it is eventually divided by.

        Characters outside the alphabet, and lines that have no loss for lack of frames or of a known character, are
        excluded from both; the CER counts them.
        """

    @abstractmethod
    def scores(self, output: Any) -> tuple[Any, ...]:
        """The arguments of the decoder, from the network's output."""

    @abstractmethod
    def text(self, hypothesis: Hypothesis) -> str:
        """The text of a hypothesis, in logical order."""

    @abstractmethod
    def greedy(self) -> "Recognizer":
        """A recognizer of the same weights that takes the most likely label each time."""

    def interpret(self, hypothesis: Hypothesis) -> tuple[str, float]:
        """The text of a hypothesis and its confidence per character, before calibration."""
        return self.text(hypothesis), hypothesis.confidence

    def beam(self) -> tuple[str, dict[str, int]]:
        """The option of conf/decoder that searches its scores with a language model, and the keys that training fixed.

        Raises:
            InputError: its labels are not the characters of a line.
        """
        raise InputError(
            f"a {type(self).__name__} uses no language model, since its labels are not the characters of a line; "
            "use a model such as crnn or trocr"
        )

    def with_language(self, language: Language) -> "Recognizer":
        """A recognizer of the same weights whose decoder uses a language model, a lexicon, or both; of texts in visual
        order.

        Raises:
            InputError: see `beam`.
        """
        self.beam()
        return self.with_decoder(self.decoder.with_automaton(language.automaton(self.codec.alphabet)))

    def with_candidates(self) -> "Recognizer":
        """A recognizer of the same weights that finds several hypotheses with their posteriors, if it can."""
        return self

    def visual(self, text: str) -> str:
        """A text in the order of its labels, from left to right in the image."""
        return text

    def required_frames(self, text: str) -> int:
        """Frames of the network that a text needs; 0 if their number sets no limit."""
        return 0

    def frames_for(self, width: int) -> int:
        """Frames that the network gives for an image of this many columns."""
        return 0

    # ---- reading

    @property
    def alphabet(self) -> list[str]:
        """The characters that it reads."""
        return self.codec.alphabet

    @property
    def num_classes(self) -> int:
        """Labels that its network scores."""
        return len(self.codec)

    @property
    def members(self) -> Sequence["Recognizer"]:
        """See `Transcriber`."""
        return (self,)

    def with_decoder(self, decoder: Decoder) -> "Recognizer":
        """A recognizer of the same weights with another decoder; its confidences are not calibrated, if the decoder is
        of another kind."""
        other = copy.copy(self)
        other.decoder = decoder
        if type(decoder) is not type(self.decoder):
            other.calibration = PlattScaling()
        return other

    def read(self, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0) -> list[Transcription]:
        """See `Transcriber`."""
        return self.transcribe(*self.prepare_batch(images), n_best) if images else []

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

    def transcribe(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"], n_best: int = 0
    ) -> list[Transcription]:
        """The text of preprocessed images; see `Transcriber.read`."""
        with self.exact():
            return self.decode(self.net(images, widths), n_best)

    def decode(self, output: Any, n_best: int = 0) -> list[Transcription]:
        """The text in the network's output; see `Transcriber.read`."""
        scores = self.scores(output)
        return transcriptions(self.decoder, scores, n_best, self.interpret, self.normalizer, self.calibration)

    def predict(self, batch: Batch) -> list[Prediction]:
        """Transcriptions of a batch beside their references, in evaluation mode and float32."""
        return self._predictions(self._output(batch), batch)

    def workers(self) -> AbstractContextManager[Sequence[Read]]:
        """See `Transcriber`."""
        return workers(self)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Inference in float32, whatever the training precision."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            yield

    # ---- targets

    def target(self, text: str, sample: str) -> list[int]:
        """Label ids of a training text.

        Raises:
            InputError: a character is not in the alphabet and `unknown` is "error".
        """
        return self.codec.encode(self.codec.known(text) if self.unknown == "skip" else text, sample)

    def check_targets(self, ids: Sequence[str], texts: Sequence[str]) -> Counter[str]:
        """Refuse training texts that cannot be learned, before any time is spent.

        Returns:
            How often each character is skipped, with `unknown="skip"`.

        Raises:
            InputError: a text cannot be learned; it is named by its id.
        """
        for sample, text in zip(ids, texts, strict=True):
            self.target(text, sample)
        known = set(self.codec.alphabet)
        return Counter(character for text in texts for character in text if character not in known)

    # ---- training, validation and test, as Lightning calls them

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The counts and rates of every split, as last measured."""
        return {split: {**its._asdict(), "cer": its.cer, "wer": its.wer} for split, its in self.totals.items()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override] # to callbacks
        output = self._output(batch)
        with self.exact():
            self.losses.update(*self.summed_loss(output, batch))
        return self._count(self._predictions(output, batch))

    def test_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override] # to callbacks
        return self._count(self.predict(batch))

    def on_validation_epoch_start(self) -> None:
        self.counts.reset()
        self.losses.reset()

    def on_test_epoch_start(self) -> None:
        self.counts.reset()

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.losses.compute(), sync_dist=True)  # already summed over ranks, like the counts
        self._report("val")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def on_fit_start(self) -> None:
        check_monitors(self.trainer, ("cer", "wer", "line_accuracy", "loss"))

    def configure_optimizers(self) -> Any:
        return configure_optimizers(self)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_start(self) -> None:
        check_fused(self.optimizers(use_pl_optimizer=False))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["htr"] = {**self.card, "metrics": self.metrics}
        if self.parts:
            checkpoint["parts"] = self.parts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own, loaded = self.state_dict(), checkpoint["state_dict"]
        shapes = [{name: weight.shape for name, weight in state.items()} for state in (own, loaded)]
        if checkpoint["htr"]["alphabet"] != self.alphabet or shapes[0] != shapes[1]:
            raise InputError(
                "resume: the checkpoint has another alphabet or network; repeat the overrides of its run, which are in "
                "its .hydra/overrides.yaml"
            )

    def _output(self, batch: Batch) -> Any:
        with self.exact():
            return self.net(batch.images.float(), batch.widths)

    def _predictions(self, output: Any, batch: Batch) -> list[Prediction]:
        with self.exact():
            read = self.decode(output)
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
        self.log_dict(rates, sync_dist=True)  # the same on every rank: the counts are already summed

"""The base class of all recognizers. `training.module` adds what Lightning needs to train them."""

import copy
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Interval
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor, nn

from htr_lightning.characters import Character, Placed, locate_all, place
from htr_lightning.data.batch import Batch, moved
from htr_lightning.data.padding import padded
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.decoder.hypothesis import Decoder, Hypothesis
from htr_lightning.decoder.language import Language
from htr_lightning.errors import InputError
from htr_lightning.metrics.calibration import Calibration
from htr_lightning.model.workers import workers
from htr_lightning.text.codec import Codec
from htr_lightning.text.normalize import Normalizer
from htr_lightning.transcription import (
    Interpreted,
    Prediction,
    Read,
    Transcription,
    of_labels,
    prediction,
    transcriptions,
    with_boxes,
)

Decay = Annotated[float, Interval(gt=0, le=1)]


class TooFew(NamedTuple):
    """The number of frames that the text of a line requires, and the smaller number that the network outputs."""

    required: int
    frames: int


class Exportable(NamedTuple):
    """What an exported recognizer computes, and how its output becomes text."""

    net: nn.Module  # maps images and widths to the arguments of the decoder
    outputs: Sequence[str]  # their names
    inputs: str  # what they are; see `Decoder.inputs`
    decoder: dict[str, Any] | None  # config of the decoder; None for the only one of its kind
    specials: Sequence[str]  # labels before those of the alphabet
    direction: str | None  # base direction of lines; None for single characters
    steps: "ExportableSteps | None" = None  # how an autoregressive model continues from the output of `net`


class ExportableSteps(NamedTuple):
    """The networks that an exported autoregressive recognizer runs for each line."""

    begin: nn.Module  # maps the memory of a line without padding, of shape (1, S, M), to the state before its text
    step: nn.Module  # maps tokens, the number of labels that may follow them, and the state of each row to
    # log-probabilities of the next token and a new state; see `decoder.autoregressive.Steps`


def use_tf32(allowed: bool) -> None:
    """Choose whether float32 products on NVIDIA GPUs may be rounded to 10 bits (TensorFloat-32), as training allows.

    The choice is that of the process. It is not reversed after reading, because other threads may be reading.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


class Recognizer(nn.Module, ABC):
    """A network with its codec, normalizer, preprocessing and decoder; subclasses define the loss and the scores.

    Inference always runs in float32, whatever the training precision, and the text of a line does not depend on the
    other lines in its batch, so validation, test, `htr evaluate` and `htr transcribe` all return the same text. A
    recognizer is configured by its arguments and not modified afterwards; `greedy` and `with_language` return new
    recognizers that share its weights.

    Args:
        alphabet: characters that the recognizer can output.
        decoder: decoder that turns `scores` into hypotheses.
        normalizer: normalizer for references and transcriptions.
        preprocess: preprocessing that turns images into network inputs.
        optimizer: factory called with the parameters; None for inference only.
        scheduler: factory that returns a scheduler to step after each batch, or a Lightning scheduler config; called
            with the optimizer and `progress`, a function that returns the completed fraction of the run.
        layer_decay: factor between the learning rates of adjacent layers (see `rates_by_depth`); 1 for a single rate.
        unknown: treatment of training characters outside the alphabet; "error", or "skip" to train without them.

    Attributes:
        card: metadata of the checkpoint, as plain data.
        parts: plain data needed to rebuild the recognizer, in addition to its config and alphabet.
        calibration: calibration of the confidences.
        infeasible: training lines that are left out of the loss because they have too few frames for their text, by id.
        short: lines of an autoregressive model that have fewer frames than characters, by id.
        teacher: loss of imitating another recognizer (see `training.distillation`); None to train with texts only.
        single_characters: whether each image contains a single character rather than a line.
        direction: base direction of lines (see `text.direction`).
    """

    specials: Sequence[str] = ()
    single_characters: bool = False
    direction: str = "auto"
    net: nn.Module

    def __init__(
        self,
        alphabet: Iterable[str],
        decoder: Decoder,
        normalizer: Normalizer,
        preprocess: Preprocess,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        layer_decay: Decay = 1.0,
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
        self.calibration = Calibration()
        self.infeasible: dict[str, TooFew] = {}
        self.short: dict[str, TooFew] = {}
        self.teacher: Callable[..., Float[Tensor, ""]] | None = None

    # ---- to be defined by subclasses

    @abstractmethod
    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Return the training loss of a batch."""

    def units(self, batch: Batch) -> int:
        """Return the number of labels over which `loss` is averaged, so that losses of batches can be combined."""
        return sum(len(self.target(text, id)) for id, text in zip(batch.ids, batch.texts, strict=True))

    @abstractmethod
    def summed_loss(self, output: Any, batch: Batch) -> tuple[Float[Tensor, ""], int]:
        """Return the summed validation loss in nats, and the number of units it is summed over.

        Characters outside the alphabet, and lines whose loss is undefined (because they have too few frames or no known
        character), are excluded from both; the CER includes them.
        """

    @abstractmethod
    def scores(self, output: Any) -> tuple[Any, ...]:
        """Return the decoder's arguments for the network's output."""

    @abstractmethod
    def text(self, hypothesis: Hypothesis) -> str:
        """Return the text of a hypothesis, in logical order."""

    @abstractmethod
    def greedy(self) -> "Recognizer":
        """Return a recognizer with the same weights that always takes the most likely label."""

    def interpret(self, hypothesis: Hypothesis) -> Interpreted:
        """Return the text of a hypothesis and its uncalibrated confidences."""
        return of_labels(self.text(hypothesis), hypothesis)

    @abstractmethod
    def exportable(self) -> Exportable:
        """Return what an exported recognizer computes.

        Raises:
            InputError: if recognizers of this kind cannot be exported.
        """

    def beam(self) -> tuple[str, dict[str, int]]:
        """Return the name of this model's beam search config in conf/decoder, and the settings fixed by training.

        Raises:
            InputError: if the labels of the model are not the characters of a line.
        """
        raise InputError(
            f"{type(self).__name__} cannot use a language model, since its labels are not the characters of a line; "
            "use a model such as crnn or trocr"
        )

    def with_language(self, language: Language) -> "Recognizer":
        """Return a recognizer with the same weights whose decoder uses a language model, a lexicon, or both.

        Args:
            language: language model or lexicon for text in visual order.

        Raises:
            InputError: if the labels of the model are not the characters of a line.
        """
        self.beam()
        return self.with_decoder(self.decoder.with_automaton(language.automaton(self.codec.alphabet)))

    def with_candidates(self) -> "Recognizer":
        """Return a recognizer with the same weights that finds several hypotheses with posteriors, if possible."""
        return self

    def visual(self, text: str) -> str:
        """Return a text in visual order: the order of its labels, from left to right in the image."""
        return text

    def required_frames(self, text: str) -> int:
        """Return the minimum number of frames that a text requires; 0 if the model has no minimum."""
        return 0

    def frames_for(self, width: int) -> int:
        """Return the number of frames that the network outputs for an image with the given number of columns."""
        return 0

    # ---- inference

    @property
    def alphabet(self) -> list[str]:
        """The characters that the recognizer can output."""
        return self.codec.alphabet

    @property
    def num_classes(self) -> int:
        """The number of labels that the network scores."""
        return len(self.codec)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def members(self) -> Sequence["Recognizer"]:
        """See `Transcriber`."""
        return (self,)

    def with_decoder(self, decoder: Decoder) -> "Recognizer":
        """Return a recognizer with the same weights and a different decoder.

        The new recognizer's confidences are uncalibrated if the decoder is of a different class.
        """
        other = copy.copy(self)
        other.decoder = decoder
        if type(decoder) is not type(self.decoder):
            other.calibration = Calibration()
        return other

    @property
    def aligns(self) -> bool:
        """See `Transcriber`; only CTC models do."""
        return self.decoder.inputs == "frames"

    def read(
        self, images: Sequence[UInt8[ndarray, "_ _"]], n_best: int = 0, boxes: bool = False
    ) -> list[Transcription]:
        """See `Transcriber`."""
        if not images:
            return []
        if not boxes or not self.aligns:
            return self.transcribe(*self.prepare_batch(images), n_best)
        lines = place(self.preprocess, images)
        scores, inked = self._frames(lines), [bool(line.array.any()) for line in lines]
        found = transcriptions(self.decoder, scores, inked, n_best, self.interpret, self.normalizer, self.calibration)
        return with_boxes(found, self._locate([one.text for one in found], scores, lines))

    def align(self, images: Sequence[UInt8[ndarray, "_ _"]], texts: Sequence[str]) -> list[tuple[Character, ...]]:
        """See `Transcriber`."""
        if not images or not self.aligns:
            return [()] * len(images)
        lines = place(self.preprocess, images)
        return self._locate(texts, self._frames(lines), lines)

    def prepare_batch(
        self, images: Sequence[UInt8[ndarray, "_ _"]]
    ) -> tuple[Float[Tensor, "B 1 H W"], Int[Tensor, " B"]]:
        """Preprocess raw images into a batch for `transcribe`.

        Raises:
            ValueError: if an image is too small or too wide to be a line.
        """
        arrays, widths = padded([self.preprocess(image) for image in images])
        return torch.from_numpy(arrays).to(self.device), torch.from_numpy(widths).to(self.device)

    def transcribe(
        self, images: Float[Tensor, "B 1 H W"], widths: Int[Tensor, " B"], n_best: int = 0
    ) -> list[Transcription]:
        """Transcribe preprocessed images; see `Transcriber.read`."""
        with self.exact():
            return self.decode(self.net(images, widths), images, n_best)

    def decode(self, output: Any, images: Tensor, n_best: int = 0) -> list[Transcription]:
        """Decode the network's output for a batch of images; see `Transcriber.read`."""
        scores, inked = self.scores(output), images.flatten(1).any(1).tolist()
        return transcriptions(self.decoder, scores, inked, n_best, self.interpret, self.normalizer, self.calibration)

    def predict(self, batch: Batch) -> list[Prediction]:
        """Transcribe a batch in float32 and pair each result with its reference; requires evaluation mode."""
        return self._predictions(self._output(batch), batch)

    def validate(self, batch: Batch) -> tuple[Float[Tensor, ""], int, list[Prediction]]:
        """Transcribe a batch like `predict`, and compute its loss like `summed_loss`."""
        output = self._output(batch)
        with self.exact():
            total, count = self.summed_loss(output, batch)
        return total, count, self._predictions(output, batch)

    def workers(self) -> AbstractContextManager[Sequence[Read]]:
        """See `Transcriber`."""
        return workers(self)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Run inference in float32, whatever the training precision."""
        if self.device.type == "cuda":
            use_tf32(False)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            yield

    # ---- targets

    def target(self, text: str, sample: str) -> list[int]:
        """Return the label ids of a training text.

        Raises:
            InputError: if a character is not in the alphabet and `unknown` is "error".
        """
        return self.codec.encode(self.codec.known(text) if self.unknown == "skip" else text, sample)

    def check_targets(self, ids: Sequence[str], texts: Sequence[str]) -> Counter[str]:
        """Check, before training starts, that all training texts can be learned.

        Returns:
            The number of occurrences of each skipped character, with `unknown="skip"`.

        Raises:
            InputError: if a text cannot be learned; the message contains the id of the line.
        """
        for sample, text in zip(ids, texts, strict=True):
            self.target(text, sample)
        known = set(self.codec.alphabet)
        return Counter(character for text in texts for character in text if character not in known)

    def _frames(self, lines: Sequence[Placed]) -> tuple[Any, ...]:
        """Return the log-probabilities and lengths of lines."""
        arrays, widths = padded([line.array for line in lines])
        with self.exact():
            return self.scores(self.net(*(torch.from_numpy(one).to(self.device) for one in (arrays, widths))))

    def _locate(self, texts: Sequence[str], frames: Any, lines: Sequence[Placed]) -> list[tuple[Character, ...]]:
        log_probs, lengths = frames
        return locate_all(texts, log_probs, lengths, lines, self.codec, self.direction, self.calibration)

    def _output(self, batch: Batch) -> Any:
        with self.exact():
            return self.net(batch.images.float(), moved(batch.widths, batch.images.device))

    def _predictions(self, output: Any, batch: Batch) -> list[Prediction]:
        with self.exact():
            read = self.decode(output, batch.images)
        return [
            prediction(id, reference, group, one)
            for id, reference, one, group in zip(batch.ids, batch.texts, read, batch.groups, strict=True)
        ]

"""Transcribe with exported recognizers. Does not import torch."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray

from htr_lightning.characters import Character, Placed, locate_all, place
from htr_lightning.cores import cores
from htr_lightning.data.padding import padded
from htr_lightning.data.preprocess import Preprocess
from htr_lightning.decoder import autoregressive
from htr_lightning.decoder.argmax import ArgMax
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.hypothesis import Decoder, Hypothesis
from htr_lightning.decoder.language import Language
from htr_lightning.errors import InputError, first_line
from htr_lightning.export import file
from htr_lightning.export.session import Run, open_graph, open_session
from htr_lightning.export.steps import StepGraphs
from htr_lightning.metrics.calibration import Calibration, check_calibration
from htr_lightning.slots import construct
from htr_lightning.text.codec import Codec
from htr_lightning.text.direction import logical, logical_order, visual_alphabet
from htr_lightning.text.normalize import Normalizer
from htr_lightning.transcription import Interpreted, Read, Transcription, of_labels, transcriptions, with_boxes

BLANK = np.full((64, 64), 255, np.uint8)


class ExportedRecognizer:
    """A recognizer that was exported with `htr export`; see `transcription.Transcriber`.

    Args:
        run: function that maps preprocessed images and widths to the arguments of the decoder, or of `steps`.
        decoder: decoder for them.
        codec: mapping between characters and label ids.
        direction: base direction of lines (see `text.direction`), or None for single characters.
        preprocess, normalizer, calibration, card: see `Transcriber`.
        alone: whether to run lines one by one.
        padded: whether a batch may contain padded lines.
        steps: decoder of an autoregressive recognizer.
    """

    def __init__(
        self,
        run: Run,
        decoder: Decoder,
        codec: Codec,
        direction: str | None,
        preprocess: Preprocess,
        normalizer: Normalizer,
        calibration: Calibration,
        card: dict[str, Any],
        alone: bool = True,
        padded: bool = True,
        steps: StepGraphs | None = None,
    ) -> None:
        self.run, self.decoder, self.codec, self.direction = run, decoder, codec, direction
        self.steps = steps
        self.preprocess, self.normalizer, self.calibration = preprocess, normalizer, calibration
        self.card, self.alone, self.padded = card, alone or not padded, padded
        self.single_characters = direction is None

    @property
    def members(self) -> Sequence["ExportedRecognizer"]:
        """See `Transcriber`."""
        return (self,)

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
        arrays, widths = padded([line.array for line in lines])
        scores = self.scores(arrays, widths)
        found = self.decode(scores, arrays, n_best)
        return with_boxes(found, self._locate([one.text for one in found], scores, lines))

    def align(self, images: Sequence[UInt8[ndarray, "_ _"]], texts: Sequence[str]) -> list[tuple[Character, ...]]:
        """See `Transcriber`."""
        if not images or not self.aligns:
            return [()] * len(images)
        lines = place(self.preprocess, images)
        return self._locate(texts, self.scores(*padded([line.array for line in lines])), lines)

    def prepare_batch(
        self, images: Sequence[UInt8[ndarray, "_ _"]]
    ) -> tuple[Float[ndarray, "B 1 H W"], Int64[ndarray, " B"]]:
        """Preprocess raw images into a batch for `transcribe`.

        Raises:
            ValueError: if an image is too small or too wide to be a line.
        """
        return padded([self.preprocess(image) for image in images])

    def transcribe(
        self, images: Float[ndarray, "B 1 H W"], widths: Int64[ndarray, " B"], n_best: int = 0
    ) -> list[Transcription]:
        """Transcribe preprocessed images; see `Transcriber.read`."""
        return self.decode(self.scores(images, widths), images, n_best)

    def scores(
        self, images: Float[ndarray, "B 1 H W"], widths: Int64[ndarray, " B"], alone: bool | None = None
    ) -> tuple[Any, ...]:
        """Return the arguments of the decoder.

        On a CPU, lines run one by one: a batch is no faster there, since each operator runs on one core, and padding
        takes time.

        Args:
            images: preprocessed images.
            widths: their widths.
            alone: whether lines run one by one; None for the setting of the recognizer.
        """
        if self.alone if alone is None else alone:
            lines = [
                self.run(image[None, :, :, :width], np.array([width]))
                for image, width in zip(images, widths.tolist(), strict=True)
            ]
            found = tuple(map(_joined, zip(*lines, strict=True)))
        else:
            found = tuple(self.run(images, widths))
        return found if self.steps is None else (self.steps.steps(*found),)

    def decode(self, scores: Sequence[Any], images: ndarray, n_best: int = 0) -> list[Transcription]:
        """Decode the output of the network for a batch of images; see `Transcriber.read`."""
        inked = [bool(image.any()) for image in images]
        return transcriptions(self.decoder, scores, inked, n_best, self.interpret, self.normalizer, self.calibration)

    def interpret(self, hypothesis: Hypothesis) -> Interpreted:
        """Return the text of a hypothesis and its uncalibrated confidences."""
        seen = self.codec.decode(hypothesis.ids)
        if self.direction is None:
            return of_labels(seen, hypothesis)
        return of_labels(logical(seen, self.direction), hypothesis, logical_order(seen, self.direction))

    def _locate(self, texts: Sequence[str], frames: Any, lines: Sequence[Placed]) -> list[tuple[Character, ...]]:
        log_probs, lengths = frames
        return locate_all(texts, log_probs, lengths, lines, self.codec, self.direction, self.calibration)

    @contextmanager
    def workers(self) -> Iterator[Sequence[Read]]:
        """Yield one `read` function per CPU core, each with its own decoder, because automata cache their lookups."""
        yield [self.copied().read for _ in range(cores())]

    def copied(self) -> "ExportedRecognizer":
        """Return a recognizer that reads alike with a decoder of its own."""
        other = copy.copy(self)
        other.decoder = copy.deepcopy(self.decoder)
        return other


def load(path: str | Path, device: str = "auto", greedy: bool = False) -> ExportedRecognizer:
    """Load an exported recognizer.

    Args:
        path: path to a file written by `htr export`.
        device: see `session.open_session`.
        greedy: whether to decode without beam search, language model or lexicon.

    Raises:
        InputError: if the file cannot be read or run.
    """
    model, card, language, steps = file.read(path)
    export = card["export"]
    try:
        run, on_cpu, names = open_session(model, export["runtime"], device, export.get("options", {}))
        direction = export["direction"]
        alphabet = card["alphabet"] if direction is None else visual_alphabet(card["alphabet"], direction)
        codec = Codec(alphabet, export["specials"])
        decoder = _decoder(export, greedy)
        if language is not None and not greedy:
            decoder = decoder.with_automaton(Language.from_plain(language).automaton(codec.alphabet))
        parts = {name: construct(card["model"][name]) for name in ("preprocess", "normalizer")}
        calibration = check_calibration(card.get("calibration", (1.0, 0.0)))
        recognizer = ExportedRecognizer(
            run,
            decoder,
            codec,
            direction,
            calibration=calibration,
            card=card,
            alone=on_cpu and export["inputs"] != "classes",  # characters are small, and images of equal size
            padded="widths" in names or parts["preprocess"].framed,
            steps=_steps(codec, **steps) if export["inputs"] == "steps" else None,
            **parts,
        )
        scores = recognizer.scores(*recognizer.prepare_batch([BLANK]))
        if export["inputs"] == "steps":
            recognizer.decode(scores, np.ones(1))
        elif scores[0].shape[-1] != len(codec):
            raise ValueError(f"its output of {scores[0].shape[-1]} classes does not fit {len(codec)} labels")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # the card and the model may contain anything
        raise InputError(f"{path}: cannot be loaded ({first_line(error)}); export the checkpoint again") from None
    return recognizer


def _decoder(export: dict[str, Any], greedy: bool) -> Decoder:
    """Return the decoder of an exported recognizer.

    Raises:
        ValueError: if it is made for another kind of recognizer.
    """
    if export["inputs"] == "classes":
        return ArgMax()
    decoder: Any = construct(export["decoder"])
    if decoder.inputs != export["inputs"]:
        raise ValueError(f"its decoder decodes {decoder.inputs}, not {export['inputs']}")
    if not greedy:
        return decoder
    return Greedy() if export["inputs"] == "frames" else autoregressive.Greedy(decoder.max_length)


def _steps(codec: Codec, begin: bytes, step: bytes) -> StepGraphs:
    start, end = (codec.specials.index(name) for name in ("<start>", "<end>"))
    return StepGraphs(open_graph(begin), open_graph(step), len(codec), start, end)


def _joined(lines: Sequence[ndarray]) -> ndarray:
    """Join the outputs for several lines, padding the frames of shorter ones."""
    if lines[0].ndim < 3:
        joined = np.concatenate(lines)
        return joined.view(np.int64) if joined.dtype == np.int64 else joined  # "long long" is not always called int64
    _, _, classes = lines[0].shape
    joined = np.zeros((len(lines), max(line.shape[1] for line in lines), classes), lines[0].dtype)
    for row, line in zip(joined, lines, strict=True):
        row[: line.shape[1]] = line[0]
    return joined

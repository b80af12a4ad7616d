"""Add a language model to a trained recognizer, and tune the weights alpha and beta on validation lines."""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning import checkpoint
from htr_lightning.config import compose_train, make, plain
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.decoder.language import Language
from htr_lightning.decoder.lexicon import Lexicon, words_of
from htr_lightning.decoder.ngram import NGram
from htr_lightning.errors import InputError
from htr_lightning.metrics.edits import EditTotals, count_edits
from htr_lightning.model.base import Recognizer
from htr_lightning.text.codec import name

TRAIN = "train"  # used in place of a file name to refer to the training texts
COARSE = tuple(product((0.25, 0.5, 0.75), (0.0, 1.0, 2.0)))  # initial grid of alpha and beta
STEPS = ((0.25, 1.0), (0.125, 0.5), (0.0625, 0.25))  # later step sizes, each used until no step reduces the edit count


class Measured(NamedTuple):
    """The error counts and speed of a decoder on the validation lines."""

    name: str
    totals: EditTotals
    lines_per_second: float  # per second of CPU time, which includes the network if decoding is autoregressive


class Tuning(NamedTuple):
    """The results of all decoders compared, the tuned one last, and the config of the tuned decoder."""

    measured: list[Measured]
    decoder: dict[str, Any]

    @property
    def helps(self) -> bool:
        """Whether the tuned decoder results in fewer edits than any decoder without the language model."""
        *others, tuned = self.measured
        return tuned.totals.edits < min(one.totals.edits for one in others)


class LanguageSource(NamedTuple):
    """The sources of a language model, as given by the options of `htr tune-decoder`."""

    text: Sequence[str] = ()  # files with one text per line, or "train" for the training texts (default)
    arpa: Path | None = None  # a character n-gram model to load instead, trained on text in visual order
    space: str | None = None  # the symbol that represents a space in `arpa`; None for <space>
    lexicon: str | None = None  # a file with one word per line, or "train" for the words in the training texts
    order: int = 6  # order of the model if it is estimated
    min_count: int = 1  # minimum count of its n-grams of three or more characters


def beam_settings(overrides: Sequence[str], recognizer: Recognizer) -> dict[str, Any]:
    """Return the config of a recognizer's beam search, after applying overrides such as decoder.width=64.

    Raises:
        InputError: if the recognizer does not support a language model, or an override sets a weight to be tuned.
    """
    for override in overrides:
        if override.startswith(("decoder.alpha", "decoder.beta")):
            raise InputError(f"{override}: alpha and beta are tuned by this command; remove the override")
    name, trained = recognizer.beam()
    fixed = [f"decoder.{key}={value}" for key, value in trained.items()]
    return plain(compose_train([f"decoder={name}", *fixed, *overrides]).decoder)


def read_lines(path: Path, recognizer: Recognizer) -> list[str]:
    """Read the non-empty lines of a text file, normalised like references.

    Raises:
        InputError: if the file cannot be read or contains no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: invalid UTF-8 at byte {error.start}; convert the file, e.g. with iconv -t UTF-8"
        ) from None
    texts = [text for line in lines if (text := recognizer.normalizer(line))]
    if not texts:
        raise InputError(f"{path}: contains no text; expected one text per line")
    return texts


def check_source(source: LanguageSource) -> None:
    """Raise InputError if the options contradict each other."""
    if source.order < 1:
        raise InputError(f"--order {source.order}: must be at least 1; 6 works well for characters")
    if source.min_count < 1:
        raise InputError(f"--min-count {source.min_count}: must be at least 1; 2 halves the language model")
    if source.arpa is not None and source.text:
        raise InputError("--arpa loads a language model and --text estimates one; use only one of them")
    if source.arpa is not None and source.min_count != 1:
        raise InputError("--arpa loads a language model, so --min-count has no effect; remove --min-count")
    if source.space is not None and source.arpa is None:
        raise InputError(f"--space {source.space}: applies only to an --arpa file; add --arpa or remove --space")


def make_language(recognizer: Recognizer, data: LineDataModule, source: LanguageSource) -> tuple[Language, list[str]]:
    """Load or estimate a language model for text in visual order, with a lexicon if one is given.

    Args:
        recognizer: recognizer whose text direction and alphabet are used.
        data: data set with the training texts; see `build.data_for`.
        source: sources of the model; see `check_source`.

    Returns:
        The language model with its lexicon, and notes about both for the user.

    Raises:
        InputError: if a file cannot be used.
    """
    files = source.text or ([] if source.arpa else [TRAIN])
    train = data.lines("train").texts if TRAIN in (*files, source.lexicon) else []
    texts = [text for name in files for text in (train if name == TRAIN else read_lines(Path(name), recognizer))]
    if source.arpa is None:
        ngram = NGram.estimate([recognizer.visual(text) for text in texts], source.order, source.min_count)
        origin = f"{len(texts)} lines ({sum(map(len, texts))} characters)"
    else:
        ngram, origin = NGram.read_arpa(source.arpa, source.space or "<space>"), str(source.arpa)
        if source.space is not None and " " not in ngram.symbols:
            raise InputError(f"{origin}: no symbol '{source.space}'; set --space to the file's symbol for a space")
    notes = [f"language model: order {ngram.order}, from {origin}"]
    known = set(recognizer.codec.alphabet)
    if unseen := known - set(ngram.symbols):
        named = (character if character.strip() else name(character) for character in sorted(unseen))
        notes.append(f"characters unknown to the language model: {' '.join(named)}")
    if source.lexicon is None:
        return Language(ngram, None), notes
    if source.lexicon == TRAIN:
        words = words_of(map(recognizer.visual, train))
    else:
        words = [recognizer.visual(word) for word in read_lines(Path(source.lexicon), recognizer)]
    usable = {word for word in words if known.issuperset(word)}
    if not usable:
        raise InputError(
            f"{source.lexicon}: every word contains characters outside the checkpoint's alphabet; check the file"
        )
    left_out = len(set(words)) - len(usable)
    notes.append(f"lexicon: {len(usable)} words, {left_out} left out because of characters outside the alphabet")
    return Language(ngram, Lexicon(usable)), notes


def tune(
    recognizer: Recognizer,
    data: LineDataModule,
    language: Language,
    settings: dict[str, Any],
    advance: Callable[[str], None] = lambda done: None,
) -> Tuning:
    """Find the alpha and beta with the fewest edits on the validation lines, first on a grid and then in small steps.

    Args:
        recognizer: recognizer in evaluation mode, on the device to use.
        data: data set with the validation lines; see `build.data_for`.
        language: language model to add; see `make_language`.
        settings: config of the beam search; see `beam_settings`.
        advance: progress callback, called with a description of the latest step.
    """
    greedy, beam = Stopwatch(recognizer.greedy().decoder), make(settings, "decoder")
    preparing = Stopwatch(beam.prepare)
    references, first, prepared = [], [], []
    for batch in data.loader("val"):
        images, widths = batch.images.to(recognizer.device), batch.widths.to(recognizer.device)
        with recognizer.exact():
            scores = recognizer.scores(recognizer.net(images, widths))
            first += greedy(*scores)
            prepared.append(preparing(*scores))
        references += batch.texts
        advance(f"transcribed {len(references)} lines")
    automaton = language.automaton(recognizer.codec.alphabet)

    def measure(name: str, hypotheses: Iterable[Hypothesis], seconds: Callable[[], float]) -> Measured:
        totals = count_edits(references, [recognizer.normalizer(recognizer.text(one)) for one in hypotheses])
        return Measured(name, totals, len(references) / max(seconds(), 1e-9))

    def search(alpha: float, beta: float, name: str = "language model") -> Measured:
        searching = Stopwatch(
            make(settings | {"alpha": alpha, "beta": beta}, "decoder")
            .with_automaton(automaton if alpha else None)
            .search
        )
        with recognizer.exact():
            best = [several[0] for one in prepared for several in searching(one, 1)]
        return measure(name, best, lambda: searching.seconds + preparing.seconds)

    tried: dict[tuple[float, float], Measured] = {}

    def edits(weights: tuple[float, float]) -> tuple[int, float, float]:
        if weights not in tried:
            tried[weights] = search(*weights)
            advance(f"alpha {weights[0]:g}, beta {weights[1]:g}: CER {tried[weights].totals.cer:.2%}")
        return tried[weights].totals.edits, *weights  # ties go to the smallest weights

    baselines = [measure("greedy", first, lambda: greedy.seconds), search(0.0, 0.0, "beam")]
    best = min(COARSE, key=edits)
    for alpha, beta in STEPS:
        while edits(better := min(_around(best, alpha, beta), key=edits))[0] < edits(best)[0]:
            best = better
    return Tuning([*baselines, tried[best]], settings | {"alpha": best[0], "beta": best[1]})


def _around(weights: tuple[float, float], alpha: float, beta: float) -> list[tuple[float, float]]:
    steps = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    near = [(weights[0] + alpha * i, weights[1] + beta * j) for i, j in steps]
    return [one for one in near if one[0] > 0]


class Stopwatch:
    """A function wrapper that accumulates the CPU time of its calls over all threads.

    Args:
        work: function to time.
    """

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work, self.seconds = work, 0.0

    def __call__(self, *arguments: Any) -> Any:
        start = time.process_time()
        try:
            return self.work(*arguments)
        finally:
            self.seconds += time.process_time() - start


def write(path: str, out: Path, language: Language, tuning: Tuning, lines: dict[str, Any]) -> None:
    """Copy a checkpoint, adding a tuned decoder and its language model to the copy.

    Args:
        path: path to the checkpoint.
        out: path to the copy.
        language: language model to store; see `make_language`.
        tuning: tuned decoder to store; see `tune`.
        lines: description of the lines used for tuning (see `card.describe`), stored with the error rates.

    Raises:
        InputError: if the copy cannot be written.
    """
    content = checkpoint.read(path)
    rates = {found.name: found.totals.cer for found in tuning.measured}
    content["htr"]["model"]["decoder"] = tuning.decoder
    for stale in ("calibration", "calibrated"):  # fitted to the confidences of the previous decoder
        content["htr"].pop(stale, None)
    content["htr"]["tuned"] = {"data": lines, "cer": rates}
    content["language"] = checkpoint.with_tensors(language.to_plain())
    checkpoint.write(content, out)

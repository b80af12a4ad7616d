"""A language model for a trained recognizer, with weights tuned on validation lines."""

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

TRAIN = "train"  # in place of a file: the training texts
COARSE = tuple(product((0.25, 0.5, 0.75), (0.0, 1.0, 2.0)))  # the first values of alpha and beta
STEPS = ((0.25, 1.0), (0.125, 0.5), (0.0625, 0.25))  # then steps from the best ones, as long as one is better


class Measured(NamedTuple):
    """A decoder on the validation lines."""

    name: str
    totals: EditTotals
    lines_per_second: float  # of processor time: the decoder alone; with an autoregressive one, its network as well


class Tuning(NamedTuple):
    """The decoders compared, the tuned one last, and the config of that one."""

    measured: list[Measured]
    decoder: dict[str, Any]

    @property
    def helps(self) -> bool:
        """Whether the language model makes fewer edits than every decoder without it."""
        *others, tuned = self.measured
        return tuned.totals.edits < min(one.totals.edits for one in others)


class LanguageSource(NamedTuple):
    """What a language model is made from, as in the options of `htr tune-decoder`."""

    text: Sequence[str] = ()  # files with a line of text per line; "train" for the training texts, which is the default
    arpa: Path | None = None  # a character n-gram model to read instead, of texts in visual order
    space: str | None = None  # the symbol of the space in `arpa`; None for <space>
    lexicon: str | None = None  # a file with a word per line, or "train" for the words of the training texts
    order: int = 6  # of an estimated model


def beam_settings(overrides: Sequence[str], recognizer: Recognizer) -> dict[str, Any]:
    """The config of the beam for a recognizer, with overrides such as decoder.width=64.

    Raises:
        InputError: it uses no language model, or an override chooses the weights, which are searched.
    """
    for override in overrides:
        if override.startswith(("decoder.alpha", "decoder.beta")):
            raise InputError(f"{override}: alpha and beta are searched; remove this override")
    name, trained = recognizer.beam()
    fixed = [f"decoder.{key}={value}" for key, value in trained.items()]
    return plain(compose_train([f"decoder={name}", *fixed, *overrides]).decoder)


def read_lines(path: Path, recognizer: Recognizer) -> list[str]:
    """The non-empty lines of a text file, normalised like references.

    Raises:
        InputError: it cannot be read, or has no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; convert it, e.g. with iconv -t UTF-8") from None
    texts = [text for line in lines if (text := recognizer.normalizer(line))]
    if not texts:
        raise InputError(f"{path}: has no text; give a file with one text per line")
    return texts


def check_source(source: LanguageSource) -> None:
    """Raises InputError if the options contradict each other."""
    if source.order < 1:
        raise InputError(f"--order {source.order}: the order of an n-gram model is at least 1; 6 suits characters")
    if source.arpa is not None and source.text:
        raise InputError("--arpa and --text together: a model is either read or estimated; give one of them")
    if source.space is not None and source.arpa is None:
        raise InputError(f"--space {source.space}: applies to the file of --arpa; give that as well, or remove --space")


def make_language(recognizer: Recognizer, data: LineDataModule, source: LanguageSource) -> tuple[Language, list[str]]:
    """A language model, with a lexicon if one is given, over texts in visual order; and notes on both.

    Args:
        recognizer: its direction and alphabet are used.
        data: for the training texts; see `config.data_for`.
        source: see `check_source`.

    Raises:
        InputError: a file cannot be used.
    """
    files = source.text or ([] if source.arpa else [TRAIN])
    train = data.lines("train").texts if TRAIN in (*files, source.lexicon) else []
    texts = [text for name in files for text in (train if name == TRAIN else read_lines(Path(name), recognizer))]
    if source.arpa is None:
        ngram = NGram.estimate([recognizer.visual(text) for text in texts], source.order)
        origin = f"{len(texts)} lines, {sum(map(len, texts))} characters"
    else:
        ngram, origin = NGram.read_arpa(source.arpa, source.space or "<space>"), str(source.arpa)
        if source.space is not None and " " not in ngram.symbols:
            raise InputError(f"{origin}: has no '{source.space}'; give its symbol for a space with --space")
    notes = [f"language model: order {ngram.order}, from {origin}"]
    known = set(recognizer.codec.alphabet)
    if unseen := known - set(ngram.symbols):
        named = (character if character.strip() else name(character) for character in sorted(unseen))
        notes.append(f"characters that the language model has not seen: {' '.join(named)}")
    if source.lexicon is None:
        return Language(ngram, None), notes
    if source.lexicon == TRAIN:
        words = words_of(map(recognizer.visual, train))
    else:
        words = [recognizer.visual(word) for word in read_lines(Path(source.lexicon), recognizer)]
    usable = {word for word in words if known.issuperset(word)}
    if not usable:
        raise InputError(f"{source.lexicon}: no word is spelt only with the checkpoint's alphabet; check the file")
    left_out = len(set(words)) - len(usable)
    notes.append(f"lexicon: {len(usable)} words, {left_out} left out for characters outside the alphabet")
    return Language(ngram, Lexicon(usable)), notes


def tune(
    recognizer: Recognizer,
    data: LineDataModule,
    language: Language,
    settings: dict[str, Any],
    advance: Callable[[str], None] = lambda done: None,
) -> Tuning:
    """Search the alpha and beta with the fewest edits on the validation lines: a coarse grid, then ever smaller steps.

    Args:
        recognizer: in evaluation mode, on the device to use.
        data: see `config.data_for`.
        language: see `make_language`.
        settings: of the beam, see `beam_settings`.
        advance: called with a description of what was done, for a progress bar.
    """
    greedy, beam = Stopwatch(recognizer.greedy().decoder), make(settings)
    preparing = Stopwatch(beam.prepare)
    references, first, prepared = [], [], []
    for batch in data.loader("val"):
        images, widths = batch.images.to(recognizer.device), batch.widths.to(recognizer.device)
        with recognizer.exact():
            scores = recognizer.scores(recognizer.net(images, widths))
            first += greedy(*scores)
            prepared.append(preparing(*scores))
        references += batch.texts
        advance(f"reading {len(references)}")
    automaton = language.automaton(recognizer.codec.alphabet)

    def measure(name: str, hypotheses: Iterable[Hypothesis], seconds: Callable[[], float]) -> Measured:
        totals = count_edits(references, [recognizer.normalizer(recognizer.text(one)) for one in hypotheses])
        return Measured(name, totals, len(references) / max(seconds(), 1e-9))

    def search(alpha: float, beta: float, name: str = "language model") -> Measured:
        searching = Stopwatch(
            make(settings | {"alpha": alpha, "beta": beta}).with_automaton(automaton if alpha else None).search
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
    """Wraps a function and totals its CPU time over all threads.

    Args:
        work: the function.
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
    """Write a copy of a checkpoint with a tuned decoder and its language model.

    Args:
        path: of the checkpoint.
        out: of the copy.
        language: see `make_language`.
        tuning: see `tune`.
        lines: what it was tuned on, see `card.describe`; recorded with the error rates.

    Raises:
        InputError: the copy cannot be written.
    """
    content = checkpoint.read(path)
    rates = {found.name: found.totals.cer for found in tuning.measured}
    content["htr"]["model"]["decoder"] = tuning.decoder
    for stale in ("calibration", "calibrated"):  # of another decoder's confidences
        content["htr"].pop(stale, None)
    content["htr"]["tuned"] = {"data": lines, "cer": rates}
    content["language"] = checkpoint.with_tensors(language.to_plain())
    checkpoint.AtomicCheckpointIO().save_checkpoint(content, out)

"""A language model and its weights for a trained recognizer, chosen on validation lines."""

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
COARSE = tuple(product((0.25, 0.5, 0.75), (0.0, 1.0, 2.0)))  # alpha and beta of the first look
STEPS = ((0.25, 1.0), (0.125, 0.5), (0.0625, 0.25))  # then steps away from the best, as long as one is better


class Measured(NamedTuple):
    """A decoder on the validation lines."""

    name: str
    totals: EditTotals
    lines_per_second: float  # of processor time of the decoder alone; of one that writes that is its network, too


class Tuning(NamedTuple):
    """What was found: the decoders side by side, the tuned one last, and the settings of that one."""

    measured: list[Measured]
    decoder: dict[str, Any]


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
    """The lines of a text file, normalised as references are; empty ones are none.

    Raises:
        InputError: it cannot be read, or has no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no UTF-8 text at byte {error.start}; convert it, as with iconv -t UTF-8") from None
    texts = [text for line in lines if (text := recognizer.normalizer(line))]
    if not texts:
        raise InputError(f"{path}: has no text; give a file with a line of text a line")
    return texts


def make_language(
    recognizer: Recognizer,
    texts: Sequence[str],
    order: int,
    arpa: Path | None,
    lexicon: str | None,
    train: Sequence[str] = (),
    space: str | None = None,
) -> tuple[Language, list[str]]:
    """A language model, and a lexicon where one is wanted, over texts as they stand in images; and notes on both.

    Args:
        recognizer: whose direction and characters are used.
        texts: in logical order, to estimate from.
        order: of the model that is estimated.
        arpa: a model to read instead, of texts in visual order.
        lexicon: a file with a word a line, or "train" for the words of `train`; None for no lexicon.
        train: the training texts, where the lexicon is theirs.
        space: what stands for the space in `arpa`; None: <space>, where it has one.

    Raises:
        InputError: a file cannot be used.
    """
    seen = [recognizer.visual(text) for text in texts]
    ngram = NGram.estimate(seen, order) if arpa is None else NGram.read_arpa(arpa, space or "<space>")
    if space is not None and " " not in ngram.symbols:
        raise InputError(f"{arpa}: has no '{space}'; give what stands for the space in it by --space")
    source = f"{arpa}" if arpa else f"{len(texts)} lines, {sum(map(len, texts))} characters"
    notes = [f"language model: order {ngram.order}, from {source}"]
    known = set(recognizer.codec.alphabet)
    if foreign := known - set(ngram.symbols):
        named = (character if character.strip() else name(character) for character in sorted(foreign))
        notes.append(f"characters that the language model has not seen: {' '.join(named)}")
    if lexicon is None:
        return Language(ngram, None), notes
    if lexicon == TRAIN:
        words = words_of(map(recognizer.visual, train))
    else:
        words = [recognizer.visual(word) for word in read_lines(Path(lexicon), recognizer)]
    usable = {word for word in words if known.issuperset(word)}
    if not usable:
        raise InputError(f"{lexicon}: no word of it has only characters that the checkpoint reads; check the file")
    left_out = len(set(words)) - len(usable)
    notes.append(f"lexicon: {len(usable)} words, {left_out} left out for characters that the checkpoint does not read")
    return Language(ngram, Lexicon(usable)), notes


def tune(
    recognizer: Recognizer,
    data: LineDataModule,
    language: Language,
    settings: dict[str, Any],
    advance: Callable[[str], None] = lambda done: None,
) -> Tuning:
    """Search alpha and beta on the validation lines, by edits: a coarse grid, then ever smaller steps from the best.

    Args:
        recognizer: in evaluation mode, on the device to use.
        data: see `config.data_for`.
        language: see `make_language`.
        settings: of the beam, see `beam_settings`.
        advance: called with a word on what was done, for a progress bar.
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
        return tried[weights].totals.edits, *weights  # of equals the smallest weights

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
    """A function whose processor time is summed up, over all threads.

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
    """Write the checkpoint again with the tuned decoder and its language in it.

    Args:
        path: of the checkpoint.
        out: of the new one.
        language: see `make_language`.
        tuning: see `tune`.
        lines: what it was tuned on, see `card.describe`; kept beside the rates found there.

    Raises:
        InputError: it cannot be written.
    """
    content = checkpoint.read(path)
    rates = {found.name: found.totals.cer for found in tuning.measured}
    content["htr"]["model"]["decoder"] = tuning.decoder
    for stale in ("calibration", "calibrated"):  # of another decoder's confidences
        content["htr"].pop(stale, None)
    content["htr"]["tuned"] = {"data": lines, "cer": rates}
    content["language"] = checkpoint.with_tensors(language.to_plain())
    checkpoint.AtomicCheckpointIO().save_checkpoint(content, out)

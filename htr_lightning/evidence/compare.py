"""Compare the transcriptions of several systems on the same lines."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

from htr_lightning.errors import InputError
from htr_lightning.evidence import runs
from htr_lightning.evidence.runs import Run
from htr_lightning.metrics.edits import DEFINITION, EditTotals, line_counts
from htr_lightning.metrics.significance import Difference, Intervals, holm, intervals, paired_difference
from htr_lightning.transcription import PREDICTIONS, Prediction

PLACES = ("", "checkpoints/evaluate-test")  # where predictions are, in the folder of a run or an evaluation
SAME = ("split", "data.sha256", "data.lines", "data.characters", "data.groups", "normalizer",
        *(f"definition.{rate}" for rate in DEFINITION))  # fields of two cards that must not differ  # fmt: skip


class Member(NamedTuple):
    """The predictions of one run or evaluation, sorted by id, and the card of its figures, which may be empty."""

    path: Path
    predictions: list[Prediction]
    card: dict[str, Any]

    @property
    def counts(self) -> list[EditTotals]:
        return [line_counts(one.reference, one.hypothesis) for one in self.predictions]


class System(NamedTuple):
    """A run or evaluation, or several runs that differ only in their seeds."""

    name: str
    members: list[Member]


class Score(NamedTuple):
    """The error rates of a system: means over its runs, their standard deviations, and intervals of the means."""

    name: str
    runs: int
    cer: float
    wer: float
    cer_sd: float | None  # over runs; None for a single one
    wer_sd: float | None
    intervals: Intervals


class Part(NamedTuple):
    """Some of the lines: those of a group or of a kind, with the CERs of both systems."""

    name: str
    lines: int
    characters: int
    first: float
    second: float
    difference: Difference | None  # of kinds; the lines of a group depend on each other


class Changes(NamedTuple):
    """How many lines have another text in the second system, and how many of these have fewer or more edits there."""

    texts: int
    better: int
    worse: int


class Pair(NamedTuple):
    """The difference of two systems; negative where the second has fewer errors."""

    first: str
    second: str
    cer: Difference
    wer: Difference
    cer_p: float  # corrected for the number of pairs (Holm)
    wer_p: float
    changes: Changes | None  # None if one of the systems has several runs
    groups: list[Part]  # the second system's largest gain first
    kinds: list[Part]


class Comparison(NamedTuple):
    """The scores of all systems, and the difference of each from the first."""

    lines: int
    characters: int
    groups: int
    scores: list[Score]
    pairs: list[Pair]

    def to_plain(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return _plain(self)


def find_systems(paths: Sequence[str]) -> tuple[list[System], list[str]]:
    """Load the systems in files and folders, and return notes on what was left out.

    Runs that differ only in their seeds are one system, unless only one system would be left of several paths.

    Args:
        paths: run folders, folders written by `htr evaluate`, `predictions.jsonl` files, folders that contain several
            runs, or patterns of these.

    Raises:
        InputError: if nothing is found at a path, or a file cannot be read.
    """
    members: list[tuple[str, Member, Run | None]] = []
    notes = []
    for path in paths:
        places = sorted(glob(path)) if has_magic(path) and not Path(path).exists() else [path]
        found = [one for place in places for one in _members(Path(place))]
        if not found:
            raise InputError(f"{path}: not found; name a run folder, or a file or folder written by htr evaluate")
        if unread := [str(folder) for folder, member, _ in found if member is None]:
            if len(unread) == len(found):
                raise InputError(f"{unread[0]}: has no {PREDICTIONS}; write it with htr evaluate "
                                 f"{unread[0]}/checkpoints/best.ckpt")  # fmt: skip
            notes.append(f"{path}: runs without {PREDICTIONS} are left out ({len(unread)}; first: {unread[0]})")
        members += [(str(folder), member, run) for folder, member, run in found if member is not None]
    recipes = runs.by_recipe([run for _, _, run in members if run is not None])
    names = {run.folder: name for name, several in recipes.items() for run in several}
    systems: dict[object, list[tuple[str, Member, Run | None]]] = {}
    for number, one in enumerate(members):
        systems.setdefault(number if one[2] is None else one[2].recipe, []).append(one)
    if len(systems) == 1 and len(paths) > 1:
        return [System(name, [member]) for name, member, _ in members], notes
    return [_system(several, names) for several in systems.values()], notes


def _system(several: Sequence[tuple[str, Member, Run | None]], names: dict[Path, str]) -> System:
    name, _, run = several[0]
    unique = {member.path.resolve(): member for _, member, _ in several}
    if len(unique) > 1 and run is not None:
        name = names[run.folder]
    return System(name, list(unique.values()))


def _members(path: Path) -> Iterator[tuple[Path, Member | None, Run | None]]:
    """Yield each run or evaluation at a path, with its predictions if there are any."""
    if path.is_file():
        yield path, _read(path, path.parent), None
    elif (path / ".hydra" / "config.yaml").is_file() or _place(path) or (path / "summary.json").is_file():
        run = runs.read_run(path) if (path / ".hydra" / "config.yaml").is_file() else None
        place = _place(path)
        yield path, _read(place / PREDICTIONS, place) if place else None, run
    elif path.is_dir():
        for run in runs.find_runs(path):
            yield from _members(run.folder)


def _place(folder: Path) -> Path | None:
    return next((folder / place for place in PLACES if (folder / place / PREDICTIONS).is_file()), None)


def _read(path: Path, folder: Path) -> Member:
    """Read predictions, and the card beside them if there is one."""
    return Member(path, sorted(runs.predictions(path), key=lambda one: one.id), runs.load_card(folder))


def compare(systems: Sequence[System]) -> Comparison:
    """Compare systems on the same lines, each with the first; see `metrics.significance`.

    Raises:
        InputError: if they were evaluated on different lines or by different definitions; the message names the field.
    """
    members = [member for system in systems for member in system.members]
    for other in members[1:]:
        check_same(members[0], other)
    lines = members[0].predictions
    groups = [one.group for one in lines]
    counts = [_mean([member.counts for member in system.members]) for system in systems]
    sizes = [one.characters for one in counts[0]], [one.words for one in counts[0]]
    pairs = []
    for system, theirs in zip(systems[1:], counts[1:], strict=True):
        first, second = systems[0], system
        cer = paired_difference([c.edits for c in counts[0]], [c.edits for c in theirs], sizes[0], groups)
        wer = paired_difference([c.word_edits for c in counts[0]], [c.word_edits for c in theirs], sizes[1], groups)
        by_group = [_part(name, counts[0], theirs, groups, [g == name for g in groups], False) for name in {*groups}]
        by_group.sort(key=lambda part: ((part.second - part.first) * part.characters, part.name))
        kinds = [_part(name, counts[0], theirs, groups, [*map(kind, (one.reference for one in lines))])
                 for name, kind in _kinds(lines).items()]  # fmt: skip
        changes = _changes(first, second, counts[0], theirs)
        pairs.append(Pair(first.name, second.name, cer, wer, 1, 1, changes, by_group, [k for k in kinds if k.lines]))
    corrected = (holm([pair.cer.p for pair in pairs]), holm([pair.wer.p for pair in pairs]))
    return Comparison(
        len(lines),
        sum(sizes[0]),
        len({*groups}),
        [_score(system, its, groups) for system, its in zip(systems, counts, strict=True)],
        [pair._replace(cer_p=c, wer_p=w) for pair, c, w in zip(pairs, *corrected, strict=True)],
    )


def check_same(first: Member, other: Member) -> None:
    """Raise InputError if the predictions of two members are not of the same lines, or not by the same definition."""
    cards = other.card, first.card
    values = {field: tuple(_field(card, field) for card in cards) for field in SAME}
    texts = [f"{field} is {_short(one)}, not {_short(two)}" for field, (one, two) in values.items()
             if one != two and one is not None and two is not None]  # fmt: skip
    if not texts:
        ids, others = ([one.id for one in member.predictions] for member in (first, other))
        if ids != others:
            only = sorted({*ids} ^ {*others})
            texts = [f"ids differ in {len(only)} lines (first: {only[0]})" if only else "ids occur more than once"]
    if not texts:
        for field in ("reference", "group"):
            different = [one for one, two in zip(first.predictions, other.predictions, strict=True)
                         if getattr(one, field) != getattr(two, field)]  # fmt: skip
            if different:
                texts.append(f"{field} differs in {len(different)} lines (first: {different[0].id})")
    if texts:
        raise InputError(f"{other.path}: cannot be compared with {first.path}: {'; '.join(texts)}; evaluate both on "
                         "the same lines with htr evaluate")  # fmt: skip


def _field(card: dict[str, Any], name: str) -> Any:
    value: Any = card
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _mean(runs: Sequence[Sequence[EditTotals]]) -> list[EditTotals]:
    """Return the mean counts of each line over runs."""
    if len(runs) == 1:
        return list(runs[0])
    return [
        lines[0]._replace(edits=fmean(c.edits for c in lines), word_edits=fmean(c.word_edits for c in lines))
        for lines in zip(*runs, strict=True)
    ]


def _score(system: System, counts: Sequence[EditTotals], groups: Sequence[str]) -> Score:
    totals = [EditTotals(*map(sum, zip(*member.counts, strict=True))) for member in system.members]
    cers, wers = [one.cer for one in totals], [one.wer for one in totals]
    cer_sd, wer_sd = (stdev(rates) if len(rates) > 1 else None for rates in (cers, wers))
    return Score(system.name, len(totals), fmean(cers), fmean(wers), cer_sd, wer_sd, intervals(counts, groups))


def _part(
    name: str, first: Sequence[EditTotals], second: Sequence[EditTotals], groups: Sequence[str],
    chosen: Sequence[bool], test: bool = True,
) -> Part:  # fmt: skip
    rows = [(a, b, group) for a, b, group, wanted in zip(first, second, groups, chosen, strict=True) if wanted]
    before, after, sizes = (
        [a.edits for a, _, _ in rows],
        [b.edits for _, b, _ in rows],
        [a.characters for a, _, _ in rows],
    )
    total = max(1, sum(sizes))
    difference = paired_difference(before, after, sizes, [group for _, _, group in rows]) if test else None
    return Part(name, len(rows), sum(sizes), sum(before) / total, sum(after) / total, difference)


def _kinds(lines: Sequence[Prediction]) -> dict[str, Callable[[str], bool]]:
    """Return the kinds of lines that are told apart by their references."""
    middle = int(median(len(one.reference) for one in lines)) if lines else 0

    def punctuated(text: str) -> bool:
        return any(unicodedata.category(one).startswith("P") for one in text)

    def numbered(text: str) -> bool:
        return any(one.isnumeric() for one in text)

    return {
        f"up to {middle} characters": lambda text: len(text) <= middle,
        f"over {middle} characters": lambda text: len(text) > middle,
        "with digits": numbered,
        "with punctuation": punctuated,
        "with capitals": lambda text: text != text.lower(),
        "only small letters": lambda text: text == text.lower() and not numbered(text) and not punctuated(text),
    }


def _changes(
    first: System, second: System, before: Sequence[EditTotals], after: Sequence[EditTotals]
) -> Changes | None:
    if len(first.members) > 1 or len(second.members) > 1:
        return None
    texts = zip(first.members[0].predictions, second.members[0].predictions, strict=True)
    gains = [a.edits - b.edits for a, b in zip(before, after, strict=True)]
    return Changes(
        sum(one.hypothesis != two.hypothesis for one, two in texts),
        sum(gain > 0 for gain in gains),
        sum(gain < 0 for gain in gains),
    )


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {key: _plain(one) for key, one in value._asdict().items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value

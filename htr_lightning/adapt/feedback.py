"""Train a recognizer on corrections, promote it if it reads held-out lines better and forgets little, and take it back.

The versions of the recognizer are files in a folder beside the file of corrections, whose audit trail says which one is
the current version: one committed row, so that a crash leaves the old version or the new one. `current.ckpt` is a copy
of it, replaced at once, for all commands that read.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.card import describe
from htr_lightning.config import new_folder
from htr_lightning.data.corrections import CorrectionStore, Event, current_version
from htr_lightning.data.files import file_hash
from htr_lightning.errors import InputError
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.metrics.edits import line_counts
from htr_lightning.metrics.significance import TOO_FEW, Difference, flip_test, paired_difference
from htr_lightning.output import replacing
from htr_lightning.pretrained import DEFAULT, locate
from htr_lightning.reading.open import load_one
from htr_lightning.training.fine_tune import fine_tune
from htr_lightning.transcription import Prediction

RECIPE = "experiment=feedback_fine_tune"
LEVEL = 0.05  # of the test that new lines are read better
MAX_LOSS = 0.01  # of the CER of old lines
MIN_GROUPS = 6  # with fewer, flipping their signs cannot give p < 0.05, so lines are flipped
OLD = ("data@replay=", "replay.")  # overrides that select old data
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Change(NamedTuple):
    """The edits of two recognizers on the same lines, and the difference of their CERs."""

    lines: int
    groups: int
    characters: int
    before: int
    after: int
    difference: Difference

    def __str__(self) -> str:
        value, low, high, p, units, over = self.difference
        interval = "" if low is None or high is None else f" [{100 * low:+.2f}, {100 * high:+.2f}]"
        return (f"CER {self.before / max(1, self.characters):.2%} -> {self.after / max(1, self.characters):.2%} in "
                f"{self.lines} lines ({100 * value:+.2f} points{interval}, p {p:.4f} over {units} {over})")  # fmt: skip


class Verdict(NamedTuple):
    """Whether a recognizer is promoted, and why, in one line."""

    promoted: bool
    reason: str


def compare(before: Sequence[Prediction], after: Sequence[Prediction]) -> Change:
    """Compare the predictions of two recognizers for the same lines in the same order.

    With few groups, lines are what the p-value takes as independent, but not the interval.
    """
    counts = [[line_counts(one.reference, one.hypothesis) for one in side] for side in (before, after)]
    first, second = ([one.edits for one in side] for side in counts)
    sizes = [one.characters for one in counts[0]]
    groups = [one.group for one in before]
    difference = paired_difference(first, second, sizes, groups)
    if len({*groups}) < min(MIN_GROUPS, len(groups)):
        gains = [b - a for a, b in zip(first, second, strict=True)]
        difference = difference._replace(p=flip_test(gains), units=len(gains), over=TOO_FEW)
    return Change(len(before), len({*groups}), sum(sizes), sum(first), sum(second), difference)


def judge(new: Change, old: Change | None, max_loss: float = MAX_LOSS) -> Verdict:
    """Decide whether a recognizer is promoted.

    Args:
        new: change on held-out corrected lines, which must be a gain that chance does not explain.
        old: change on held-out old lines, of which the upper limit of the interval must not exceed `max_loss`; None if
            there are none.
        max_loss: largest acceptable loss of CER on old lines.
    """
    told = f"held-out corrections: {new}; " + (f"old lines: {old}" if old else "old lines: none given")
    if new.after > new.before:
        return Verdict(False, f"held-out corrections are read worse; {told}")
    if new.difference.p >= LEVEL or new.after == new.before:
        return Verdict(False, f"no gain on held-out corrections that chance does not explain; {told}")
    if old is not None and old.difference.high is None:
        return Verdict(False, f"too few old lines to tell what is forgotten; {told}")
    if old is not None and old.difference.high is not None and old.difference.high > max_loss:
        return Verdict(False, f"old lines may lose more than {100 * max_loss:.1f} points; {told}")
    return Verdict(True, f"better on held-out corrections; {told}")


def folder_of(store: CorrectionStore) -> Path:
    """Return the folder of the versions of the recognizer."""
    return store.path.with_suffix(".recognizers")


def current(store: CorrectionStore) -> tuple[Event, Path]:
    """Return the entry of the current version and its file, and complete an interrupted promotion.

    Raises:
        InputError: if there is no version yet, or its file is missing or has changed.
    """
    copy = folder_of(store) / "current.ckpt"
    while True:  # another process may promote a version at the same time
        event = store.current()
        path = version_file(store, event)
        if copy.exists() and file_hash(copy) == event.sha256:
            return event, path
        _copy(path, copy)


def version_file(store: CorrectionStore, event: Event) -> Path:
    """Return the file of a version; raise InputError if it is missing or has changed since."""
    path = _path(store, event)
    if not path.is_file() or file_hash(path) != event.sha256:
        state = "has changed since it was written" if path.is_file() else "is missing"
        raise InputError(
            f"{path}: {state}; restore it, or go back with htr feedback rollback {store.path} --to VERSION"
        )
    return path


def _path(store: CorrectionStore, event: Event) -> Path:
    """Return the path of a version, which no other file can have, whatever is trained at the same time."""
    return folder_of(store) / f"{event.version}-{event.sha256[:8]}.ckpt"


def train(
    store: CorrectionStore,
    recognizer: str | None = None,
    overrides: Sequence[str] = (),
    who: str = "",
    max_loss: float = MAX_LOSS,
    device: str = "auto",
    progress: Progress = lambda title, lines: nullcontext(lambda count: None),
) -> Event:
    """Fine-tune the current version on the corrections, and promote the result or refuse it; return the entry.

    Args:
        store: corrections; those of held-out groups are only read.
        recognizer: checkpoint or name of the recognizer that becomes version 0, if there is no version yet.
        overrides: overrides for `htr fine-tune`; those of `replay` select the old data, and are by default those of the
            last training.
        who: name of the person.
        max_loss: see `judge`.
        device: device to evaluate on.
        progress: called with a title and a number of lines before lines are read; a context with a function that is
            told of lines done.

    Raises:
        InputError: if there are no corrections for training or none held out, or no old data are selected.
    """
    events, status, started = store.events(), store.status(), time.perf_counter()
    if events and recognizer is not None:
        raise InputError(f"--recognizer {recognizer}: {store.path} already has versions; remove --recognizer")
    given = [one for one in overrides if one.lstrip("+").startswith(OLD)]
    chosen = given or next((event.figures["old_data"] for event in reversed(events) if event.figures), [])
    if not chosen:
        raise InputError(
            "no old data that the recognizer must not forget: add data@replay=NAME replay.root=FOLDER (or "
            "replay.pack=FILE of htr pack), or data@replay=null to train and judge without any"
        )
    if not (status.splits["train"] and status.splits["test"]):
        kind = "held out to judge by" if status.splits["train"] else "for training"
        raise InputError(
            f"{store.path}: none of the {status.lines} lines is {kind}; a quarter of the groups is held out, by their "
            "names: correct lines of more pages or writers (see htr feedback status)"
        )
    parent, path = current(store) if events else (None, locate(recognizer or DEFAULT))
    before, until = load_one(str(path), device), store.last_number()
    new_data = ["data=corrections", f"data.root={_quoted(store.path)}"]
    old_data = [one.lstrip("+").replace("data@replay=", "data=").replace("replay.", "data.", 1) for one in chosen]
    judged = {"new": (data_for(before, new_data), "test")}
    if old_data != ["data=null"]:
        judged["old"] = (data_for(before, old_data), "val")
    about = {name: describe(data, split) for name, (data, split) in judged.items()}  # fails before training if at all
    settings = [*new_data, *(() if given else chosen), *overrides]
    run = _run(path, settings)
    candidate = run / "checkpoints" / "candidate.ckpt"
    checkpoint.write(_completed(checkpoint.read(run / "checkpoints" / "best.ckpt"), checkpoint.read(path)), candidate)
    after = load_one(str(candidate), device)
    with progress("judging", 2 * sum(len(data.lines(split)) for data, split in judged.values())) as advance:
        changes = {
            name: compare(*(evaluate(one, data, split, advance).predictions for one in (before, after)))
            for name, (data, split) in judged.items()
        }
    verdict = judge(changes["new"], changes.get("old"), max_loss)
    figures: dict[str, Any] = {
        name: {**found._asdict(), "difference": found.difference._asdict(), "data": about[name]}
        for name, found in changes.items()
    }
    figures |= {"old_data": chosen, "overrides": settings, "max_loss": max_loss, "run": str(run),
                "lines": status.splits, "seconds": round(time.perf_counter() - started)}  # fmt: skip
    if parent is None:
        parent = Event(0, "", who, "start", 0, None, file_hash(path), 0, f"registered {path.name}", {})
        _make_version(store, parent, path, 0)
    last = events[-1].number if events else store.events()[0].number
    event = Event(0, "", who, "refused", None, parent.version, file_hash(candidate), until, verdict.reason, figures)
    if not verdict.promoted:
        store.record(event, last)
        return store.events()[-1]
    version = 1 + max((event.version for event in events if event.version is not None), default=0)
    return _make_version(store, event._replace(kind="promoted", version=version), candidate, last)


def _run(path: Path, settings: Sequence[str]) -> Path:
    """Fine-tune a checkpoint, and return the folder of the run."""
    folder = Path(new_folder(f"runs/{datetime.now():%Y-%m-%d/%H-%M-%S}-feedback"))
    recipe = [] if any(one.startswith("experiment=") for one in settings) else [RECIPE]
    fine_tune(str(path), [*recipe, *settings, f"hydra.run.dir={_quoted(folder)}"], keeps_language=True)
    return folder


def _make_version(store: CorrectionStore, event: Event, checkpoint: Path, last: int) -> Event:
    """Make a checkpoint the current version, and return the recorded entry.

    Its file is whole before the entry is committed, which is the moment from which it is the current version.
    """
    _copy(checkpoint, _path(store, event))
    store.record(event, last)
    current(store)
    return store.events()[-1]


def _copy(source: Path, target: Path) -> None:
    """Copy a file, so that there is a whole one at its new path or what was there before."""
    with replacing(target, "file of corrections") as new:
        shutil.copyfile(source, new)


def rollback(store: CorrectionStore, to: int | None = None, why: str = "", who: str = "") -> Event:
    """Make an earlier version the current one again, and return the entry.

    Args:
        store: corrections.
        to: version; None for the one that the current version was trained from.
        why: reason, for the audit trail.
        who: name of the person.

    Raises:
        InputError: if there is no such version.
    """
    events = store.events()
    now = current_version(events)
    made = {event.version: event for event in events if event.kind in ("start", "promoted")}
    target = now.parent if now is not None and to is None else to
    if now is None or target is None or target not in made or target == now.version:
        known = ", ".join(str(version) for version in made if now is None or version != now.version)
        where = "no version yet" if now is None else f"version {now.version} is the current one"
        wanted = "before it" if to is None else to
        raise InputError(
            f"{store.path}: no version {wanted} to go back to ({where}; others: {known or 'none'}); see htr feedback "
            "versions"
        )
    version_file(store, made[target])
    reason = why or f"back from version {now.version}"
    store.record(made[target]._replace(kind="rollback", parent=now.version, reason=reason, who=who, figures={}),
                 events[-1].number)  # fmt: skip
    current(store)
    return store.events()[-1]


def _completed(content: dict[str, Any], parent: dict[str, Any]) -> dict[str, Any]:
    """Return a fine-tuned checkpoint with the language model and the calibration of the one that it started from."""
    card, old = content["htr"], parent["htr"]
    kept: dict[str, Any] = {key: content[key] for key in ("htr", "parts", "state_dict") if key in content}
    if "language" in parent:
        kept["language"] = parent["language"]
        card["model"]["decoder"] = old["model"]["decoder"]
    return kept | {"htr": card | {key: old[key] for key in ("tuned", "calibration") if key in old}}


def _quoted(path: Path) -> str:
    """Return a path as the value of an override."""
    return '"' + str(path).replace('"', '\\"') + '"'

"""Training on corrections: judged on lines that were not trained on, promoted at one moment, refused, taken back."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome

from htr_lightning import checkpoint
from htr_lightning.adapt import feedback
from htr_lightning.adapt.corrected_files import read_corrections
from htr_lightning.adapt.feedback import Change, compare, current, folder_of, judge, rollback, train
from htr_lightning.data.corrected import Correction, is_held_out
from htr_lightning.data.corrections import CorrectionStore, current_version
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.files import file_hash
from htr_lightning.data.page.document import read_page
from htr_lightning.data.reader.corrections import Corrections
from htr_lightning.errors import InputError
from htr_lightning.evidence.evaluate import Evaluation
from htr_lightning.metrics.edits import line_counts, total
from htr_lightning.metrics.significance import TOO_FEW, paired_difference
from htr_lightning.pretrained import locate
from htr_lightning.transcription import Prediction

TEXT = "abcdefghij"


def predictions(errors: list[int], groups: int = 99) -> list[Prediction]:
    """Return a prediction for each number of wrong characters."""
    return [
        Prediction(f"{n}", TEXT, "-" * wrong + TEXT[wrong:], 1.0, f"g{n % groups}") for n, wrong in enumerate(errors)
    ]


# ---- the gate


@pytest.mark.parametrize(("lines", "groups"), [(5, 5), (8, 8), (8, 6), (12, 2)])
def test_the_p_value_is_that_of_flipping_groups_or_lines(lines: int, groups: int) -> None:
    before, after = [3, 5, 4, 2, 6, 3, 4, 5, 1, 2, 2, 4][:lines], [1, 2, 4, 1, 3, 3, 1, 4, 0, 2, 1, 1][:lines]
    change = compare(predictions(before, groups), predictions(after, groups))
    assert (change.before, change.after, change.characters) == (sum(before), sum(after), 10 * lines)
    gains = np.subtract(after, before)
    units = [gains[g::groups].sum() for g in range(groups)] if groups >= 6 else list(gains)
    flips = [abs(np.dot(signs, units)) >= abs(sum(units)) for signs in product((1, -1), repeat=len(units))]
    assert change.difference.p == pytest.approx(np.mean(flips))
    assert change.difference.value == pytest.approx(sum(gains) / (10 * lines))


def test_with_few_groups_the_p_value_alone_is_over_lines() -> None:
    before, after = [3, 5, 4, 2, 6, 3, 4, 5, 1, 2, 2, 4], [1, 2, 4, 1, 3, 3, 1, 4, 0, 2, 1, 1]
    for groups in (2, 4):
        read = predictions(before, groups), predictions(after, groups)
        found = compare(*read).difference
        expected = paired_difference(before, after, [10] * 12, [one.group for one in read[0]])
        assert (found.low, found.high) == (expected.low, expected.high)
        assert (found.units, found.over) == (12, TOO_FEW)
        assert f"over 12 {TOO_FEW})" in str(compare(*read))
    assert compare(predictions(before[:5]), predictions(after[:5])).difference.over == "lines"  # each is a group


def change(before: list[int], after: list[int]) -> Change:
    return compare(predictions(before), predictions(after))


BETTER, SAME = change([4] * 20, [2, 1] * 10), change([1, 2] * 50, [1, 2] * 50)
CASES = [
    (BETTER, SAME, True, "better on held-out corrections"),
    (BETTER, None, True, "old lines: none given"),
    (change([2, 1] * 10, [4] * 20), SAME, False, "read worse"),
    (change([4] * 20, [4] * 20), SAME, False, "no gain"),
    (change([4] * 20, [3] + [4] * 19), SAME, False, "no gain on held-out corrections that chance does not explain"),
    (change([4] * 5, [0] * 5), SAME, False, "no gain"),  # five lines cannot show it
    (BETTER, change([1] * 100, [2, 1] * 50), False, "old lines may lose more than 1.0 points"),
    (BETTER, change([1] * 100, [0, 1] * 50), True, "better"),
    (BETTER, change([0, 3], [3, 0]), False, "too few old lines"),
]


@pytest.mark.parametrize(("new", "old", "promoted", "reason"), CASES)
def test_what_is_promoted_and_what_is_refused(new: Change, old: Change | None, promoted: bool, reason: str) -> None:
    verdict = judge(new, old)
    assert verdict.promoted == promoted
    assert reason in verdict.reason
    assert f"CER {new.before / new.characters:.2%} -> {new.after / new.characters:.2%}" in verdict.reason
    assert "\n" not in verdict.reason


def test_an_uncertain_loss_counts_as_one() -> None:
    few, many = (change([2, 3, 1, 2] * n, [3, 2, 2, 1] * n) for n in (3, 2000))  # no loss, in few and in many lines
    assert not judge(BETTER, few).promoted
    assert judge(BETTER, many).promoted


# ---- versions; training and reading are replaced, since they are tested elsewhere


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorrectionStore:
    monkeypatch.chdir(tmp_path)
    store = CorrectionStore("corrections.db", create=True)
    rng = np.random.default_rng(0)
    store.add([Correction(rng.integers(0, 256, (40, 200), dtype=np.uint8), "abed", source=f"{n % 10}.png", line=f"{n}")
               for n in range(40)], "anna")  # fmt: skip
    return store


READER = "digits"  # the smallest one


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that sets how many characters of ten are wrong in new and old lines, before and after training."""
    rates: list[int] = []

    def opened(recognizer: Any, overrides: list[str]) -> LineDataModule:
        assert overrides[0] == "data=corrections"
        return LineDataModule(Corrections, recognizer.preprocess, recognizer.normalizer, root="corrections.db")

    def fine_tuned(path: str, overrides: list[str], keeps_language: bool) -> None:
        folder = Path(next(one for one in overrides if one.startswith("hydra.run.dir=")).partition("=")[2].strip('"'))
        content = checkpoint.read(path)
        content["htr"]["round"] = content["htr"].get("round", 0) + 1  # another file
        checkpoint.write(content, folder / "checkpoints" / "best.ckpt")

    def evaluated(recognizer: Any, data: Any, split: str, advance: Any) -> Evaluation:
        lines = data.lines(split)
        assert len(lines)
        found = predictions([rates.pop(0)] * 20)
        return Evaluation(found, total([line_counts(one.reference, one.hypothesis) for one in found]))

    def give(new: tuple[int, int], old: tuple[int, int] | None = None) -> None:
        rates[:] = [*new, *(old or ())]

    monkeypatch.setattr(feedback, "data_for", opened)
    monkeypatch.setattr(feedback, "fine_tune", fine_tuned)
    monkeypatch.setattr(feedback, "evaluate", evaluated)
    yield give
    assert not rates


NO_OLD = ["data@replay=null"]


def test_promoted_refused_and_taken_back(store: CorrectionStore, outcome: Callable[..., None]) -> None:
    outcome((4, 2))
    event = train(store, READER, NO_OLD, "anna")
    assert (event.kind, event.version, event.parent, event.who, event.until) == ("promoted", 1, 0, "anna", 40)
    assert store.status().waiting == 0
    copy = folder_of(store) / "current.ckpt"
    assert file_hash(copy) == event.sha256 != file_hash(locate(READER))
    store.add([Correction(np.zeros((40, 200), np.uint8), "bad", source="x.png")], "bob")
    assert store.status().waiting == 1
    outcome((2, 4))
    refused = train(store, who="bob")  # with the old data of the last training
    assert (refused.kind, refused.version, refused.parent) == ("refused", None, 1)
    assert "read worse; held-out corrections: CER 20.00% -> 40.00% in 20 lines (+20.00 points" in refused.reason
    assert file_hash(copy) == event.sha256
    assert store.status().waiting == 1
    back = rollback(store, why="slipped lines", who="eva")
    assert (back.kind, back.version, back.parent, back.reason, back.who) == ("rollback", 0, 1, "slipped lines", "eva")
    assert file_hash(copy) == file_hash(locate(READER))
    assert store.status().waiting == 41
    outcome((4, 2))
    assert (train(store, who="eva").version, store.events()[-1].parent) == (2, 0)  # no number is used twice
    assert rollback(store, to=1).sha256 == event.sha256 == file_hash(copy)
    kinds = ["start", "promoted", "refused", "rollback", "promoted", "rollback"]
    assert [one.kind for one in store.events()] == kinds
    for name in ("before", "after", "characters", "difference", "data"):
        assert name in refused.figures["new"]


def test_progress_is_of_reading_only(
    store: CorrectionStore, outcome: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, happened = feedback._run, list[str]()

    @contextmanager
    def progress(title: str, lines: int) -> Iterator[Callable[[int], None]]:
        happened.append(f"{title} {lines}")
        yield lambda count: None
        happened.append("end")

    def fine_tuned(*arguments: Any) -> Path:
        happened.append("fine-tuning")
        return run(*arguments)

    monkeypatch.setattr(feedback, "_run", fine_tuned)
    outcome((4, 2))
    train(store, READER, NO_OLD, progress=progress)
    assert happened == ["fine-tuning", f"judging {2 * store.status().splits['test']}", "end"]


def test_the_language_model_and_the_calibration_are_kept(store: CorrectionStore, outcome: Callable[..., None]) -> None:
    outcome((4, 2))
    train(store, "latin-modern", NO_OLD)
    old, new = (checkpoint.load(path) for path in ("latin-modern", folder_of(store) / "current.ckpt"))
    assert new.card["model"]["decoder"] == old.card["model"]["decoder"]
    assert new.calibration == old.calibration
    assert type(new.decoder) is type(old.decoder)
    assert new.decoder.automaton is not None


class Crash(BaseException):
    """A process that ends here."""


@pytest.mark.parametrize("what", ["promotion", "rollback"])
def test_a_crash_leaves_the_old_version_or_the_new_one(
    what: str, store: CorrectionStore, outcome: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome((4, 2))
    train(store, READER, NO_OLD)
    copy = folder_of(store) / "current.ckpt"
    for step in range(9):
        before, steps = current(store)[0], iter(range(9))

        def crashing(work: Callable[..., Any], step: int = step, steps: Iterator[int] = steps) -> Callable[..., Any]:
            def run(*arguments: Any) -> Any:
                if next(steps) == step:
                    raise Crash
                return work(*arguments)

            return run

        with monkeypatch.context() as patch:
            patch.setattr(feedback, "_copy", crashing(feedback._copy))  # of the version, then of `current.ckpt`
            patch.setattr(CorrectionStore, "record", crashing(CorrectionStore.record))
            try:
                if what == "promotion":
                    outcome((4, 2))
                    train(store)
                else:
                    rollback(store, to=1 - int(before.version or 0))
                break
            except Crash:
                pass
        events = store.events()
        assert file_hash(copy) == before.sha256  # whole, whatever happened
        now, path = current(store)
        assert now == (current_version(events) if events[-1].number > before.number else before)
        assert file_hash(path) == file_hash(copy) == now.sha256
    assert step == (3 if what == "promotion" else 2)  # the number of steps


def test_of_two_trainings_at_once_the_second_is_refused_and_changes_nothing(
    store: CorrectionStore, outcome: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome((4, 2))
    train(store, READER, NO_OLD)
    run = feedback._run

    def overtaken(*arguments: Any) -> Path:
        rollback(CorrectionStore(store.path), why="meanwhile")
        return run(*arguments)

    monkeypatch.setattr(feedback, "_run", overtaken)
    outcome((4, 2))
    with pytest.raises(InputError, match="in the meantime"):
        train(store)
    assert current(store)[0].version == 0


def test_faults_name_the_remedy(store: CorrectionStore, outcome: Callable[..., None]) -> None:
    with pytest.raises(InputError, match=r"no old data .* add data@replay=NAME"):
        train(store, READER)
    with pytest.raises(InputError, match="no version of a recognizer yet"):
        current(store)
    with pytest.raises(InputError, match="no version before it to go back to"):
        rollback(store)
    outcome((4, 2))
    train(store, READER, NO_OLD)
    with pytest.raises(InputError, match=r"--recognizer .* already has versions"):
        train(store, READER, NO_OLD)
    with pytest.raises(InputError, match=r"no version 7 to go back to \(version 1 is the current one; others: 0\)"):
        rollback(store, to=7)
    for path in folder_of(store).glob("1-*.ckpt"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"1-.*ckpt: has changed since it was written; .* --to VERSION"):
        train(store)
    assert rollback(store, to=0).version == 0
    few = CorrectionStore("few.db", create=True)
    few.add([Correction(np.zeros((40, 200), np.uint8), "ab", source="1.png")])
    with pytest.raises(InputError, match=r"few\.db: none of the 1 lines is"):
        train(few, READER, NO_OLD)


def test_the_commands(
    store: CorrectionStore, outcome: Callable[..., None], htr: Callable[..., Outcome],
    write_page: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    xml = write_page(tmp_path / "pages", ["un", "deux"])
    added = htr("feedback", "add", store.path, xml, "--who", "bob", "--group", "bob")
    assert "2 lines accepted, 0 of them known with the same text, 0 contradicted" in added.stdout
    xml.write_text(xml.read_text().replace("deux", "dix"))
    told = htr("feedback", "add", store.path, xml, "--who", "eva", "--group", "bob").stdout
    assert "contradiction: page.xml#l1: 'deux' (bob), 'dix' (eva); not used until one is added with --settle" in told
    status = htr("feedback", "status", store.path).stdout
    assert "44 corrections by 3 people; 41 lines" in status
    assert "waiting: 41 lines since the start" in status
    assert "contradictions: 1 (not used)" in status
    outcome((4, 2))
    trained = htr("feedback", "train", store.path, *NO_OLD, "--recognizer", READER)
    assert "promoted version 1 from 0" in trained.stdout, trained.stderr
    assert "corrections.recognizers/current.ckpt" in trained.stdout
    assert json.loads(htr("feedback", "status", store.path, "--json").stdout)["version"] == 1
    assert "rollback version 0 from 1" in htr("feedback", "rollback", store.path, "--why", "no").stdout
    listed = htr("feedback", "versions", store.path).stdout.splitlines()
    assert [line.split(": ")[1].split()[0] for line in listed[:3]] == ["start", "promoted", "rollback"]
    assert listed[3].startswith("current: version 0, ")
    assert len(json.loads(htr("feedback", "versions", store.path, "--json").stdout)) == 3
    refused = htr("feedback", "status", "none.db")
    assert (refused.code, refused.stderr.count("\n")) == (1, 1)


# ---- the real thing


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_corrections_of_new_writers_lower_the_error_rate_and_slipped_lines_are_refused(
    htr_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test writers of Copiste, none of whom wrote a line of training; the old data are other pages of it."""
    monkeypatch.chdir(tmp_path)
    splits = dict(line.split("\t") for line in (htr_data / "copiste" / "split.tsv").read_text().splitlines()[1:])
    pages = {split: [name for name in splits if splits[name] == split] for split in ("train", "val", "test")}
    good, bad = [], []
    for page in pages["test"]:
        for path in (htr_data / "copiste").rglob(f"{page}.*"):  # ALTO and JPEG files are in two folders
            Path(path.name).symlink_to(path)
        written = [line for line in read_page(Path(f"{page}.xml")).lines if line.text.strip()]
        for number, line in enumerate(written):
            slipped = line.text if is_held_out(page) else written[(number + 1) % len(written)].text
            good.append({"file": f"{page}.xml", "line": line.id, "text": line.text, "group": page})
            bad.append(good[-1] | {"text": slipped})
    for name, texts in (("good.jsonl", good), ("bad.jsonl", bad)):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in texts))
    few = pages["train"][::5] + pages["val"] + pages["test"][:1]
    Path("few.tsv").write_text("page\tsplit\n" + "".join(f"{name}\t{splits[name]}\n" for name in few))
    old = ["data@replay=copiste", f"replay.root={htr_data}/copiste", f"replay.reader.splits={tmp_path}/few.tsv"]
    store = CorrectionStore("corrections.db", create=True)
    for corrections in read_corrections(["good.jsonl"], Counter()):
        store.add(corrections, "anna")
    learned = train(store, "latin-modern", [*old, "logger=csv"])
    print(learned.reason)
    (before, after), (old_before, old_after) = rates(learned.reason)
    assert after < before
    assert old_after < old_before + 0.5
    for corrections in read_corrections(["bad.jsonl"], Counter()):
        store.add(corrections, "mallory", settle=True)
    version = current(store)[0].sha256
    slipped = train(store, overrides=["logger=csv"])
    print(slipped.reason)
    (before, after), *_ = rates(slipped.reason)
    assert after > before
    assert slipped.kind == "refused"
    assert current(store)[0].sha256 == version


def rates(reason: str) -> list[tuple[float, float]]:
    """Return the error rates of held-out corrections and of old lines before and after training, in percent."""
    return [(float(one), float(other)) for one, other in re.findall(r"CER ([\d.]+)% -> ([\d.]+)%", reason)]

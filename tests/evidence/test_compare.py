"""Systems are compared on the same lines, and refused where the lines or definitions differ."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import pytest
import yaml
from conftest import Outcome

from htr_lightning.errors import InputError
from htr_lightning.evidence.compare import compare, find_systems
from htr_lightning.evidence.runs import predictions
from htr_lightning.metrics.significance import holm
from htr_lightning.transcription import Prediction, write_predictions

TEXTS = ["Le 3 mai 1858.", "une ligne", "payé, 12 francs", "Monsieur Jean Dupont demeurant rue de Paris", "x y z"]
LINES = [(f"page{group}/{number}", text, f"page{group}") for group in range(8) for number, text in enumerate(TEXTS)]


def written(folder: Path, errors: Callable[[int], int], card: dict | None = None, lines: list = LINES) -> Path:
    """Write predictions in which the first characters of each line are wrong: `errors(number of the line)`."""
    folder.mkdir(parents=True)
    read = [Prediction(id, text, "#" * errors(n) + text[errors(n) :], 0.9, group)
            for n, (id, text, group) in enumerate(lines)]  # fmt: skip
    write_predictions(folder, read)
    if card is not None:
        (folder / "metrics.json").write_text(json.dumps(card))
    return folder


def run(folder: Path, overrides: list[str], seed: int, errors: Callable[[int], int]) -> Path:
    written(folder, errors)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"seed": seed}))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*overrides, f"seed={seed}"]))
    return folder


def test_a_system_equals_itself(tmp_path: Path, htr: Callable[..., Outcome]) -> None:
    path = written(tmp_path / "a", lambda n: n % 3)
    found = htr("compare", path, path, "--json")
    assert found.code == 0, found.stderr
    (pair,) = json.loads(found.stdout)["pairs"]
    for rate in ("cer", "wer"):
        difference = pair[rate]
        assert [difference[key] for key in ("value", "low", "high", "p")] == [0, 0, 0, 1]
    assert pair["cer_p"] == 1
    assert pair["changes"] == {"texts": 0, "better": 0, "worse": 0}
    shown = htr("compare", path, path).stdout
    assert "B - A   CER +0.00 [+0.00, +0.00] points, p 1.0000" in shown


def test_groups_kinds_and_texts_in_which_each_system_wins_are_counted(tmp_path: Path) -> None:
    first = written(tmp_path / "a", lambda n: 2 if n < 10 else 1)  # worse on the first two pages
    second = written(tmp_path / "b", lambda n: 3 if n % 5 == 1 else 1)  # worse on "une ligne"
    systems, notes = find_systems([str(first), str(second / "predictions.jsonl")])
    assert notes == []
    found = compare(systems)
    characters = 8 * sum(map(len, TEXTS))
    assert (found.lines, found.characters, found.groups) == (40, characters, 8)
    assert [score.cer for score in found.scores] == pytest.approx([50 / characters, 56 / characters])
    (pair,) = found.pairs
    assert pair.cer.value == pytest.approx(6 / characters)
    assert pair.changes == (16, 8, 8)
    gains = {part.name: (part.second - part.first) * part.characters for part in pair.groups}
    assert gains == pytest.approx({f"page{n}": -3 if n < 2 else 2 for n in range(8)})
    assert [part.name for part in pair.groups[:2]] == ["page0", "page1"]
    kinds = {part.name: part for part in pair.kinds}
    assert kinds["with digits"].lines == kinds["with punctuation"].lines == 16
    assert kinds["with digits"].difference.value < 0
    assert kinds["only small letters"].lines == 16
    assert kinds["only small letters"].difference.value > 0
    assert sum(kinds[name].lines for name in ("up to 14 characters", "over 14 characters")) == 40


@pytest.mark.parametrize(
    ("card", "lines", "message"),
    [
        ({"split": "val"}, LINES, "split is val, not test"),
        ({"data": {"sha256": "other"}}, LINES, "data.sha256 is other, not same"),
        ({"normalizer": {"form": "NFD"}}, LINES, "normalizer is {'form': 'NFD'}, not {'form': 'NFC'}"),
        ({"definition": {"wer": "of syllables"}}, LINES, "definition.wer is of syllables, not of words"),
        ({}, LINES[1:], r"ids differ in 1 lines \(first: page0/0\)"),
        ({}, [(LINES[0][0], "?", "page0"), *LINES[1:]], r"reference differs in 1 lines \(first: page0/0\)"),
        ({}, [(*LINES[0][:2], "page9"), *LINES[1:]], r"group differs in 1 lines \(first: page0/0\)"),
    ],
)
def test_what_is_not_the_same_is_refused_by_name(card: dict, lines: list, message: str, tmp_path: Path) -> None:
    own = {
        "split": "test",
        "data": {"sha256": "same"},
        "normalizer": {"form": "NFC"},
        "definition": {"wer": "of words"},
    }
    paths = [written(tmp_path / "a", lambda n: 0, own), written(tmp_path / "b", lambda n: 0, own | card, lines)]
    systems, _ = find_systems([str(path) for path in paths])
    with pytest.raises(
        InputError, match=f"b/predictions.jsonl: cannot be compared with .*a/predictions.jsonl: {message}"
    ):
        compare(systems)


def test_what_a_card_does_not_say_is_not_compared(tmp_path: Path) -> None:
    paths = [written(tmp_path / "a", lambda n: 0, {"split": "test"}), written(tmp_path / "b", lambda n: 1)]
    systems, _ = find_systems([str(path) for path in paths])
    assert compare(systems).pairs[0].cer.p == 2 / 2**8  # all eight pages are worse


def test_runs_that_differ_in_their_seeds_are_one_system(tmp_path: Path, htr: Callable[..., Outcome]) -> None:
    for seed in range(3):
        run(tmp_path / "sweep" / f"small{seed}", ["model=small"], seed, lambda n, seed=seed: (n + seed) % 4)
    run(tmp_path / "sweep" / "large", ["model=large"], 0, lambda n: 0)
    (tmp_path / "sweep" / "failed" / ".hydra").mkdir(parents=True)
    for name, content in (("config.yaml", {"seed": 5}), ("overrides.yaml", ["model=small", "seed=5"])):
        (tmp_path / "sweep" / "failed" / ".hydra" / name).write_text(yaml.safe_dump(content))
    systems, notes = find_systems([str(tmp_path / "sweep")])
    assert {system.name: len(system.members) for system in systems} == {
        str(tmp_path / "sweep" / "large"): 1,
        "model=small": 3,
    }
    assert len(notes) == 1
    assert "left out (1; first: " in notes[0]
    found = compare(systems)
    large, small = found.scores
    alone = [compare([system]).scores[0].cer for seed in range(3)
             for system in find_systems([str(tmp_path / "sweep" / f"small{seed}")])[0]]  # fmt: skip
    assert (small.runs, small.cer, small.cer_sd) == (3, pytest.approx(sum(alone) / 3), pytest.approx(stdev(alone)))
    assert (large.runs, large.cer_sd) == (1, None)
    assert found.pairs[0].changes is None
    assert found.pairs[0].cer.value == pytest.approx(small.cer)
    globbed = find_systems([str(tmp_path / "sweep" / "small*")])[0]
    assert [len(system.members) for system in globbed] == [3]
    two = find_systems([str(tmp_path / "sweep" / f"small{seed}") for seed in (0, 1)])[0]
    assert [len(system.members) for system in two] == [1, 1]  # nothing else would be left to compare
    shown = htr("compare", tmp_path / "sweep")
    assert shown.code == 0, shown.stderr
    assert "note: " in shown.stderr
    assert "model=small" in shown.stdout


def test_p_values_of_several_systems_are_corrected(tmp_path: Path) -> None:
    counts = [lambda n: 0, lambda n: 1, lambda n: n % 2, lambda n: int(n < 20)]
    paths = [str(written(tmp_path / str(number), errors)) for number, errors in enumerate(counts)]
    found = compare(find_systems(paths)[0])
    assert [pair.cer_p for pair in found.pairs] == holm([pair.cer.p for pair in found.pairs])
    assert [pair.first for pair in found.pairs] == [paths[0]] * 3


def test_a_trained_run_is_compared_with_an_evaluation_of_its_checkpoint(
    run_folder: Path, best: Path, tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    assert htr("evaluate", best, "--out", tmp_path / "again").code == 0
    again, tested = (predictions(folder / "predictions.jsonl") for folder in (tmp_path / "again", run_folder))
    assert [one[:3] for one in again] == [one[:3] for one in tested]  # in the same order
    same = htr("compare", run_folder, tmp_path / "again")
    assert same.code == 0, same.stderr
    assert "B - A   CER +0.00 [+0.00, +0.00] points, p 1.0000" in same.stdout
    assert htr("evaluate", best, "--split", "val", "--out", tmp_path / "val").code == 0
    other = htr("compare", run_folder, tmp_path / "val")
    assert other.code == 1
    assert other.stderr.startswith(f"error: {tmp_path / 'val'}")
    assert "split is val, not test; data.sha256 is " in other.stderr


def test_a_path_without_predictions_is_named_with_the_remedy(tmp_path: Path, htr: Callable[..., Outcome]) -> None:
    missing = htr("compare", tmp_path / "none", tmp_path / "none")
    assert missing.code == 1
    assert "none: not found; name a run folder" in missing.stderr
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text("{}")
    empty = htr("compare", tmp_path / "run", tmp_path / "run")
    assert empty.code == 1
    assert (
        f"has no predictions.jsonl; write it with htr evaluate {tmp_path / 'run'}/checkpoints/best.ckpt" in empty.stderr
    )

"""What run folders hold, as plain data: learning curves, runs compared, and what a model reads wrong."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import editdistance
import yaml
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError
from htr_lightning.text.align import Edit, edits
from htr_lightning.transcription import Prediction

WRITTEN = ("metrics.csv", "summary.json", "checkpoints/best.ckpt")  # by a run that went to its end
ITS_OWN = ("seed", "name", "run_dir", "hydra.run.dir")  # keys in which two runs of one recipe may differ


class Curve(NamedTuple):
    """A figure over the steps of a run."""

    steps: list[int]
    values: list[float]


class Run(NamedTuple):
    """A run folder."""

    folder: Path
    seed: int
    overrides: list[str]  # and the checkpoint that it started from
    curves: dict[str, Curve]  # by the name that was logged: train/loss, val/cer, ...
    summary: dict[str, Any]  # of summary.json; nothing while the run goes on
    lacks: list[str]  # files that a finished run has

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def recipe(self) -> tuple[str, ...]:
        """The overrides, but for those in which runs of one recipe may differ."""
        return tuple(sorted(o for o in self.overrides if o.lstrip("+").partition("=")[0] not in ITS_OWN))


class Band(NamedTuple):
    """A figure over several runs, at the steps that all of them have."""

    steps: list[int]
    mean: list[float]
    sd: list[float]  # of a sample; 0 for one run
    runs: int


class Row(NamedTuple):
    """The finished runs of a recipe: counts are summed over them, rates and times are their means."""

    name: str
    runs: int
    unfinished: int
    val_cer: float
    val_sd: float
    test_cer: float
    test_sd: float
    edits: int
    characters: int
    lines: int
    seconds: float


def find_runs(*folders: str | Path) -> list[Run]:
    """The runs in folders, at any depth, in the order of their names.

    Raises:
        InputError: a folder holds no run; or see `read_run`.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        inside = sorted(config.parent.parent for config in folder.rglob(".hydra/config.yaml"))
        if not inside:
            raise InputError(f"{folder}: no run in it (no .hydra/config.yaml); give a run folder or one above it")
        found += inside
    return [read_run(folder) for folder in dict.fromkeys(found)]


def read_run(folder: str | Path) -> Run:
    """A run folder, finished or not.

    Raises:
        InputError: it is none, or one of its files cannot be read.
    """
    folder = Path(folder)
    config = _load(folder / ".hydra" / "config.yaml", yaml.safe_load)
    overrides = _load(folder / ".hydra" / "overrides.yaml", yaml.safe_load)
    if not isinstance(config, dict) or not isinstance(overrides, list):
        raise InputError(f"{folder / '.hydra'}: no config of a run; copy the folder again")
    given = [str(one) for one in overrides]
    if config.get("start") is not None and not any(one.lstrip("+").startswith("start=") for one in given):
        given.append(f"start={config['start']}")  # `htr fine-tune` is given it in another way
    lacks = [name for name in WRITTEN if not (folder / name).is_file()]
    curves = {} if "metrics.csv" in lacks else _load(folder / "metrics.csv", _curves)
    summary = {} if "summary.json" in lacks else _load(folder / "summary.json", json.loads)
    return Run(folder, config.get("seed", 0), given, curves, summary, lacks)


def by_recipe(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ in their seed alone, together; named by the overrides that other recipes do not have, less those
    that tell only where data lie, as long as names differ without them."""
    recipes: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        recipes.setdefault(run.recipe, []).append(run)
    common = set.intersection(*map(set, recipes)) if recipes else set()
    told = {recipe: [one for one in recipe if one not in common] for recipe in recipes}
    short = {
        recipe: [one for one in some if not one.partition("=")[0].endswith(".root")] for recipe, some in told.items()
    }
    named = {
        recipe: " ".join(short[recipe] if list(short.values()).count(short[recipe]) == 1 else told[recipe])
        for recipe in recipes
    }
    only = " ".join(sorted(common)) if len(recipes) == 1 else ""
    return {named[recipe] or only or "default": members for recipe, members in recipes.items()}


def band(runs: Iterable[Run], key: str) -> Band:
    """Mean and standard deviation of a figure over runs, such as seeds of one recipe; runs that have not logged it are
    left out and not counted.

    Args:
        runs: of one recipe.
        key: of `Run.curves`.
    """
    curves = [dict(zip(*run.curves[key], strict=True)) for run in runs if key in run.curves]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    columns = [[curve[step] for curve in curves] for step in steps]
    return Band(steps, [fmean(column) for column in columns], [_sd(column) for column in columns], len(curves))


def compare(recipes: dict[str, list[Run]]) -> list[Row]:
    """A row for each recipe that has a finished run, the best validation CER first.

    Args:
        recipes: see `by_recipe`.
    """
    rows = []
    for name, runs in recipes.items():
        done = [
            run.summary for run in runs if run.summary.get("test_characters") and run.summary["val_cer"] is not None
        ]
        if not done:
            continue
        val, test = [its["val_cer"] for its in done], [its["test_cer"] for its in done]
        edits, characters, lines = (sum(its[f"test_{key}"] for its in done) for key in ("edits", "characters", "lines"))
        rates = (fmean(val), _sd(val), fmean(test), _sd(test))
        seconds = fmean(its["seconds"] for its in done)
        rows.append(Row(name, len(done), len(runs) - len(done), *rates, edits, characters, lines, seconds))
    return sorted(rows, key=lambda row: row.val_cer)


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| recipe | runs | val CER | test CER | edits / characters | lines | time of a run |"]
    lines += ["|:--|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        val, test = (
            f"{mean:.2%}" + (f" ± {sd:.2%}" if row.runs > 1 else "")
            for mean, sd in ((row.val_cer, row.val_sd), (row.test_cer, row.test_sd))
        )
        runs = f"{row.runs}" + (f" (+ {row.unfinished} unfinished)" if row.unfinished else "")
        name = row.name.replace("|", "\\|")
        counts = f"{row.edits:,} / {row.characters:,} | {row.lines:,} | {row.seconds:,.0f} s"
        lines.append(f"| `{name}` | {runs} | {val} | {test} | {counts} |")
    return "\n".join(lines)


def predictions(path: str | Path) -> list[Prediction]:
    """The lines of a `predictions.jsonl` that `htr evaluate` wrote.

    Raises:
        InputError: it is missing, or one of its lines is none.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; htr evaluate CHECKPOINT writes it")
    found = []
    for number, line in enumerate(_load(path, str).rstrip("\n").split("\n"), start=1):
        try:
            found.append(Prediction(**json.loads(line)))
        except (TypeError, ValueError):
            raise InputError(f"{path}: line {number} is no prediction; write it again by htr evaluate") from None
    return found


def worst(read: Sequence[Prediction], count: int) -> list[Prediction]:
    """The lines with most edits; of equal ones those that the model was surest of."""
    wrong = {one: distance for one in read if (distance := editdistance.eval(one.reference, one.hypothesis))}
    return sorted(wrong, key=lambda one: (-wrong[one], -one.confidence, one.id))[:count]


def edit_counts(read: Iterable[Prediction]) -> Counter[Edit]:
    """How often each character was read as what; also the right ones, so that shares can be taken."""
    return Counter(edit for one in read for edit in edits(one.reference, one.hypothesis))


def images(reader: Reader, ids: Iterable[str]) -> list[UInt8[ndarray, "_ _"]]:
    """The images of samples, as they were scanned.

    Raises:
        InputError: the reader does not have a sample.
    """
    places = {id: place for place, id in enumerate(reader.ids)}
    ids = list(ids)
    if absent := next((id for id in ids if id not in places), None):
        raise InputError(f"{absent}: not among these {len(places)} lines; give the data that the predictions are of")
    return [reader[places[id]].image for id in ids]


def _load(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; is this a run folder?") from None
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); copy it again") from None


def _curves(text: str) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    for row in csv.DictReader(text.splitlines()):
        for key, value in row.items():
            if key is None or value is None:
                raise ValueError("a row is cut off")
            if key not in ("step", "epoch") and value:
                curve = curves.setdefault(key, Curve([], []))
                curve.steps.append(int(row["step"]))
                curve.values.append(float(value))
    return curves


def _sd(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0

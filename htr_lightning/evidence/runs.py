"""Load run folders and predictions as plain data, and compare runs."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError, first_line
from htr_lightning.transcription import Prediction
from htr_lightning.yaml_file import load_yaml

COMPLETE = ("metrics.csv", "summary.json", "checkpoints/best.ckpt")  # files of a finished run
FIGURES = ("val_cer", "test_cer", "test_edits", "test_characters", "test_lines", "seconds")  # of summary.json
PER_RUN = ("seed", "name", "run_dir", "hydra.run.dir")  # keys that may differ between runs of the same recipe


class Curve(NamedTuple):
    """The values of a metric over the steps of a run."""

    steps: list[int]
    values: list[float]


class Run(NamedTuple):
    """The config, curves and results of a run."""

    folder: Path
    seed: int
    overrides: list[str]  # including the checkpoint the run started from
    curves: dict[str, Curve]  # keyed by logged name: train/loss, val/cer, ...
    summary: dict[str, Any]  # contents of summary.json; empty if the run is unfinished
    missing: list[str]  # files of a finished run that do not exist

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def recipe(self) -> tuple[str, ...]:
        """The overrides, except those that may differ between runs of the same recipe."""
        return tuple(sorted(o for o in self.overrides if o.lstrip("+").partition("=")[0] not in PER_RUN))


class Band(NamedTuple):
    """The mean and standard deviation of a metric over several runs, at the steps that all of them logged."""

    steps: list[int]
    mean: list[float]
    sd: list[float]  # sample standard deviation; 0 for a single run
    runs: int


class Row(NamedTuple):
    """The summary of the finished runs of a recipe, in which counts are sums, and rates and times are means."""

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
    """Load all runs in the given folders, at any depth, sorted by path within each folder.

    Raises:
        InputError: if a folder contains no run, or a run cannot be loaded (see `read_run`).
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        inside = sorted(_run_folders(folder))
        if not inside:
            raise InputError(
                f"{folder}: contains no run (no .hydra/config.yaml); choose a run folder or a folder that contains one"
            )
        found += inside
    unique = {folder.resolve(): folder for folder in reversed(found)}
    return [read_run(folder) for folder in found if unique[folder.resolve()] is folder]


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield the run folders in a folder, following links and ignoring hidden folders."""
    visited: set[Path] = set()
    for where, folders, _ in os.walk(folder, followlinks=True):
        here = Path(where)
        if here.resolve() in visited:  # links may form circles
            folders.clear()
            continue
        visited.add(here.resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (here / ".hydra" / "config.yaml").is_file():
            yield here


def read_run(folder: str | Path) -> Run:
    """Load a finished or unfinished run from its folder.

    Raises:
        InputError: if the folder is not a run folder, or one of its files cannot be read.
    """
    folder = Path(folder)
    config, overrides = (load_yaml(folder / ".hydra" / name) for name in ("config.yaml", "overrides.yaml"))
    seed = config.get("seed", 0) if isinstance(config, dict) else None
    if not isinstance(seed, int) or not isinstance(overrides, list):
        raise InputError(f"{folder / '.hydra'}: does not contain a valid config; restore the original files")
    given = [str(one) for one in overrides]
    if config.get("start") is not None and not any(one.lstrip("+").startswith("start=") for one in given):
        given.append(f"start={config['start']}")  # `htr fine-tune` takes the checkpoint as an argument
    missing = [name for name in COMPLETE if not (folder / name).is_file()]
    curves = {} if "metrics.csv" in missing else load_curves(folder / "metrics.csv")
    summary = {} if "summary.json" in missing else load_summary(folder / "summary.json")
    return Run(folder, seed, given, curves, summary, missing)


def load_curves(path: Path) -> dict[str, Curve]:
    """Load the curves in a `metrics.csv` file, keyed by logged name."""
    return _load(path, _curves)


def load_card(folder: Path) -> dict[str, Any]:
    """Return the card of the figures in a folder with predictions, or an empty dict if the folder has no card.

    Raises:
        InputError: if the file that contains it is corrupted.
    """
    path = next((folder / name for name in ("metrics.json", "summary.json") if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found = found.get("card", {}) if path.name == "summary.json" else found
        if not isinstance(found.get("data", {}), dict) or not isinstance(found.get("definition", {}), dict):
            raise ValueError("not the card of an evaluation")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: is corrupted ({first_line(error)}); repeat htr evaluate") from None
    return found


def load_summary(path: Path) -> dict[str, Any]:
    """Load a `summary.json` file."""
    return _load(path, _summary)


def by_recipe(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs by recipe, so that the runs in a group differ only in their seed.

    Each group is named after the overrides that are not common to all recipes. Data paths are left out if the names
    are distinct without them.
    """
    recipes: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        recipes.setdefault(run.recipe, []).append(run)
    common = set.intersection(*map(set, recipes)) if recipes else set()
    distinct = {recipe: [one for one in recipe if one not in common] for recipe in recipes}
    short = {
        recipe: [one for one in some if not one.partition("=")[0].endswith(".root")]
        for recipe, some in distinct.items()
    }
    named = {
        recipe: " ".join(short[recipe] if list(short.values()).count(short[recipe]) == 1 else distinct[recipe])
        for recipe in recipes
    }
    only = " ".join(sorted(common)) if len(recipes) == 1 else ""
    return {named[recipe] or only or "default": members for recipe, members in recipes.items()}


def best(runs: Iterable[Run]) -> Run:
    """Return the finished run with the lowest validation CER.

    Raises:
        InputError: if no run has finished.
    """
    finished = [run for run in runs if not run.missing and run.summary.get("val_cer") is not None]
    if not finished:
        raise InputError("no run has finished; wait until one has, or choose other folders")
    return min(finished, key=lambda run: run.summary["val_cer"])


def band(runs: Iterable[Run], key: str) -> Band:
    """Compute the mean and standard deviation of a metric over runs, ignoring runs that did not log it.

    Args:
        runs: runs of the same recipe.
        key: name of the metric, a key of `Run.curves`.
    """
    curves = [dict(zip(*run.curves[key], strict=True)) for run in runs if key in run.curves]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    columns = [[curve[step] for curve in curves] for step in steps]
    return Band(steps, [fmean(column) for column in columns], [_sd(column) for column in columns], len(curves))


def compare(recipes: dict[str, list[Run]]) -> list[Row]:
    """Summarise each recipe that has a finished run, best validation CER first.

    Args:
        recipes: runs grouped by recipe; see `by_recipe`.
    """
    rows = []
    for name, runs in recipes.items():
        done = [
            run.summary
            for run in runs
            if run.summary.get("test_characters") and all(run.summary.get(key) is not None for key in FIGURES)
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
    """Format rows as a Markdown table."""
    lines = ["| recipe | runs | val CER | test CER | edits / characters | lines | time per run |"]
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
    """Load a `predictions.jsonl` file written by `htr evaluate`.

    Raises:
        InputError: if the file does not exist, or one of its lines is not a valid prediction.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: not found; create it with htr evaluate CHECKPOINT")
    found = []
    for number, line in enumerate(_load(path, str).rstrip("\n").split("\n"), start=1):
        try:
            found.append(_prediction(line))
        except (TypeError, ValueError, RecursionError):
            raise InputError(
                f"{path}: line {number} is not a valid prediction; regenerate the file with htr evaluate CHECKPOINT"
            ) from None
    return found


def images(reader: Reader, ids: Iterable[str]) -> list[UInt8[ndarray, "_ _"]]:
    """Return the unprocessed images of the given samples.

    Args:
        reader: reader that contains the samples.
        ids: ids of the samples.

    Raises:
        InputError: if a sample is not in the reader.
    """
    positions = {id: position for position, id in enumerate(reader.ids)}
    ids = list(ids)
    if absent := next((id for id in ids if id not in positions), None):
        raise InputError(
            f"{absent}: not found among {len(positions)} lines; use the data set that the predictions were made on"
        )
    return [reader[positions[id]].image for id in ids]


def _load(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check that the folder is a complete run folder") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise InputError(f"{path}: is corrupted ({first_line(error)}); restore the original file") from None


def _prediction(line: str) -> Prediction:
    read = Prediction(**json.loads(line))
    texts, confidence = (read.id, read.reference, read.hypothesis, read.group), read.confidence
    if not all(isinstance(text, str) for text in texts) or not isinstance(confidence, int | float):
        raise TypeError
    words, characters = (tuple(map(float, values)) for values in (read.words, read.characters))
    if characters and (len(words), len(characters)) != (len(read.hypothesis.split()), len(read.hypothesis)):
        raise ValueError("not a confidence for each word and character")
    return read._replace(confidence=float(confidence), words=words, characters=characters)


def _summary(text: str) -> dict[str, Any]:
    summary = json.loads(text)
    if not isinstance(summary, dict):
        raise ValueError("not the results of a run")
    if odd := next((key for key in FIGURES if not isinstance(summary.get(key), int | float | None)), None):
        raise ValueError(f"{odd} is not a number")
    return summary


def _curves(text: str) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    for row in csv.DictReader(text.splitlines()):
        for key, value in row.items():
            if key is None or value is None:
                raise ValueError("a row is truncated")
            if key not in ("step", "epoch") and value:
                curve = curves.setdefault(key, Curve([], []))
                curve.steps.append(int(row["step"]))
                curve.values.append(float(value))
    return curves


def _sd(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0

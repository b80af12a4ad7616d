"""The plan of a benchmark, the files with its results, and the table that is made from them."""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from htr_lightning.errors import InputError, first_line
from htr_lightning.evidence.table import Column, Table, markdown
from htr_lightning.pretrained import is_checkpoint
from htr_lightning.yaml_file import load_yaml

SAVED, GREEDY, TUNE = "as saved", "greedy", "tune"  # decoders that are no overrides
KINDS = ("train", "models", "decoders", "test")
KEYS = (*KINDS, "seeds", "overrides", "title")
MARKED = re.compile(r"(<!-- benchmark (\S+) -->\n).*?(<!-- end of benchmark -->)", re.DOTALL)


class Row(NamedTuple):
    """The names of a training set ("" for a model that is not trained), a model, a decoder and a test set."""

    train: str
    model: str
    decoder: str
    test: str


class Plan(NamedTuple):
    """The options of a benchmark by name, as words of a command line."""

    path: Path
    title: str
    train: Mapping[str, list[str]]
    models: Mapping[str, list[str]]
    decoders: Mapping[str, list[str]]
    test: Mapping[str, list[str]]
    seeds: list[int]
    overrides: list[str]  # of every run

    @property
    def results(self) -> Path:
        """The folder with the stored results, beside the plan."""
        return self.path.with_suffix("")

    @property
    def rows(self) -> list[Row]:
        trained = [(train, model) for train in self.train for model in self.models if not self.is_checkpoint(model)]
        pairs = [*(("", model) for model in self.models if self.is_checkpoint(model)), *trained]
        return [Row(*pair, *rest) for pair in pairs for rest in product(self.decoders, self.test)]

    def is_checkpoint(self, model: str) -> bool:
        """Return whether a model is a checkpoint, an exported file or a recognizer of the package."""
        (first, *others) = self.models[model]
        return not others and "=" not in first and is_checkpoint(first)

    def seeds_of(self, row: Row) -> list[int] | list[None]:
        return self.seeds if row.train else [None]

    def file_of(self, row: Row) -> Path:
        """Return the file with the result of a row."""
        return self.results / ("_".join(map(slug, filter(None, row))) + ".json")

    def stored(self, row: Row) -> dict[str, Any] | None:
        """Return the stored result of a row, or None.

        Raises:
            InputError: if its file is damaged.
        """
        path = self.file_of(row)
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            _cells(found)
            found["commands"], found["checkpoint_sha256"][0]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a stored result ({first_line(error)}); delete it to measure again") from None
        return found

    def expanded(self, words: Sequence[str]) -> list[str]:
        """Return words with the values of environment variables.

        Raises:
            InputError: if a variable is not set.
        """
        for name in re.findall(r"\$(\w+)", " ".join(words)):
            if name not in os.environ:
                raise InputError(f"{self.path}: ${name} is not set; run it as {name}=VALUE htr benchmark {self.path}")
        return [os.path.expandvars(word) for word in words]


def slug(name: str) -> str:
    """Return a name as a part of a file name."""
    return re.sub(r"[^\w.-]+", "-", name)


def load_plan(path: Path) -> Plan:
    """Load the plan of a benchmark from a YAML file.

    Raises:
        InputError: if the file cannot be read, or a key or value is invalid; the message names it.
    """
    found = load_yaml(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a benchmark; it needs the keys {', '.join(KINDS)}")
    if unknown := [str(key) for key in found if key not in KEYS]:
        raise InputError(f"{path}: unknown key {unknown[0]}; use {', '.join(KEYS)}")
    found = {"train": {}, "decoders": {SAVED: SAVED}, "seeds": [0]} | found
    train, models, decoders, test = (_options(path, kind, found.get(kind)) for kind in KINDS)
    seeds = found["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise InputError(f"{path}: seeds={seeds}: expected a list of integers, e.g. [0, 1, 2]")
    overrides = _words(path, "overrides", found.get("overrides", []))
    plan = Plan(path, str(found.get("title", path.stem)), train, models, decoders, test, seeds, overrides)
    if not plan.rows:
        raise InputError(f"{path}: nothing to measure; add a model, a test set, and a set in train for models to learn")
    files = [plan.file_of(row) for row in plan.rows]
    if len({*files}) < len(files):
        raise InputError(f"{path}: two names differ only in characters that file names cannot have; rename one")
    return plan


def _options(path: Path, kind: str, value: Any) -> dict[str, list[str]]:
    if not isinstance(value, dict) or (not value and kind != "train"):
        raise InputError(f"{path}: {kind}={value}: expected names with overrides, e.g. {kind}: {{crnn: model=crnn}}")
    return {str(name): _words(path, f"{kind}.{name}", words) for name, words in value.items()}


def _words(path: Path, key: str, value: Any) -> list[str]:
    """Return the words of a text, or of a list of words."""
    if value in (SAVED, GREEDY):
        return [value]
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise InputError(f"{path}: {key}={value}: {first_line(error)}; close the quotes") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or (not words and "." in key):
        raise InputError(f"{path}: {key}={value}: expected overrides as one text, e.g. data=copiste data.root=FOLDER")
    return words


def table_of(plan: Plan, partial: bool = False) -> Table:
    """Return the table of the stored results.

    Args:
        plan: plan of the benchmark.
        partial: whether rows without a stored result are left out.

    Raises:
        InputError: if a result is missing or damaged.
    """
    found = [(row, plan.stored(row)) for row in plan.rows]
    if missing := [row for row, result in found if result is None and not partial]:
        raise InputError(f"{plan.results}: {len(missing)} of {len(found)} results are missing, the first: "
                         f"{' '.join(filter(None, missing[0]))}; run htr benchmark {plan.path}")  # fmt: skip
    rates = [
        one for rate in ("CER", "WER") for one in (Column(rate, "percent"), Column("95 %"), Column("sd", "percent"))
    ]
    columns = [Column("trained on"), Column("model"), Column("decoder"), Column("test set"), *rates,
               Column("runs", "count"), Column("lines", "count"), Column("lines/s a core", "number"),
               Column("MB", "number")]  # fmt: skip
    rows = [_cells(result) for _, result in found if result is not None]
    optional = {n for n, column in enumerate(columns) if column.title in ("trained on", "decoder", "sd", "runs")}
    usual = (None, "", SAVED, 1)
    kept = [n for n in range(len(columns)) if n not in optional or any(row[n] not in usual for row in rows)]
    return Table(plan.path.stem, plan.title, [columns[n] for n in kept], [[row[n] for n in kept] for row in rows])


def _cells(result: dict[str, Any]) -> list[Any]:
    def interval(rate: str) -> str | None:
        found = result[f"{rate}_interval"]
        return found and f"{100 * found['low']:.2f} to {100 * found['high']:.2f}"

    return [result["train"], result["model"], result["decoder"], result["test"], result["cer"], interval("cer"),
            result["cer_sd"], result["wer"], interval("wer"), result["wer_sd"], len(result["edits"]), result["lines"],
            result["lines_per_cpu_second"], result["bytes"] / 1e6]  # fmt: skip


def filled(path: Path) -> str:
    """Return a Markdown file with the tables of the benchmarks that its comments name, relative to its folder.

    Raises:
        InputError: if a plan or a result cannot be read.
    """

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n{markdown(table_of(load_plan(path.parent / f'{found[2]}.yaml')))}\n{found[3]}"

    return MARKED.sub(table, path.read_text(encoding="utf-8"))

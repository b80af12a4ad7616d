"""The `evaluate`, `compare`, `report` and `benchmark` commands."""

import json
import sys
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from htr_lightning.cli.arguments import (
    Calibration,
    Checkpoint,
    Device,
    Greedy,
    Overrides,
    Views,
    Weights,
    numbers,
    progress_bar,
    progress_text,
    split_checkpoints,
    typer_app,
)
from htr_lightning.errors import InputError, printable
from htr_lightning.output import JOURNAL, check_writable, make_folder

if TYPE_CHECKING:
    from htr_lightning.evidence.compare import Comparison, Pair
    from htr_lightning.metrics.significance import Difference

MOST = 3  # groups that are named on either side


@typer_app.command()
def evaluate(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Output folder (default: next to the checkpoint)")] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to evaluate on")] = "test",
    greedy: Greedy = False,
    weights: Weights = None,
    tta: Views = 1,
    calibration: Calibration = None,
    conventions: Annotated[
        bool, typer.Option("--conventions", help="Also print error rates by other conventions of the literature")
    ] = False,
    device: Device = "auto",
) -> None:
    """Evaluate a checkpoint, or several as an ensemble, on a split; write predictions.jsonl and metrics.json."""
    from htr_lightning.build import check_whole, data_for
    from htr_lightning.evidence import evaluate as verb
    from htr_lightning.reading.journal import Journal
    from htr_lightning.reading.open import load_all

    others, given = split_checkpoints(overrides or [])
    checkpoints = [checkpoint, *others]
    check_whole(given, split)
    calibrated, weighted = numbers("--calibration", calibration), numbers("--weights", weights)
    recognizer = load_all(checkpoints, device, greedy, tta, calibrated, weighted)
    data = data_for(recognizer, given)
    about = verb.conditions(recognizer, checkpoints, data, split, greedy)
    name = f"{'ensemble' if 'ensemble' in about else 'evaluate'}-{split}"
    folder = out or Path(checkpoint).resolve().parent / name
    make_folder(folder)  # fail early, before the work starts
    journal = Journal(folder / JOURNAL, {"overrides": given, "greedy": greedy, **about})
    if journal.rows:
        print(f"note: going on after {len(journal.rows)} lines of an interrupted evaluation", file=sys.stderr)
    with progress_bar("evaluating", about["data"]["lines"]) as advance:
        found = verb.evaluate_into(folder, recognizer, data, split, about | {"overrides": given}, advance, journal)
    journal.remove()
    totals, intervals = found.totals, found.intervals
    cer, wer = (f" {interval}" if interval else "" for interval in intervals[:2])
    over = intervals.over and f"{intervals.over}  "
    accuracy = f"accuracy {totals.line_accuracy:.2%}  " if recognizer.single_characters else ""
    print(f"{accuracy}CER {totals.cer:.2%}{cer}  WER {totals.wer:.2%}{wer}  {over}{totals.edits} edits / "
          f"{totals.characters} characters in {totals.lines} lines -> {folder}")  # fmt: skip
    print(f"{'confidence of':16}{'ECE':9}{'Brier':9}{'NLL':9}AURC")
    for level, its in verb.confidence(found.predictions).items():
        print(f"{level + 's':16}" + "".join(f"{value:<9.4f}" for value in its.values()).rstrip())
    kept = ", ".join(f"{risk:.2%} in {share:.0%}" for share, risk in verb.kept_risk(found.predictions).items())
    print(f"errors per character in the surest lines: {kept} of the text")
    if conventions:
        for name, rate in found.conventions.items():
            print(f"{name:20}{rate:8.2%}  {verb.CONVENTIONS[name].definition}")


@typer_app.command()
def compare(
    systems: Annotated[
        list[str],
        typer.Argument(help="Run folders, folders or predictions.jsonl files of htr evaluate, or folders of runs"),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, with all groups")] = False,
) -> None:
    """Compare two or more systems on the same lines: error rates, differences from the first, and where each wins.

    Runs that differ only in their seeds are one system.
    """
    from htr_lightning.evidence.compare import compare as verb
    from htr_lightning.evidence.compare import find_systems

    found, notes = find_systems(systems)
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    if len(found) > len(ascii_uppercase):
        raise InputError(f"{systems[0]} ...: {len(found)} systems; compare at most {len(ascii_uppercase)}")
    comparison = verb(found)
    if as_json:
        print(json.dumps(comparison.to_plain(), indent=1))
        return
    for line in _lines(comparison):
        print(printable(line))


@typer_app.command()
def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Run folders, or folders written by htr evaluate, and overrides of data"),
    ],
    out: Annotated[Path, typer.Option(help="HTML page to write")] = Path("report.html"),
    assets: Annotated[
        Path | None, typer.Option(help="Folder for the charts as SVG and PNG, and the tables as LaTeX and Markdown")
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to report on")] = "test",
    device: Device = "auto",
) -> None:
    """Show what runs read and where they err, as one page to open in a browser; several runs side by side."""
    from htr_lightning.evidence.publish import publish

    folders = [run for run in runs if "=" not in run.split("/")[0]]
    overrides = [run for run in runs if run not in folders]
    if not folders:
        raise InputError(f"{' '.join(runs)}: no run to report on; give a run folder")
    check_writable(out)  # fail early, before the work starts
    with progress_text("reading runs") as show:
        found = publish(folders, out, assets, split, overrides, device, show)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    for line in found.figures:
        print(line)
    print(out if assets is None else f"{out}  {assets}")


@typer_app.command()
def benchmark(
    plan: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Names and overrides of sets, models and decoders")],
    into: Annotated[
        Path | None, typer.Option(help="Markdown file to write the table into, between two comments")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder for runs and predictions")] = Path("runs/benchmark"),
    device: Device = "auto",
) -> None:
    """Measure a table of training sets, models, decoders and test sets; repeat the command to go on after a stop.

    Results are stored beside FILE.yaml, and rows that are stored are not measured again.
    """
    from htr_lightning.evidence.benchmark import Benchmark
    from htr_lightning.evidence.benchmark_plan import filled, load_plan, table_of
    from htr_lightning.evidence.table import FORMATS
    from htr_lightning.output import replacing

    found = load_plan(plan)
    if into is not None and not into.is_file():
        raise InputError(f"--into {into}: no such file; create it with the two comments that enclose the table")
    folder, errors = runs / plan.stem, list[str]()
    measured = Benchmark(found, folder, device, progress=progress_bar).measure()
    for number, (row, result, is_new) in enumerate(measured, start=1):
        name, figure = " · ".join(filter(None, row)), "failed"
        if isinstance(result, InputError):
            errors.append(f"{name}: {result}")
        else:
            figure = f"CER {result['cer']:.2%}{'' if is_new else ' (stored)'}"
        print(printable(f"{number}/{len(found.rows)} {name}: {figure}"), file=sys.stderr)
    table = table_of(found, partial=True)
    for suffix, form in FORMATS.items():
        with replacing(folder / f"table.{suffix}", "--runs") as path:
            path.write_text(form(table), encoding="utf-8")
    for line in _table([[column.title for column in table.columns], *table.texts]):
        print(printable(line))
    print(f"{folder / 'table.md'}  .tex  .tsv")
    for error in errors:
        print(f"error: {printable(error)}", file=sys.stderr)
    if errors:
        raise typer.Exit(1)
    if into is not None:
        text = filled(into)
        with replacing(into, "--into") as path:
            path.write_text(text, encoding="utf-8")


def _lines(found: "Comparison") -> list[str]:
    """Format a comparison, one line of text per element."""
    several = max(score.runs for score in found.scores) > 1
    rows = [["", "CER", "95% interval", *(["sd"] if several else []), "WER", "95% interval",
             *(["sd", "runs"] if several else []), "system"]]  # fmt: skip
    for letter, score in zip(ascii_uppercase, found.scores, strict=False):
        cer, wer = (str(interval) if interval else "-" for interval in score.intervals)
        sds = ["-" if sd is None else f"{sd:.2%}" for sd in (score.cer_sd, score.wer_sd)]
        rows.append([letter, f"{score.cer:.2%}", cer, *([sds[0]] if several else []), f"{score.wer:.2%}", wer,
                     *([sds[1], str(score.runs)] if several else []), score.name])  # fmt: skip
    over = found.scores[0].intervals.over
    lines = [
        *_table(rows),
        f"{found.lines} lines, {found.characters} characters; intervals {over or 'need more lines'}",
    ]
    for letter, pair in zip(ascii_uppercase[1:], found.pairs, strict=False):
        lines += ["", *_pair(letter, pair, len(found.pairs) > 1, found.lines)]
    return lines


def _pair(letter: str, pair: "Pair", corrected: bool, count: int) -> list[str]:
    """Format the difference of the system with a letter from the first."""
    better, worse = ([part for part in pair.groups if sign * (part.second - part.first) > 0] for sign in (-1, 1))
    name = "p (Holm)" if corrected else "p"
    lines = [
        f"{letter} - A   {rate} {_points(one)} points, {name} {p:.4f}"
        for rate, one, p in (("CER", pair.cer, pair.cer_p), ("WER", pair.wer, pair.wer_p))
    ]
    if pair.changes is not None:
        texts, gained, lost = pair.changes
        lines.append(f"  lines with another text: {texts} of {count}; fewer edits in {letter}: {gained}, in A: {lost}")
    equal = len(pair.groups) - len(better) - len(worse)
    lines.append(f"  groups with fewer errors in {letter}: {len(better)}, in A: {len(worse)}, equal: {equal}")
    for side, parts in ((letter, better), ("A", worse[::-1])):
        if parts and len(pair.groups) > 1:
            named = ", ".join(f"{one.name} ({one.first:.1%} -> {one.second:.1%})" for one in parts[:MOST])
            lines.append(f"    most in {side}: {named}")
    rows = [["  lines", "", "A", letter, f"{letter} - A, points", "p"]]
    for part in pair.kinds:
        assert part.difference is not None
        rows.append([f"  {part.name}", str(part.lines), f"{part.first:.2%}", f"{part.second:.2%}",
                     _points(part.difference), f"{part.difference.p:.4f}"])  # fmt: skip
    return [*lines, *_table(rows)]


def _points(one: "Difference") -> str:
    value = f"{100 * one.value:+.2f}"
    return value if one.low is None or one.high is None else f"{value} [{100 * one.low:+.2f}, {100 * one.high:+.2f}]"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

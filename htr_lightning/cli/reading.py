"""The `transcribe`, `evaluate` and `report` commands."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

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
from htr_lightning.output import check_writable, make_folder
from htr_lightning.pretrained import DEFAULT, NAMES

if TYPE_CHECKING:
    from htr_lightning.reading.sources import Source
    from htr_lightning.reading.transcribe import TranscribedLine
    from htr_lightning.transcription import Transcriber


@typer_app.command()
def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, or PAGE or ALTO files, after the checkpoint, or several for an ensemble "
            f"(*.ckpt, *.onnx, {' or '.join(NAMES)}; default: {DEFAULT})"
        ),
    ],
    format: Annotated[
        Literal["text", "tsv", "jsonl", "page"],
        typer.Option(help="Output format (tsv columns: file, text, confidence; control characters are escaped)"),
    ] = "text",
    out: Annotated[Path | None, typer.Option(help="Output folder for --format page")] = None,
    greedy: Greedy = False,
    n_best: Annotated[int, typer.Option(min=0, help="Number of alternatives per line, with --format jsonl")] = 0,
    weights: Weights = None,
    tta: Views = 1,
    calibration: Calibration = None,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="First adapt a copy of the recognizer to the handwriting of these files")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with the files that come into a folder, each once, until Ctrl-C")
    ] = False,
    device: Device = "auto",
) -> None:
    """Transcribe images and pages, and print their text line by line."""
    from htr_lightning.reading.page_out import page_paths, write_page
    from htr_lightning.reading.sources import find_sources

    if n_best and format != "jsonl":
        raise InputError(f"--n-best {n_best}: only --format jsonl includes alternatives; add --format jsonl")
    checkpoints, names = split_checkpoints(files)
    if not names:
        raise InputError(f"{checkpoints[-1]}: no files to transcribe; add images or pages after the checkpoints")
    if not checkpoints:
        checkpoints = [DEFAULT]
        print(f"note: transcribing with {DEFAULT}; to use another recognizer, begin with its *.ckpt", file=sys.stderr)
    if late := [name for name in names if name.endswith(".ckpt")]:
        raise InputError(f"{late[0]}: checkpoint after a file to transcribe; list all checkpoints first")
    if format != "page" and out is not None:
        raise InputError(f"--out {out}: only --format page writes files; remove --out, or redirect the output")
    if watch and (adapt or len(names) > 1 or not Path(names[0]).is_dir()):
        raise InputError(f"--watch: watches one folder, without --adapt; got {' '.join(names)}{' --adapt' * adapt}")
    if watch and format == "page" and out is None:
        raise InputError("--watch: pages need an output folder; add --out FOLDER")
    calibrated, weighted = numbers("--calibration", calibration), numbers("--weights", weights)
    from htr_lightning.reading.open import load_all  # may import torch, which takes seconds

    if watch:
        recognizer = load_all(checkpoints, device, greedy, tta, calibrated, weighted)
        _watch(recognizer, Path(names[0]), format, out, n_best)
        return
    sources, errors, notes = find_sources(names)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if not sources:
        _fail(errors)
    if format == "page" and out is None and len(sources) > 1:
        raise InputError(f"--format page: {len(sources)} files need an output folder; add --out FOLDER")
    targets = page_paths(sources, out) if format == "page" and out is not None else {}
    for target in targets.values():
        check_writable(target)  # fail early, before the work starts
    recognizer = load_all(checkpoints, device, greedy, tta, calibrated, weighted, exported=not adapt)
    for source in sources:
        if not source.lines:
            print(f"note: {printable(str(source.path))}: the page has no lines", file=sys.stderr)
            if source.path in targets:
                print(printable(str(write_page(source, [], targets[source.path]))))
    if adapt:
        from htr_lightning.adapt.writer import MIN_LINES, adapt_to

        with progress_text("adapting") as tell:
            adapted = adapt_to(recognizer, sources, lambda done: tell(f"adapting: {done:.0%}"))
        recognizer = adapted.recognizer
        if adapted.lines:
            print(f"note: adapted to {adapted.lines} lines; confidence per character {adapted.before:.1%} -> "
                  f"{adapted.after:.1%}", file=sys.stderr)  # fmt: skip
        else:
            print(f"note: not adapted, since fewer than {MIN_LINES} lines have text", file=sys.stderr)
    with progress_bar("transcribing", sum(source.lines for source in sources)) as advance:
        _print_lines(recognizer, sources, format, targets, n_best, errors, advance)
    if errors:
        _fail(errors)


def _print_lines(
    recognizer: "Transcriber",
    sources: Sequence["Source"],
    format: str,
    targets: Mapping[Path, Path],
    n_best: int,
    errors: list[str],
    advance: Callable[[int], None] = lambda lines: None,
) -> None:
    """Transcribe sources, print their lines or write their pages, and add what could not be read to `errors`."""
    from htr_lightning.reading.page_out import to_page_xml, write_page
    from htr_lightning.reading.transcribe import transcribe as run

    transcribed = run(recognizer, sources, n_best, advance)
    for source, group in groupby(transcribed, key=lambda line: line.source):
        lines = list(group)
        errors += [line.error for line in lines if line.error]
        for note in dict.fromkeys(line.note for line in lines if line.note):
            print(f"note: {printable(note)}", file=sys.stderr)
        if format != "page":
            for line in lines:
                if line.transcription is not None:
                    print(_format(line, format))
        elif source.page is None and lines[0].error:
            continue  # an image that cannot be read has no page
        elif source.path not in targets:
            sys.stdout.write(to_page_xml(source, lines).decode())
        else:
            print(printable(str(write_page(source, lines, targets[source.path]))))


def _watch(recognizer: "Transcriber", folder: Path, format: str, out: Path | None, n_best: int) -> None:
    """Transcribe the files in a folder as they come, until the user stops the program."""
    from htr_lightning.reading.page_out import page_paths
    from htr_lightning.reading.sources import find_sources
    from htr_lightning.reading.watch import new_files

    print(f"note: watching {printable(str(folder))}; stop with Ctrl-C", file=sys.stderr)
    with suppress(KeyboardInterrupt):
        for paths in new_files(folder):
            sources, errors, notes = find_sources(map(str, paths))
            for note in notes:
                print(f"note: {note}", file=sys.stderr)
            try:
                targets = page_paths(sources, out) if out is not None else {}
                _print_lines(recognizer, sources, format, targets, n_best, errors)
            except InputError as error:  # the next file may be better
                errors.append(str(error))
            finally:
                for fault in dict.fromkeys(errors):
                    print(f"error: {printable(fault)}", file=sys.stderr)
                sys.stdout.flush()


def _fail(errors: list[str]) -> NoReturn:
    for error in dict.fromkeys(errors):
        print(f"error: {printable(error)}", file=sys.stderr)
    sys.exit(1)


def _format(line: "TranscribedLine", format: str) -> str:
    assert line.transcription is not None
    text, confidence, alternatives = line.transcription
    if format == "tsv":
        return "\t".join(map(printable, (line.name, text, f"{confidence:.4f}")))
    if format == "text":
        return printable(text)
    record: dict[str, object] = {
        "file": str(line.source.path),
        "line": line.line.id if line.line else None,
        "text": text,
        "confidence": round(confidence, 4),
    }
    if alternatives:
        record["alternatives"] = [
            {"text": one.text, "confidence": round(one.confidence, 4), "score": round(one.score, 4)}
            for one in alternatives
        ]
    return printable(json.dumps(record, ensure_ascii=False))


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
    started, start = datetime.now(UTC), time.perf_counter()
    with progress_bar("evaluating", about["data"]["lines"]) as advance:
        found = verb.evaluate(recognizer, data, split, advance)
    about["clock"] = {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 2),
    }
    verb.write(folder, found, about)
    totals, ece, intervals = found.totals, verb.calibration(found.predictions)["ece"], found.intervals
    cer, wer = (f" {interval}" if interval else "" for interval in intervals[:2])
    over = intervals.over and f"{intervals.over}  "
    accuracy = f"accuracy {totals.line_accuracy:.2%}  " if recognizer.single_characters else ""
    print(f"{accuracy}CER {totals.cer:.2%}{cer}  WER {totals.wer:.2%}{wer}  {over}{totals.edits} edits / "
          f"{totals.characters} characters in {totals.lines} lines  ECE {ece:.2%} -> {folder}")  # fmt: skip
    if conventions:
        for name, rate in found.conventions.items():
            print(f"{name:20}{rate:8.2%}  {verb.CONVENTIONS[name].definition}")


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

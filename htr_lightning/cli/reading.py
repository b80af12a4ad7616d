"""Commands that read."""

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from htr_lightning.cli.arguments import (
    Calibration,
    Checkpoint,
    Device,
    OnlyGreedy,
    Overrides,
    Views,
    Weights,
    check_whole,
    progress_bar,
    split_checkpoints,
    typer_app,
)
from htr_lightning.errors import InputError
from htr_lightning.output import check_writable, make_folder

if TYPE_CHECKING:
    from htr_lightning.reading.transcribe import Reading


@typer_app.command()
def transcribe(
    checkpoint: Checkpoint,
    files: Annotated[
        list[str],
        typer.Argument(help="Further checkpoints of an ensemble (*.ckpt); images, folders, PAGE, ALTO"),
    ],
    format: Annotated[
        Literal["text", "tsv", "jsonl", "page"], typer.Option(help="tsv: file, text, confidence")
    ] = "text",
    out: Annotated[Path | None, typer.Option(help="Folder for the files of --format page")] = None,
    greedy: OnlyGreedy = False,
    n_best: Annotated[int, typer.Option(min=0, help="Alternatives of each line, for --format jsonl")] = 0,
    weights: Weights = None,
    tta: Views = 1,
    calibration: Calibration = None,
    device: Device = "auto",
) -> None:
    """Print the text of images and pages, a line a line."""
    from htr_lightning.reading.open import load_all
    from htr_lightning.reading.page_out import page_paths, to_page_xml, write_page
    from htr_lightning.reading.transcribe import find_sources
    from htr_lightning.reading.transcribe import transcribe as read

    if n_best and format != "jsonl":
        raise InputError(f"--n-best {n_best}: only --format jsonl shows alternatives; add it")
    checkpoints, names = split_checkpoints(checkpoint, files)
    if not names:
        raise InputError(f"{checkpoints[-1]}: there is nothing to read; name images or pages behind the checkpoints")
    if late := [name for name in names if name.endswith(".ckpt")]:
        raise InputError(f"{late[0]}: stands behind a file to read; name checkpoints first")
    recognizer = load_all(checkpoints, device, greedy, tta, calibration, weights)
    sources, faults = find_sources(names)
    if format == "page" and out is None and len(sources) > 1:
        raise InputError(f"--format page with {len(sources)} files: name a folder for them with --out")
    if format != "page" and out is not None:
        raise InputError(f"--out {out}: only --format page writes files; redirect what is printed, or leave --out away")
    targets = page_paths(sources, out) if format == "page" and out is not None else {}
    for target in targets.values():
        check_writable(target)  # before the work, not after it
    for source in sources:
        if not source.lines:  # nothing will be read of it, but it is not lost
            print(f"note: {source.path}: a page without lines", file=sys.stderr)
            if source.path in targets:
                print(write_page(source, [], targets[source.path]))
    with progress_bar("reading", sum(source.lines for source in sources)) as progress:
        readings = read(recognizer, sources, n_best, lambda lines: progress.advance(progress.task_ids[0], lines))
        for source, group in groupby(readings, key=lambda reading: reading.source):
            lines = list(group)
            faults += [reading.fault for reading in lines if reading.fault]
            for note in dict.fromkeys(reading.note for reading in lines if reading.note):
                print(f"note: {note}", file=sys.stderr)
            if format != "page":
                for reading in lines:
                    if reading.transcription is not None:
                        print(_line(reading, format))
            elif source.page is None and lines[0].fault:
                continue  # an image that could not be opened has no page
            elif out is None:
                sys.stdout.write(to_page_xml(source, lines).decode())
            else:
                print(write_page(source, lines, targets[source.path]))
    for fault in dict.fromkeys(faults):
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)


def _line(reading: "Reading", format: str) -> str:
    assert reading.transcription is not None
    text, confidence, alternatives = reading.transcription
    if format == "tsv":
        return f"{reading.name}\t{text}\t{confidence:.4f}"
    if format == "jsonl":
        line = reading.line.id if reading.line else None
        record: dict[str, object] = {
            "file": str(reading.source.path),
            "line": line,
            "text": text,
            "confidence": round(confidence, 4),
        }
        if alternatives:
            record["alternatives"] = [
                {"text": one.text, "confidence": round(one.confidence, 4), "score": round(one.score, 4)}
                for one in alternatives
            ]
        return json.dumps(record, ensure_ascii=False)
    return text


@typer_app.command()
def evaluate(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the result (default: beside the checkpoint)")] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to read")] = "test",
    greedy: OnlyGreedy = False,
    weights: Weights = None,
    tta: Views = 1,
    calibration: Calibration = None,
    device: Device = "auto",
) -> None:
    """Measure a checkpoint, or an ensemble of several, on a split: predictions.jsonl and metrics.json."""
    from htr_lightning.card import describe
    from htr_lightning.config import data_for
    from htr_lightning.evidence.evaluate import calibration as errors
    from htr_lightning.evidence.evaluate import evaluate as measure
    from htr_lightning.evidence.evaluate import write
    from htr_lightning.metrics.calibration import DEFINITION
    from htr_lightning.reading.open import load_all
    from htr_lightning.reading.voting import Ensemble

    checkpoints, given = split_checkpoints(checkpoint, overrides or [])
    check_whole(given, split)
    recognizer = load_all(checkpoints, device, greedy, tta, calibration, weights)
    data = data_for(recognizer, given)
    lines = describe(data, split)
    is_ensemble = isinstance(recognizer, Ensemble)
    folder = out or Path(checkpoint).resolve().parent / f"{'ensemble' if is_ensemble else 'evaluate'}-{split}"
    make_folder(folder)  # before the work, not after it
    with progress_bar("reading", lines["lines"]) as progress:
        predictions, totals = measure(
            recognizer, data, split, lambda count: progress.advance(progress.task_ids[0], count)
        )
    about = {
        "checkpoint": checkpoints if is_ensemble else checkpoint,
        "split": split,
        "data": lines,
        "calibration": recognizer.calibration,
        "definition": recognizer.card["metric"] | DEFINITION,
    }
    if isinstance(recognizer, Ensemble):
        about["ensemble"] = {"weights": recognizer.weights, "views": tta}
    write(folder, predictions, totals, about)
    print(f"CER {totals.cer:.2%}  WER {totals.wer:.2%}  {totals.edits} edits / {totals.characters} characters "
          f"in {totals.lines} lines  ECE {errors(predictions)['ece']:.2%} -> {folder}")  # fmt: skip

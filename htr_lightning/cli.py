"""The command `htr`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from htr_lightning import __version__, command
from htr_lightning.errors import InputError

typer_app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)
Checkpoint = Annotated[str, typer.Argument(help="Checkpoint of a run: runs/DAY/TIME-NAME/checkpoints/best.ckpt")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]


@typer_app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Read handwriting with a trained checkpoint."""
    if version:
        print(__version__)


@typer_app.command()
def transcribe(
    checkpoint: Checkpoint,
    files: Annotated[list[str], typer.Argument(help="Line images, folders, globs, PAGE or ALTO files")],
    format: Annotated[Literal["text", "tsv", "jsonl", "page"], typer.Option(help="tsv: file, text, confidence")] = "text",
    out: Annotated[Path | None, typer.Option(help="Folder for the files of --format page")] = None,
    device: Device = "auto",
) -> None:
    """Print the text of images and pages, a line a line."""
    from htr_lightning.evaluate import load
    from htr_lightning.page_out import to_page_xml, write_page
    from htr_lightning.transcribe import Reading, find_sources
    from htr_lightning.transcribe import transcribe as read

    recognizer = load(checkpoint, device)
    sources, faults = find_sources(files)
    if format == "page" and out is None and len(sources) > 1:
        raise InputError(f"--format page with {len(sources)} files: name a folder for them with --out")
    pages: dict[Path, list[Reading]] = {source.path: [] for source in sources}
    with _progress("reading", sum(source.lines for source in sources)) as progress:
        for reading in read(recognizer, sources, lambda lines: progress.advance(progress.task_ids[0], lines)):
            if reading.fault:
                faults.append(reading.fault)
            if format == "page":
                pages[reading.source.path].append(reading)
            elif reading.transcription is not None:
                text, confidence = reading.transcription
                line = reading.line.id if reading.line else None
                record = {"file": str(reading.source.path), "line": line, "text": text, "confidence": round(confidence, 4)}
                print({"text": text, "tsv": f"{reading.name}\t{text}\t{confidence:.4f}",
                       "jsonl": json.dumps(record, ensure_ascii=False)}[format])  # fmt: skip
    for source in sources if format == "page" else []:
        if all(reading.fault and not reading.line for reading in pages[source.path]) and not source.page:
            continue  # an image that could not be opened: its fault is told below
        if out is None:
            sys.stdout.write(to_page_xml(source, pages[source.path]).decode())
        else:
            print(write_page(source, pages[source.path], out))
    for fault in dict.fromkeys(faults):
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)


@typer_app.command()
def evaluate(
    checkpoint: Checkpoint,
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides: data=copiste data.root=...")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the result [default: beside the checkpoint]")] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to read")] = "test",
    device: Device = "auto",
) -> None:
    """Measure a checkpoint on a split: predictions.jsonl and metrics.json."""
    from htr_lightning.checkpoint import describe
    from htr_lightning.evaluate import data_for, load, write
    from htr_lightning.evaluate import evaluate as measure

    recognizer = load(checkpoint, device)
    data = data_for(recognizer, overrides or [])
    lines = describe(data, split)
    with _progress("reading", lines["lines"]) as progress:
        predictions, totals = measure(
            recognizer, data, split, lambda count: progress.advance(progress.task_ids[0], count)
        )
    folder = out or Path(checkpoint).resolve().parent.parent / f"evaluate-{split}"
    about = {"checkpoint": checkpoint, "split": split, "data": lines, "definition": recognizer.card["metric"]}
    write(folder, predictions, totals, about)
    print(f"CER {totals.cer:.2%}  WER {totals.wer:.2%}  {totals.edits} edits / {totals.characters} characters "
          f"in {totals.lines} lines -> {folder}")  # fmt: skip


def _progress(title: str, total: int) -> Progress:
    progress = Progress(console=Console(stderr=True), transient=True)
    progress.add_task(title, total=total)
    return progress


def app() -> None:
    """Entry point."""
    command.run(typer_app)

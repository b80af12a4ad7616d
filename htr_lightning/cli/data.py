"""Commands that pack, convert, pseudo-label and audit data."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from htr_lightning.cli.arguments import (
    Checkpoint,
    Device,
    Format,
    Overrides,
    Splits,
    progress_bar,
    typer_app,
)
from htr_lightning.errors import InputError, printable
from htr_lightning.output import JOURNAL, check_writable, empty_folder, make_folder, replacing

if TYPE_CHECKING:
    from htr_lightning.audit.label_errors import Found
    from htr_lightning.data.sample import Reader


@typer_app.command()
def pack(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Packed file to write; an interrupted run is resumed")] = None,
    split: Splits = None,
    check: Annotated[Path | None, typer.Option(help="Packed file to verify instead of writing one")] = None,
) -> None:
    """Decode a data set once and pack it into a single file, for training with data.pack=FILE.

    Lines are stored in greyscale, before augmentation, at most twice as high as the model reads them (and at least 64
    pixels, so that most models can share a file). Set the height with model=NAME or model.preprocess.height=N.
    """
    from htr_lightning.config import compose_data

    if (out is None) == (check is None):
        raise InputError("expected either --out FILE to write a packed file or --check FILE to verify one")
    if out is not None:
        compose_data(overrides or [])  # report errors in the overrides before importing torch
    from htr_lightning.build import open_data
    from htr_lightning.data.datamodule import SPLITS
    from htr_lightning.data.pack import Pack, PackWriter, packed_height, packed_splits

    if check is not None:
        for name in packed_splits(check):
            packed = Pack(check, name)
            with progress_bar(f"checking {name}", len(packed)) as advance:
                for _ in packed:
                    advance(1)
            print(f"{name}: {len(packed)} lines, intact")
        return
    assert out is not None
    opened = open_data(overrides or [], one_pass=True)
    data = opened.data
    try:
        with PackWriter(out, packed_height(data.preprocess), opened.fingerprint) as writer:
            for name in split or SPLITS:
                reader = data.open(name)
                with progress_bar(f"packing {name}", len(reader)) as advance:
                    writer.write(name, reader, advance)
                print(f"{name}: {len(reader)} lines" + _skipped(reader))
    except KeyboardInterrupt:
        print(f"stopped; run the same command again to resume from {out}.part", file=sys.stderr)
        sys.exit(130)
    print(f"{out}: {out.stat().st_size / 1e6:,.1f} MB")


@typer_app.command()
def convert(
    to: Format,
    out: Annotated[Path, typer.Option(help="Output folder, which must be new or empty")],
    overrides: Overrides = None,
    split: Splits = None,
) -> None:
    """Convert a data set to the format of another program, with references normalised as in training."""
    from htr_lightning.config import compose_data

    compose_data(overrides or [])  # report errors in the overrides before importing torch
    from htr_lightning.build import open_data
    from htr_lightning.convert import convert as write
    from htr_lightning.data.datamodule import SPLITS

    empty_folder(out)  # fail early, before the work starts
    data = open_data(overrides or [], one_pass=True, full=True).data
    names = list(dict.fromkeys(split or SPLITS))
    total = sum(len(data.lines(name)) for name in names)
    with progress_bar("writing", total) as advance:
        write(data, names, to, out, advance)
    for name in names:
        print(f"{name}: {len(data.lines(name))} lines" + _skipped(data.lines(name).reader))
    print(out)


@typer_app.command("pseudo-label")
def pseudo_label(
    checkpoint: Checkpoint,
    lines: Annotated[
        list[str],
        typer.Argument(help="Line images, folders, globs, or PAGE or ALTO files; or Hydra overrides, e.g. data=NAME"),
    ],
    out: Annotated[Path, typer.Option(help="Output folder, which must be new or empty")],
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Minimum confidence of the lines to keep")
    ] = None,
    fraction: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Fraction of the lines to keep, most confident first (default: 0.5)"),
    ] = None,
    labelled: Annotated[
        list[str] | None,
        typer.Option(help="Hydra override that selects labelled data to include in the output (repeatable)"),
    ] = None,
    to: Format = "kraken",
    split: Splits = None,
    device: Device = "auto",
) -> None:
    """Transcribe unlabelled lines and write the most confident ones as training lines, for self-training.

    Overrides without data=NAME change the data that the checkpoint was trained on: after training with
    data.subset=[0,500], data.subset=[500,null] selects the remaining lines. References are ignored. Train on the result
    with data=folder.
    """
    from htr_lightning.adapt import pseudo_label as verb
    from htr_lightning.build import data_for
    from htr_lightning.data.split import SPLITS
    from htr_lightning.reading.journal import Journal, digest
    from htr_lightning.reading.open import load_one

    if min_confidence is None and fraction is None:
        fraction = 0.5  # no threshold suits every checkpoint: at 21 % CER, 17 of 4,630 lines reached 0.9
    empty_folder(out)  # fail early, before the work starts
    recognizer = load_one(checkpoint, device)
    known = data_for(recognizer, labelled, full=True) if labelled else None
    if known is not None:
        for name in SPLITS:
            known.lines(name)  # fail early here, too
    unlabelled = verb.open_unlabelled(recognizer, lines, split, known is not None)
    journal = Journal(out / JOURNAL, {"checkpoint": digest(checkpoint), "of": lines, "split": split})
    if journal.rows:
        print("note: going on with the transcriptions of an interrupted command", file=sys.stderr)
    with progress_bar("transcribing", unlabelled.size) as advance:
        found = unlabelled.labels(recognizer, advance, journal)
    for note in unlabelled.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    for label in found:
        if label.status == verb.UNREADABLE:
            print(f"note: {printable(label.id)}: {label.status}; run htr transcribe for details", file=sys.stderr)
    labels = verb.select(found, min_confidence, fraction)
    about = {"checkpoint": checkpoint, "of": lines, "min_confidence": min_confidence, "fraction": fraction,
             "labelled": labelled}  # fmt: skip
    with progress_bar("writing", None) as advance:
        counts = verb.write(unlabelled, labels, to, out, about, known, advance)
    journal.remove()
    kinds = sorted(counts.items(), key=lambda item: item[0] != verb.KEPT)
    told = ", ".join(f"{status}: {count}" for status, count in kinds)
    print(f"{len(labels)} unlabelled lines ({told})" + _told(unlabelled.skipped) + f" -> {out}")
    if known is not None:
        print("labelled lines: " + ", ".join(f"{len(known.lines(name))} {name}" for name in SPLITS))


def _told(skipped: Counter[str]) -> str:
    """Format the counts of lines that a reader skipped."""
    return "".join(f", {count} skipped ({kind})" for kind, count in skipped.items())


def _skipped(reader: "Reader") -> str:
    return _told(Counter(skipped.kind for skipped in reader.skipped))


@typer_app.command("label-errors")
def label_errors(
    out: Annotated[Path, typer.Option(help="Output folder; the same command goes on where it was interrupted")],
    overrides: Overrides = None,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Number of folds, each judged by its own recognizer")] = 2,
    show: Annotated[int, typer.Option(min=1, help="Number of lines on the page")] = 300,
    plant: Annotated[
        float,
        typer.Option(min=0, max=0.2, help="Alter this fraction of the references first, and count how many are found"),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of --plant")] = 0,
    recognizer: Annotated[
        str | None, typer.Option(help="Checkpoint that was not trained on these lines, to train none for each fold")
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to judge, with --recognizer")] = "train",
) -> None:
    """Rank the training references by how likely they are wrong, on a page to confirm or correct them.

    A recognizer is trained for each fold, without its lines, for the time that the overrides give, as by htr train. The
    page saves a table: data.texts=FILE uses its texts in place of those of the data.
    """
    from htr_lightning.config import compose_data

    compose_data(overrides or [])  # report errors in the overrides before importing torch
    from htr_lightning.audit import label_errors as verb
    from htr_lightning.audit.label_page import page
    from htr_lightning.build import data_for, open_data
    from htr_lightning.data.texts import read_texts
    from htr_lightning.reading.open import load_one

    make_folder(out)  # fail early, before the work starts
    fit = verb.CrossFit(out, overrides or [], folds, plant, seed, split, recognizer)
    lines = verb.prepare(fit)
    for fold in range(folds if recognizer is None else 0):
        verb.train(fit, lines, fold)
    with progress_bar("reading the lines", lines) as advance:
        if recognizer is None:
            judged = [one for fold in range(folds) for one in verb.judge_fold(fit, lines, fold, advance)]
        else:
            loaded = load_one(recognizer)
            judged = verb.judge(loaded, data_for(loaded, fit.given()).lines(split), range(lines), advance)
    suspects = verb.rank(judged)
    table, html = verb.write(out, suspects), out / "label_errors.html"
    opened = open_data(fit.given(), one_pass=True)
    name = printable(" ".join(one for one in fit.overrides if one.lstrip("+").startswith("data=")) or "the data")
    with replacing(html) as new:
        known = read_texts(opened.settings["texts"]) if opened.settings.get("texts") and not plant else {}
        text = page(name.removeprefix("data="), suspects[:show], lines, opened.data.open(split), known)
        new.write_text(text, encoding="utf-8", errors="replace")
    if plant:
        for line in _planted(verb.compare(suspects, verb.planted_kinds(out)), min(verb.AT, lines)):
            print(line)
    print(f"{lines} references ranked: {table}; the {min(show, lines)} most suspicious to confirm or correct: {html}")


def _planted(found: "Found", first: int) -> list[str]:
    """Format how many planted errors were found, and how many of the first lines they are."""
    kinds = ", ".join(f"{kind} {count} of {of}" for kind, (count, of) in found.by_kind.items())
    return [
        f"{found.planted} planted errors: {found.recall:.1%} among the first {2 * found.planted} lines ({kinds})",
        f"of the first {first} lines, {found.precision:.0%} are planted errors",
    ]


@typer_app.command()
def audit(
    overrides: Overrides = None,
    html: Annotated[Path, typer.Option(help="HTML report to write, with contact sheets of lines")] = Path("audit.html"),
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON report to write")] = None,
    augment: Annotated[str | None, typer.Option(help="Also show training lines augmented with augment=NAME")] = None,
) -> None:
    """Find faults in a data set before training on it. The exit code is 1 if any fault is critical."""
    from htr_lightning.config import compose_data

    compose_data(overrides or [])  # report errors in the overrides before importing torch
    from htr_lightning.audit import run as verb
    from htr_lightning.audit.page import page

    for path, option in ((html, "--html"), (json_file, "--json")):
        if path is not None:
            check_writable(path, option)  # fail early, before the work starts
    subject = verb.open_subject(overrides or [], augment)
    with progress_bar(f"auditing {subject.title}", sum(map(len, subject.readers.values()))) as advance:
        found = verb.audit(subject, advance)
    critical = verb.critical_kinds(subject, found)
    sheet = verb.augmented(subject) if augment is not None else None
    shown = (augment, sheet) if augment is not None and sheet is not None else None
    html.write_text(page(subject.title, found, critical, subject.readers, shown), encoding="utf-8", errors="replace")
    if json_file is not None:
        text = json.dumps(verb.record(found, critical), indent=1, ensure_ascii=False)
        json_file.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    console = Console(highlight=False, soft_wrap=True)
    console.print(printable(f"audit of {subject.title}"), markup=False)
    notes = [printable(f"note: {note}") for note in found.notes]
    console.print(*verb.tables(found, critical), *notes, sep="\n", markup=False)
    console.print(printable(f"page: {html}" + (f"  data: {json_file}" if json_file else "")), markup=False)
    if critical:
        sys.exit(1)

"""The `transcribe` command."""

import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from htr_lightning.cli.arguments import (
    Calibration,
    Device,
    Greedy,
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
from htr_lightning.reading.review import Review, rows_in

if TYPE_CHECKING:
    from htr_lightning.reading.shards import Job
    from htr_lightning.reading.sources import Source
    from htr_lightning.reading.write import Output
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
        Literal["text", "tsv", "jsonl", "page", "alto", "hocr", "pdf", "parquet"],
        typer.Option(help="Output format (tsv columns: file, text, confidence; control characters are escaped)"),
    ] = "text",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output file, or output folder for page, alto, hocr, pdf and parquet, and for --workers; "
            "for page and alto also a *.zip with the images, as eScriptorium and Transkribus import it"
        ),
    ] = None,
    language: Annotated[
        str, typer.Option(help="Language to state in PAGE, ALTO, hOCR and PDF files, e.g. fr, where they state none")
    ] = "",
    glyphs: Annotated[
        bool,
        typer.Option("--glyphs", help="Also write the box and confidence of each character (page, alto, hocr)"),
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Go on where an interrupted command stopped, leaving what is there")
    ] = False,
    greedy: Greedy = False,
    n_best: Annotated[
        int, typer.Option(min=0, help="Number of alternatives per line, with --format jsonl or parquet")
    ] = 0,
    confidences: Annotated[
        bool, typer.Option("--confidences", help="Also write those of words and characters (jsonl or parquet)")
    ] = False,
    review_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="List the lines below this confidence with their weakest words, on stderr"),
    ] = None,
    weights: Weights = None,
    tta: Views = 1,
    calibration: Calibration = None,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="First adapt a copy of the recognizer to the handwriting of these files")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with the files that come into a folder, each once, until Ctrl-C")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of processes, which write parts (parquet, jsonl, or pages)"),
    ] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="What starts the processes")] = "local",
    parts: Annotated[
        int | None, typer.Option(min=1, help="Number of parts (default: at least 64, of at most 1,000 files)")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Which of several machines this is, e.g. 3/16; each writes parts of its own")
    ] = None,
    pages: Annotated[
        bool | None,
        typer.Option("--pages/--lines", help="Images without XML are pages, or single lines (default: as they look)"),
    ] = None,
    show: Annotated[
        Path | None, typer.Option(help="Folder for pictures of the pages with the lines found on them")
    ] = None,
    device: Device = "auto",
) -> None:
    """Transcribe images and pages, and print their text line by line."""
    from htr_lightning.reading.package import SUFFIX, check_package, write_package
    from htr_lightning.reading.page_out import SUFFIXES, check_about, page_path, page_paths
    from htr_lightning.reading.results import growing, part_of, resume
    from htr_lightning.reading.script import languages
    from htr_lightning.reading.show import picture_paths
    from htr_lightning.reading.sources import find_sources
    from htr_lightning.reading.write import Output, UntilInterrupted, note, write_all

    by_page = format in SUFFIXES
    archive = out if out is not None and out.suffix.lower() == SUFFIX else None
    in_parts = format == "parquet" or engine == "ray" or bool(workers or parts or shard)
    if n_best and format not in ("jsonl", "parquet"):
        raise InputError(f"--n-best {n_best}: only --format jsonl and parquet include alternatives; add --format jsonl")
    if confidences and format not in ("jsonl", "parquet"):
        raise InputError(f"--confidences: --format {format} has none of words and characters; add --format jsonl")
    if review_below is not None and (in_parts or watch):
        raise InputError(f"--review-below {review_below:g}: lists the lines of one command at its end; without it, "
                         "select rows by their confidence")  # fmt: skip
    checkpoints, names = split_checkpoints(files)
    if not names:
        raise InputError(f"{checkpoints[-1]}: no files to transcribe; add images or pages after the checkpoints")
    if not checkpoints:
        checkpoints = [DEFAULT]
        note(f"transcribing with {DEFAULT} ({languages(DEFAULT)}); to use another recognizer, begin with its *.ckpt")
    if late := [name for name in names if name.endswith(".ckpt")]:
        raise InputError(f"{late[0]}: checkpoint after a file to transcribe; list all checkpoints first")
    about = check_about(checkpoints, format, language, glyphs)
    if archive is not None and (in_parts or watch):
        raise InputError(f"--out {archive}: an archive is written by one command, without --watch, --workers, "
                         "--engine, --parts and --shard; name a folder")  # fmt: skip
    if watch and (adapt or in_parts or len(names) > 1 or not Path(names[0]).is_dir()):
        raise InputError(f"--watch: watches one folder, without --adapt; got {' '.join(names)}{' --adapt' * adapt}")
    if by_page and out is None and (watch or format == "pdf"):
        raise InputError(f"{'--watch' if watch else '--format pdf'}: pages need an output folder; add --out FOLDER")
    if watch and not by_page and out is not None:
        raise InputError(f"--out {out}: --watch prints lines as they come; redirect the output")
    if skip_existing and (out is None or watch or (format == "text" and not in_parts)):
        remedy = "; remove FILE.part to begin again" if format == "text" and out is not None else ""
        raise InputError(f"--skip-existing: needs --out, and a format other than text{remedy}")
    if in_parts and (out is None or adapt or format in ("text", "tsv")):
        raise InputError("--workers, --engine, --parts and --shard write parts to a folder, without --adapt; add "
                         "--format parquet (or jsonl, or a format for pages) and --out FOLDER")  # fmt: skip
    if show and (watch or in_parts):
        raise InputError(f"--show {show}: shows the lines of a few files; remove --watch, --workers, --parts, --shard")
    calibrated, weighted = numbers("--calibration", calibration), numbers("--weights", weights)
    from htr_lightning.reading.open import load_all  # may import torch, which takes seconds

    if watch:
        recognizer = load_all(checkpoints, device, greedy, tta, calibrated, weighted)
        _watch(recognizer, Path(names[0]), out, Output(format, about, n_best, confidences, pages))
        return
    with progress_text("listing files"):
        sources, errors, notes = find_sources(names)
    for text in notes:
        note(text)
    if not sources:
        _fail(errors)
    if archive is not None:
        check_package(archive, sources, format)
        about, out = about._replace(exchanged=True), part_of(archive)  # a folder until all pages are there
    if in_parts:
        from htr_lightning.reading.shards import Job

        assert out is not None
        job = Job(
            out, format, checkpoints, device, greedy, tta, calibrated, weighted, n_best, confidences, about, pages
        )
        if fault := _transcribe_parts(job, sources, parts, shard, workers, engine, skip_existing):
            errors.append(fault)
        if errors:
            _fail(errors)
        return
    if by_page and out is None and len(sources) > 1:
        raise InputError(f"--format {format}: {len(sources)} files need an output folder; add --out FOLDER")
    targets = page_paths(sources, out, format, skip_existing) if by_page and out is not None else {}
    every = sources
    if by_page and out is not None:
        make_folder(out)  # fail early, before the work starts
        sources = [source for source in sources if source.path in targets]
    elif out is not None:
        left = next((path for path in (out, part_of(out)) if path.exists()), None)
        if left is not None and not skip_existing:
            remedy = "remove it to begin again" if format == "text" else "add --skip-existing to go on"
            raise InputError(f"{left}: file already exists; choose another --out, or {remedy}")
        check_writable(out)
        sources = resume(out, format, sources) if skip_existing else sources
    pictures = picture_paths([source.path for source in sources], show) if show else {}
    recognizer = load_all(checkpoints, device, greedy, tta, calibrated, weighted, exported=not adapt)
    if adapt:
        from htr_lightning.adapt.writer import MIN_LINES, adapt_to

        with progress_text("adapting") as tell:
            adapted = adapt_to(recognizer, sources, lambda done: tell(f"adapting: {done:.0%}"), pages)
        recognizer = adapted.recognizer
        if adapted.lines:
            print(f"note: adapted to {adapted.lines} lines; confidence per character {adapted.before:.1%} -> "
                  f"{adapted.after:.1%}", file=sys.stderr)  # fmt: skip
        else:
            print(f"note: not adapted, since fewer than {MIN_LINES} lines have text", file=sys.stderr)
    confidences = confidences or (review_below is not None and format == "jsonl")
    review = None if review_below is None else Review(review_below)
    file = growing(out) if out is not None and not by_page else nullcontext(sys.stdout.write)
    output = Output(format, about, n_best, confidences, pages, targets, pictures, archive is not None)
    with progress_bar("transcribing", len(sources)) as advance, file as write, UntilInterrupted(sources, note) as some:
        failed = write_all(recognizer, some, output, errors, write, advance, review)
        if some.left:
            kept = None if out is None else out if by_page else part_of(out)
            _print_errors(errors)
            done, skippable = some.opened - failed, by_page or format in ("tsv", "jsonl")
            _stop(done, some.opened + some.left, kept, skippable)
    if archive is not None and out is not None:
        if packed := [
            (source.image, path)
            for source in every
            if isinstance(source.image, Path) and (path := page_path(source, out, format)).exists()
        ]:
            write_package(archive, packed, format)
            print(printable(str(archive)))
        shutil.rmtree(out)
    if out is not None and not by_page:
        print(printable(str(out)))
    if review is not None:
        if skip_existing and out is not None and format in ("tsv", "jsonl"):
            review = Review(review.below)
            for row in rows_in(out, format):  # those of the interrupted command, too
                review.add(row)
        print(*map(printable, review.report()), sep="\n", file=sys.stderr)
    if errors:
        _fail(errors)


def _transcribe_parts(
    job: "Job",
    sources: Sequence["Source"],
    parts: int | None,
    shard: str | None,
    workers: int | None,
    engine: str,
    skip_existing: bool,
) -> str | None:
    """Transcribe the parts of this machine, print what they contain, and return what could not be read, if anything."""
    from htr_lightning.reading import engines, shards

    chosen = shards.prepare(job, sources, parts, shard, skip_existing)
    try:
        with progress_bar("transcribing", sum(len(part.sources) for part in chosen)) as advance:
            found = engines.run(job, chosen, engine, workers, advance)
    except KeyboardInterrupt:
        print(f"stopped: {printable(str(job.folder))} has the parts that are finished; repeat the command with "
              "--skip-existing to go on", file=sys.stderr)  # fmt: skip
        sys.exit(130)
    print(printable(f"{found.lines} lines of {sum(len(part.sources) for part in chosen)} files in {len(chosen)} parts "
                    f"-> {job.folder}"))  # fmt: skip
    if not found.faults:
        return None
    return f"{found.faults} of {found.lines} lines could not be read, the first: {found.first}"


def _watch(recognizer: "Transcriber", folder: Path, out: Path | None, output: "Output") -> None:
    """Transcribe the files in a folder as they come, until the user stops the program."""
    from htr_lightning.reading.page_out import page_paths
    from htr_lightning.reading.sources import find_sources
    from htr_lightning.reading.watch import new_files
    from htr_lightning.reading.write import note, write_all

    note(f"watching {folder}; stop with Ctrl-C")
    with suppress(KeyboardInterrupt):
        for paths in new_files(folder):
            sources, errors, notes = find_sources(map(str, paths))
            for text in notes:
                note(text)
            try:
                targets = page_paths(sources, out, output.form) if out is not None else {}
                write_all(recognizer, sources, output._replace(targets=targets), errors, sys.stdout.write)
            except InputError as error:  # the next file may be better
                errors.append(str(error))
            finally:
                _print_errors(errors)
                sys.stdout.flush()


def _stop(done: int, files: int, out: Path | None, skippable: bool) -> NoReturn:
    """End the program after Ctrl-C, and say what was kept and how to go on."""
    where = "printed" if out is None else f"kept in {printable(str(out))}"
    remedy = "; repeat the command with --skip-existing to go on" if skippable else "; remove it to begin again"
    remedy = "" if out is None else remedy
    print(f"stopped: {done} of {files} files are transcribed and {where}{remedy}", file=sys.stderr)
    sys.exit(130)  # as after Ctrl-C


def _fail(errors: list[str]) -> NoReturn:
    _print_errors(errors)
    sys.exit(1)


def _print_errors(errors: list[str]) -> None:
    for error in dict.fromkeys(errors):
        print(f"error: {printable(error)}", file=sys.stderr)

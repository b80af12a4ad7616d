"""The command `htr`."""

import json
import re
import sys
from collections import Counter
from functools import partial
from itertools import groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from htr_lightning import __version__, command
from htr_lightning.errors import InputError

if TYPE_CHECKING:
    from htr_lightning.data.sample import Reader
    from htr_lightning.transcribe import Reading

typer_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Checkpoint = Annotated[str, typer.Argument(help="Checkpoint of a run: runs/DAY/TIME-NAME/checkpoints/best.ckpt")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Hydra overrides: data=copiste data.root=...")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="Only this split; more than once for several")]
OnlyGreedy = Annotated[bool, typer.Option("--greedy", help="Leave out beam, language model and lexicon")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Way = Annotated[
    Literal["auto", "frames", "rover"] | None,
    typer.Option(help="How several checkpoints vote: mean posterior of every frame, or of readings, by rover"),
]
Views = Annotated[int, typer.Option("--tta", min=1, help="Read every line so many times, a little changed, and vote")]
Scale = Annotated[str | None, typer.Option(help="SLOPE,BIAS of the confidences, as htr calibrate prints them")]


@typer_app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Read handwriting with a trained checkpoint."""
    if version:
        print(__version__)


@typer_app.command()
def transcribe(
    checkpoint: Checkpoint,
    files: Annotated[
        list[str], typer.Argument(help="Further checkpoints that vote (*.ckpt); images, folders, PAGE or ALTO files")
    ],
    format: Annotated[
        Literal["text", "tsv", "jsonl", "page"], typer.Option(help="tsv: file, text, confidence")
    ] = "text",
    out: Annotated[Path | None, typer.Option(help="Folder for the files of --format page")] = None,
    greedy: OnlyGreedy = False,
    n_best: Annotated[int, typer.Option(min=0, help="Readings of each line, for --format jsonl")] = 0,
    vote: Way = None,
    tta: Views = 1,
    calibration: Scale = None,
    device: Device = "auto",
) -> None:
    """Print the text of images and pages, a line a line."""
    from htr_lightning.evaluate import load_all
    from htr_lightning.page_out import page_paths, to_page_xml, write_page
    from htr_lightning.transcribe import find_sources
    from htr_lightning.transcribe import transcribe as read

    if n_best and format != "jsonl":
        raise InputError(f"--n-best {n_best}: only --format jsonl has room for several readings; add it")
    checkpoints, names = _checkpoints(checkpoint, files)
    if not names:
        raise InputError(f"{checkpoints[-1]}: there is nothing to read; name images or pages behind the checkpoints")
    recognizer = load_all(checkpoints, device, greedy, n_best, vote, tta, calibration)
    sources, faults = find_sources(names)
    if format == "page" and out is None and len(sources) > 1:
        raise InputError(f"--format page with {len(sources)} files: name a folder for them with --out")
    if format != "page" and out is not None:
        raise InputError(f"--out {out}: only --format page writes files; redirect what is printed, or leave --out away")
    targets = page_paths(sources, out) if format == "page" and out is not None else {}
    for source in sources:
        if not source.lines:  # nothing will be read of it, but it is not lost
            print(f"note: {source.path}: a page without lines", file=sys.stderr)
            if source.path in targets:
                print(write_page(source, [], targets[source.path]))
    with _progress("reading", sum(source.lines for source in sources)) as progress:
        readings = read(recognizer, sources, lambda lines: progress.advance(progress.task_ids[0], lines))
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
    text, confidence, alternatives, _ = reading.transcription
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
    out: Annotated[Path | None, typer.Option(help="Folder of the result [default: beside the checkpoint]")] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to read")] = "test",
    greedy: OnlyGreedy = False,
    vote: Way = None,
    tta: Views = 1,
    calibration: Scale = None,
    device: Device = "auto",
) -> None:
    """Measure a checkpoint, or several that vote, on a split: predictions.jsonl and metrics.json."""
    from htr_lightning.checkpoint import describe
    from htr_lightning.evaluate import calibration as errors
    from htr_lightning.evaluate import data_for, load_all, make_folder, write
    from htr_lightning.evaluate import evaluate as measure
    from htr_lightning.metrics.calibration import DEFINITION
    from htr_lightning.model.ensemble import Rover

    checkpoints, given = _checkpoints(checkpoint, overrides or [])
    recognizer = load_all(checkpoints, device, greedy, 0, vote, tta, calibration)
    data = data_for(recognizer, given)
    lines = describe(data, split)
    votes = len(checkpoints) > 1 or tta > 1
    folder = out or Path(checkpoint).resolve().parent / f"{'vote' if votes else 'evaluate'}-{split}"
    make_folder(folder)  # before the work, not after it
    with _progress("reading", lines["lines"]) as progress:
        predictions, totals = measure(
            recognizer, data, split, lambda count: progress.advance(progress.task_ids[0], count)
        )
    about = {
        "checkpoint": checkpoints if votes else checkpoint,
        "split": split,
        "data": lines,
        "calibration": recognizer.calibration,
        "definition": recognizer.card["metric"] | DEFINITION,
    }
    if votes:
        about["vote"] = {"way": "rover" if isinstance(recognizer, Rover) else "frames", "views": tta}
    write(folder, predictions, totals, about)
    print(f"CER {totals.cer:.2%}  WER {totals.wer:.2%}  {totals.edits} edits / {totals.characters} characters "
          f"in {totals.lines} lines  ECE {errors(predictions)['ece']:.2%} -> {folder}")  # fmt: skip


@typer_app.command()
def calibrate(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The new checkpoint [default: CHECKPOINT-calibrated.ckpt]")] = None,
    vote: Way = None,
    tta: Views = 1,
    device: Device = "auto",
) -> None:
    """Make confidences probabilities, on a scale fitted on the validation lines; texts stay as they are.

    That of one checkpoint is written into a copy of it, that of a vote is printed, for --calibration.
    """
    from htr_lightning import calibrate as verb
    from htr_lightning.checkpoint import describe
    from htr_lightning.evaluate import data_for, load_all
    from htr_lightning.evaluate import evaluate as measure

    checkpoints, given = _checkpoints(checkpoint, overrides or [])
    votes = len(checkpoints) > 1 or tta > 1
    if votes and out is not None:
        raise InputError(f"--out {out}: a vote is no checkpoint; its scale is printed, leave --out away")
    out = out or Path(checkpoint).with_name(f"{Path(checkpoint).stem}-calibrated.ckpt")
    recognizer = load_all(checkpoints, device, False, 0, vote, tta, "1,0")
    if not votes:
        _writable(out)  # before the work, not after it
    data = data_for(recognizer, given)
    lines = describe(data, "val")
    with _progress("reading", lines["lines"]) as progress:
        predictions, _ = measure(recognizer, data, "val", lambda count: progress.advance(progress.task_ids[0], count))
    found = verb.calibrate(predictions)
    scale = f"{found.scale.slope:.3f},{found.scale.bias:.3f}"
    print(f"{lines['lines']} validation lines: calibration {scale}, "
          f"ECE of characters {found.before['ece']:.2%} -> {found.after['ece']:.2%}, "
          f"of lines {found.before['line_ece']:.2%} -> {found.after['line_ece']:.2%}")  # fmt: skip
    if votes:
        print(f"--calibration {scale}")
    else:
        verb.write(checkpoint, out, found, lines)
        print(out)


@typer_app.command("fine-tune", context_settings={"ignore_unknown_options": True})
def fine_tune(checkpoint: Checkpoint, overrides: Overrides = None) -> None:
    """Train a checkpoint on with other data: data=page_xml data.root=... replay=copiste; see conf/fine_tune.yaml."""
    from htr_lightning.fine_tune import fine_tune as run

    run(checkpoint, overrides or [])


@typer_app.command("tune-decoder")
def tune_decoder(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="File with a line of text a line, more than once for several; train: the training texts"),
    ] = None,
    arpa: Annotated[Path | None, typer.Option(help="Character n-gram model to read; right-to-left as seen")] = None,
    lexicon: Annotated[str | None, typer.Option(help="Read only words of this file, one a line, or of train")] = None,
    order: Annotated[int, typer.Option(help="Of the character n-grams that are estimated")] = 6,
    out: Annotated[Path | None, typer.Option(help="The new checkpoint [default: CHECKPOINT-lm.ckpt]")] = None,
    device: Device = "auto",
) -> None:
    """Give a checkpoint a language model, its weights tuned on the validation lines; see conf/decoder/beam.yaml.

    Overrides change the data, as for evaluate, or the beam: decoder.width=64.
    """
    from htr_lightning import tune
    from htr_lightning.checkpoint import describe
    from htr_lightning.evaluate import data_for, load

    if arpa is not None and text:
        raise InputError("--arpa and --text together: a model is read or estimated; give one of them")
    out = out or Path(checkpoint).with_name(f"{Path(checkpoint).stem}-lm.ckpt")
    recognizer = tune.ctc_recognizer(load(checkpoint, device), checkpoint)
    _writable(out)  # before the work, not after it
    given = overrides or []
    settings = tune.beam_settings([one for one in given if one.startswith("decoder.")])
    data = data_for(recognizer, [one for one in given if not one.startswith("decoder.")])
    needed = text or ([tune.TRAIN] if arpa is None or lexicon == tune.TRAIN else [])
    texts = []
    for name in needed:
        texts += data.lines("train").texts if name == tune.TRAIN else tune.read_lines(Path(name), recognizer)
    language, notes = tune.make_language(recognizer, texts, order, arpa, lexicon)
    print(*notes, sep="\n")
    lines = describe(data, "val")
    with _progress("tuning", None) as progress:
        found = tune.tune(
            recognizer, data, language, settings, lambda text: progress.update(progress.task_ids[0], description=text)
        )
    tune.write(checkpoint, out, language, found, lines)
    print(f"{lines['lines']} validation lines:\n{'':16}{'CER':>8}{'change':>9}{'lines/s/core':>14}")
    first = found.measured[0].totals
    for name, totals, speed in found.measured:
        change = f"{totals.edits / max(1, first.edits) - 1:+.1%}" if totals is not first else ""
        print(f"{name:16}{totals.cer:8.2%}{change:>9}{speed:14,.0f}")
    print(f"alpha {found.decoder['alpha']:g}, beta {found.decoder['beta']:g} -> {out}")
    if found.measured[-1].totals.edits >= first.edits:
        print(f"note: it reads no better than greedy; go on with {checkpoint}", file=sys.stderr)


@typer_app.command()
def pack(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; an interrupted one is gone on with")] = None,
    split: Splits = None,
    check: Annotated[Path | None, typer.Option(help="A packed file to read whole instead, to see it is sound")] = None,
) -> None:
    """Decode a data set once into one file; `data.pack=FILE` then trains from it.

    Lines are kept in grey at the height of the model, before augmentation: model=... and model.preprocess.height=...
    say which that is.
    """
    from htr_lightning.convert import open_data
    from htr_lightning.data.datamodule import SPLITS
    from htr_lightning.data.pack import Pack, PackWriter, packed_height, packed_splits

    if (out is None) == (check is None):
        raise InputError("name the file to write with --out FILE, or one to check with --check FILE")
    if check is not None:
        for name in packed_splits(check):
            packed = Pack(check, name)
            with _progress(f"checking {name}", len(packed)) as progress:
                for _ in packed:
                    progress.advance(progress.task_ids[0])
            print(f"{name}: {len(packed)} lines, sound")
        return
    assert out is not None
    data, source = open_data(overrides or [])
    try:
        with PackWriter(out, packed_height(data.preprocess), source) as writer:
            for name in split or SPLITS:
                reader = data.open(name)
                with _progress(f"packing {name}", len(reader)) as progress:
                    writer.write(name, reader, partial(progress.advance, progress.task_ids[0]))
                print(f"{name}: {len(reader)} lines" + _tell(reader))
    except KeyboardInterrupt:
        print(f"stopped; {out}.part is kept, and the same command goes on with it", file=sys.stderr)
        sys.exit(130)
    print(f"{out}: {out.stat().st_size / 1e6:,.1f} MB")


@typer_app.command()
def convert(
    to: Annotated[Literal["kraken", "pylaia", "parquet", "page"], typer.Option(help="Form to write")],
    out: Annotated[Path, typer.Option(help="Folder to write into; it must be empty or new")],
    overrides: Overrides = None,
    split: Splits = None,
) -> None:
    """Write a data set as other programs read it, with references normalised as for training."""
    from htr_lightning.convert import convert as write
    from htr_lightning.convert import empty_folder, open_data
    from htr_lightning.data.datamodule import SPLITS

    empty_folder(out)  # before the work, not after it
    data, _ = open_data(overrides or [], full=True)
    names = list(dict.fromkeys(split or SPLITS))
    total = sum(len(data.lines(name)) for name in names)
    with _progress("writing", total) as progress:
        write(data, names, to, out, partial(progress.advance, progress.task_ids[0]))
    for name in names:
        print(f"{name}: {len(data.lines(name))} lines" + _tell(data.lines(name).reader))
    print(out)


@typer_app.command("pseudo-label")
def pseudo_label(
    checkpoint: Checkpoint,
    lines: Annotated[
        list[str], typer.Argument(help="Line images, folders, globs, PAGE or ALTO files; or overrides: data=...")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write into; it must be empty or new")],
    least: Annotated[float | None, typer.Option(min=0, max=1, help="Confidence a line needs [default: 0.9]")] = None,
    share: Annotated[float | None, typer.Option(min=0, max=1, help="Keep the surest of all lines, 0.5: half")] = None,
    labelled: Annotated[
        list[str] | None, typer.Option(help="Override, more than once for several: data to write beside, as it is")
    ] = None,
    to: Annotated[Literal["kraken", "pylaia", "parquet", "page"], typer.Option(help="Form to write")] = "kraken",
    split: Splits = None,
    device: Device = "auto",
) -> None:
    """Read unlabelled lines and write those read surely as training lines, for self-training.

    Overrides without data=NAME change the data of the checkpoint's run: data.part=[500,null] are the lines that it has
    not learned where it has learned data.part=[0,500]. References are not looked at. data=folder reads the result.
    """
    from htr_lightning import pseudo_label as verb
    from htr_lightning.convert import empty_folder
    from htr_lightning.data.split import SPLITS
    from htr_lightning.evaluate import data_for, load
    from htr_lightning.transcribe import find_sources

    named = [re.match(r"\+*data(\.\w+)*=", line) is not None for line in lines]
    if any(named) and not all(named):
        raise InputError(f"{lines[named.index(False)]}: no override of the data; give overrides or files, not both")
    if split and not all(named):
        raise InputError(f"--split {split[0]}: files have no splits; leave it away, or name the data by data=...")
    if least is None and share is None:
        least = 0.9
    empty_folder(out)  # before the work, not after it
    recognizer = load(checkpoint, device)
    known = data_for(recognizer, labelled) if labelled else None
    if all(named):
        unlabelled = verb.lines_of_data(data_for(recognizer, lines), list(dict.fromkeys(split or ["train"])))
    else:
        sources, faults = find_sources(lines)
        if faults:
            raise InputError(faults[0])
        unlabelled = verb.lines_of_files(sources)
    with _progress("reading", unlabelled.count) as progress:
        found = unlabelled.guesses(recognizer, partial(progress.advance, progress.task_ids[0]))
    guesses = verb.gate(found, least, share)
    about = {"checkpoint": checkpoint, "of": lines, "least": least, "share": share, "labelled": labelled}
    with _progress("writing", None) as progress:
        counts = verb.write(unlabelled, guesses, to, out, about, known, partial(progress.advance, progress.task_ids[0]))
    told = ", ".join(f"{count} {fate}" for fate, count in sorted(counts.items(), key=lambda item: item[0] != verb.KEPT))
    print(f"{len(guesses)} unlabelled lines: {told} -> {out}")
    if known is not None:
        print("beside them, labelled: " + ", ".join(f"{len(known.lines(name))} {name}" for name in SPLITS))


def _tell(reader: "Reader") -> str:
    """What a reader left out on request."""
    kinds = Counter(skipped.kind for skipped in reader.skipped)
    return "".join(f", {count} skipped ({kind})" for kind, count in kinds.items())


@typer_app.command()
def audit(
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides: data=copiste data.root=...")] = None,
    html: Annotated[Path, typer.Option(help="The page with contact sheets")] = Path("audit.html"),
    json_file: Annotated[Path | None, typer.Option("--json", help="The same as data")] = None,
    augment: Annotated[str | None, typer.Option(help="Show what augment=NAME does to training lines")] = None,
) -> None:
    """Find what is wrong with a dataset before a model is trained on it; exit code 1 where it would spoil a result."""
    from htr_lightning import audit as verb
    from htr_lightning.audit_html import page

    for path in (html, json_file):
        if path is not None:
            _writable(path)  # before the work, not after it
    subject = verb.open_data(overrides or [], augment)
    with _progress("looking at", sum(map(len, subject.readers.values()))) as progress:
        found = verb.audit(subject, lambda lines: progress.advance(progress.task_ids[0], lines))
    spoiling = verb.spoiling(subject, found)
    sheet = verb.augmented(subject) if augment is not None else None
    shown = (augment, sheet) if augment is not None and sheet is not None else None
    html.write_text(page(subject.title, found, spoiling, subject.readers, shown), encoding="utf-8", errors="replace")
    if json_file is not None:
        text = json.dumps(verb.record(found, spoiling), indent=1, ensure_ascii=False)
        json_file.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    console = Console(highlight=False, soft_wrap=True)
    console.print(*verb.tables(found, spoiling), *(f"note: {note}" for note in found.notes), sep="\n", markup=False)
    console.print(f"page: {html}" + (f"  data: {json_file}" if json_file else ""), markup=False)
    if spoiling:
        sys.exit(1)


def _checkpoints(first: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The checkpoints at the front of the arguments, and what stands behind them."""
    others = takewhile(lambda name: name.endswith(".ckpt") and "=" not in name.split("/")[0], arguments)
    checkpoints = [first, *others]
    return checkpoints, arguments[len(checkpoints) - 1 :]


def _writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("a").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; choose another file") from None


def _progress(title: str, total: int | None) -> Progress:
    # Redirecting would send what is printed to stderr too, also when stdout is a file.
    progress = Progress(
        disable=not sys.stderr.isatty(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=False,
    )
    progress.add_task(title, total=total)
    return progress


def app() -> None:
    """Entry point."""
    command.run(typer_app)

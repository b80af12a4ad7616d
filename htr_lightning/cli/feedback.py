"""The `feedback` commands."""

import getpass
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from htr_lightning.cli.arguments import Device, Overrides, progress_bar, typer_app
from htr_lightning.errors import InputError, counted, printable

if TYPE_CHECKING:
    from htr_lightning.data.corrected import StoredLine
    from htr_lightning.data.corrections import Event

feedback_app = typer.Typer(no_args_is_help=True, help="Collect corrected lines, and train the recognizer on them.")
typer_app.add_typer(feedback_app, name="feedback")

Store = Annotated[Path, typer.Argument(help="File of corrections, e.g. corrections.db")]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name on this machine
        return ""


Who = Annotated[
    str, typer.Option(default_factory=_user, show_default="the user's name", help="Who decides or corrected")
]


@feedback_app.command()
def add(
    store: Store,
    files: Annotated[
        list[str],
        typer.Argument(
            help="Corrected PAGE or ALTO files, folders or zip archives of them, or tables (*.jsonl, *.tsv, *.csv)"
        ),
    ],
    who: Who,
    group: Annotated[
        str | None,
        typer.Option(help="Writer of all these lines (default: the name of each page, or as the table says)"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Recognizer whose texts were corrected, for the record")] = None,
    unconfirmed: Annotated[
        bool,
        typer.Option("--unconfirmed", help="Also add lines that nobody has confirmed (with a confidence below 1)"),
    ] = False,
    exported: Annotated[
        str | None,
        typer.Option(help="What the editor was given (archive, folder or file): adds only what changed since then"),
    ] = None,
    settle: Annotated[
        bool, typer.Option("--settle", help="These texts replace those of everybody for the same lines")
    ] = False,
) -> None:
    """Add corrected lines to a file of corrections, which is created if needed."""
    from htr_lightning.adapt.corrected_files import read_corrections
    from htr_lightning.data.corrections import CorrectionStore
    from htr_lightning.reading.journal import digest

    opened = CorrectionStore(store) if store.exists() else None
    left_out = Counter[str]()
    accepted = duplicates = 0
    contradictions: dict[str, StoredLine] = {}
    read = read_corrections(files, left_out, group, unconfirmed, exported)
    with progress_bar("adding", None) as advance:
        try:
            for corrections in filter(None, read):
                opened = opened or CorrectionStore(store, create=True)  # not before there is something to store
                added = opened.add(corrections, who, model or "", digest(model) if model else "", settle)
                accepted, duplicates = accepted + added.accepted, duplicates + added.duplicates
                contradictions |= {line.image: line for line in added.contradictions}
                advance(1)
        except InputError as error:
            done = f"; {counted(accepted, 'line')} of the files before it are stored, and are not added twice"
            raise InputError(f"{error}{done * bool(accepted)}") from None
    for reason, count in left_out.items():
        print(f"left out: {printable(reason)}: {count}")
    for line in contradictions.values():
        print(f"contradiction: {line.told}; not used until one is added with --settle")
    print(f"{store}: {counted(accepted, 'line')} accepted, {duplicates} of them known with the same text, "
          f"{len(contradictions)} contradicted")  # fmt: skip
    if not accepted:
        remedy = "see above what was left out" if left_out else "name PAGE or ALTO files with their images, or a table"
        raise InputError(f"{', '.join(files)}: no corrected lines; {remedy}")


@feedback_app.command()
def status(
    store: Store, as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON")] = False
) -> None:
    """Show what is in a file of corrections, what waits for training, and what the last training gained."""
    from htr_lightning.data.corrections import CorrectionStore

    now = CorrectionStore(store).status()
    if as_json:
        plain = now._asdict() | {"contradictions": [line.told for line in now.contradictions],
                                 "last": now.last and now.last._asdict()}  # fmt: skip
        print(json.dumps(plain, indent=1, ensure_ascii=False))
        return
    print(
        f"{store}: {counted(now.corrections, 'correction')} by {counted(now.people, 'person', 'people')}; "
        f"{counted(now.lines, 'line')}: {now.splits['train']} for training and {now.splits['val']} for validation in "
        f"{counted(now.groups['train'], 'group')}, {now.splits['test']} held out in "
        f"{counted(now.groups['test'], 'group')}"
    )
    since = "the start" if not now.version else f"version {now.version}"
    print(f"waiting: {counted(now.waiting, 'line')} since {since}")
    print(f"duplicates: {now.duplicates}")
    print(f"contradictions: {len(now.contradictions)}" + " (not used)" * bool(now.contradictions))
    for line in now.contradictions:
        print(f"  {line.told}")
    print("version: " + ("none yet" if now.version is None else str(now.version)))
    print("last training: " + (_told(now.last) if now.last else "none yet"))


@feedback_app.command(context_settings={"ignore_unknown_options": True})
def train(
    store: Store,
    who: Who,
    overrides: Overrides = None,
    recognizer: Annotated[
        str | None, typer.Option(help="Checkpoint to begin with, if there is no version yet (default: latin-modern)")
    ] = None,
    max_loss: Annotated[
        float, typer.Option(min=0, help="Points of CER that old lines may lose, at the upper limit of the interval")
    ] = 1.0,
    device: Device = "auto",
) -> None:
    """Fine-tune the current recognizer on the corrections; promote it if it reads held-out lines better, or refuse it.

    data@replay=NAME replay.root=FOLDER (or replay.pack=FILE) select old data, which are mixed in and of which the
    validation lines must not be read worse; see htr fine-tune and experiments/feedback_fine_tune.yaml.
    """
    from htr_lightning.data.corrections import CorrectionStore

    opened = CorrectionStore(store)  # before PyTorch is imported
    from htr_lightning.adapt import feedback as verb

    event = verb.train(opened, recognizer, overrides or [], who, max_loss / 100, device, progress_bar)
    print(_told(event))
    if event.version is not None:
        print(verb.folder_of(opened) / "current.ckpt")


@feedback_app.command()
def versions(
    store: Store, as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON")] = False
) -> None:
    """List the versions of the recognizer and what was decided about each, by whom, when and why."""
    from htr_lightning.data.corrections import CorrectionStore

    opened = CorrectionStore(store)
    events = opened.events()
    if as_json:
        print(json.dumps([event._asdict() for event in events], indent=1, ensure_ascii=False))
        return
    opened.current()  # before PyTorch is imported
    from htr_lightning.adapt.feedback import current, folder_of

    for event in events:
        print(_told(event))
    now, _ = current(opened)
    print(f"current: version {now.version}, {folder_of(opened) / 'current.ckpt'}")


@feedback_app.command()
def rollback(
    store: Store,
    who: Who,
    to: Annotated[
        int | None, typer.Option(help="Version (default: the one that the current version was trained from)")
    ] = None,
    why: Annotated[str, typer.Option(help="Reason, for the audit trail")] = "",
) -> None:
    """Go back to an earlier version of the recognizer; the corrections stay."""
    from htr_lightning.data.corrections import CorrectionStore

    opened = CorrectionStore(store)
    from htr_lightning.adapt import feedback as verb

    print(_told(verb.rollback(opened, to, why, who)))
    print(verb.folder_of(opened) / "current.ckpt")


def _told(event: "Event") -> str:
    version = "" if event.version is None else f" version {event.version}"
    parent = "" if event.parent is None else f" from {event.parent}"
    who = f" by {event.who}" if event.who else ""
    return printable(f"{event.time}{who}: {event.kind}{version}{parent} ({event.sha256[:8]}): {event.reason}")

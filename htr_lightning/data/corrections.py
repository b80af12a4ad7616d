"""What users corrected: an append-only SQLite file of line images, their texts, and the recognizers trained on them.

Several processes may use a file at the same time. Whatever was added has reached the disk (write-ahead log, synchronous
commits). Rows are never changed or deleted, which triggers in the file enforce; which text of a line counts follows
from all rows about its image (see `corrected.stored_lines`). Does not import torch.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import cv2
from jaxtyping import UInt8
from numpy import ndarray

from htr_lightning.data.corrected import Correction, Row, StoredLine, image_hash, splits, stored_lines
from htr_lightning.data.fault import text_fault
from htr_lightning.data.files import nfc
from htr_lightning.data.image import LINE_PIXELS, read_image
from htr_lightning.errors import InputError

APPLICATION, FORMAT = 0x48545243, 1  # "HTRC" and the version of the tables, in the header of the file
TIMEOUT = 30.0  # seconds to wait for another process that writes
TABLES = """
CREATE TABLE images (hash TEXT PRIMARY KEY, height INTEGER NOT NULL, width INTEGER NOT NULL, png BLOB NOT NULL);
CREATE TABLE corrections (
  number INTEGER PRIMARY KEY AUTOINCREMENT, batch INTEGER NOT NULL, time TEXT NOT NULL, who TEXT NOT NULL,
  image TEXT NOT NULL REFERENCES images, text TEXT, before TEXT, confidence REAL, model TEXT NOT NULL,
  model_sha256 TEXT NOT NULL, source TEXT NOT NULL, line TEXT NOT NULL, "group" TEXT NOT NULL,
  settles INTEGER NOT NULL);
CREATE INDEX by_image ON corrections (image);
CREATE TABLE events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, who TEXT NOT NULL, kind TEXT NOT NULL,
  version INTEGER, parent INTEGER, sha256 TEXT NOT NULL, until INTEGER NOT NULL, reason TEXT NOT NULL,
  figures TEXT NOT NULL);
""" + "".join(
    f"CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'append-only'); END;\n"
    for table in ("images", "corrections", "events")
    for verb in ("UPDATE", "DELETE")
)


class StoreError(InputError):
    """An error of the file system or of SQLite, for which what was to be added is not to blame."""


class Added(NamedTuple):
    """What became of corrections."""

    accepted: int  # all of them, which are on the disk
    duplicates: int  # of these, those whose image already had the same text
    contradictions: list[StoredLine]  # lines among them that now have several texts


class Event(NamedTuple):
    """An entry of the audit trail: a version was registered ("start"), trained ("promoted", "refused"), or restored."""

    number: int
    time: str
    who: str
    kind: str  # start, promoted, refused or rollback
    version: int | None  # which is the current one from here on; None if it was refused
    parent: int | None  # version that it was trained from
    sha256: str  # of the checkpoint
    until: int  # number of the last correction that it was trained on
    reason: str
    figures: dict[str, Any]


class Status(NamedTuple):
    """What is in a store."""

    corrections: int
    lines: int
    splits: dict[str, int]  # number of lines by split; those of "test" are held out
    groups: dict[str, int]
    people: int
    waiting: int  # lines that the current recognizer was not trained on, held-out ones included
    duplicates: int
    contradictions: list[StoredLine]
    version: int | None
    last: Event | None  # the last training


class CorrectionStore:
    """A file of corrections.

    Args:
        path: path of the file.
        create: whether to create the file if it does not exist.

    Raises:
        InputError: if the file does not exist or is not a file of corrections.
    """

    def __init__(self, path: str | Path, create: bool = False) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise InputError(f"{path}: is a folder; name a file of corrections first, e.g. corrections.db")
        if create and not self.path.exists():
            self._create()
        if not self.path.is_file():
            raise InputError(f"{path}: no such file of corrections; add some with htr feedback add {path} FILE")
        with self._open() as database:
            application, form = (database.execute(f"PRAGMA {key}").fetchone()[0]
                                 for key in ("application_id", "user_version"))  # fmt: skip
        if application != APPLICATION:
            raise InputError(f"{path}: not a file of corrections; name one that htr feedback add or htr serve created")
        if form != FORMAT:
            raise InputError(f"{path}: unsupported format {form} (supported: {FORMAT}); upgrade htr-lightning")

    def _create(self) -> None:
        """Create the file beside and link it, so that of several processes one creates it and none sees a part."""
        new = self.path.with_name(f".{self.path.name}.{uuid4().hex[:8]}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(new)) as database:
                database.executescript(f"PRAGMA journal_mode=WAL; PRAGMA application_id={APPLICATION}; "
                                       f"PRAGMA user_version={FORMAT}; {TABLES}")  # fmt: skip
            with suppress(FileExistsError):  # another process was faster
                os.link(new, self.path)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.path}: cannot be created ({error}); choose another file") from None
        finally:
            with suppress(OSError):
                new.unlink()

    @contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection; with `write`, in a transaction that is on the disk when the context ends.

        Each use has a connection of its own, which neither threads nor forked processes may share.
        """
        try:
            address = f"{self.path.resolve().as_uri()}?mode=rw"
            with closing(sqlite3.connect(address, TIMEOUT, isolation_level=None, uri=True)) as database:
                database.execute("PRAGMA synchronous=FULL")
                if not write:
                    yield database
                    return
                database.execute("BEGIN IMMEDIATE")
                yield database  # closing rolls back what an error keeps from being committed
                database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise InputError(f"{self.path}: not a file of corrections ({error}); choose another file") from None
            raise StoreError(f"{self.path}: {error}; free up space, check the permissions, or retry") from None

    def add(
        self,
        corrections: Iterable[Correction],
        who: str = "",
        model: str = "",
        model_sha256: str = "",
        settle: bool = False,
    ) -> Added:
        """Add corrections, all or none; when this returns, they are on the disk.

        A correction that the same person has made before, of the same image at the same place, is not stored again.

        Args:
            corrections: corrected lines.
            who: name of the person.
            model: name of the recognizer whose texts were corrected.
            model_sha256: hash of its file.
            settle: whether these texts replace those of everybody for the same images.

        Raises:
            InputError: if a text is empty or has several lines, or the file cannot be written; nothing is stored then.
        """
        made = [_checked(one) for one in corrections]
        now, duplicates, touched = datetime.now(UTC).isoformat(timespec="seconds"), 0, set()
        with self._open(write=True) as database:
            (batch,) = database.execute("SELECT coalesce(max(batch), 0) + 1 FROM corrections").fetchone()
            for one, key, png in made:
                place = (one.source, one.line)
                known = [row for line in stored_lines(_rows(database, key)) for row in line.rows]
                duplicates += one.text in {row.text for row in known}
                touched.add(key)
                said = {row.text for row in known if (row.who, row.source, row.line) == (who, *place)}
                if not settle and said == {one.text}:
                    continue
                database.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", (key, *one.image.shape, png))
                group = one.group or Path(one.source).stem
                database.execute(
                    f"INSERT INTO corrections VALUES (NULL{', ?' * 13})",
                    (batch, now, who, key, one.text, one.before, one.confidence, model, model_sha256, *place, group,
                     settle),
                )  # fmt: skip
            changed = [line for key in sorted(touched) for line in stored_lines(_rows(database, key))]
        return Added(len(made), duplicates, [line for line in changed if len(line.texts) > 1])

    def lines(self) -> list[StoredLine]:
        """Return the lines with at least one text, in the order in which their images came."""
        with self._open() as database:
            return stored_lines(_rows(database))

    def last_number(self) -> int:
        """Return the number of the last correction, or 0 in an empty store."""
        with self._open() as database:
            return database.execute("SELECT coalesce(max(number), 0) FROM corrections").fetchone()[0]

    def image(self, key: str) -> UInt8[ndarray, "H W"]:
        """Return an image; raise InputError if it is not as it was stored."""
        with self._open() as database:
            found = database.execute("SELECT png FROM images WHERE hash = ?", (key,)).fetchone()
        image = None if found is None else read_image(f"{self.path}: image {key[:8]}", content=found[0])
        if image is None or image_hash(image) != key:
            raise InputError(f"{self.path}: image {key[:8]} is missing or corrupted; restore the file from a backup")
        return image

    def events(self) -> list[Event]:
        """Return the audit trail, oldest entry first."""
        with self._open() as database:
            rows = database.execute("SELECT * FROM events ORDER BY number").fetchall()
        return [Event._make([*row[:-1], json.loads(row[-1])]) for row in rows]

    def current(self) -> Event:
        """Return the entry that made the current version of the recognizer.

        Raises:
            InputError: if there is no version yet.
        """
        event = current_version(self.events())
        if event is None:
            raise InputError(f"{self.path}: no version of a recognizer yet; make one with htr feedback train")
        return event

    def record(self, event: Event, last: int) -> None:
        """Add an entry to the audit trail, unless another one came after the one that the decision is based on.

        Args:
            event: entry; its number and time are replaced.
            last: number of the last entry that was known when the decision was taken; 0 for none.

        Raises:
            InputError: if there is a later entry.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._open(write=True) as database:
            if database.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()[0] != last:
                raise InputError(f"{self.path}: another command has trained, promoted or taken back a version in "
                                 "the meantime; see htr feedback versions, and retry")  # fmt: skip
            database.execute(f"INSERT INTO events VALUES (NULL{', ?' * 9})",
                             (now, *event[2:-1], json.dumps(event.figures, ensure_ascii=False)))  # fmt: skip

    def status(self) -> Status:
        """Return what is in the store."""
        with self._open() as database:
            rows = _rows(database)
        events, lines = self.events(), stored_lines(rows)
        chosen = splits(lines)
        usable = [line for line in lines if len(line.texts) == 1]
        version = current_version(events)
        return Status(
            len(rows),
            len(usable),
            {split: list(chosen.values()).count(split) for split in ("train", "val", "test")},
            {split: len({line.group for line in usable if chosen[line.image] == split}) for split in ("train", "test")},
            len({row.who for row in rows}),
            sum(line.rows[-1].number > (version.until if version else 0) for line in usable),
            sum(len(line.rows) - len(line.texts) for line in lines),
            [line for line in lines if len(line.texts) > 1],
            version and version.version,
            next((event for event in reversed(events) if event.kind in ("promoted", "refused")), None),
        )


def current_version(events: Sequence[Event]) -> Event | None:
    """Return the entry that made the current version of the recognizer, or None."""
    version = next((event.version for event in reversed(events) if event.version is not None), None)
    made = (event for event in events if event.version == version and event.kind in ("start", "promoted"))
    return next(made, None)


def _rows(database: sqlite3.Connection, image: str | None = None) -> list[Row]:
    """Return all rows or those of one image, oldest first."""
    query = "SELECT corrections.*, height, width FROM corrections JOIN images ON hash = image"
    query += " ORDER BY number" if image is None else " WHERE image = ? ORDER BY number"
    return [Row(*row) for row in database.execute(query, () if image is None else (image,))]


def _checked(correction: Correction) -> tuple[Correction, str, bytes]:
    """Return a correction with composed characters, and the hash and the PNG of its image.

    Raises:
        InputError: if its text or image is unusable.
    """
    place = f"{correction.source}#{correction.line}" if correction.line else correction.source
    if correction.text is not None:
        if (fault := text_fault(place, correction.text)) is not None:
            raise InputError(f"{place}: {fault.kind}; correct the text, or leave this line out")
        correction = correction._replace(text=nfc(correction.text).strip())
    if not 0 < correction.image.size <= LINE_PIXELS:
        raise InputError(
            f"{place}: an image of {correction.image.size:,} pixels (maximum {LINE_PIXELS:,}); crop a line"
        )
    return correction, image_hash(correction.image), cv2.imencode(".png", correction.image)[1].tobytes()

"""Results that are written down as they come, so that an interrupted command goes on where it stopped."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from htr_lightning.data.files import file_hash
from htr_lightning.errors import printable
from htr_lightning.output import writing
from htr_lightning.pretrained import locate


class Journal:
    """A file of results that exists while a command runs, or after it was interrupted.

    Args:
        path: path of the file, in an existing folder. What is left there by a command under other conditions is
            discarded.
        conditions: everything that the results depend on, as plain data.

    Attributes:
        rows: results of the interrupted command.
    """

    def __init__(self, path: Path, conditions: dict[str, Any]) -> None:
        self.path = path
        head = json.dumps(conditions, sort_keys=True, default=str)
        self.rows: list[list[Any]] = []
        end = 0
        with writing(path):
            if path.exists():
                end = self._read(head)
            if end:
                os.truncate(path, end)  # the last row may be incomplete
            else:
                path.write_text(head + "\n")

    def _read(self, head: str) -> int:
        """Read the rows if they were written under the same conditions; return where the last whole one ends."""
        with self.path.open("rb") as file:
            if file.readline() != head.encode() + b"\n":
                return 0
            end = file.tell()
            for row in file:
                try:
                    self.rows.append(json.loads(row))
                except ValueError:
                    break
                if not row.endswith(b"\n"):
                    self.rows.pop()
                    break
                end += len(row)
        return end

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write down more results, each as a list of plain values."""
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(printable(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows))

    def remove(self) -> None:
        """Delete the file, once the results are written elsewhere."""
        self.path.unlink(missing_ok=True)


def digest(recognizer: str | Path) -> str:
    """Return the SHA-256 of a checkpoint or exported file, or "" if it cannot be read."""
    try:
        return file_hash(locate(recognizer))
    except OSError:
        return ""  # reported when it is loaded

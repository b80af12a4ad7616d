"""List the transcribed lines that a person should look at. Does not import torch."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from htr_lightning.errors import InputError

WEAKEST = 3  # words named for each line


class Review:
    """The lines whose confidence is below a threshold, among all lines that were added.

    Args:
        below: threshold.
    """

    def __init__(self, below: float) -> None:
        self.below, self.lines = below, 0
        self._rows: list[tuple[float, str, str]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a line as plain data (see `results.record`); lines that could not be read are left out."""
        if row.get("confidence") is None:
            return
        self.lines += 1
        if row["confidence"] < self.below:
            weakest = sorted(row.get("words") or (), key=lambda word: word["confidence"])[:WEAKEST]
            named = ", ".join(f"{word['text']} {word['confidence']:.2f}" for word in weakest)
            self._rows.append((row["confidence"], row["id"], named))

    def report(self) -> list[str]:
        """Return the lines as text, least sure first, with confidence and weakest words, then how many they are."""
        rows = [
            f"{name}  {confidence:.2f}" + (f"  weakest: {named}" if named else "")
            for confidence, name, named in sorted(self._rows)
        ]
        share = len(self._rows) / max(1, self.lines)
        return [*rows, f"to review: {len(rows)} of {self.lines} lines ({share:.1%}) below {self.below:g}"]


def rows_in(path: Path, form: str) -> Iterator[dict[str, Any]]:
    """Yield the lines in a file written by `htr transcribe --out`, with their ids.

    Args:
        path: path to the file.
        form: "tsv" or "jsonl".

    Raises:
        InputError: if a row cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield _row(line, form == "tsv")
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path}:{number}: not a row that htr transcribe wrote; transcribe again") from None


def _row(line: str, is_table: bool) -> dict[str, Any]:
    if is_table:
        name, _, confidence = line.rstrip("\n").split("\t")
        return {"id": name, "confidence": float(confidence)}
    row: dict[str, Any] = json.loads(line)
    row["id"] = row["file"] if row["line"] is None else f"{row['file']}#{row['line']}"
    return row

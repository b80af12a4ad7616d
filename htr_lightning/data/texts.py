"""Replace texts of a reader by those in a table, such as corrected ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from htr_lightning.data.fault import text_fault
from htr_lightning.data.reader.rows import read_rows
from htr_lightning.data.sample import Reader, Sample, Skipped
from htr_lightning.errors import InputError


class WithTexts(Sequence[Sample]):
    """A reader for the lines of another reader, some of them with other texts.

    Args:
        reader: the original reader.
        texts: texts by id; ids that the reader does not have are ignored.
    """

    def __init__(self, reader: Reader, texts: Mapping[str, str]) -> None:
        self.reader = reader
        self.ids, self.groups = reader.ids, reader.groups
        self.texts = [texts.get(id, text) for id, text in zip(reader.ids, reader.texts, strict=True)]
        self.skipped: Sequence[Skipped] = reader.skipped
        self.repaired: dict[str, str] = getattr(reader, "repaired", {})
        count = sum(id in texts for id in reader.ids)
        self.about: dict[str, Any] = {**getattr(reader, "about", {}), "texts": {"replaced": count}}
        notes = [getattr(reader, "note", None), f"data.texts: replaces the texts of {count} of {len(reader)} lines"]
        self.note = "; ".join(filter(None, notes))

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """The height and width of each image in pixels."""
        return self.reader.sizes

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self.reader[index]._replace(text=self.texts[index])


def read_texts(path: str | Path) -> dict[str, str]:
    """Read a table with the columns id and text (.tsv, .csv or .jsonl), such as one saved by the page of label errors.

    Raises:
        InputError: if the table is missing or lacks a column, or a row is invalid or contradicts an earlier one.
    """
    found: dict[str, str] = {}
    for number, row in read_rows(Path(path), {"id": "id", "text": "text"}, None, lambda cell: False):
        where = f"{path}:{number}"
        if not isinstance(row, dict):
            raise InputError(f"{where}: {row.kind}{f' ({row.detail})' if row.detail else ''}; correct this row")
        id, text = row.get("id"), row.get("text")
        if not isinstance(id, str) or not isinstance(text, str):
            raise InputError(f"{where}: expected an id and a text; correct this row")
        if fault := text_fault(id, text):
            raise InputError(
                f"{where}: {id}: {fault.kind}; correct this row, or remove it to keep the text of the data"
            )
        if found.setdefault(id, text) != text:
            raise InputError(f"{where}: another text for {id} than in an earlier row; keep one of them")
    if not found:
        raise InputError(f"{path}: contains no texts; add rows, or set data.texts=null")
    return found

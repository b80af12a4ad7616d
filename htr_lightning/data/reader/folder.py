"""Read lines or characters from image files whose texts are given by text files, a table or folder names."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from htr_lightning.data.fault import EMPTY, LINE_BREAKS, Fault, sort_out, text_fault
from htr_lightning.data.files import twins
from htr_lightning.data.image import LINE_PIXELS, image_size, read_image
from htr_lightning.data.root import data_folder
from htr_lightning.data.sample import Sample
from htr_lightning.data.split import Splits, group_of, group_pattern, lines_of, part_of
from htr_lightning.errors import InputError, printable
from htr_lightning.parameters import Seed


class Entry(NamedTuple):
    """A line found by a listing."""

    id: str  # path relative to the root, such as "train/0001"
    image: Path
    text: str
    group: str | None = None  # None if the listing does not provide it


@runtime_checkable
class Listing(Protocol):
    """A callable that finds images and their texts in a folder or table."""

    @property
    def contents(self) -> str:
        """The expected contents of `data.root`, for error messages."""

    def __call__(self, root: Path, part: str, split: str) -> tuple[list[Entry], list[Fault]]:
        """Return the lines of a split, and the faults found; `part` is a folder or table below `root`."""


class Folder(Sequence[Sample]):
    """The images that a listing finds in a folder, with their texts.

    Args:
        root: folder containing the data.
        split: train, val or test.
        listing: function called with the root, the name of the folder or table that contains the split, and the split;
            returns the lines and the faults.
        splits: for each split, a folder or table below `root`, depending on the listing; or a number between 0 and 1,
            to draw that fraction of the training lines without splitting groups (see `lines_of`).
        seed: random seed for splits drawn as fractions.
        group: regular expression matched against the id; its first group captures the writer or document.
        name: first component of each sample id; None uses the name of the folder.
        empty: what to do with a line without text ("error", "skip" or "keep"). Skipped lines are counted and reported.
        faulty: what to do with an image without text, a text without an image, or an invalid row ("error" or "skip").
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        *,
        listing: Listing,
        splits: Splits,
        seed: Seed = 0,
        group: str = "(.*)",
        name: str | None = None,
        empty: str = "error",
        faulty: str = "error",
    ) -> None:
        self.root = data_folder(root, listing.contents)
        writers = group_pattern(group)
        part = part_of(splits, split, str(self.root))
        is_fraction = not isinstance(splits[split], str)
        if not exists(self.root / part):
            suffix = Path(part).suffix
            is_table = suffix in (".csv", ".tsv", ".jsonl")
            tables = [path.name for path in self.root.glob(f"*{suffix}")] if is_table else []
            if len(tables) == 1:
                raise InputError(
                    f"{self.root}: contains no '{part}'; if {tables[0]} lists the lines of all splits, set "
                    f"'data.reader.splits={{train: {tables[0]}, val: 0.1, test: 0.1}}'"
                )
            raise InputError(
                f"{self.root}: contains no '{part}'; set data.root to the folder containing {listing.contents}, or "
                f"data.reader.splits.{'train' if is_fraction else split} to another folder or table"
                + ("" if is_fraction or split == "train" else f", or to a fraction: data.reader.splits.{split}=0.1")
            )
        entries, faults = listing(self.root, part, "train" if is_fraction else split)
        first = name or self.root.resolve().name
        entries = [
            entry._replace(id=printable(f"{first}/{entry.id}"), text=entry.text.strip(LINE_BREAKS)) for entry in entries
        ]
        unusable = [
            text_fault(entry.id, entry.text)
            if earlier is None
            else Fault(entry.id, "image listed twice", f"first as {entries[earlier].id}")
            for entry, earlier in zip(entries, twins([entry.image for entry in entries]), strict=True)
        ]
        skipped = sort_out([*faults, *filter(None, unusable)], empty, faulty)
        entries = [
            entry
            for entry, fault in zip(entries, unusable, strict=True)
            if fault is None or (fault.kind == EMPTY and empty == "keep")
        ]
        if twice := next((id for id, count in Counter(entry.id for entry in entries).items() if count > 1), None):
            raise InputError(f"{self.root / part}: duplicate id {twice}; list each image once")
        groups = [entry.group or group_of(writers, entry.id.removeprefix(f"{first}/")) for entry in entries]
        chosen = lines_of(splits, split, groups, str(self.root / part), seed) if groups else []
        if not chosen:
            raise InputError(
                f"{self.root / part}: no lines found for split '{split}'; set data.root to the folder containing "
                f"{listing.contents}"
            )
        self.skipped = [] if is_fraction else skipped  # reported once, with the training lines
        self.ids = [entries[index].id for index in chosen]
        self.texts = [entries[index].text for index in chosen]
        self.groups = [groups[index] for index in chosen]
        self._images = [entries[index].image for index in chosen]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        image = read_image(self._images[index], max_pixels=LINE_PIXELS)
        return Sample(self.ids[index], image, self.texts[index], self.groups[index])

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """The height and width of each image in pixels, read from the file headers."""
        return [image_size(path, max_pixels=LINE_PIXELS) for path in self._images]


def exists(path: Path) -> bool:
    """Return whether a file or folder exists; an invalid name does not raise an error."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False

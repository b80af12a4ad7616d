"""Read several data sets as one."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path

from htr_lightning.data.root import data_folder
from htr_lightning.data.sample import ConcatReader, Reader, Reduce, Sample
from htr_lightning.errors import InputError


class Several(Sequence[Sample]):
    """A reader for one split of several data sets, one set after the other.

    Args:
        readers: function that returns the reader of a split, for each name; see `LineDataModule`.
        split: "train", "val" or "test".
        root: folder that contains a folder with the name of each data set; None leaves each reader its own root.
        reduce: shrinks the lines that a reader keeps in memory.

    Raises:
        InputError: if there are no readers, or if one of them raises it.
    """

    def __init__(
        self,
        readers: Mapping[str, Callable[..., Reader]],
        split: str,
        root: str | Path | None = None,
        reduce: Reduce | None = None,
    ) -> None:
        if not readers:
            raise InputError("data.reader.readers={}: no data sets; add a reader, or use another data config")
        if root is not None:
            names = list(readers)
            data_folder(root, contents := f"a folder for each data set ({', '.join(names)})")
            if missing := next((name for name in names if not (Path(root) / name).is_dir()), None):
                raise InputError(f"{root}: no folder '{missing}'; set data.root to the folder containing {contents}")
        opened = []
        for name, reader in readers.items():
            given = {"split": split, "root": None if root is None else Path(root) / name, "reduce": reduce}
            accepted = signature(reader).parameters
            opened.append(
                reader(**{key: value for key, value in given.items() if key in accepted and value is not None})
            )
        self._lines = ConcatReader(opened)
        self.ids, self.texts, self.groups = self._lines.ids, self._lines.texts, self._lines.groups
        self.sizes, self.skipped = self._lines.sizes, self._lines.skipped

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return self._lines[index]

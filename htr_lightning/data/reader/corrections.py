"""Read the lines that users corrected."""

from collections.abc import Sequence
from pathlib import Path

from htr_lightning.data.corrected import splits
from htr_lightning.data.corrections import CorrectionStore
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.errors import InputError


class Corrections(Sequence[Sample]):
    """The lines in a file of corrections, each once, with the text that counts (see `data.corrections`).

    Lines whose texts contradict each other are skipped and counted.

    Args:
        root: file of corrections.
        split: "test" for the groups that are held out, else train or val.
        name: first component of each sample id; None uses the name of the file.

    Raises:
        InputError: if there is no such file, or the split has no lines.
    """

    def __init__(self, root: str | Path | None = None, split: str = "train", *, name: str | None = None) -> None:
        if root is None:
            raise InputError("data.root is not set; set it to a file of corrections (data.root=FILE)")
        self.store = CorrectionStore(root)
        lines = self.store.lines()
        split_of = splits(lines)
        chosen = [line for line in lines if split_of.get(line.image) == split]
        if not chosen:
            held_out = "held out (a quarter of the groups, by their names)" if split == "test" else "for training"
            raise InputError(
                f"{root}: none of the {len(split_of)} lines in {len({line.group for line in lines})} groups is "
                f"{held_out}, so split '{split}' is empty; correct lines of more pages or writers"
            )
        first = name or Path(root).stem
        self.ids = [f"{first}/{line.id}" for line in chosen]
        self.texts = [line.texts[0] for line in chosen]
        self.groups = [line.group for line in chosen]
        self.sizes = [(line.height, line.width) for line in chosen]
        self._images = [line.image for line in chosen]
        disputed = [line for line in lines if len(line.texts) > 1] if split == "train" else []
        self.skipped = [Skipped(f"{first}/{line.id}", "contradictory corrections", line.told) for line in disputed]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return Sample(self.ids[index], self.store.image(self._images[index]), self.texts[index], self.groups[index])

"""Several data sets read as one contain the lines of each, from its own folder."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.folder import Folder
from htr_lightning.data.reader.listing import Pairs
from htr_lightning.data.reader.several import Several
from htr_lightning.errors import InputError

READER = partial(Folder, listing=Pairs(), splits={"train": "train", "val": "val", "test": "test"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, split, lines in (("letters", "train", 2), ("letters", "test", 1), ("registers", "train", 3)):
        (tmp_path / name / split).mkdir(parents=True)
        for line in range(lines):
            image = tmp_path / name / split / f"{line}.png"
            Image.fromarray(np.full((200, 400), 40 * line, np.uint8)).save(image)
            image.with_suffix(".gt.txt").write_text(f"{name} {line}")
    return tmp_path


def test_the_lines_of_all_sets_are_read_in_order(root: Path) -> None:
    reader = Several({"letters": READER, "registers": READER}, "train", root, FitHeight(32).reduce)
    assert list(reader.texts) == ["letters 0", "letters 1", "registers 0", "registers 1", "registers 2"]
    assert [sample.text for sample in reader] == list(reader.texts)
    assert [sample.id for sample in reader] == list(reader.ids)
    assert len(set(reader.ids)) == 5


def test_each_set_may_name_its_own_folder(root: Path) -> None:
    reader = Several({"a": partial(READER, root=root / "registers")}, "train")
    assert list(reader.texts) == ["registers 0", "registers 1", "registers 2"]


def test_a_missing_set_and_an_empty_list_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match="diaries"):
        Several({"letters": READER, "diaries": READER}, "train", root)
    with pytest.raises(InputError, match=r"data\.reader\.readers"):
        Several({}, "train", root)

"""Trees of IAM that several tests read."""

import os
from pathlib import Path

import pytest

from htr_lightning.data.reader.iam_splits import AACHEN_LINES

from .iam_tree import Forms, made_up_forms, write_tree


@pytest.fixture
def aachen_lists() -> Path:
    """The folder of the published Aachen lists, which are not ours to give."""
    if not os.environ.get("HTR_IAM_LISTS"):
        pytest.skip("the Aachen lists: set HTR_IAM_LISTS to the folder of aachen_{train,validation,test}.txt")
    return Path(os.environ["HTR_IAM_LISTS"])


@pytest.fixture(scope="session")
def iam_tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Forms]:
    """A whole tree of 10,373 lines, and their ids."""
    root = tmp_path_factory.mktemp("iam")
    return root, write_tree(root, made_up_forms(), AACHEN_LINES)


@pytest.fixture
def small_iam(tmp_path: Path) -> Path:
    """A tree of six forms and 23 lines with a split of its own, in `own/`."""
    root = tmp_path / "small"
    (root / "own").mkdir(parents=True)
    forms = {"train": ["a01-000u", "a01-003", "b02-114x"], "val": ["c03-000", "c03-001"], "test": ["d04-000"]}
    write_tree(root, forms, {"train": 11, "val": 7, "test": 5}, lists="own/{}.txt")
    return root

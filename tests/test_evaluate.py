"""Which data a checkpoint is measured on."""

from pathlib import Path

import pytest

from htr_lightning import checkpoint
from htr_lightning.evaluate import data_for
from htr_lightning.model.base import Recognizer


@pytest.fixture
def trained(best: Path) -> Recognizer:
    recognizer = checkpoint.load(best)
    recognizer.card["training"]["data"] |= {"root": "old", "repo": None, "pack": "old.htr"}
    return recognizer


def test_the_data_of_the_run_are_those_that_it_was_trained_on(trained: Recognizer) -> None:
    data = data_for(trained)
    assert (data.root, data.pack) == ("old", "old.htr")


def test_other_data_are_not_read_from_the_pack_of_the_run(trained: Recognizer) -> None:
    data = data_for(trained, ["data.root=new"])
    assert (data.root, data.pack) == ("new", None)
    data = data_for(trained, ["data.root=new", "data.pack=new.htr"])
    assert (data.root, data.pack) == ("new", "new.htr")
    data = data_for(trained, ["data.repo=a/b"])
    assert (data.root, data.repo, data.pack) == (None, "a/b", None)


def test_what_a_checkpoint_names_is_not_downloaded_but_still_names_the_lines(trained: Recognizer) -> None:
    own = trained.card["training"]["data"]
    own |= {"repo": "a/b", "pack": None}
    assert data_for(trained).repo == "a/b"  # beside a root it is a name
    own["root"] = None
    assert data_for(trained).repo is None

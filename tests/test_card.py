"""What a checkpoint says about its data."""

from functools import partial
from pathlib import Path

from htr_lightning.card import describe
from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.text.normalize import Normalizer


def test_what_is_skipped_names_the_option_only_if_there_is_one(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["un", "", "trois"], "a")
    write_page(tmp_path, ["un"], "b").with_suffix(".png").unlink()
    write_page(tmp_path, ["quatre"], "c")
    (tmp_path / "tei.xml").write_text("<TEI/>")
    (tmp_path / "splits.tsv").write_text("a\ttrain\nb\ttrain\n")
    reader = partial(PageXml, tmp_path, splits="splits.tsv", empty="skip", faulty="skip")
    assert describe(LineDataModule(reader, FitHeight(16), Normalizer()), "train")["skipped"] == {
        "line without text (data.reader.empty=skip)": 1,
        "missing image (data.reader.faulty=skip)": 1,
        "neither PAGE nor ALTO": 1,
        "page not in the split table": 1,
    }

"""Converted and packed data sets contain the same pixels and texts, whichever program reads them."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet
import pytest
from conftest import SMALL, run_train
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning import checkpoint
from htr_lightning.build import open_data
from htr_lightning.card import describe
from htr_lightning.convert import Row, convert, file_name, to_kraken, to_pylaia
from htr_lightning.data.datamodule import SPLITS, LineDataModule
from htr_lightning.data.pack import Pack
from htr_lightning.data.preprocess import FitHeight, NormalizeHandwriting
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.errors import InputError
from htr_lightning.text.normalize import Normalizer

TEXTS = {"train": ["un  e\u0301té", "<b> & \"c\" 'd'", "\u5b57 \u0627\u0644"], "val": ["un été"], "test": ["", "x"]}


class Few(list[Sample]):
    """A reader of a few texts whose ids are not valid file names."""

    def __init__(self, split: str) -> None:
        rng = np.random.default_rng(SPLITS.index(split))
        ids = [f"../Set.v1/{split}/pagé {n}:\t*" for n in range(len(TEXTS[split]))]
        super().__init__(
            Sample(id, rng.integers(0, 256, (20 + n, 50 + 9 * n), dtype=np.uint8), text, f"hand {n}")
            for n, (id, text) in enumerate(zip(ids, TEXTS[split], strict=True))
        )
        self.ids, _, self.texts, self.groups = (list(column) for column in zip(*self, strict=True))
        self.sizes = [sample.image.shape for sample in self]
        self.skipped: list[Skipped] = []


def few(reader: Callable[[str], Few] = Few, normalizer: Normalizer | None = None) -> LineDataModule:
    return LineDataModule(reader, FitHeight(32), normalizer or Normalizer())


def expected(split: str) -> list[tuple[str, bytes]]:
    """Return the texts and pixels of a split, sorted."""
    return sorted((Normalizer()(sample.text), sample.image.tobytes()) for sample in Few(split))


def pixels(path: Path) -> bytes:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED).tobytes()


def names(folder: Path) -> dict[str, list[str]]:
    with open(folder / "names.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[0] == ["name", "split", "id", "group"]
    return {row[0]: row[1:] for row in rows[1:]}


def test_kraken_pairs(tmp_path: Path) -> None:
    convert(few(), SPLITS, "kraken", tmp_path)
    for split in SPLITS:
        texts = {path.name: path for path in (tmp_path / split).glob("*.gt.txt")}
        images = sorted((tmp_path / split).glob("*.png"))
        assert len(images) == len(texts)
        found = [(texts[f"{p.stem}.gt.txt"].read_text(encoding="utf-8").removesuffix("\n"), pixels(p)) for p in images]
        assert sorted(found) == expected(split)


def test_names_identify_the_sample(tmp_path: Path) -> None:
    convert(few(), SPLITS, "kraken", tmp_path)
    by_name = names(tmp_path)
    for split in SPLITS:
        for sample in Few(split):
            (name,) = [name for name, row in by_name.items() if row[0] == split and row[2] == sample.group]
            assert pixels(tmp_path / split / f"{name}.png") == sample.image.tobytes()


def test_pylaia_tables(tmp_path: Path) -> None:
    convert(few(), SPLITS, "pylaia", tmp_path)
    rows = [line.rsplit(" ", 1) for line in (tmp_path / "syms.txt").read_text(encoding="utf-8").splitlines()]
    symbols = {symbol: int(id) for symbol, id in rows}
    assert symbols["<ctc>"] == 0
    assert sorted(symbols.values()) == list(range(len(symbols)))
    for split, table in (("train", "train"), ("val", "val"), ("test", "test")):
        found = []
        for line in (tmp_path / f"{table}.txt").read_text(encoding="utf-8").splitlines():
            name, *tokens = line.split()
            assert set(tokens) <= set(symbols)
            assert all(len(token) == 1 or token == "<space>" for token in tokens)
            text = "".join(" " if token == "<space>" else token for token in tokens)
            found.append((text, pixels(tmp_path / "images" / f"{name}.png")))
        assert sorted(found) == expected(split)


def test_parquet(tmp_path: Path) -> None:
    convert(few(), SPLITS, "parquet", tmp_path)
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").to_pylist()
        images = [cv2.imdecode(np.frombuffer(r["image"]["bytes"], np.uint8), cv2.IMREAD_UNCHANGED) for r in rows]
        assert sorted((r["text"], i.tobytes()) for r, i in zip(rows, images, strict=True)) == expected(split)
        assert [(r["id"], r["group"]) for r in rows] == [(s.id, s.group) for s in Few(split)]


def test_datasets_reads_the_parquet(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    convert(few(), SPLITS, "parquet", tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation", "test"}
    for sample, row in zip(Few("train"), loaded["train"], strict=True):
        assert np.array_equal(np.asarray(row["image"]), sample.image)
        assert row["text"] == Normalizer()(sample.text)


def test_pages_are_read_back(tmp_path: Path) -> None:
    convert(few(), SPLITS, "page", tmp_path)
    for split in SPLITS:
        reader = PageXml(tmp_path, splits="splits.tsv", split=split, empty="keep")
        assert sorted((sample.text, sample.image.tobytes()) for sample in reader) == expected(split)


@given(st.lists(st.text(max_size=70), max_size=6))
def test_file_names_are_safe_and_unique(ids: list[str]) -> None:
    taken: Counter[str] = Counter()
    made = [file_name(id, taken) for id in ids]
    assert len({name.casefold() for name in made}) == len(ids)
    for name in made:
        assert name.replace("-", "").replace("_", "").isalnum()
        assert len(f"{name}.gt.txt".encode()) < 255
        assert name[0] not in "-_."


def test_similar_names_get_numbers() -> None:
    taken: Counter[str] = Counter()
    assert [file_name(id, taken) for id in ("a/b", "a_b", "a_b-2", "A B", "")] == [
        "a_b",
        "a_b-2",
        "a_b-2-2",
        "A_B-3",
        "line",
    ]


def test_unsupported_characters_are_rejected(tmp_path: Path) -> None:
    def reader(text: str) -> Callable[[str], Few]:
        def made(split: str) -> Few:
            lines = Few(split)
            lines[0] = lines[0]._replace(text=text)
            return lines

        return made

    raw = Normalizer("", collapse_spaces=False)
    for number, form in enumerate(("kraken", "pylaia")):
        with pytest.raises(InputError, match=r"pagé 0.*U\+00A0.*collapse_spaces=true"):
            convert(few(reader("a\u00a0b"), raw), ["train"], form, tmp_path / f"{number}")
    with pytest.raises(InputError, match=r"pagé 0.*U\+0000"):
        convert(few(reader("a\0b")), ["train"], "page", tmp_path / "2")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("write", [to_kraken, to_pylaia])
def test_a_full_disk_stops_with_the_first_name(write: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "names.tsv").symlink_to("/dev/full")
    refused = Row("train", "x", Sample("x", np.zeros((9, 9), np.uint8), "a\tb", ""))
    with pytest.raises(OSError, match="No space left"):
        write([refused], tmp_path)


def test_an_interrupted_conversion_can_be_repeated(tmp_path: Path) -> None:
    def fails(split: str) -> Few:
        lines = Few(split)
        lines[1] = lines[1]._replace(text="a\0b")
        return lines

    for folder in (tmp_path / "out", tmp_path / "whole"):
        if folder.name == "out":
            with pytest.raises(InputError, match="pagé 1"):
                convert(few(fails), ["train"], "page", folder)
            assert not list(folder.iterdir())
            (folder / ".part").mkdir()  # as a process that is killed leaves it
            (folder / ".part" / "names.tsv").write_text("name")
        convert(few(), ["train"], "kraken", folder)
    files = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*"))
             for name in ("out", "whole")]  # fmt: skip
    assert files[0] == files[1]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    convert(few(), ["val"], "kraken", tmp_path / "out")
    with pytest.raises(InputError, match="out: the folder is not empty"):
        convert(few(), ["val"], "page", tmp_path / "out")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file: .*choose another --out"):
        convert(few(), ["val"], "page", tmp_path / "file")


# Commands.


@pytest.fixture
def pages(tmp_path: Path, write_page: Callable[..., Path]) -> list[str]:
    """Overrides for three pages, one per split; one line has no text."""
    texts = {"a": ["un", "deux", " "], "b": ["trois"], "c": ["quatre", "cinq"]}
    for stem, lines in texts.items():
        write_page(tmp_path / "pages", lines, stem)
    (tmp_path / "pages" / "splits.tsv").write_text("page\tsplit\na\ttrain\nb\tval\nc\ttest\n")
    return ["data=page_xml", f"data.root={tmp_path}/pages", "data.reader.empty=skip"]


def test_a_packed_file_contains_the_same_lines(htr, pages: list[str], tmp_path: Path) -> None:
    path = tmp_path / "p.htr"
    outcome = htr("pack", *pages, "--out", path)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines()[:3] == [
        "train: 2 lines, 1 skipped (line without text)", "val: 1 lines", "test: 2 lines"
    ]  # fmt: skip
    assert Pack(path, "train").height == 64  # twice that of the default model
    source = open_data(pages).data
    from_file = open_data(["data=page_xml", f"data.pack={path}"]).data
    for split in SPLITS:
        assert describe(from_file, split) == describe(source, split)
    sound = [f"{split}: {count} lines, intact" for split, count in zip(SPLITS, (2, 1, 2), strict=True)]
    assert htr("pack", "--check", path).stdout.splitlines() == sound


def test_htr_pack_takes_the_height_from_the_model(htr, pages: list[str], tmp_path: Path) -> None:
    assert htr("pack", *pages, "model.preprocess.height=56", "--out", tmp_path / "p.htr", "--split", "val").code == 0
    assert Pack(tmp_path / "p.htr", "val").height == 112
    assert Pack(tmp_path / "p.htr", "val").sizes == open_data(pages).data.open("val").sizes  # smaller than that
    assert htr("pack", *pages, "model=mlp", "--out", tmp_path / "q.htr").code == 0
    assert Pack(tmp_path / "q.htr", "val").height is None


def test_a_recipe_reads_the_file_packed_for_it(htr, pages: list[str], tmp_path: Path) -> None:
    path = tmp_path / "p.htr"
    outcome = htr("pack", "experiment=copiste_20min", *pages, "--out", path)
    assert outcome.code == 0, outcome.stderr
    data = open_data(["experiment=copiste_20min", "data=page_xml", f"data.pack={path}"]).data
    assert isinstance(data.preprocess, NormalizeHandwriting)
    assert len(data.lines("train")) == 2


def test_htr_pack_reports_errors(htr, pages: list[str], tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        outcome = htr(*arguments)
        assert outcome.code == 1
        (error,) = outcome.stderr.split("\n\n")[-1].strip().splitlines()
        assert error.startswith("error: ")
        return error

    path = tmp_path / "p.htr"
    assert "--out FILE" in refused("pack", *pages)
    assert "data=copiste" in refused("pack", "--out", path)
    assert "'dev' is not a split" in refused("pack", *pages, "--out", path, "--split", "dev")
    assert "data.root is not set" in refused("pack", "data=page_xml", "--out", path)
    assert not path.with_name("p.htr.part").exists()
    assert "not found" in refused("pack", "--check", path)
    assert htr("pack", *pages, "--out", path).code == 0
    assert "already exists" in refused("pack", *pages, "--out", path)
    content = bytearray(path.read_bytes())
    content[-600] ^= 1
    path.write_bytes(content)
    assert "corrupted" in refused("pack", "--check", path)


def test_htr_convert(htr, pages: list[str], tmp_path: Path) -> None:
    outcome = htr("convert", *pages, "--to", "page", "--out", tmp_path / "out", "--split", "train", "--split", "test")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines()[0] == "train: 2 lines, 1 skipped (line without text)"
    again = open_data(["data=page_xml", f"data.root={tmp_path}/out"]).data
    assert again.lines("train").texts == ["un", "deux"]
    assert again.lines("test").texts == ["quatre", "cinq"]


@pytest.mark.slow
def test_training_from_a_packed_file_equals_training_from_the_source(run_folder: Path, htr, tmp_path: Path) -> None:
    small = [override for override in SMALL if override.startswith("data.reader.")]
    assert htr("pack", "data=synthetic", *small, "--out", tmp_path / "p.htr").code == 0
    run = run_train(tmp_path / "run", *SMALL, "trainer.max_epochs=2", f"data.pack={tmp_path}/p.htr")
    card, other = (checkpoint.read(folder / "checkpoints/last.ckpt")["htr"] for folder in (run_folder, run))
    assert card["data"] == other["data"]
    assert card["alphabet"] == other["alphabet"]
    assert htr("evaluate", run / "checkpoints/best.ckpt", "--out", tmp_path / "out").code == 0

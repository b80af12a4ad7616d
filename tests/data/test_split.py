"""Random splits of groups and of lines."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.split import read_splits, split_groups, split_lines
from htr_lightning.errors import InputError

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(0, 3))
def test_every_group_is_in_one_split_and_every_split_has_one(numbers: list[int], seed: int) -> None:
    groups = [f"g{number}" for number in numbers]
    if len(set(groups)) < 3:
        with pytest.raises(InputError, match="at least 3 groups"):
            split_groups(groups, SHARES, seed)
        return
    drawn = split_groups(groups, SHARES, seed)
    assert set(drawn) == set(groups)
    assert set(drawn.values()) == set(SHARES)
    assert split_groups(groups[::-1], SHARES, seed) == drawn  # the split does not depend on the file order


@pytest.mark.parametrize("pages", [10, 13, 100, 333])
def test_fractions_are_met_to_the_page_if_groups_are_pages(pages: int) -> None:
    counts = Counter(split_groups([f"page_{n}" for n in range(pages)], SHARES).values())
    for split, share in SHARES.items():
        assert abs(counts[split] - share * pages) <= 1


def test_fractions_are_met_to_a_group() -> None:
    groups = [f"g{n}" for n in range(30) for _ in range(1 + n % 5)]
    drawn = split_groups(groups, SHARES)
    counts = Counter(drawn[group] for group in groups)
    for split, share in SHARES.items():
        assert abs(counts[split] - share * len(groups)) <= 5


def test_another_seed_gives_other_splits() -> None:
    groups = [f"g{n}" for n in range(50)]
    assert len({tuple(sorted(split_groups(groups, SHARES, seed).items())) for seed in range(5)}) == 5


def test_the_splits_are_the_same_on_every_machine() -> None:
    drawn = split_groups([f"page_{n}" for n in range(10)], SHARES)
    assert [page for page, split in drawn.items() if split != "train"] == ["page_5", "page_6"]


def test_a_fraction_of_zero_gets_nothing() -> None:
    drawn = split_groups(["a", "b"], {"train": 0.5, "val": 0.5, "test": 0})
    assert sorted(drawn.values()) == ["train", "val"]


@pytest.mark.parametrize(
    "shares", [{"train": 0.8}, {"train": 0.8, "dev": 0.2}, {"train": 1.5, "val": -0.5}, {"train": float("nan")}]
)
def test_invalid_fractions_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"data\.reader\.splits="):
        split_groups(["a", "b", "c"], shares)


def test_a_smaller_number_of_training_lines_is_a_subset_of_a_larger_one() -> None:
    ids = [f"p/{number}" for number in range(98)]
    few, all_left = ({"train": train, "val": 10, "test": 40} for train in (16, None))
    one, other = split_lines(ids, few), split_lines(list(reversed(ids)), all_left)
    assert {split: list(one.values()).count(split) for split in few} == few
    assert len(other) == 98
    assert one.items() <= other.items()
    assert split_lines(ids, few, seed=1) != one


def test_pages_are_split_by_line_and_what_is_left_over_is_counted(tmp_path: Path, write_page: Callable) -> None:
    for stem in ("a", "b"):
        write_page(tmp_path, [f"{stem}{number}" for number in range(6)], stem)
    parts = {split: PageXml(tmp_path, splits={"train": 3, "val": 2, "test": 4}, split=split) for split in
             ("train", "val", "test")}  # fmt: skip
    ids = [id for part in parts.values() for id in part.ids]
    assert [len(part) for part in parts.values()] == [3, 2, 4]
    assert len(set(ids)) == 9
    for part in parts.values():
        assert [skipped.kind for skipped in part.skipped] == ["line not in any split"] * 3
    assert len(PageXml(tmp_path, splits={"train": None, "val": 2, "test": 4}, split="train")) == 6
    with pytest.raises(InputError, match=r"requires 16 lines \(available: 12\)"):
        PageXml(tmp_path, splits={"train": 10, "val": 2, "test": 4}, split="train")
    with pytest.raises(InputError, match="must be positive integers"):
        PageXml(tmp_path, splits={"train": None, "val": None, "test": 4}, split="train")


PAGES = {"a": "train", "b/c": "val", "été 1": "test"}
TABLES = {
    "header": "page\tsplit\na\ttrain\nb/c\tval\nété 1\ttest\n",
    "no header": "a\ttrain\nb/c\tval\nété 1\ttest\n",
    "no last line break": "a\ttrain\nb/c\tval\nété 1\ttest",
    "CRLF": "page\tsplit\r\na\ttrain\r\nb/c\tval\r\nété 1\ttest\r\n",
    "CR": "a\ttrain\rb/c\tval\rété 1\ttest\r",
    "byte order mark": "\ufeffpage\tsplit\na\ttrain\nb/c\tval\nété 1\ttest\n",
    "byte order mark without header": "\ufeffa\ttrain\nb/c\tval\nété 1\ttest\n",
    "spaces": " Page \t Split \n a\ttrain \n\nb/c \t val\n\t\nété 1\ttest\n",
    "another order": "SPLIT\tpage\ntrain\ta\nval\tb/c\ntest\tété 1\n",
    "more columns": "n\tpage\twriter\tsplit\n1\ta\t\ttrain\n2\tb/c\tx\tval\n3\tété 1\t\ttest\n",
    "another name": "id\tsplit\na\ttrain\nb/c\tval\nété 1\ttest\n",
    "decomposed": "a\ttrain\nb/c\tval\ne\u0301te\u0301 1\ttest\n",
}


@pytest.mark.parametrize("table", TABLES)
def test_a_split_table_loses_no_row(tmp_path: Path, table: str) -> None:
    (tmp_path / "splits.tsv").write_bytes(TABLES[table].encode())
    assert read_splits(tmp_path, "splits.tsv") == PAGES


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a\tvalid\nb\ttrain", "splits.tsv:1: 'valid' is not a split; .* or begin with the header: page, split"),
        ("image\tset\na\ttrain", "splits.tsv:1: 'set' is not a split; .* or begin with the header: page, split"),
        ("page\tsplit\na\tTrain", "splits.tsv:2: 'Train' is not a split; use one of train, val, test$"),
        ("page\tsplit\na\ttrain\n\nb", "splits.tsv:4: expected page, split, separated by tabs, got b; fix this row"),
        ("a,train\nb,val", "splits.tsv:1: expected page, split, separated by tabs, got a,train"),
        ("a train\nb val", "splits.tsv:1: expected page, split, separated by tabs, got a train"),
        ("a\ttrain\tx", "splits.tsv:1: expected page, split, separated by tabs, got a | train | x"),
        ("page\tsplit\twriter\na\ttrain", "splits.tsv:2: expected page, split, writer, separated by tabs"),
        ("name\tsplit\twriter\na\ttrain\tx", "splits.tsv:1: expected the columns page and split, got name, split"),
        ("page\tpage\tsplit\na\tb\ttrain", "splits.tsv:1: expected the columns page and split"),
        ("page\tsplit\n\ttrain", "splits.tsv:2: no page in this row"),
        ("a\ttrain\nb\tval\na\tval", r"splits.tsv:3: duplicate page 'a' \(train and val\)"),
        ("é\ttrain\ne\u0301\tval", r"splits.tsv:2: duplicate page '.*' \(train and val\)"),
    ],
)
def test_a_split_table_that_is_unclear_is_refused_with_its_line(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "splits.tsv").write_text(table, encoding="utf-8")
    with pytest.raises(InputError, match=message.replace("|", r"\|").replace("splits.tsv", r"splits\.tsv")):
        read_splits(tmp_path, "splits.tsv")


def test_a_long_row_is_refused_in_a_short_line(tmp_path: Path) -> None:
    (tmp_path / "splits.tsv").write_text("x" * 1_000_000)
    with pytest.raises(InputError, match=r"splits\.tsv:1: expected page, split") as refused:
        read_splits(tmp_path, "splits.tsv")
    assert len(str(refused.value)) < 500


def test_a_table_in_utf_16_is_named_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "splits.tsv").write_text("a\ttrain\n", encoding="utf-16")
    with pytest.raises(InputError, match="UTF-16; save it as UTF-8"):
        read_splits(tmp_path, "splits.tsv")


def test_a_page_named_by_its_path_is_in_one_split_only(tmp_path: Path, write_page: Callable) -> None:
    for folder in ("a", "b"):
        write_page(tmp_path / folder, [folder], "0001")
    (tmp_path / "splits.tsv").write_text("0001\ttrain\nb/0001\tval\n")
    texts = {split: PageXml(tmp_path, splits="splits.tsv", split=split).texts for split in ("train", "val")}
    assert texts == {"train": ["a"], "val": ["b"]}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_pages_are_compared_in_any_unicode_form(tmp_path: Path, write_page: Callable, form: str) -> None:
    write_page(tmp_path, ["un"], normalize(form, "é"))
    write_page(tmp_path, ["deux"], "x")
    for written in ("NFC", "NFD"):
        (tmp_path / "splits.tsv").write_text(normalize(written, "é\ttrain\nx\tval\n"), encoding="utf-8")
        assert PageXml(tmp_path, splits="splits.tsv", split="train").texts == ["un"]

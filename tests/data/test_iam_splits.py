"""The named splits of IAM and your own: their sizes, and where their lists come from."""

from pathlib import Path

import pytest

from htr_lightning.data.reader.iam import Iam
from htr_lightning.data.reader.iam_splits import AACHEN_LINES, split_ids
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError

from .iam_tree import SPLITS, TEXTS, Forms, own, write_tree


def test_a_tree_in_the_official_layout_has_the_lines_that_papers_count(iam_tree: tuple[Path, Forms]) -> None:
    root, ids = iam_tree
    readers = [Iam(root, split) for split in SPLITS]
    assert [len(reader) for reader in readers] == [6482, 976, 2915]
    for split, reader in zip(SPLITS, readers, strict=True):
        assert isinstance(reader, Reader)
        assert reader.ids == [f"iam/{id}" for id in ids[split]]
        assert not reader.skipped
    texts = [text for reader in readers for text in reader.texts]
    assert texts == [TEXTS[i % len(TEXTS)].replace("|", " ") for i in range(10373)]
    assert sum(reader.err for reader in readers) == sum(i % 7 in (2, 6) for i in range(10373))


def test_the_published_lists_give_the_lines_that_papers_count(tmp_path: Path, aachen_lists: Path) -> None:
    names = {"train": "train", "val": "validation", "test": "test"}
    forms = {split: (aachen_lists / f"aachen_{name}.txt").read_text().split() for split, name in names.items()}
    write_tree(tmp_path / "iam", forms, AACHEN_LINES)
    for path in (tmp_path / "iam").glob("*.uttlist"):
        path.unlink()
    assert [len(Iam(tmp_path / "iam", split, lists=str(aachen_lists))) for split in SPLITS] == [6482, 976, 2915]


def test_an_aachen_list_of_another_count_is_refused(iam_tree: tuple[Path, Forms], tmp_path: Path) -> None:
    forms = (iam_tree[0] / "train.uttlist").read_text().split()
    (tmp_path / "train.uttlist").write_text("\n".join(forms[:-1]))
    with pytest.raises(InputError, match=r"expected 747 forms in the Aachen split 'train', got 746"):
        Iam(iam_tree[0], "train", lists=str(tmp_path))
    (tmp_path / "train.uttlist").write_text("\n".join([*forms, forms[3]]))
    with pytest.raises(InputError, match=f"duplicate ids {forms[3]}"):
        Iam(iam_tree[0], "train", lists=str(tmp_path))
    with pytest.raises(InputError, match=r"none of val\.uttlist, validation\.uttlist"):
        Iam(iam_tree[0], "val", lists=str(tmp_path))


def test_the_official_task_has_the_lines_of_its_four_lists(iam_tree: tuple[Path, Forms], tmp_path: Path) -> None:
    root, ids = iam_tree
    every = iter([id for split in SPLITS for id in ids[split]])
    counts = {"trainset": 6161, "validationset1": 900, "validationset2": 940, "testset": 1861}
    lists = {name: [next(every) for _ in range(count)] for name, count in counts.items()}
    for name, some in lists.items():
        (tmp_path / f"{name}.txt").write_bytes("".join(f"{id}\r\n" for id in some).encode())
    readers = [Iam(root, split, splits="official", lists=str(tmp_path)) for split in SPLITS]
    assert [len(reader) for reader in readers] == [6161, 1840, 1861]
    assert set(readers[1].ids) == {f"iam/{id}" for name in ("validationset1", "validationset2") for id in lists[name]}
    (tmp_path / "testset.txt").write_text("\n".join(lists["testset"][1:]))
    with pytest.raises(InputError, match=r"testset\.txt: expected 1861 lines, got 1860"):
        Iam(root, "test", splits="official", lists=str(tmp_path))
    (tmp_path / "testset.txt").write_text("\n".join([*lists["testset"][1:], "z99-000-00"]))
    with pytest.raises(InputError, match="no lines for z99-000-00 in split 'test'"):
        Iam(root, "test", splits="official", lists=str(tmp_path))
    with pytest.raises(InputError, match=r"contains no trainset\.txt"):
        Iam(root, "train", splits="official")


def test_a_split_of_one_s_own_names_forms_or_lines(small_iam: Path) -> None:
    assert [len(own(small_iam, split)) for split in SPLITS] == [11, 7, 5]
    (small_iam / "own" / "train.txt").write_text("a01-003\nd04-000-02\n")
    assert own(small_iam).ids == [f"iam/a01-003-{n:02}" for n in range(4)] + ["iam/d04-000-02"]
    table = small_iam / "mine.tsv"
    table.write_text("id\tsplit\na01-003\ttrain\nc03-001-00\tval\n")
    assert Iam(small_iam, "val", splits="mine.tsv").ids == ["iam/c03-001-00"]
    assert len(Iam(small_iam, "train", splits=str(table))) == 4
    with pytest.raises(InputError, match=r"mine\.tsv: no ids in split 'test'"):
        Iam(small_iam, "test", splits="mine.tsv")
    (small_iam / "own" / "val.txt").write_text("a01\n")
    (small_iam / "own" / "validation.txt").unlink()
    with pytest.raises(InputError, match=r"invalid ids .*a01.* form or line ids"):
        own(small_iam, "val")
    (small_iam / "own" / "val.txt").unlink()
    with pytest.raises(InputError, match=r"contains none of val\.txt, "):
        own(small_iam, "val")


def test_the_lists_are_downloaded_only_if_they_are_missing_and_checked(
    iam_tree: tuple[Path, Forms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answer: dict[str, Path] = {}

    def retrieve(url: str, **options: object) -> str:
        asked.append(url)
        if not answer:
            raise OSError("no network")
        return str(next(path for split, path in answer.items() if f"/{split}.ln" in url))

    monkeypatch.setattr("pooch.retrieve", retrieve)
    assert len(Iam(iam_tree[0], "val")) == 976
    assert not asked
    with pytest.raises(InputError, match=r"val\.ln: download failed \(no network\).*data\.reader\.lists"):
        split_ids(tmp_path, "val", "aachen", None, True)
    assert len(asked) == 1
    with pytest.raises(InputError, match=r"data\.reader\.download=true"):
        split_ids(tmp_path, "val", "aachen", None, False)
    made_up = tmp_path / "val.txt"
    made_up.write_text("".join(f"{id}.png\n" for id in iam_tree[1]["val"]))  # line ids of 116 other forms
    answer["val"] = made_up
    with pytest.raises(InputError, match="not the Aachen list"):
        split_ids(tmp_path, "val", "aachen", None, True)


def test_the_digests_are_those_of_the_published_lists(
    tmp_path: Path, aachen_lists: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        forms = (aachen_lists / f"aachen_{name}.txt").read_text().split()
        shuffled = tmp_path / f"lines of {split}"
        shuffled.write_text("".join(f"{form}-{n:02}.png\n" for n in (1, 0) for form in reversed(forms)))
        monkeypatch.setattr("pooch.retrieve", lambda url, file=shuffled, **options: str(file))
        assert split_ids(tmp_path, split, "aachen", None, True) == set(forms)

"""Texts of a table replace those of any reader, and a range of training lines can be left out."""

from pathlib import Path

import pytest

from data.test_subset import WHOLE, Lines, module
from htr_lightning.data.sample import Reader
from htr_lightning.data.subset import held_out_of, subset_of
from htr_lightning.data.texts import WithTexts, read_texts
from htr_lightning.errors import InputError


def test_only_the_texts_in_the_table_change() -> None:
    changed = WithTexts(Lines(), {"train/3": "other", "absent": "x"})
    assert isinstance(changed, Reader)
    for old, new, text in zip(Lines(), changed, changed.texts, strict=True):
        assert new.text == text == ("other" if old.id == "train/3" else old.text)
        assert (new.id, new.group) == (old.id, old.group)
        assert (new.image == old.image).all()
    assert changed.about == {"unit": "line", "texts": {"replaced": 1}}
    assert changed.note == f"data.texts: replaces the texts of 1 of {WHOLE} lines"


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.jsonl"])
def test_a_module_uses_the_table_in_every_split(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    rows = [("train/3", 'É, "a"'), ("val/5", "b")]
    if name.endswith("jsonl"):
        path.write_text("".join('{"id": "%s", "text": "%s"}\n' % (i, t.replace('"', '\\"')) for i, t in rows))  # noqa: UP031
    elif name.endswith("csv"):
        path.write_text("id,text\n" + "".join(f'{i},"{t.replace(chr(34), chr(34) * 2)}"\n' for i, t in rows))
    else:
        path.write_text("id\tscore\ttext\n" + "".join(f"{i}\t1\t{t}\n" for i, t in rows))
    data = module([0, 40], texts=str(path))
    assert dict(zip(data.open("val").ids, data.open("val").texts, strict=True))["val/5"] == "b"
    part = module(None, texts=str(path)).open("train")
    assert dict(zip(part.ids, part.texts, strict=True))["train/3"] == 'É, "a"'
    assert data.open("train").note == f"data.texts: replaces the texts of 1 of {WHOLE} lines"  # before the subset


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id\ttext\n", "contains no texts"),
        ("name\ttext\na\tb\n", "no column 'id'"),
        ("id\ttext\na\t \n", r"t.tsv:2: a: line without text"),
        ("id\ttext\na\tb\na\tc\n", r"t.tsv:3: another text for a"),
        ("id\ttext\na\n", r"t.tsv:2: "),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_row(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_texts(tmp_path / "t.tsv")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("by", ["line", "group"])
def test_lines_held_out_are_those_of_the_subset_with_the_same_bounds(by: str) -> None:
    out, rest = subset_of(Lines(), [10, 30], by), held_out_of(Lines(), [10, 30], by)
    assert not set(out.ids) & set(rest.ids)
    assert set(out.ids) | set(rest.ids) == set(Lines().ids)
    assert rest.ids == [id for id in Lines().ids if id not in set(out.ids)]  # in their order
    data = module([0, 40], by, held_out=[0, 20])
    chosen = module([0, 40], by).open("train")
    assert set(data.open("train").ids) == set(held_out_of(chosen, [0, 20], by).ids)
    assert len(data.open("val")) == WHOLE
    assert data.open("train").about["held_out"]["lines"] == [0, 20]


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(InputError, match=r"data.held_out=\[0, 60\]: leaves no training lines"):
        held_out_of(Lines(), [0, WHOLE], "line")
    with pytest.raises(InputError, match=r"data.held_out=\[5, 2\]: expected a start and a later end"):
        held_out_of(Lines(), [5, 2], "line")

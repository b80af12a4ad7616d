"""CASIA-HWDB as samples: what is read, what is counted, and no writer in two splits."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from casia_files import dgrl, gnt, noise, write_characters, write_lines

from htr_lightning.data.reader.casia import CasiaCharacters, CasiaLines, gb2312_level1
from htr_lightning.data.sample import Reader
from htr_lightning.errors import InputError

SPLITS = ("train", "val", "test")
RNG = np.random.default_rng(0)


def kinds(reader: Reader) -> dict[str, int]:
    return dict(Counter(skipped.kind for skipped in reader.skipped))


def one_writer(root: Path, content: bytes, name: str = "1300-c.gnt") -> Path:
    """A file in the folder of testing, where nothing is drawn."""
    (root / "tst").mkdir(exist_ok=True)
    (root / "tst" / name).write_bytes(content)
    return root


def test_characters_are_read_to_the_pixel_with_label_and_writer(tmp_path: Path) -> None:
    written = [(text, noise(RNG, height, 9)) for text, height in zip("啊A阿座", (3, 8, 5, 12), strict=True)]
    reader = CasiaCharacters(one_writer(tmp_path, gnt(written)), "test", characters="all")
    assert isinstance(reader, Reader)
    assert len(reader) == 4
    assert reader.skipped == []
    for sample, (text, image) in zip(reader, written, strict=True):
        assert (sample.text, sample.group) == (text, "1300-c")
        np.testing.assert_array_equal(sample.image, image)
    assert reader[-1].id == reader.ids[-1] == "casia/1300-c/3"


def test_lines_are_read_to_the_pixel_with_text_and_writer(tmp_path: Path) -> None:
    written = [(text, noise(RNG, height, 60)) for text, height in (("啊，A座", 20), ("阿", 33))]
    reader = CasiaLines(one_writer(tmp_path, dgrl(written), "001-P16.dgrl"), "test")
    assert isinstance(reader, Reader)
    assert reader.skipped == []
    for sample, (text, image) in zip(reader, written, strict=True):
        assert (sample.text, sample.group) == (text, "001")
        np.testing.assert_array_equal(sample.image, image)
    assert reader[-1].id == reader.ids[-1] == "casia/001-P16/1"


def readers(root: Path, seed: int = 0, **options: object) -> list[list[Reader]]:
    """Both readers' splits, over eight writers each: the published folders, or one without a name."""
    write_characters(root / "gnt", "啊阿", 8)
    write_lines(root / "dgrl", "啊阿", 8)
    made = []
    for kind, folder in ((CasiaCharacters, "gnt"), (CasiaLines, "dgrl")):
        made.append([kind(root / folder, split, seed=seed, **options) for split in SPLITS])
    return made


def test_samples_say_what_the_lists_say_and_the_lists_open_no_file(tmp_path: Path) -> None:
    for splits in readers(tmp_path):
        for reader in splits:
            assert [sample.id for sample in reader] == reader.ids
            assert [sample.text for sample in reader] == reader.texts
            assert [sample.group for sample in reader] == reader.groups
            assert [sample.image.shape for sample in reader] == reader.sizes
            again = pickle.loads(pickle.dumps(reader))
            assert again[0].id == reader[0].id
            np.testing.assert_array_equal(again[0].image, reader[0].image)
        for path in reader_files(tmp_path):
            path.rename(path.with_suffix(".away"))
        for reader in splits:
            assert len(reader.ids) == len(reader.texts) == len(reader.groups) == len(reader.sizes) == len(reader)
            with pytest.raises(InputError, match="No such file"):
                reader[0]
        for path in sorted(tmp_path.rglob("*.away")):
            path.rename(path.with_suffix(".gnt" if "gnt" in path.parent.name else ".dgrl"))


def reader_files(root: Path) -> list[Path]:
    return sorted([*root.rglob("*.gnt"), *root.rglob("*.dgrl")])


def test_published_folders_give_the_test_writers_and_validation_is_chosen_from_training(tmp_path: Path) -> None:
    for train, val, test in readers(tmp_path, val_fraction=0.34):
        assert {name[-3:] for name in test.groups} in ({"7-c", "8-c"}, {"007", "008"})
        assert [len(set(reader.groups)) for reader in (train, val, test)] == [4, 2, 2]
        disjoint(train, val, test)


def disjoint(*splits: Reader) -> None:
    writers = [writer for reader in splits for writer in set(reader.groups)]
    ids = [id for reader in splits for id in reader.ids]
    assert len(set(writers)) == len(writers)
    assert len(set(ids)) == len(ids)


def test_without_published_folders_test_writers_are_chosen_too(tmp_path: Path) -> None:
    first = readers(tmp_path)
    for folder in ("gnt/HWDB1.1tst_gnt", "gnt/HWDB1.1trn_gnt", "dgrl/HWDB2.0Test", "dgrl/HWDB2.0Train"):
        for path in list((tmp_path / folder).iterdir()):
            path.rename(path.parent.parent / path.name)
        (tmp_path / folder).rmdir()
    drawn = {}
    for seed in (0, 0, 1, 2, 3):
        for kind, folder in ((CasiaCharacters, "gnt"), (CasiaLines, "dgrl")):
            splits = [kind(tmp_path / folder, split, test_fraction=0.25, seed=seed) for split in SPLITS]
            assert [len(set(reader.groups)) for reader in splits] == [5, 1, 2]
            disjoint(*splits)
            assert sum(map(len, splits)) == sum(map(len, first[folder == "dgrl"]))
            writers = [sorted(set(reader.groups)) for reader in splits]
            assert drawn.setdefault((folder, seed), writers) == writers
    assert drawn["gnt", 0] != drawn["gnt", 1] or drawn["gnt", 0] != drawn["gnt", 2]


def test_pages_of_a_writer_stay_together(tmp_path: Path) -> None:
    for writer in range(6):
        for page in range(3):
            (tmp_path / f"{writer:03}-P{page:02}.dgrl").write_bytes(dgrl([("啊", noise(RNG, 9, 9))]))
    splits = [CasiaLines(tmp_path, split) for split in SPLITS]
    assert sorted(len(reader) for reader in splits) == [3, 3, 12]
    disjoint(*splits)


def test_a_writer_in_both_folders_is_refused(tmp_path: Path) -> None:
    for folder, page in (("HWDB2.0Train", "001-P16"), ("HWDB2.0Test", "001-P17")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{page}.dgrl").write_bytes(dgrl([("啊", noise(RNG, 9, 9))]))
    with pytest.raises(InputError, match=r"001-P16\.dgrl: writer 001 is in 'train' and 'test' folders"):
        CasiaLines(tmp_path)


def test_a_file_in_neither_folder_and_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write_characters(tmp_path, "啊", 8)
    content = gnt([("啊", noise(RNG, 9, 9))])
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.gnt").write_bytes(content)
    with pytest.raises(InputError, match="writer x is in neither a training nor a test folder"):
        CasiaCharacters(tmp_path)
    (tmp_path / "more" / "x.gnt").rename(tmp_path / "more" / "1001-c.gnt")
    with pytest.raises(InputError, match=r"1001-c\.gnt: has the same name as .*HWDB1\.1trn_gnt"):
        CasiaCharacters(tmp_path)
    assert len(CasiaCharacters(tmp_path, files="HWDB1.1*/*.gnt", split="test")) == 2


@pytest.mark.parametrize(
    ("folder", "part"),
    [("HWDB1.1trn_gnt", "train"), ("Gnt1.0TrainPart2", "train"), ("HWDB2.2Train", "train"), ("train", "train"),
     ("HWDB1.1tst_gnt", "test"), ("HWDB2.2Test", "test"), ("train_and_test/HWDB2.1Test", "test"),
     ("test/HWDB1.0Train/a", "train")],
)  # fmt: skip
def test_the_innermost_folder_that_says_so_determines_the_split(tmp_path: Path, folder: str, part: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / folder / f"{name}.gnt").write_bytes(gnt([("啊", noise(RNG, 9, 9))]))
    assert len(CasiaCharacters(tmp_path, part)) == (2 if part == "test" else 1)
    with pytest.raises(InputError, match="has no writers"):
        CasiaCharacters(tmp_path, "test" if part == "train" else "train")


def test_level_1_is_that_of_the_standard() -> None:
    level1 = gb2312_level1()
    assert len(level1) == 3755
    assert {"啊", "阿", "的", "一", "座"} <= level1
    assert not {"亍", "丌", "A", "，", "镕"} & level1  # the first two of level 2, a sign, one of GBK only
    assert sorted(character.encode("gb2312") for character in level1)[-1] == b"\xd7\xf9"


def test_characters_outside_the_set_are_counted(tmp_path: Path) -> None:
    one_writer(tmp_path, gnt((text, noise(RNG, 9, 9)) for text in ("啊", "亍", "A", b"\xff\xff", b" \0", "座")))
    level1, everything = (CasiaCharacters(tmp_path, "test", characters=name) for name in ("level1", "all"))
    assert (level1.texts, everything.texts) == (["啊", "座"], ["啊", "亍", "A", "座"])
    assert level1.ids == ["casia/1300-c/0", "casia/1300-c/5"]
    assert kinds(level1) == {"character outside the chosen set": 2, "label that is not a character": 2}
    assert kinds(everything) == {"label that is not a character": 2}
    assert [(skipped.id, skipped.detail) for skipped in everything.skipped] == [
        ("casia/1300-c/3", "0xffff"), ("casia/1300-c/4", "0x2000")
    ]  # fmt: skip


def test_units_that_are_no_character_are_left_out_of_a_line_and_counted(tmp_path: Path) -> None:
    lines = [(["啊", b"\xff\xff", "A", b"\xff\0", "座"], 9), ([b"\xff\xff"], 8), ([], 7), (["阿"], 6)]
    content = dgrl([(label, noise(RNG, height, 40)) for label, height in lines])
    reader = CasiaLines(one_writer(tmp_path, content, "001-P16.dgrl"), "test")
    assert reader.texts == ["啊A座", "阿"]
    assert reader.ids == ["casia/001-P16/0", "casia/001-P16/3"]
    assert kinds(reader) == {"label that is not a character": 3, "line without text": 2}
    assert reader.skipped[1][:3] == ("casia/001-P16/0", "label that is not a character", "unit 3: 0xff00")


def test_what_is_truncated_is_counted_with_file_and_position(tmp_path: Path) -> None:
    characters = gnt([("啊", noise(RNG, 9, 9)), ("座", noise(RNG, 9, 9))])
    lines = [dgrl([("啊", noise(RNG, 9, 9))] * count) for count in (1, 3)]
    one_writer(tmp_path, characters[:-1])
    path = tmp_path / "tst" / "1300-c.gnt"
    (skipped,) = CasiaCharacters(tmp_path, "test").skipped
    assert skipped[:3] == ("casia/1300-c/1", "truncated file", f"{path}: the record at byte 91 ends after 90 bytes")
    for end in (len(lines[0]), len(lines[0]) + 30):
        reader = CasiaLines(one_writer(tmp_path, lines[1][:end], "001-P16.dgrl"), "test")
        assert len(reader) == 1
        assert [skipped.id for skipped in reader.skipped] == ["casia/001-P16/1", "casia/001-P16/2"]
        assert kinds(reader) == {"truncated file": 2}
        assert f"001-P16.dgrl: {end - len(lines[0])} bytes" in reader.skipped[0].detail
    reader = CasiaLines(one_writer(tmp_path, lines[0] + b"more", "001-P16.dgrl"), "test")
    assert kinds(reader) == {"bytes after the last line": 1}


def test_a_damaged_file_is_refused_or_counted(tmp_path: Path) -> None:
    one_writer(tmp_path, gnt([("啊", noise(RNG, 9, 9))]))
    one_writer(tmp_path, b"\x89PNG" + bytes(99), "1299-c.gnt")
    with pytest.raises(InputError, match=r"1299-c\.gnt: .* download it again, or set data\.reader\.faulty=skip"):
        CasiaCharacters(tmp_path, "test")
    reader = CasiaCharacters(tmp_path, "test", faulty="skip")
    assert reader.ids == ["casia/1300-c/0"]
    assert reader[0].group == "1300-c"
    assert kinds(reader) == {"unreadable file": 1}
    assert "1299-c.gnt" in reader.skipped[0].detail
    one_writer(tmp_path, b"", "001-P1.dgrl")
    one_writer(tmp_path, dgrl([("啊", noise(RNG, 9, 9))]), "002-P1.dgrl")
    assert kinds(CasiaLines(tmp_path, "test", faulty="skip")) == {"unreadable file": 1}


@pytest.mark.parametrize("kind", [CasiaCharacters, CasiaLines])
def test_what_cannot_be_used_is_refused_with_the_way_out(tmp_path: Path, kind: type) -> None:
    with pytest.raises(InputError, match=r"data\.root is not set"):
        kind()
    with pytest.raises(InputError, match=r"none: no such folder; .*nlpr\.ia\.ac\.cn"):
        kind(tmp_path / "none")
    with pytest.raises(InputError, match="no file matches"):
        kind(tmp_path)
    (tmp_path / "a.gnt").write_bytes(gnt([("A", noise(RNG, 9, 9))]))
    (tmp_path / "a.dgrl").write_bytes(dgrl([]))
    with pytest.raises(InputError, match="'validation' is not a split"):
        kind(tmp_path, "validation")
    for option in (
        {"val_fraction": 0.0},
        {"test_fraction": 1.5},
        {"faulty": "keep"},
        {"files": ""},
        {"files": "/*.gnt"},
    ):
        (name,) = option
        with pytest.raises(InputError, match=rf"data\.reader\.{name}="):
            kind(tmp_path, "test", **option)
    with pytest.raises(InputError, match=r"'train' has no writers \(total: 1, "):
        kind(tmp_path)
    with pytest.raises(InputError, match=r"(contains no characters|has no lines)"):
        kind(tmp_path, "test")
    with pytest.raises(InputError, match=r"data\.reader\.characters=level2"):
        CasiaCharacters(tmp_path, "test", characters="level2")

"""Lines of pages: which are read, skipped and counted, or refused, and how they are cropped."""

import re
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr_lightning.data.image import shrink_to_height
from htr_lightning.data.page.crop import crop_line, open_page
from htr_lightning.data.page.document import read_page
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.data.sample import Reader
from htr_lightning.data.split import read_splits
from htr_lightning.errors import InputError

POLYGON = "2,2 238,2 238,38 2,38"


def spoil(path: Path, old: str, new: str) -> None:
    """Replace the first occurrence in a file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def without_baselines(path: Path) -> Path:
    path.write_text(re.sub("<Baseline[^>]*/>", "", path.read_text(encoding="utf-8")), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["PAGE", "ALTO"])
@pytest.mark.parametrize("preload", [True, False])
def test_every_line_comes_once_with_its_own_pixels(tmp_path: Path, write_page, form: str, preload: bool) -> None:
    write_page(tmp_path / "pages", ["un", "deux"], "b", form)
    write_page(tmp_path / "pages", ["trois"], "a", form)
    reader = PageXml(tmp_path / "pages", preload=preload)
    assert isinstance(reader, Reader)
    assert reader.ids == ["pages/a/l0", "pages/b/l0", "pages/b/l1"]
    assert reader.texts == ["trois", "un", "deux"]
    assert reader.groups == ["a", "b", "b"]
    samples = list(reader)
    assert [(s.id, s.text, s.group) for s in samples] == list(zip(reader.ids, reader.texts, reader.groups, strict=True))
    assert [s.image.shape for s in samples] == [tuple(size) for size in reader.sizes]
    page = cv2.imread(str(tmp_path / "pages" / "b.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(samples[2].image, page[42:78, 2:238])
    np.testing.assert_array_equal(reader[-1].image, samples[2].image)


def test_preloaded_lines_are_those_cropped_on_demand(tmp_path: Path, write_page) -> None:
    for stem in "abc":
        path = write_page(tmp_path, ["un", "deux", stem], stem)
        spoil(path, "2,30 238,30", "2,20 238,36")  # a slope
    for ours, theirs in zip(PageXml(tmp_path), PageXml(tmp_path, preload=False), strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)


def test_lines_are_reduced_as_they_are_cropped(tmp_path: Path, write_page) -> None:
    write_page(tmp_path)
    assert [sample.image.shape for sample in PageXml(tmp_path, reduce=partial(shrink_to_height, height=18))] == [
        (18, 118)
    ] * 2


def test_a_sloping_line_is_deskewed_and_a_vertical_one_left(tmp_path: Path) -> None:
    page = np.full((300, 300), 230, np.uint8)
    cv2.line(page, (30, 100), (270, 140), 0, 5)
    line_type = type(read_page_line(tmp_path))
    polygon = [(30.0, 80.0), (270.0, 120.0), (270.0, 160.0), (30.0, 120.0)]
    level = crop_line(page, line_type("l", "x", polygon, [(30.0, 100.0), (270.0, 140.0)], ""))
    rows = [np.flatnonzero(column < 120).mean() for column in level.T[20:-20] if (column < 120).any()]
    assert np.ptp(rows) <= 2
    upright = crop_line(page, line_type("l", "x", polygon, [(30.0, 140.0), (40.0, 20.0)], ""))
    assert upright.shape == (80, 240)


def read_page_line(folder: Path):
    (folder / "one.xml").write_text(
        '<alto><Layout><Page><TextBlock><TextLine ID="l"/></TextBlock></Page></Layout></alto>', encoding="utf-8"
    )
    return read_page(folder / "one.xml").lines[0]


def split_table(folder: Path, *rows: str) -> None:
    (folder / "splits.tsv").write_text("\n".join(["page\tsplit", *rows]) + "\n", encoding="utf-8")


def test_splits_are_those_of_the_table(tmp_path: Path, write_page) -> None:
    for stem in "abcd":
        write_page(tmp_path, [stem], stem)
    split_table(tmp_path, "a\ttrain", "b\tval", "c\ttrain")
    assert PageXml(tmp_path, splits="splits.tsv", split="train").texts == ["a", "c"]
    assert PageXml(tmp_path, splits="splits.tsv", split="val").texts == ["b"]
    assert PageXml(tmp_path, splits="splits.tsv").texts == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match=r"no pages in split 'test' \(available: train, val\)"):
        PageXml(tmp_path, splits="splits.tsv", split="test")


def test_a_page_of_the_table_without_a_file_is_named(tmp_path: Path, write_page) -> None:
    write_page(tmp_path, ["a"], "a")
    split_table(tmp_path, "a\ttrain", "gone\ttrain")
    with pytest.raises(InputError, match=r"missing XML files for pages in split 'train' \(1, first: 'gone'\)"):
        PageXml(tmp_path, splits="splits.tsv", split="train")


@pytest.mark.parametrize("table", ["nothing.tsv", "package:nothing.tsv"])
def test_a_missing_table_is_named(tmp_path: Path, table: str) -> None:
    with pytest.raises(InputError, match=r"nothing\.tsv: split table not found"):
        read_splits(tmp_path, table)


def test_a_table_row_of_another_form_is_named(tmp_path: Path) -> None:
    split_table(tmp_path, "a,train")
    with pytest.raises(InputError, match="a,train"):
        read_splits(tmp_path, "splits.tsv")


def test_a_table_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "splits.tsv").write_bytes(b"page\tsplit\n\xff\xfe\ttrain\n")
    with pytest.raises(InputError, match=r"splits\.tsv"):
        read_splits(tmp_path, "splits.tsv")


@pytest.mark.parametrize("faulty", ["error", "skip"])
def test_a_line_without_text_is_refused_skipped_or_kept_as_asked(tmp_path: Path, write_page, faulty: str) -> None:
    write_page(tmp_path, ["un", " ", "trois"])
    with pytest.raises(InputError, match="page/l1: line without text; transcribe it"):
        PageXml(tmp_path, name="x", empty="error", faulty=faulty)
    skipping = PageXml(tmp_path, empty="skip", faulty=faulty)
    assert skipping.texts == ["un", "trois"]
    assert [skipped.kind for skipped in skipping.skipped] == ["line without text"]
    keeping = PageXml(tmp_path, empty="keep", faulty=faulty)
    assert keeping.texts == ["un", " ", "trois"]
    assert not keeping.skipped


@pytest.mark.parametrize(
    "polygon",
    ["", "2,2 238,38", "900,2 990,2 990,38", "-90,2 -9,2 -9,38", "5,5 5,5 5,5"],
    ids=["none", "two points", "right of the page", "left of the page", "a point"],
)
@pytest.mark.parametrize("preload", [True, False])
def test_a_line_that_cannot_be_cropped_is_refused_or_counted_as_asked(
    tmp_path: Path, write_page, polygon: str, preload: bool
) -> None:
    spoil(without_baselines(write_page(tmp_path, ["un", "deux"])), POLYGON, polygon)
    with pytest.raises(InputError, match="page/l0: "):
        list(PageXml(tmp_path, name="x", faulty="error", preload=preload))
    skipping = PageXml(tmp_path, faulty="skip", preload=preload)
    assert [sample.text for sample in skipping] == ["deux"]
    assert skipping.texts == ["deux"]
    assert len(skipping.skipped) == 1


@pytest.mark.parametrize(
    ("kind", "lines"),
    [("missing image", 2), ("unusable image", 2), ("another size", 2), ("unreadable page", 1), ("no file", 1)],
)
def test_a_page_that_cannot_be_used_is_refused_or_counted_as_asked(
    tmp_path: Path, write_page, kind: str, lines: int
) -> None:
    write_page(tmp_path, ["un"], "a")
    path = write_page(tmp_path, ["deux", "trois"], "b")
    split_table(tmp_path, "a\ttrain", "b\ttrain")
    image = path.with_suffix(".png")
    match kind:
        case "missing image":
            image.unlink()
        case "unusable image":
            image.write_bytes(image.read_bytes()[:200])
        case "another size":
            spoil(path, 'imageWidth="240"', 'imageWidth="480"')
        case "unreadable page":
            spoil(path, "</PcGts>", "")
        case "no file":
            path.unlink()
    asked = {"splits": "splits.tsv", "split": "train", "name": "x"}
    with pytest.raises(InputError):
        PageXml(tmp_path, faulty="error", **asked)
    reader = PageXml(tmp_path, faulty="skip", **asked)
    assert [sample.text for sample in reader] == reader.texts == ["un"]
    assert reader.ids == ["x/a/l0"]
    assert len(reader.sizes) == 1
    assert len(reader.skipped) == lines
    assert all(skipped.id.startswith("x/b") and skipped.detail for skipped in reader.skipped)


def test_an_id_given_twice_is_refused_or_the_second_line_counted(tmp_path: Path, write_page) -> None:
    spoil(write_page(tmp_path, ["un", "deux", "trois"]), 'id="l1"', 'id="l0"')
    with pytest.raises(InputError, match="duplicate id x/page/l0"):
        PageXml(tmp_path, name="x")
    reader = PageXml(tmp_path, name="x", faulty="skip")
    assert reader.texts == ["un", "trois"]
    assert [(skipped.id, skipped.kind) for skipped in reader.skipped] == [("x/page/l0", "duplicate id")]


def test_all_faults_are_counted_in_one_message(tmp_path: Path, write_page) -> None:
    for stem in "abc":
        spoil(without_baselines(write_page(tmp_path, ["un"], stem)), POLYGON, "")
    with pytest.raises(InputError, match=r"x/a/l0: .*lines with faults: 3"):
        PageXml(tmp_path, name="x")


@pytest.mark.parametrize("option", ["empty", "faulty"])
def test_an_invalid_option_is_refused(tmp_path: Path, write_page, option: str) -> None:
    write_page(tmp_path)
    with pytest.raises(InputError, match="sikp"):
        PageXml(tmp_path, **{option: "sikp"})


def test_an_image_of_another_name_is_found_by_the_page_s_stem(tmp_path: Path, write_page) -> None:
    spoil(write_page(tmp_path, ["un"]), 'imageFilename="page.png"', 'imageFilename="IMG_0001.JPG"')
    assert PageXml(tmp_path)[0].image.shape == (36, 236)


def test_images_may_lie_in_a_folder_of_their_own(tmp_path: Path, write_page) -> None:
    write_page(tmp_path / "xml", ["un"])
    (tmp_path / "jpg").mkdir()
    shutil.move(tmp_path / "xml" / "page.png", tmp_path / "jpg" / "page.png")
    assert len(PageXml(tmp_path, xml="xml/*.xml", images="jpg")) == 1
    with pytest.raises(InputError, match=r"page\.png"):
        PageXml(tmp_path)


def test_an_image_of_another_size_than_the_lines_were_drawn_on_is_refused(tmp_path: Path, write_page) -> None:
    spoil(write_page(tmp_path, ["un"]), 'imageWidth="240"', 'imageWidth="480"')
    with pytest.raises(InputError, match=r"480 x 40 pixels, but page\.png has 240 x 40"):
        PageXml(tmp_path)


def test_without_a_stated_size_the_image_is_taken(tmp_path: Path, write_page) -> None:
    spoil(write_page(tmp_path, ["un"]), 'imageWidth="240" imageHeight="40"', "")
    assert PageXml(tmp_path)[0].image.shape == (36, 236)


def test_writers_are_read_off_the_page_s_name(tmp_path: Path, write_page) -> None:
    for stem in ("anna_1", "anna_2", "bert"):
        write_page(tmp_path, [stem], stem)
    assert PageXml(tmp_path, group=r"(.+?)(?:_\d)?$").groups == ["anna", "anna", "bert"]


def test_pages_of_one_name_in_two_folders_keep_their_lines_apart(tmp_path: Path, write_page) -> None:
    write_page(tmp_path / "first", ["un"])
    write_page(tmp_path / "second", ["deux"])
    reader = PageXml(tmp_path, name="x")
    assert reader.texts == ["un", "deux"]
    assert len(set(reader.ids)) == 2
    assert [sample.text for sample in reader] == ["un", "deux"]


def test_a_folder_that_cannot_be_read_is_refused_with_the_way_out(tmp_path: Path, write_page) -> None:
    with pytest.raises(InputError, match=r"data\.root is not set"):
        PageXml()
    with pytest.raises(InputError, match="nowhere: no such folder"):
        PageXml(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no file matches data\.reader\.xml=\*\*/\*\.xml; set data\.root"):
        PageXml(tmp_path)
    write_page(tmp_path, [])
    with pytest.raises(InputError, match=r"xml=p\*\.xml but not data\.reader\.exclude=\*\.xml;"):
        PageXml(tmp_path, xml="p*.xml", exclude="*.xml")
    with pytest.raises(InputError, match="no lines found"):
        PageXml(tmp_path)


COPISTE = {"xml": "alto/*.xml", "images": "jpg", "name": "copiste", "group": r"(.+?)(?:_\d)?$", "empty": "skip"}


def test_copiste_has_its_published_lines_no_repairs_and_no_writer_in_two_splits(htr_data: Path) -> None:
    counts = {"train": (5130, 3), "val": (582, 1), "test": (617, 0)}
    ids: set[str] = set()
    writers: dict[str, str] = {}
    for split, (lines, skipped) in counts.items():
        reader = PageXml(htr_data / "copiste", splits="package:copiste.tsv", split=split, preload=False, **COPISTE)
        assert len(reader) == lines
        assert len(reader.skipped) == skipped
        assert not reader.repaired
        assert not ids & set(reader.ids)
        ids |= set(reader.ids)
        for writer in set(reader.groups):
            assert writers.setdefault(writer, split) == split, f"{writer} is in two splits"
    assert len(ids) == 5130 + 582 + 617
    assert {re.sub(r"_\d$", "", writer) for writer in writers} == set(writers)


def test_the_table_of_the_package_is_the_published_one(htr_data: Path) -> None:
    assert read_splits(htr_data, "package:copiste.tsv") == read_splits(htr_data / "copiste", "split.tsv")


def test_pages_of_others_are_cropped_or_refused_in_one_line(htr_data: Path) -> None:
    cut, refused = {}, {}
    for path in sorted((htr_data / "samples").rglob("*.xml")):
        try:
            reader = PageXml(
                path.parent, xml=path.name, reduce=partial(shrink_to_height, height=128), empty="skip", faulty="skip"
            )
        except InputError as error:
            refused[path.stem] = str(error)
        else:
            cut[path.stem] = len(reader)
            for sample in reader:
                assert min(sample.image.shape) >= 1
                assert sample.image.shape[0] <= 128
                assert sample.text.strip()
    assert not any("\n" in message for message in refused.values())
    with_image = {p.stem for p in (htr_data / "samples").rglob("*.jpg")}
    assert with_image - set(cut) == {"TestamentsDePoilus_will_AN_0292-2"}  # the page without a line
    assert "no line" in refused["TestamentsDePoilus_will_AN_0292-2"]
    assert cut["TestamentsDePoilus_will_AD78_0064-4"] == 46
    for stem in set(refused) - with_image:
        assert "missing image" in refused[stem]


def test_a_page_whose_lines_ignore_exif_is_opened_as_stored(htr_data: Path) -> None:
    path = htr_data / "samples" / "testaments" / "TestamentsDePoilus_will_AD78_0005-0.xml"
    page = read_page(path)
    assert open_page(page, path.with_suffix(".jpg")).shape == (page.height, page.width)


def test_pages_that_cannot_be_read_and_pages_without_image_are_counted_as_asked(tmp_path: Path, write_page) -> None:
    for stem in "abcd":
        write_page(tmp_path, ["un", stem], stem)
    (tmp_path / "a.xml").write_text("<html/>")
    (tmp_path / "b.png").unlink()
    spoil(tmp_path / "c.xml", 'imageWidth="240"', 'imageWidth="480"')
    for stem, words in (("a", "no PAGE or ALTO file"), ("b", "no image"), ("c", "expected an image of 480 x 80")):
        with pytest.raises(InputError, match=words):
            PageXml(tmp_path, xml=f"{stem}.xml")
    reader = PageXml(tmp_path, name="x", faulty="skip")
    assert reader.texts == ["un", "d"]
    assert [(skipped.id, skipped.kind) for skipped in reader.skipped] == [
        ("x/a", "neither PAGE nor ALTO"),
        ("x/b/l0", "missing image"),
        ("x/b/l1", "missing image"),
        ("x/c/l0", "unusable image"),
        ("x/c/l1", "unusable image"),
    ]
    assert "b.png" in reader.skipped[1].detail


@pytest.mark.parametrize("preload", [True, False])
def test_a_line_with_a_baseline_only_is_read_and_reported(tmp_path: Path, write_page, preload: bool) -> None:
    spoil(write_page(tmp_path, ["un", "deux"]), POLYGON, "")
    reader = PageXml(tmp_path, name="x", preload=preload)
    assert reader.texts == ["un", "deux"]
    assert reader.repaired == {"x/page/l0": "polygon created from the baseline"}
    assert not reader.skipped
    page = cv2.imread(str(tmp_path / "page.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(reader[0].image, page[2:42, 2:238])  # the baseline at 30, the next at 70


@pytest.mark.parametrize(
    ("baseline", "text", "turns"),
    [("150,10 150,190", "abc", 1), ("150,190 150,10", "abc", -1), ("150,190 150,10", "春秋曰", 1), ("", "春秋曰", 1)],
)
def test_vertical_lines_are_rotated_into_reading_direction_if_asked(
    tmp_path: Path, baseline: str, text: str, turns: int
) -> None:
    page = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "p.png"), page)
    (tmp_path / "p.xml").write_text(
        '<PcGts><Page imageFilename="p.png" imageWidth="300" imageHeight="200"><TextRegion id="r"><TextLine id="l">'
        f'<Coords points="130,10 170,10 170,190 130,190"/><Baseline points="{baseline}"/><TextEquiv><Unicode>{text}'
        "</Unicode></TextEquiv></TextLine></TextRegion></Page></PcGts>",
        encoding="utf-8",
    )
    for preload in (True, False):
        reader = PageXml(tmp_path, rotate="reading", preload=preload)
        np.testing.assert_array_equal(reader[0].image, np.rot90(page[10:190, 130:170], turns))
        assert reader.sizes == [(40, 180)]
        reader = PageXml(tmp_path, rotate="deskew", preload=preload)
        np.testing.assert_array_equal(reader[0].image, page[10:190, 130:170])
        assert reader.sizes == [(180, 40)]


def test_splits_may_be_random_fractions_with_no_group_in_two(tmp_path: Path, write_page) -> None:
    for folder in ("anna", "bert", "carl", "dora"):
        for stem in ("1", "2"):
            write_page(tmp_path / folder, [f"{folder} {stem}"], f"{folder}_{stem}")
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    for group in ("(.+)_", "(.+)/"):
        readers = {split: PageXml(tmp_path, splits=shares, split=split, group=group) for split in shares}
        groups = [set(reader.groups) for reader in readers.values()]
        assert [len(each) for each in groups] == [2, 1, 1]
        assert set.union(*groups) == {"anna", "bert", "carl", "dora"}
        assert sorted(text for reader in readers.values() for text in reader.texts) == sorted(PageXml(tmp_path).texts)
    by_page = [len(PageXml(tmp_path, splits=shares, split=split)) for split in shares]
    assert by_page == [4, 2, 2]
    train = {seed: PageXml(tmp_path, splits=shares, split="train", seed=seed).texts for seed in range(4)}
    assert len({tuple(texts) for texts in train.values()}) > 1
    assert PageXml(tmp_path, splits=shares, split="train", seed=3).texts == train[3]


def test_what_is_skipped_does_not_depend_on_preloading(tmp_path: Path, write_page) -> None:
    for stem in "ab":
        write_page(tmp_path, stem=stem)
    image = tmp_path / "b.png"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    readers = [PageXml(tmp_path, faulty="skip", preload=preload) for preload in (True, False)]
    assert readers[0].ids == readers[1].ids
    assert readers[0].skipped == readers[1].skipped
    assert {skipped.by for skipped in readers[0].skipped} == {"faulty"}
    for one, other in zip(*readers, strict=True):
        assert (one.image == other.image).all()


def test_a_contradictory_split_table_is_refused_and_what_it_lacks_is_reported(tmp_path: Path, write_page) -> None:
    for stem in "abc":
        write_page(tmp_path, [stem], stem)
    table = tmp_path / "splits.tsv"
    table.write_text("page\tsplit\na\ttrain\nb\tval\n")
    reader = PageXml(tmp_path, splits="splits.tsv", split="train")
    assert [skipped.kind for skipped in reader.skipped] == ["page not in the split table"]
    for rows, message in (("a\ttrain\na\tval", "duplicate page 'a'"), ("a\tvalid", "'valid' is not a split")):
        table.write_text(f"page\tsplit\n{rows}\n")
        with pytest.raises(InputError, match=message):
            PageXml(tmp_path, splits="splits.tsv", split="train")


def test_pages_of_one_name_in_two_folders_are_two(tmp_path: Path, write_page) -> None:
    for folder in "ab":
        write_page(tmp_path / folder, [folder], "0001")
    assert len(set(PageXml(tmp_path).groups)) == 2
    (tmp_path / "splits.tsv").write_text("page\tsplit\na/0001\ttrain\nb/0001\tval\n")
    reader = PageXml(tmp_path, splits="splits.tsv", split="val")
    assert {id.split("/")[1] for id in reader.ids} == {"b"}


def test_control_characters_in_names_are_escaped_in_ids(tmp_path: Path, write_page) -> None:
    path = write_page(tmp_path, ["un"], "a\u202eb")
    path.write_text(path.read_text().replace('id="l0"', 'id="x&#x9b;31m"'))
    assert PageXml(tmp_path, name="set").ids == [r"set/a\u202eb/x\u009b31m"]

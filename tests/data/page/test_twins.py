"""One image is one page: files that describe the same lines are refused with a setting that selects one of them."""

import os
import re
import shlex
import shutil
from pathlib import Path
from unicodedata import normalize

import cv2
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from htr_lightning.data.page.image_files import ImageFinder
from htr_lightning.data.page.selection import select_pages
from htr_lightning.data.page.twins import overlapping, same_image
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.errors import InputError

LINES = {"a": ["un", "deux"], "b": ["trois"], "c": ["quatre", "cinq", "six"]}


def pages(folder: Path, write_page, form: str = "PAGE", name: str = "{}", image: str = "{}.png") -> None:
    """Write the pages of LINES to `folder/name.xml`, with their images at `folder/image`."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, texts in LINES.items():
        path = write_page(folder / ".draft", [f"{form} {name} {text}" for text in texts], stem, form)
        text = path.read_text(encoding="utf-8").replace(f"{stem}.png", image.format(stem))
        (folder / f"{name.format(stem)}.xml").write_text(text, encoding="utf-8")
        path.with_suffix(".png").rename(folder / image.format(stem))
    shutil.rmtree(folder / ".draft")


def suggested(message: str) -> list[list[str]]:
    """Return the suggested overrides as arguments that the shell passes on and Hydra parses."""
    told = message.partition("PATTERN, e.g. with ")[2]
    return [shlex.split(one) for one in told.split(" or ")]


LAYOUTS = {
    "two folders": [("page", "PAGE", "{}", "../{}.png"), ("alto", "ALTO", "{}", "../{}.png")],
    "nested folders": [("x/page", "PAGE", "{}", "../../{}.png"), ("x/alto/v4", "ALTO", "{}", "../../../{}.png")],
    "a folder below": [("", "PAGE", "{}", "{}.png"), ("old", "ALTO", "{}", "../{}.png")],
    "an ending": [("", "PAGE", "{}", "{}.png"), ("", "ALTO", "{}.chocomufin", "{}.png")],
    "two endings": [("", "PAGE", "{}_page", "{}.png"), ("", "ALTO", "{}_alto", "{}.png")],
    "a beginning": [("", "PAGE", "page_{}", "{}.png"), ("", "ALTO", "alto-{}", "{}.png")],
    "an odd folder": [("p (1), [x]=é'\"", "PAGE", "{}", "../{}.png"), ("alto", "ALTO", "{}", "../{}.png")],
    "a dollar": [("page $1", "PAGE", "{}", "../{}.png"), ("alto", "ALTO", "{}", "../{}.png")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("faulty", ["error", "skip"])
def test_a_suggested_override_reads_each_page_once_and_loses_none(
    tmp_path: Path, write_page, layout: str, faulty: str
) -> None:
    for folder, form, name, image in LAYOUTS[layout]:
        pages(tmp_path / folder, write_page, form, name, image)
    write_page(tmp_path / "alone", ["seul"], "d")
    if "ending" not in layout and "beginning" not in layout:
        shutil.rmtree(tmp_path / "alone")  # no pattern for a folder selects the other folder as well
    with pytest.raises(InputError) as refused:
        PageXml(tmp_path, faulty=faulty)
    message = str(refused.value)
    assert re.search(r"describe the same image, a\.png \(pages described more than once: 3\)", message)
    assert all(name.format("a") + ".xml" in message for _, _, name, _ in LAYOUTS[layout])
    choices = suggested(message)
    assert choices
    kinds = set()
    for (argument,) in choices:
        (override,) = OverridesParser.create().parse_overrides([argument])
        reader = PageXml(tmp_path, **{override.key_or_group.removeprefix("data.reader."): override.value()})
        assert len(reader) == sum(map(len, LINES.values())) + (tmp_path / "alone").exists()
        kinds.add(tuple(reader.texts))
    # Either kind can be selected, unless only one of them includes all pages.
    assert len(kinds) == len(choices) == (1 if layout == "an ending" else 2)


def test_where_no_pattern_separates_the_files_the_keys_are_named(tmp_path: Path, write_page) -> None:
    for stem, text in {"a": "un", "b": "un", "c": "deux", "d": "deux"}.items():
        write_page(tmp_path, [text], stem)
    for link, image in ("ba", "dc"):
        (tmp_path / f"{link}.png").unlink()
        (tmp_path / f"{link}.png").symlink_to(f"{image}.png")
    with pytest.raises(InputError, match=r"with data\.reader\.xml=PATTERN or data\.reader\.exclude=PATTERN$"):
        PageXml(tmp_path)


def test_the_current_pattern_remains_in_force(tmp_path: Path, write_page) -> None:
    for folder in ("first", "second"):
        pages(tmp_path / folder, write_page)
        pages(tmp_path / folder, write_page, "ALTO", "{}.alto")
    for stem in LINES:  # different images
        image = cv2.imread(str(tmp_path / "first" / f"{stem}.png"))
        cv2.imwrite(str(tmp_path / "second" / f"{stem}.png"), 255 - image)
    with pytest.raises(InputError) as refused:
        PageXml(tmp_path, xml="first/*.xml")
    choices = [one.removeprefix("data.reader.") for (one,) in suggested(str(refused.value))]
    assert choices == ["exclude=**/*.alto.xml"]  # **/*.alto.xml as data.reader.xml would read the other folder as well
    assert len(PageXml(tmp_path, xml="first/*.xml", exclude="**/*.alto.xml")) == 6


def twins(folder: Path) -> list[set[str]]:
    chosen = select_pages(sorted(folder.rglob("*.xml")), ImageFinder(folder))
    return [{path.relative_to(folder).as_posix() for path in group} for group in same_image(chosen.images)]


def test_images_are_equal_by_their_path_their_links_or_their_bytes(tmp_path: Path, write_page) -> None:
    path = write_page(tmp_path, ["un"], "a")
    write_page(tmp_path, ["deux"], "b")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "x.xml").write_bytes(path.read_bytes())
    (tmp_path / "link" / "a.png").symlink_to(tmp_path / "a.png")
    shutil.copytree(tmp_path, tmp_path / "copies", ignore=lambda *_: ["link", "copies"])
    (tmp_path / "copies" / "b.png").rename(tmp_path / "copies" / "b (1).png")
    (tmp_path / "copies" / "b.xml").rename(tmp_path / "copies" / "b (1).xml")
    assert sorted(twins(tmp_path), key=len) == [{"b.xml", "copies/b (1).xml"}, {"a.xml", "copies/a.xml", "link/x.xml"}]


def test_a_link_to_an_xml_file_describes_the_page_again(tmp_path: Path, write_page) -> None:
    (tmp_path / "b.xml").symlink_to(write_page(tmp_path, ["un"], "a"))
    with pytest.raises(InputError, match=r"a\.xml and b\.xml describe the same image"):
        PageXml(tmp_path)
    assert len(PageXml(tmp_path, exclude="b.xml")) == 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_that_differ_in_case_or_unicode_form_only(tmp_path: Path, write_page, form: str) -> None:
    path = write_page(tmp_path, ["un"], normalize(form, "é"))
    other = "É.XML" if form == "NFC" else normalize("NFC", "é.xml")
    (tmp_path / other).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="describe the same image"):
        PageXml(tmp_path)


def test_images_of_one_name_or_one_size_are_different_pages(tmp_path: Path, write_page) -> None:
    for folder, text in (("x", "un"), ("y", "nu")):
        path = write_page(tmp_path / folder, [text], "a")
        cv2.imwrite(str(path.with_suffix(".bmp")), cv2.imread(str(path.with_suffix(".png"))))
        path.write_text(path.read_text().replace(".png", ".bmp"))
    sizes = {path.stat().st_size for path in tmp_path.rglob("*.bmp")}
    assert len(sizes) == 1
    assert not twins(tmp_path)
    assert len(PageXml(tmp_path)) == 2


def test_large_images_that_differ_outside_the_sample_are_different(tmp_path: Path, write_page) -> None:
    for stem, offset in (("a", 0), ("b", 999_999)):
        write_page(tmp_path, [stem], stem)
        content = bytearray(1_000_000)
        content[offset] = 1
        (tmp_path / f"{stem}.png").write_bytes(content)
    assert not twins(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copies", ignore=lambda *_: ["copies"])
    assert sorted(map(sorted, twins(tmp_path))) == [["a.xml", "copies/a.xml"], ["b.xml", "copies/b.xml"]]


def test_identical_scans_beside_each_other_are_pages_of_their_own(tmp_path: Path, write_page) -> None:
    for stem in "ab":
        write_page(tmp_path, ["un"], stem)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not twins(tmp_path)
    assert PageXml(tmp_path).texts == ["un", "un"]
    (tmp_path / "b.png").unlink()
    (tmp_path / "b.png").symlink_to("a.png")  # one scan under two names
    with pytest.raises(InputError, match="describe the same image"):
        PageXml(tmp_path)


def half(path: Path, keep: slice, name: str) -> Path:
    """Write a copy of a page file with some of its lines."""
    text = path.read_text(encoding="utf-8")
    lines = re.findall("<TextLine.*?</TextLine>", text)
    for line in set(lines) - set(lines[keep]):
        text = text.replace(line, "")
    path.with_name(name).write_text(text, encoding="utf-8")
    return path.with_name(name)


def test_files_that_describe_different_parts_of_an_image_are_read_and_stay_in_one_split(
    tmp_path: Path, write_page
) -> None:
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    for stem in "abcd":
        path = write_page(tmp_path, [f"{stem}{number}" for number in range(4)], stem)
        half(path, slice(2), f"{stem}_left.xml")
        half(path, slice(2, 4), f"{stem}_right.xml")
        path.unlink()
    reader = PageXml(tmp_path)
    assert sorted(reader.texts) == [f"{stem}{number}" for stem in "abcd" for number in range(4)]
    assert len(set(reader.ids)) == 16
    splits = [{text[0] for text in PageXml(tmp_path, splits=shares, split=split).texts} for split in shares]
    assert sorted(map(len, splits)) == [1, 1, 2]
    assert set.union(*splits) == set("abcd")


@pytest.mark.parametrize(
    ("left", "right", "found"),
    [
        (slice(2), slice(2, 4), False),
        (slice(3), slice(2, 4), True),
        (slice(1), slice(4), True),
        (slice(0), slice(4), False),  # without lines, nothing is read twice
    ],
)
def test_files_overlap_if_they_have_a_line_in_common(
    tmp_path: Path, write_page, left: slice, right: slice, found: bool
) -> None:
    path = write_page(tmp_path, ["un", "deux", "trois", "quatre"])
    group = [half(path, left, "left.xml"), half(path, right, "right.xml")]
    assert overlapping(group) == (group if found else [])


def test_lines_are_compared_by_their_place_on_the_page(tmp_path: Path, write_page) -> None:
    page, alto = write_page(tmp_path, ["un"], "a"), write_page(tmp_path, ["un"], "b", "ALTO")
    text = alto.read_text()
    for old, new in (('WIDTH="240"', 'WIDTH="2400"'), ('HEIGHT="40"', 'HEIGHT="400"')):
        text = text.replace(old, new)
    scaled = re.sub(r"\d+,\d+", lambda pair: ",".join(f"{number}0" for number in pair[0].split(",")), text)
    alto.write_text(scaled)
    assert overlapping([page, alto]) == [page, alto]
    alto.write_text(re.sub("<Shape>.*?</Shape>", "", scaled))  # a baseline alone
    assert overlapping([page, alto]) == [page, alto]


def test_a_file_that_cannot_be_read_is_no_twin(tmp_path: Path, write_page) -> None:
    path = write_page(tmp_path, ["un"], "a")
    (tmp_path / "b.xml").write_bytes(path.read_bytes()[:-5])
    assert overlapping([path, tmp_path / "b.xml"]) == []
    reader = PageXml(tmp_path, name="x", faulty="skip")
    assert reader.texts == ["un"]
    assert [(skipped.id, skipped.kind) for skipped in reader.skipped] == [("x/b", "unreadable page")]


def test_many_lines_are_assumed_to_overlap(tmp_path: Path, write_page) -> None:
    path = write_page(tmp_path, ["un"])
    text = path.read_text()
    (line,) = re.findall("<TextLine.*?</TextLine>", text)
    for name, shift in (("a.xml", "1,1 5,1 5,5"), ("b.xml", "101,1 105,1 105,5")):
        short = re.sub('points="[^"]*"', f'points="{shift}"', line)
        (tmp_path / name).write_text(text.replace(line, short * 1_100))
    group = [tmp_path / "a.xml", tmp_path / "b.xml"]
    assert overlapping(group) == group
    assert os.stat(group[0]).st_size < 1_000_000

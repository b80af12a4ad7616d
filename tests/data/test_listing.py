"""Images are found whatever their format, Unicode form and links, and only inside the data folder."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from htr_lightning.data.image import FORMATS, OTHER_SUFFIXES, SUFFIXES, read_image
from htr_lightning.data.reader.folder import Folder, Listing
from htr_lightning.data.reader.listing import Classes, Images, Laia, Pairs, Table
from htr_lightning.errors import InputError

NFC, NFD = "été", unicodedata.normalize("NFD", "été")
BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


def draw(path: Path, form: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (60, 20), 200).save(path, form)
    return path


def read(folder: Path, listing: Listing, part: str = ".", faulty: str = "error") -> Folder:
    return Folder(folder, listing=listing, splits={"train": part}, faulty=faulty, empty="keep", name="x")


def as_pair(folder: Path, name: str, text: str) -> Listing:
    (folder / f"{Path(name).with_suffix('')}.gt.txt").write_bytes(text.encode())
    return Pairs()


def as_row(folder: Path, name: str, text: str) -> Listing:
    quoted = text.replace('"', '""')
    (folder / "table").write_bytes(f'image,text\n{name},"{quoted}"\n'.encode())
    return Table("image", "text", delimiter="comma")


def as_object(folder: Path, name: str, text: str) -> Listing:
    escaped = "".join(f"\\u{ord(character):04x}" for character in text)
    (folder / "table.jsonl").write_text(f'{{"image": "{name}", "text": "{escaped}"}}\n')
    return Table("image", "text")


def as_laia(folder: Path, name: str, text: str) -> Listing:
    (folder / "table").write_bytes(f"{name} {' '.join(text)}\n".encode())
    return Laia(["."])


def as_plain_laia(folder: Path, name: str, text: str) -> Listing:
    (folder / "table").write_bytes(f"{name} {text}\n".encode())
    return Laia(["."], None)


FORMS: list[tuple[Callable[[Path, str, str], Listing], str]] = [
    (as_pair, "."),
    (as_row, "table"),
    (as_object, "table.jsonl"),
    (as_laia, "table"),
    (as_plain_laia, "table"),
]


# Formats


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read_under_each_of_its_endings(tmp_path: Path, form: str) -> None:
    endings = [ending for ending, of in Image.registered_extensions().items() if of == form]
    assert set(endings) <= set(SUFFIXES)
    for number, ending in enumerate(endings):
        draw(tmp_path / f"lines/{number}{ending.upper() if number % 2 else ending}", form)
        as_pair(tmp_path / "lines", f"{number}.x", "a")
    for listing in (Images(), Pairs()):
        reader = read(tmp_path / "lines", listing)
        assert len(reader) == len(endings) > 0
        for sample in reader:
            assert abs(sample.image.astype(int) - 200).max() <= 2


def test_the_picture_of_a_phone_is_read(tmp_path: Path) -> None:
    picture = Image.new("L", (60, 20), 200)
    picture.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.new("L", (60, 20))])
    assert read_image(tmp_path / "a.jpg").mean() > 190


@pytest.mark.parametrize("ending", [".heic", ".HEIF", ".pdf", ".djvu", ".cr2", ".dng", ".psd", ".svg", ".eps", ".exr"])
def test_images_in_other_formats_are_named_and_counted(tmp_path: Path, ending: str) -> None:
    assert ending.lower() in OTHER_SUFFIXES
    assert not set(OTHER_SUFFIXES) & set(SUFFIXES)
    draw(tmp_path / "a/1.png")
    for name in ("2", "3"):
        (tmp_path / f"a/{name}{ending}").write_bytes(b"content")
    (tmp_path / "a/notes.docx").touch()
    rows = ["1.png", f"2{ending}", f"3{ending}"]
    (tmp_path / "a/t.csv").write_text("image,text\n" + "".join(f"{row},x\n" for row in rows))
    (tmp_path / "a/t.txt").write_text("1 x\n2 x\n3 x\n")
    words = "image in a format that cannot be read .*convert it to PNG, JPEG or TIFF.*first of 2 such faults"
    listings: list[tuple[Listing, str]] = [(Images(), "a"), (Classes(), ".")]
    listings += [(Table("image", "text", images="a"), "a/t.csv"), (Laia(["a"]), "a/t.txt"), (Pairs(), "a")]
    for listing, part in listings:
        if isinstance(listing, Pairs):
            for number in range(1, 4):
                as_pair(tmp_path / "a", f"{number}.png", "x")
        with pytest.raises(InputError, match=words):
            read(tmp_path, listing, part)
        reader = read(tmp_path, listing, part, "skip")
        assert len(reader) == 1
        assert [left.kind for left in reader.skipped] == ["image in a format that cannot be read"] * 2


def test_of_all_formats_the_usual_ones_come_first_and_processed_copies_last(tmp_path: Path) -> None:
    as_pair(tmp_path, "1.x", "a")
    for name in ("1.bin.png", "1.nrm.png", "1.tif", "1.jpg", "1.png"):
        draw(tmp_path / name, {".tif": "TIFF", ".jpg": "JPEG"}.get(Path(name).suffix, "PNG"))
        reader = read(tmp_path, Pairs())
        assert [path.name for path in reader._images] == [name]
        assert reader.ids == ["x/1"]


# Names


@pytest.mark.parametrize(("form", "part"), FORMS)
@pytest.mark.parametrize(("listed", "held"), [(NFC, NFD), (NFD, NFC), (f"{NFC}/{NFD}", f"{NFD}/{NFC}")])
def test_names_match_in_any_unicode_form(
    tmp_path: Path, form: Callable[[Path, str, str], Listing], part: str, listed: str, held: str
) -> None:
    draw(tmp_path / f"{held}.png")
    if form is as_pair:
        (tmp_path / listed).parent.mkdir(exist_ok=True)
    assert read(tmp_path, form(tmp_path, f"{listed}.png", "a"), part).texts == ["a"]


@pytest.mark.parametrize(("form", "part"), FORMS)
@pytest.mark.parametrize(("listed", "held"), [("a.png", "a.PNG"), ("a.JPG", "a.jpg")])
def test_names_match_in_any_case_of_the_ending(
    tmp_path: Path, form: Callable[[Path, str, str], Listing], part: str, listed: str, held: str
) -> None:
    draw(tmp_path / held)
    assert read(tmp_path, form(tmp_path, listed, "a"), part).texts == ["a"]


def test_an_exact_name_is_preferred_to_another_form_and_an_ambiguous_name_is_not_guessed(tmp_path: Path) -> None:
    for name in (f"{NFC}.png", f"{NFD}.png", "b.png", "B.png"):
        draw(tmp_path / name)
    names = [f"{NFC}.png", f"{NFD}.png", "b.png", "B.png"]
    (tmp_path / "t.csv").write_text("image,text\n" + "".join(f"{name},{n}\n" for n, name in enumerate(names)))
    reader = read(tmp_path, Table("image", "text"), "t.csv")
    assert [Path(path).name for path in reader._images] == names
    (tmp_path / "t.csv").write_text("image,text\nb.PNG,x\n")
    with pytest.raises(InputError, match=r"image not found \(.*b\.PNG\)"):
        read(tmp_path, Table("image", "text"), "t.csv")


def test_a_folder_with_the_name_of_an_image_does_not_hide_it(tmp_path: Path) -> None:
    draw(tmp_path / "1.png")
    (tmp_path / "1").mkdir()
    (tmp_path / "t.txt").write_text("1 a\n")
    assert read(tmp_path, Laia(["."]), "t.txt").texts == ["a"]


def test_folders_of_characters_and_their_table_match_in_any_unicode_form(tmp_path: Path) -> None:
    draw(tmp_path / NFD / "1.png")
    (tmp_path / "names.tsv").write_bytes(f"{NFC}\té\r\n".encode())
    assert read(tmp_path, Classes("names.tsv")).texts == ["é"]


def test_backslashes_in_a_table_separate_folders(tmp_path: Path) -> None:
    draw(tmp_path / "lines/1.png")
    for form, part in FORMS[1:2]:
        assert read(tmp_path, form(tmp_path, "lines\\1.png", "a"), part).texts == ["a"]


@pytest.mark.parametrize(("form", "part"), [FORMS[1], FORMS[3]])
@pytest.mark.parametrize("below", ["", "in"])
def test_names_cannot_lead_outside_the_folder_unless_this_is_allowed(
    tmp_path: Path, form: Callable[[Path, str, str], Listing], part: str, below: str
) -> None:
    root = tmp_path / "root"
    draw(tmp_path / "x.png")
    draw(root / "in/y.png")
    for name in ("../x.png", "in/../../x.png", str(tmp_path / "x.png"), "..\\x.png", f"{root}/../x.png"):
        with pytest.raises(InputError, match=r"image outside data\.root \(.*listing\.outside=true\)") as told:
            read(root, form(root, name, "a"), part)
        assert name in str(told.value)
        listing = form(root, name, "a")
        listing.outside = True  # type: ignore[attr-defined]
        assert read(root, listing, part).texts == ["a"]
    for name in ("in/y.png", "in/../in/y.png", str(root / "in/y.png"), "./in//y.png"):
        assert read(root, form(root, name, "a"), part).texts == ["a"]
    (root / "link").symlink_to(tmp_path)  # whoever has the folder made it, not whoever wrote the table
    assert read(root, form(root, "link/x.png", "a"), part).texts == ["a"]


def test_a_table_in_a_subfolder_may_refer_to_a_folder_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "root/lines/1.png")
    (tmp_path / "root/tables").mkdir()
    (tmp_path / "root/tables/t.csv").write_text("image,text\n../lines/1.png,a\n")
    assert read(tmp_path / "root", Table("image", "text"), "tables/t.csv").texts == ["a"]
    monkeypatch.chdir(tmp_path / "root")
    assert read(Path("."), Table("image", "text"), "tables/t.csv").texts == ["a"]


@pytest.mark.parametrize("again", ["./1.png", "in/../1.png", "link.png", "folder/1.png", "1.PNG"])
def test_an_image_that_a_table_lists_twice_is_refused(tmp_path: Path, again: str) -> None:
    draw(tmp_path / "1.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "1.png")
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "copy.png").hardlink_to(tmp_path / "1.png")  # as tools that save space make them
    (tmp_path / "t.csv").write_text(f"image,text\n1.png,a\ncopy.png,b\n{again},c\n")
    with pytest.raises(InputError, match=r"image listed twice \(first as x/1\.png\)"):
        read(tmp_path, Table("image", "text"), "t.csv")
    assert read(tmp_path, Table("image", "text"), "t.csv", "skip").texts == ["a", "b"]


@pytest.mark.parametrize("bad", ["a\nb", "a\x1b[31mb", "a\u202eb", "a\tb", "a\x85b"])
def test_names_with_control_characters_are_read_and_escaped_in_ids(tmp_path: Path, bad: str) -> None:
    draw(tmp_path / bad / f"{bad}.png")
    reader = read(tmp_path, Images())
    assert reader[0].image.shape == (20, 60)
    assert reader.ids[0].isprintable()
    assert reader.ids[0].count("\\") == 2


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    draw(tmp_path / os.fsdecode(b"\xe9.png"))
    assert read(tmp_path, Images()).ids == ["x/\\udce9.png"]


# Texts


@pytest.mark.parametrize(("form", "part"), FORMS)
def test_a_text_with_several_lines_is_refused_whatever_separates_them(
    tmp_path: Path, form: Callable[[Path, str, str], Listing], part: str
) -> None:
    draw(tmp_path / "1.png")
    for separator in BREAKS:
        if separator in ("\n", "\r", "\r\n") and form in (as_laia, as_plain_laia):
            continue  # it ends a row
        listing = form(tmp_path, "1.png", f"one{separator}two")
        with pytest.raises(InputError, match=r"text with several lines \(2 lines\)"):
            read(tmp_path, listing, part)
        for text in (f"one two{separator}", f"{separator}one two"):
            if form is as_pair or form is as_row:
                assert read(tmp_path, form(tmp_path, "1.png", text), part).texts == ["one two"]


def test_only_spaces_and_tabs_separate_the_tokens_of_a_pylaia_table(tmp_path: Path) -> None:
    draw(tmp_path / "1.png")
    (tmp_path / "t.txt").write_text("1 a <space>\tb \u00a0 c \u3000\n")
    assert read(tmp_path, Laia(["."]), "t.txt").texts == ["a b\u00a0c\u3000"]
    (tmp_path / "t.txt").write_text("1 \u00a0a\u3000b \n")
    assert read(tmp_path, Laia(["."], None), "t.txt").texts == ["\u00a0a\u3000b"]

"""Searchable PDF files show the image as it is, and give the text of its lines in order, in any script."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from htr_lightning.data.image import read_image
from htr_lightning.data.page.written import About
from htr_lightning.errors import InputError
from htr_lightning.reading.page_out import check_about, has_page, page_file
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import TranscribedLine, open_lines

from .exchange import transcribed

LINES = ["Première ligne, où l’on écrit", "北京大学图书馆 𠀋", "Größe & <b>", "Ярославль 1887", "The last (one)"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with lines at 50, 150, 250 ... and a photo of 600 x 600 pixels."""
    lines = "".join(
        f'<TextLine id="l{number}"><Coords points="20,{top} 580,{top} 580,{top + 60} 20,{top + 60}"/>'
        f'<Baseline points="20,{top + 45} 580,{top + 50}"/></TextLine>'
        for number, top in enumerate(range(20, 520, 100))
    )
    path = tmp_path / "p.xml"
    path.write_text(
        f'<PcGts><Page imageFilename="p.jpg" imageWidth="600" imageHeight="600"><TextRegion id="r">{lines}'
        "</TextRegion></Page></PcGts>"
    )
    Image.linear_gradient("L").resize((600, 600)).save(tmp_path / "p.jpg", dpi=(200, 200))
    return path


def pdf_of(page: Path, texts: list[str], language: str = "") -> bytes:
    image = page.with_suffix(".jpg")
    return page_file(Source(page, image, True), transcribed(page, texts, image), "pdf", About("m", language))


def read_back(content: bytes, tmp_path: Path, *options: str) -> list[str]:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    (tmp_path / "p.pdf").write_bytes(content)
    command = ["pdftotext", *options, str(tmp_path / "p.pdf"), "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr
    return [line.strip() for line in done.stdout.replace("\f", "").splitlines() if line.strip()]


@pytest.mark.parametrize("options", [(), ("-raw",), ("-layout",)])
def test_the_text_is_read_back_line_by_line(page: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert read_back(pdf_of(page, LINES), tmp_path, *options) == LINES


def test_right_to_left_text_is_read_back_in_logical_order(page: Path, tmp_path: Path) -> None:
    texts = ["שלום עולם", "كتاب", "a", "b", "c"]
    found = [line.translate({0x202A: None, 0x202B: None, 0x202C: None}) for line in
             read_back(pdf_of(page, texts), tmp_path, "-raw")]  # fmt: skip
    assert sorted(found[1:]) == sorted(texts[1:])
    assert set(found[0].split()) == set(texts[0].split())


def test_a_photo_is_embedded_as_it_is_and_keeps_its_size(page: Path) -> None:
    content, photo = pdf_of(page, LINES, "fr"), page.with_suffix(".jpg").read_bytes()
    assert photo in content
    assert b"/MediaBox [0 0 216.000 216.000]" in content  # points: 600 pixels at 200 dots per inch
    assert b"/Lang <FEFF00660072>" in content


def test_every_object_lies_where_the_table_says(page: Path) -> None:
    content = pdf_of(page, LINES)
    start = int(content.rsplit(b"startxref\n", 1)[1].split()[0])
    rows = content[start:].split(b"trailer")[0].splitlines()[3:]
    assert len(rows) == 12
    for number, row in enumerate(rows, start=1):
        assert content[int(row[:10]) :].startswith(b"%d 0 obj" % number)


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "CMYK", "I;16", "LA"])
def test_images_of_all_kinds_are_shown(page: Path, tmp_path: Path, mode: str) -> None:
    grey = Image.linear_gradient("L").resize((600, 600))
    image = grey.convert("I").convert("I;16") if mode == "I;16" else grey.convert(mode)
    file = tmp_path / "p.tif"
    image.save(file)
    content = page_file(Source(page, file, True), transcribed(page, LINES, file), "pdf", About())
    shown = picture_in(content)
    assert (shown.size, shown.getpixel((300, 5)) != shown.getpixel((300, 595))) == ((600, 600), True)


def picture_in(content: bytes) -> Image.Image:
    shown = Image.open(BytesIO(content[content.index(b"\xff\xd8\xff") :]))
    shown.load()
    return shown


@pytest.mark.parametrize("kind", ["16 bits", "transparent", "turned TIFF", "TIFF with a reduced copy"])
def test_the_image_is_shown_as_it_was_read(page: Path, tmp_path: Path, kind: str) -> None:
    levels = np.linspace(0, 255, 600 * 600).reshape(600, 600).astype(np.uint8)
    file = tmp_path / ("p.tif" if "TIFF" in kind else "p.png")
    image = Image.fromarray(levels)
    if kind == "16 bits":
        Image.fromarray(levels.astype(np.uint16) * 257).save(file)
    elif kind == "transparent":  # black ink
        image = Image.new("RGBA", (600, 600))
        image.putalpha(Image.fromarray(np.where(levels > 200, np.uint8(255), np.uint8(0))))
        image.save(file)
    elif kind == "turned TIFF":  # uncompressed: Pillow would memory-map it
        image = Image.fromarray(levels[:400])
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(file, exif=exif)
    else:
        image.encoderinfo = {"tiffinfo": {254: 0}}
        image.resize((60, 60)).save(file, save_all=True, append_images=[image], tiffinfo={254: 1})
    content = page_file(Source(page, file, True), transcribed(page, LINES, file), "pdf", About())
    shown, seen = np.asarray(picture_in(content).convert("L"), np.int64), read_image(file)
    assert shown.shape == seen.shape
    assert np.abs(shown - seen).mean() < 2


def test_the_page_of_a_turned_tiff_of_one_line_is_upright(tmp_path: Path) -> None:
    image = Image.linear_gradient("L").resize((40, 300))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "line.tif", exif=exif)
    source = Source(tmp_path / "line.tif", tmp_path / "line.tif")
    lines = [line for line, _ in open_lines(source, pages=False)]
    assert b'imageWidth="300" imageHeight="40"' in page_file(source, lines, "page")


def test_a_line_without_an_outline_is_written_where_its_region_is(page: Path) -> None:
    lines = transcribed(page, LINES, page.with_suffix(".jpg"))
    stripped = [
        one._replace(line=one.line._replace(text=text, polygon=[], baseline=[]), transcription=None)
        for one, text in zip(lines, LINES, strict=True)
        if one.line is not None
    ]
    for some in ([stripped[0], *lines[1:]], stripped):
        content = page_file(lines[0].source, some, "pdf", About())
        assert content.startswith(b"%PDF")


@pytest.mark.parametrize("image", [None, b"", b"\x89PNG\r\n\x1a\nbroken"])
def test_a_page_whose_image_cannot_be_read_has_no_pdf(page: Path, tmp_path: Path, image: bytes | None) -> None:
    photo = tmp_path / "p.jpg"
    lines = [line for line, _ in open_lines(Source(page, photo, True))]
    assert has_page(lines, "pdf")
    source = Source(page, f"{photo}: no such image" if image is None else photo, True)
    photo.write_bytes(image or b"")
    lines = [line for line, _ in open_lines(source)]
    assert (has_page(lines, "pdf"), has_page(lines, "page")) == (False, True)
    assert not has_page([TranscribedLine(source, None, None, "cannot be read")], "page")
    assert has_page([TranscribedLine(source, None, None)], "pdf")  # a page without lines
    if image is not None:
        with pytest.raises(InputError, match=r"p\.jpg"):  # not an OSError, which would be reported as that of --out
            page_file(source, lines, "pdf")


def test_what_a_format_cannot_state_is_refused() -> None:
    with pytest.raises(InputError, match=r"--glyphs: not written with --format pdf; use page, alto or hocr"):
        check_about(["m"], "pdf", glyphs=True)
    with pytest.raises(InputError, match=r"--language fr: not written with --format tsv; use page, alto, hocr or pdf"):
        check_about(["m"], "tsv", "fr")
    with pytest.raises(InputError, match=r"^--language f r: "):
        check_about(["m"], "pdf", "f r")
    with pytest.raises(InputError, match=r"^language=f r: "):
        check_about(["m"], "pdf", "f r", option="language=")
    assert check_about(["m"], "pdf", "fr") == About("m", "fr")


def test_a_rotated_photo_is_upright_as_the_page_is(page: Path) -> None:
    photo = page.with_suffix(".jpg")
    wide = Image.linear_gradient("L").resize((400, 600))
    exif = wide.getexif()
    exif[0x0112] = 6
    wide.transpose(Image.Transpose.ROTATE_90).save(photo, exif=exif)
    page.write_text(page.read_text().replace('imageWidth="600"', 'imageWidth="400"'))
    assert b"/Width 400 /Height 600" in pdf_of(page, LINES)
    page.write_text(page.read_text().replace('"400" imageHeight="600"', '"600" imageHeight="400"'))
    assert b"/Width 600 /Height 400" in pdf_of(page, LINES)  # a page that was drawn on the stored pixels

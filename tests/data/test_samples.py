"""Every real sample file is either read or refused with a reason."""

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from htr_lightning.data.image import shrink_to_height
from htr_lightning.data.page.baseline import reading_angle
from htr_lightning.data.page.document import read_page
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.errors import InputError


class Row(NamedTuple):
    """The format of a file and the outcome for its lines with `rotate=reading empty=skip`."""

    dialect: str
    read: int
    skipped: dict[str, int] = {}  # noqa: RUF012
    repaired: dict[str, int] = {}  # noqa: RUF012
    turns: dict[int, int] = {}  # noqa: RUF012  number of lines by angle, if any is rotated


NO_TEXT, MADE = "line without text", "polygon created from the baseline"
LETTER = "cremma_mss20/data/Lettre_de_ETessier_a_G-VTessier/01R_P1S7P178_00{}".format
SPEECH = "cremma_mss20/data/brouillons-badinter-discours-peine-de-mort/{}_default".format
WILL = "testaments/TestamentsDePoilus_will_{}".format

WITH_IMAGE = {
    LETTER(1): Row("ALTO 4.2", 14),
    LETTER(2): Row("ALTO 4.2", 15),
    LETTER(3): Row("ALTO 4.2", 15),
    LETTER(4): Row("ALTO 4.2", 14),
    LETTER(5): Row("ALTO 4.2", 14),
    LETTER(6): Row("ALTO 4.2", 14),
    LETTER(7): Row("ALTO 4.2", 12),
    SPEECH("2_985d7"): Row("ALTO 4.2", 6),
    SPEECH("5_d12c2"): Row("ALTO 4.2", 5),
    SPEECH("8_21472"): Row("ALTO 4.2", 18),
    SPEECH("10_c71ca"): Row("ALTO 4.2", 31),
    SPEECH("12_dbc9b"): Row("ALTO 4.2", 41),
    SPEECH("50_df850"): Row("ALTO 4.2", 25),
    "lathrop/Page1-Lettre42/Lettre42": Row("ALTO 4.2", 19),
    "lathrop/Page3-Lettre46/Lettre46": Row("ALTO 4.2", 20),
    "lathrop/Page5-Lettre50/Lettre50": Row("ALTO 4.2", 39),
    WILL("AD78_0005-0"): Row("ALTO 4.2", 1),  # rotated according to EXIF but not to the lines
    WILL("AD78_0005-1"): Row("ALTO 4.2", 12),
    WILL("AD78_0006-0"): Row("ALTO 4.2", 30),
    WILL("AD78_0064-4"): Row("ALTO 4.2", 46, turns={0: 37, -90: 9}),  # vertical lines in the margin
    WILL("AD95_0039-2"): Row("ALTO 4.2", 3, repaired={"baseline reversed": 3}),  # drawn from right to left by mistake
    WILL("AN_0248-1"): Row("ALTO 4.2", 24),
    WILL("AN_0252-2"): Row("ALTO 4.2", 6, turns={-90: 6}),  # diagonal, 46 to 60 degrees up
    WILL("AN_0292-2"): Row("ALTO 4.2", 0),  # a page without lines
}
WITHOUT_IMAGE = {  # refused without an image; counts are for a blank image of the stated size
    "chi_know_po/BULAC_BIULO_CHI_1938_1_0117": Row("PAGE 2013", 74, {NO_TEXT: 1}, turns={90: 74}),
    "chi_know_po/BULAC_BIULO_CHI_1938_2_0058": Row("PAGE 2013", 138, {NO_TEXT: 1}, turns={90: 138}),
    "chi_know_po/BULAC_BIULO_CHI_1938_2_0105": Row("PAGE 2013", 147, {NO_TEXT: 1}, turns={90: 147}),
    "chi_know_po/CDF_IHEC_FX2_9_66_0002": Row("PAGE 2013", 17, {NO_TEXT: 6}, {MADE: 1}, {90: 17}),
    "rasam/BULAC_MS_ARA_1944_0035": Row("PAGE 2013", 0, {NO_TEXT: 26}),
    "rasam/BULAC_MS_ARA_1944_0043": Row("PAGE 2013", 0, {NO_TEXT: 27}),
    "rasam/BULAC_MS_ARA_1982_181992": Row("PAGE 2013", 49),
    "rasam/BULAC_MS_ARA_65_149902": Row("PAGE 2013", 109, {NO_TEXT: 6}, turns={0: 108, 90: 1}),
    "tarima/BnF-2297_btv1b11001977p_7": Row("PAGE 2013", 47),
    "tarima/BnF-7024_btv1b10031132f_25": Row("PAGE 2013", 12),
    "tarima/MMSH_IREMAM_ARA_MS_011_000089": Row("PAGE 2013", 29, repaired={MADE: 29}),
    "tarima/MMSH_MS_056_0365": Row("PAGE 2013", 26),
}
OPTIONS = {"rotate": "reading", "empty": "skip", "reduce": partial(shrink_to_height, height=64)}


def dialect(path: Path) -> str:
    head = path.read_text(encoding="utf-8")[:1500]
    if year := re.search(r"pagecontent/(\d{4})-", head):
        return f"PAGE {year[1]}"
    found = re.search(r"alto-(\d)-(\d)\.xsd", head)
    assert found
    return f"ALTO {found[1]}.{found[2]}"


def check(reader: PageXml, row: Row) -> None:
    samples = list(reader)
    assert len(samples) == row.read
    assert Counter(skipped.kind for skipped in reader.skipped) == row.skipped
    assert Counter(reader.repaired.values()) == row.repaired
    turns = Counter(90 * round(reading_angle(entry.line) / 90) for entry in reader._entries)
    assert turns == (row.turns or {0: row.read})
    for sample in samples:
        assert sample.text.strip()
        assert "\n" not in sample.text
        assert 1 <= sample.image.shape[0] <= 64
        height, width = sample.image.shape
        assert len(sample.text) < 3 or width > 0.8 * height  # it reads from left to right


def test_no_file_is_missing_in_the_table(htr_data: Path) -> None:
    root = htr_data / "samples"
    files = {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.xml")}
    assert files == set(WITH_IMAGE) | set(WITHOUT_IMAGE)


@pytest.mark.parametrize("name", WITH_IMAGE)
def test_a_page_with_its_image_is_read(htr_data: Path, name: str) -> None:
    path, row = htr_data / "samples" / f"{name}.xml", WITH_IMAGE[name]
    assert dialect(path) == row.dialect
    if not row.read:
        with pytest.raises(InputError, match="no lines found"):
            PageXml(path.parent, xml=path.name, **OPTIONS)
        return
    check(PageXml(path.parent, xml=path.name, **OPTIONS), row)


@pytest.mark.parametrize("name", WITHOUT_IMAGE)
def test_a_page_without_its_image_is_refused_and_read_when_it_has_one(
    htr_data: Path, tmp_path: Path, name: str
) -> None:
    path, row = htr_data / "samples" / f"{name}.xml", WITHOUT_IMAGE[name]
    assert dialect(path) == row.dialect
    with pytest.raises(InputError, match=rf"{path.name}: no image .* put the image there"):
        PageXml(path.parent, xml=path.name, **OPTIONS)
    page = read_page(path)
    with pytest.raises(InputError, match=f"skipped: {len(page.lines)} x missing image"):
        PageXml(path.parent, xml=path.name, faulty="skip", **OPTIONS)
    (tmp_path / path.name).write_bytes(path.read_bytes())
    Image.new("L", (page.width, page.height), 230).save(tmp_path / f"{path.stem}.png", compress_level=1)
    if not row.read:
        with pytest.raises(InputError, match=f"no lines found.*skipped: {len(page.lines)} x line without text"):
            PageXml(tmp_path, **OPTIONS)
        return
    check(PageXml(tmp_path, **OPTIONS), row)


def test_a_folder_of_all_samples_reads_what_has_an_image_and_counts_the_rest(htr_data: Path) -> None:
    reader = PageXml(htr_data / "samples", faulty="skip", preload=False, **OPTIONS)
    assert len(reader) == sum(row.read for row in WITH_IMAGE.values())
    lines = sum(row.read + sum(row.skipped.values()) for row in WITHOUT_IMAGE.values())
    assert Counter(skipped.kind for skipped in reader.skipped) == {"missing image": lines}

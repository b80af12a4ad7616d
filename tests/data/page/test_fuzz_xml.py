"""Corrupted PAGE, ALTO and METS files yield lines or raise InputError, in limited time and memory."""

import random
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fuzz import check, refused, run
from PIL import Image

from htr_lightning.data.image import shrink_to_height
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.errors import InputError

SIZE = (300, 200)  # width, height of the page

PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2013-07-15">
<Metadata><Creator>x</Creator></Metadata>
<Page imageFilename="p.png" imageWidth="300" imageHeight="200" readingDirection="right-to-left">
<ReadingOrder><OrderedGroup id="g"><RegionRefIndexed index="1" regionRef="r1"/><OrderedGroupIndexed index="0" id="h">
<RegionRefIndexed index="0" regionRef="r2"/></OrderedGroupIndexed></OrderedGroup></ReadingOrder>
<TextRegion id="r1" custom="readingOrder {index:0;}"><Coords points="5,5 290,5 290,100 5,100"/>
<TextLine id="l1" custom="readingOrder {index:1;}"><Coords points="10,10 280,12 280,40 10,38"/>
<Baseline points="10,32 280,34"/><Word id="w"><TextEquiv><Unicode>un</Unicode></TextEquiv></Word>
<TextEquiv index="1"><Unicode>deux</Unicode></TextEquiv><TextEquiv index="0" conf="0.5"><Unicode>un
deux</Unicode></TextEquiv></TextLine>
<TextLine id="l2" custom="readingOrder {index:0;}"><Coords points=""/><Baseline points="10,60 150,58 280,62"/>
<TextEquiv><Unicode>رعاية و اخواتها</Unicode></TextEquiv></TextLine>
<TextRegion id="r3"><TextLine id="l3"><Coords><Point x="10" y="70"/><Point x="280" y="70"/><Point x="280" y="72"/>
</Coords><Baseline points="280,88 10,90"/><TextEquiv><Unicode>trois</Unicode></TextEquiv></TextLine></TextRegion>
</TextRegion>
<TableRegion id="t"><TableCell id="c"><TextLine id="l4"><Coords points="20,110 40,110 40,195 20,195"/>
<Baseline points="30,195 31,110"/><TextEquiv><Unicode>春秋曰</Unicode></TextEquiv></TextLine></TableCell></TableRegion>
<TextRegion id="r2" orientation="-90" readingOrientation="2"><TextLine id="l5" orientation="1.5">
<Coords points="100,110 280,190 270,195 90,130"/><Baseline points="95,125 275,192"/>
<TextEquiv><Unicode/></TextEquiv></TextLine><TextLine id="l6"><Coords points="50,110 90,110 90,195 50,195"/>
<Word id="v"><Glyph id="g"><TextEquiv><Unicode>u</Unicode></TextEquiv></Glyph></Word>
<Word id="x"><TextEquiv><PlainText>deux</PlainText></TextEquiv></Word></TextLine>
<TextEquiv><Unicode>all</Unicode></TextEquiv></TextRegion>
</Page></PcGts>"""

ALTO = """<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Description><MeasurementUnit>pixel</MeasurementUnit>
<sourceImageInformation><fileName>p.png</fileName></sourceImageInformation></Description>
<ReadingOrder><OrderedGroup ID="g"><ElementRef ID="e" REF="b2"/></OrderedGroup></ReadingOrder>
<Layout><Page WIDTH="300" HEIGHT="200" PHYSICAL_IMG_NR="1" ID="p"><PrintSpace WIDTH="300" HEIGHT="200">
<TextBlock ID="b1" ROTATION="180" BASEDIRECTION="rtl">
<TextLine ID="l1" BASELINE="10 32 280 34" HPOS="10" VPOS="10" WIDTH="270" HEIGHT="30"><Shape>
<Polygon POINTS="10 10 280 12 280 40 10 38"/></Shape><String CONTENT="un"/><SP/><String CONTENT="exem"
SUBS_TYPE="HypPart1" SUBS_CONTENT="exemple"/><HYP CONTENT="-"/></TextLine>
<TextLine ID="l2" BASELINE="60" HPOS="10" VPOS="45" WIDTH="270" HEIGHT="20"><String><Glyph CONTENT="p"/></String>
</TextLine>
</TextBlock>
<ComposedBlock ID="d"><TextLine ID="l5" HPOS="10" VPOS="150" WIDTH="270" HEIGHT="20"><HYP/></TextLine>
<TextBlock ID="b2"><TextLine ID="l3" BASELINE="10,90 280,92"><String CONTENT="trois"/></TextLine>
<TextLine ID="l4" BASELINE="280 128 10 120"><Shape><Polygon POINTS="10,100 280,108 280,130 10,126"/></Shape>
<String CONTENT="quatre"/></TextLine></TextBlock></ComposedBlock></PrintSpace></Page></Layout></alto>"""

METS = """<mets:mets xmlns:mets="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink"><mets:fileSec>
<mets:fileGrp USE="page"><mets:file ID="f1"><mets:FLocat LOCTYPE="URL" xlink:href="page.xml"/></mets:file>
<mets:file ID="f2"><mets:FLocat LOCTYPE="URL" xlink:href="alto.xml"/></mets:file></mets:fileGrp></mets:fileSec>
<mets:structMap TYPE="PHYSICAL"><mets:div><mets:div ORDER="2" TYPE="page"><mets:fptr FILEID="f1"/></mets:div>
<mets:div ORDER="1" TYPE="page"><mets:fptr><mets:area FILEID="f2"/></mets:fptr></mets:div></mets:div></mets:structMap>
</mets:mets>"""

SEEDS = {"page": PAGE.encode(), "alto": ALTO.encode(), "mets": METS.encode()}
VALUES = [
    *(b"", b"-1", b"0", b"nan", b"inf", b"1e308", b"-1e6", b"9" * 5000, b"0,0", b"1,1 1,1 1,1", b"5,5 250,5", b"1_0"),
    *(b"1,nan 2,2 3,3", b"5;5 250;5 250;99", b"5,1,5,1 250,0,5,0", "\u2028a\x85b&#13;".encode()),
    *(b"a&#10;b", b"../../etc/passwd", b"/", b"\xf0\x9f\x92\xa5", b"x" * 300, b"1e7,1e7 -1e7,1e7 1e7,-1e7", b"&e;"),
    *(b"&#0;", b"0x10", "٣,٤".encode(), b"299.99999,199.99999 300,200 300.0000001,200"),
]
NUMBER, ATTRIBUTE, TAG = rb"-?\d+\.?\d*", rb'"[^"]*"', rb"<[^>]+>"


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Corrupt a file in one to three places."""
    for _ in range(dice.choice([1, 1, 2, 3])):
        content = dice.choice(MUTATORS)(content, dice) or b"<"
    return content


def _place(pattern: bytes, content: bytes, dice: random.Random) -> slice:
    found = [match.span() for match in re.finditer(pattern, content)]
    return slice(*dice.choice(found)) if found else slice(0, 0)


def _put(content: bytes, at: slice, new: bytes) -> bytes:
    return content[: at.start] + new + content[at.stop :]


def _bytes(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content))
    return _put(content, slice(start, start + dice.randrange(3)), dice.randbytes(dice.randrange(4)))


def _cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content))]


def _piece(content: bytes, dice: random.Random) -> bytes:
    """Remove a piece of the file, or repeat it elsewhere."""
    start = dice.randrange(len(content))
    at = slice(start, start + dice.randrange(200))
    if dice.random() < 0.5:
        return _put(content, at, b"")
    return _put(content, slice(there := dice.randrange(len(content)), there), content[at])


def _tag(content: bytes, dice: random.Random) -> bytes:
    at = _place(TAG, content, dice)
    return _put(content, at, dice.choice([b"", content[at] * 2, content[_place(TAG, content, dice)]]))


def _element(content: bytes, dice: random.Random) -> bytes:
    """Remove, repeat or move a whole element."""
    at = _place(rb"(?s)<(\w+)\b[^>]*?(?:/>|>.*?</\1>)", content, dice)
    return _put(
        content, at, dice.choice([b"", content[at] * 2, content[at] * 50, b"<TextRegion>%b</TextRegion>" % content[at]])
    )


def _value(content: bytes, dice: random.Random) -> bytes:
    return _put(content, _place(ATTRIBUTE, content, dice), b'"%b"' % dice.choice(VALUES))


def _number(content: bytes, dice: random.Random) -> bytes:
    new = dice.choice([*VALUES, b"%d" % dice.randrange(-400, 400), b"%d" % dice.randrange(10**12)])
    return _put(content, _place(NUMBER, content, dice), new)


def _coordinates(content: bytes, dice: random.Random) -> bytes:
    """Scale the coordinates of all polygons, all baselines or both."""
    scale, which = (
        dice.choice([0.01, 0.5, 2, 40, -1]),
        dice.choice([rb"(?:points|POINTS)=", rb"(?:<Baseline points|BASELINE)="]),
    )
    return re.sub(
        which + ATTRIBUTE, lambda found: re.sub(NUMBER, lambda n: b"%.1f" % (scale * float(n[0])), found[0]), content
    )


def _nested(content: bytes, dice: random.Random) -> bytes:
    name, depth, at = (
        dice.choice([b"TextRegion", b"OrderedGroup", b"Unicode", b"x"]),
        dice.choice([3, 90, 200, 5000]),
        _place(TAG, content, dice),
    )
    return _put(content, slice(at.start, at.start), b"<%b>" % name * depth + b"</%b>" % name * depth)


def _entities(content: bytes, dice: random.Random) -> bytes:
    start = content.find(b"?>") + 2 if b"?>" in content else 0
    return _put(content, slice(start, start), b'<!DOCTYPE x [<!ENTITY e "%b">]>' % (b"e" * dice.choice([1, 10_000])))


MUTATORS = [_bytes, _cut, _piece, _tag, _nested, _entities]  # most results are not XML
MUTATORS += [_element, _value, _number, _coordinates] * 4


def read_mutated(folder: Path, seed: int) -> str:
    """Read a corrupted file with random options; return "read" or "refused", or raise any unexpected exception."""
    dice = random.Random(seed)
    for kind, content in SEEDS.items():
        (folder / f"{kind}.xml").write_bytes(content)
    kind = dice.choice(["page", "page", "alto", "alto", "mets"])
    (folder / f"{kind}.xml").write_bytes(mutated(SEEDS[kind], dice))
    policy = {"faulty": dice.choice(["error", *["skip"] * 7]), "empty": dice.choice(["error", "keep", *["skip"] * 6])}
    try:
        reader = PageXml(
            folder,
            xml=f"{kind}.xml",
            rotate=dice.choice(["reading", "deskew"]),
            preload=False,
            reduce=partial(shrink_to_height, height=64),
            **policy,
        )
        for sample, size in zip(reader, reader.sizes, strict=True):
            assert sample.image.dtype == np.uint8
            assert min(*sample.image.shape, *size) >= 1
            assert sample.image.shape[0] <= 64
            assert len(sample.id.splitlines()) == 1
            assert len(sample.text.splitlines()) <= 1
        return "read"
    except InputError as error:
        return refused(str(error))


def prepare(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, SIZE[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "p.png")
    return folder


def test_300_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    outcomes = Counter(read_mutated(folder, seed) for seed in range(300))
    assert min(outcomes["read"], outcomes["refused"]) > 60  # otherwise the corruption is too mild or too severe


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_20_000_mutated_files_are_read_or_refused_each_in_5_seconds_and_one_gigabyte(tmp_path: Path) -> None:
    check(__file__, 20_000, tmp_path)


if __name__ == "__main__":
    run(prepare, read_mutated, int(sys.argv[1]))

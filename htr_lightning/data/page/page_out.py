"""Transcribed pages as PAGE XML, ready to be corrected in the usual editors."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image, ImageOps

from htr_lightning import __version__
from htr_lightning.data.page.page import Line, Points
from htr_lightning.data.page.pagexml import text_equiv
from htr_lightning.data.page.xml import line_id, local, parse
from htr_lightning.errors import InputError
from htr_lightning.reading.transcribe import Reading, Source

NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"


def to_page_xml(source: Source, readings: Sequence[Reading]) -> bytes:
    """The page of a source with the text of its lines.

    A PAGE file keeps all it has; only the text of the lines that were read is replaced, and their words go, since
    they would contradict it. From ALTO or a lone image a PAGE 2019 file is made. A line that could not be read keeps
    the text it had.
    """
    if source.page is not None:
        root = parse(source.path)
        if local(root) == "PcGts":
            return _replaced(root, readings)
    return new_page(source, readings)


def _replaced(root: ElementTree.Element, readings: Sequence[Reading]) -> bytes:
    space = root.tag.removesuffix("PcGts")
    ElementTree.register_namespace("", space.strip("{}"))
    read = {reading.line.id: reading.transcription for reading in readings if reading.line is not None}
    elements = [e for e in root.iter() if local(e) == "TextLine"]
    for number, element in enumerate(elements, start=1):
        transcription = read.get(line_id(element, "id", number))
        if transcription is None:
            continue
        for old in [e for e in element if local(e) in ("Word", "TextEquiv")]:
            element.remove(old)
        _add_text(
            element, space, transcription.text, transcription.confidence, before=("TextStyle", "UserDefined", "Labels")
        )
    for region in [e for e in root.iter() if local(e) == "TextRegion"]:
        if (old_text := text_equiv(region)) is not None:
            region.remove(old_text)  # it repeated the old lines
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def new_page(source: Source, readings: Sequence[Reading]) -> bytes:
    """A PAGE 2019 file of a source with its lines; one that was not read has the text that the source gives it."""
    ElementTree.register_namespace("", NAMESPACE)
    space = f"{{{NAMESPACE}}}"
    page = source.page
    if page is not None:
        name, width, height = page.image or f"{source.path.stem}.jpg", page.width, page.height
    else:
        with Image.open(source.path) as image:
            name, (width, height) = source.path.name, ImageOps.exif_transpose(image).size
    root = ElementTree.Element(f"{space}PcGts")
    metadata = ElementTree.SubElement(root, f"{space}Metadata")
    ElementTree.SubElement(metadata, f"{space}Creator").text = f"htr_lightning {__version__}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for stamp in ("Created", "LastChange"):
        ElementTree.SubElement(metadata, f"{space}{stamp}").text = now
    body = ElementTree.SubElement(
        root, f"{space}Page", imageFilename=name, imageWidth=str(width), imageHeight=str(height)
    )
    whole = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
    regions: dict[str, ElementTree.Element] = {}
    for number, reading in enumerate(readings, start=1):
        if reading.line is None and page is not None:
            continue  # a page without lines
        line = reading.line or Line("line_1", "", whole, [], "region_1")
        region = regions.get(line.region)
        if region is None:
            region = ElementTree.SubElement(body, f"{space}TextRegion", id=line.region or f"region_{number}")
            ElementTree.SubElement(
                region, f"{space}Coords", points=_points(_box(_region_points(readings, line.region) or whole))
            )
            regions[line.region] = region
        element = ElementTree.SubElement(region, f"{space}TextLine", id=line.id)
        ElementTree.SubElement(element, f"{space}Coords", points=_points(line.polygon))
        if line.baseline:
            ElementTree.SubElement(element, f"{space}Baseline", points=_points(line.baseline))
        if reading.transcription is not None:
            _add_text(element, space, reading.transcription.text, reading.transcription.confidence)
        elif line.text:
            _add_text(element, space, line.text, None)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _add_text(
    element: ElementTree.Element, space: str, text: str, confidence: float | None, before: tuple[str, ...] = ()
) -> None:
    equiv = ElementTree.Element(f"{space}TextEquiv")
    if confidence is not None:
        equiv.set("conf", f"{confidence:.4f}")
    ElementTree.SubElement(equiv, f"{space}Unicode").text = text
    place = next((i for i, e in enumerate(element) if local(e) in before), len(element))
    element.insert(place, equiv)


def _region_points(readings: Sequence[Reading], region: str) -> Points:
    return [point for r in readings if r.line is not None and r.line.region == region for point in r.line.polygon]


def _box(corners: Points) -> Points:
    xs, ys = zip(*corners, strict=True)
    return [(min(xs), min(ys)), (max(xs), min(ys)), (max(xs), max(ys)), (min(xs), max(ys))]


def _points(corners: Points) -> str:
    return " ".join(f"{max(0, round(x))},{max(0, round(y))}" for x, y in corners)


def page_paths(sources: Sequence[Source], folder: Path) -> dict[Path, Path]:
    """Where the page of each source goes in a folder.

    Raises:
        InputError: a file exists already, or two sources have one name.
    """
    paths: dict[Path, Path] = {}
    for source in sources:
        path = folder / f"{source.path.stem}.xml"
        if path.exists():
            raise InputError(f"{path}: exists already and is not overwritten; choose another --out")
        if path in paths.values():
            raise InputError(
                f"{path}: two files would be written there, one of them for {source.path}; read them apart"
            )
        paths[source.path] = path
    return paths


def write_page(source: Source, readings: Sequence[Reading], path: Path) -> Path:
    """Write a source's page.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_page_xml(source, readings))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; choose another --out") from None
    return path

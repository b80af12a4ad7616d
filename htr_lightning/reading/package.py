"""Pack transcribed pages with their images and a METS file, as eScriptorium and Transkribus import them.

Does not import torch.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from htr_lightning.data.files import nfc
from htr_lightning.data.page.write_alto import set_image
from htr_lightning.data.page.write_mets import GROUPS, new_mets
from htr_lightning.data.page.written import now
from htr_lightning.data.page.xml import child, parse_document
from htr_lightning.errors import InputError
from htr_lightning.output import replacing
from htr_lightning.reading.sources import Source

SUFFIX = ".zip"
METS = "mets.xml"


def check_package(path: Path, sources: Sequence[Source], form: str) -> None:
    """Raise InputError if pages cannot be packed: in another format, or with several images of one name.

    Args:
        path: path of the archive.
        sources: pages to be packed.
        form: format of the pages.
    """
    if form not in GROUPS:
        raise InputError(f"--out {path}: editors import PAGE and ALTO; add --format page or --format alto")
    if path.exists():
        raise InputError(f"{path}: file already exists; choose another --out")
    seen: dict[str, Source] = {}
    for source in sources:
        stem = nfc(Path(source.image).stem).casefold()
        if isinstance(source.image, Path) and seen.setdefault(stem, source) is not source:
            raise InputError(f"--out {path}: {seen[stem].image} and {source.image} would have the same name; pack "
                             "them separately")  # fmt: skip


def write_package(path: Path, pages: Sequence[tuple[Path, Path]], form: str) -> None:
    """Write a zip archive with the images, their PAGE or ALTO files in a folder, and a METS file.

    An image comes before its XML file, which eScriptorium would not accept otherwise, and both have the same name,
    as Transkribus expects. All are dated as the XML files are (see `now`), so that archives can be reproduced.

    Args:
        path: path of the archive.
        pages: image and XML file of each page, in order.
        form: "page" or "alto".

    Raises:
        InputError: if a file cannot be read or written.
    """
    names = [(image.name, f"{form}/{image.stem}.xml") for image, _ in pages]
    date = datetime.fromisoformat(now()).timetuple()[:6]
    date = min(max(date, (1980, 1, 1, 0, 0, 0)), (2107, 12, 31, 23, 59, 58))  # what archives can state
    with replacing(path) as beside, ZipFile(beside, "w") as archive:
        for (image, xml), (image_name, xml_name) in zip(pages, names, strict=True):
            archive.writestr(ZipInfo(image_name, date), image.read_bytes())
            archive.writestr(ZipInfo(xml_name, date), _named(xml, image_name), ZIP_DEFLATED)
        archive.writestr(ZipInfo(METS, date), new_mets(names, form), ZIP_DEFLATED)


def _named(xml: Path, image: str) -> bytes:
    """Return a PAGE or ALTO file with the name of its image, by which editors find it."""
    document = parse_document(xml)
    root = document.root
    if (page := child(root, "Page")) is not None:
        page.set("imageFilename", image)
    else:
        set_image(root, image)
    return document.written()

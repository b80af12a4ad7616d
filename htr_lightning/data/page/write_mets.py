"""Write METS files (https://www.loc.gov/standards/mets) that list the pages of an export."""

import mimetypes
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent

from htr_lightning.data.page.written import SOFTWARE, now
from htr_lightning.data.page.xml import Document
from htr_lightning.version import __version__

NAMESPACE, XLINK = "http://www.loc.gov/METS/", "http://www.w3.org/1999/xlink"
GROUPS = {"page": "PAGEXML", "alto": "ALTO"}  # as Transkribus names them


def new_mets(pages: Sequence[tuple[str, str]], form: str) -> bytes:
    """Return a METS file that eScriptorium and Transkribus read: their ids and types, and both kinds of pointers.

    Args:
        pages: names of the image and of the XML file of each page, relative to the METS file.
        form: "page" or "alto".
    """
    root = Element("mets", {"xmlns": NAMESPACE, "xmlns:xlink": XLINK})
    agent = SubElement(
        SubElement(root, "metsHdr", CREATEDATE=now()), "agent", ROLE="CREATOR", TYPE="OTHER", OTHERTYPE="SOFTWARE"
    )
    SubElement(agent, "name").text = f"{SOFTWARE} {__version__}"
    master = SubElement(SubElement(root, "fileSec"), "fileGrp", ID="MASTER")
    groups = [
        (SubElement(master, "fileGrp", ID="IMG", USE="image"), "IMG"),
        (SubElement(master, "fileGrp", ID=GROUPS[form], USE=form), GROUPS[form]),
    ]
    structure = SubElement(root, "structMap", ID="TRP_STRUCTMAP", TYPE="PHYSICAL")
    whole = SubElement(structure, "div", ID="TRP_DOC_DIV", TYPE="document")
    for number, names in enumerate(pages, start=1):
        page = SubElement(whole, "div", ID=f"PAGE_{number}", ORDER=str(number), TYPE="page")
        for (group, kind), name in zip(groups, names, strict=True):
            id = f"{kind}_{number}"
            media = mimetypes.guess_type(name)[0] or "application/octet-stream"
            file = SubElement(group, "file", ID=id, SEQ=str(number), MIMETYPE=media)
            place = {"LOCTYPE": "OTHER", "OTHERLOCTYPE": "FILE", "xlink:type": "simple", "xlink:href": name}
            SubElement(file, "FLocat", place)
            SubElement(SubElement(page, "fptr", FILEID=id), "area", FILEID=id)
    indent(root)
    return Document("", root, "").written()

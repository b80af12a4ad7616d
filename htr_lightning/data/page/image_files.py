"""Find the images of pages by the file names in XML files."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from htr_lightning.data.files import FileIndex, is_inside
from htr_lightning.data.image import SUFFIXES
from htr_lightning.data.page.xml import short
from htr_lightning.errors import InputError

XML_FOLDERS = ("page", "alto", "xml")  # exports usually keep the images in the parent of such a folder


class ImageFinder:
    """A lookup of page images.

    File names in XML files are untrusted and cannot lead outside `root`. See `FileIndex` for how names are compared.

    Args:
        root: folder of the data set; None for files outside a data set, whose names may lead to the folder above that
            of the XML file.
        folder: folder that contains all images; None searches near each XML file.
        given: without `root`, a folder in which names may lead anywhere.
    """

    def __init__(self, root: Path | None = None, folder: Path | None = None, given: Path | None = None) -> None:
        self.root, self.folder, self.given = root, folder, given and given.absolute()
        self._index = FileIndex()
        self._places: dict[Path, tuple[list[Path], list[Path], Path]] = {}  # by folder of the XML files

    def find(self, xml: Path, name: str) -> Path:
        """Return the path of the image of a page.

        A name with folders is looked up as written, from the folder of the XML file and from each folder above it. If
        there is no such file, the last component of the name and then the stem of the XML file are looked up in the
        folder of the XML file, and in its parent if the folder is called page, alto or xml.

        Args:
            xml: path to the XML file.
            name: file name of the image in the XML file, or "".

        Raises:
            InputError: if the image is not found.
        """
        if xml.parent not in self._places:
            self._places[xml.parent] = self._places_near(xml.parent)
        near, starts, top = self._places[xml.parent]
        names = [parts for one in dict.fromkeys((name, unquote(name))) if (parts := _parts(one))]
        last = list(dict.fromkeys(parts[-1] for parts in names))
        written = [(start, "/".join(parts)) for parts in names if len(parts) > 1 for start in starts]
        for start, path in written:
            if is_inside(start / path, [top]) and (found := self._index.find(start, path)):
                return found
        for start in near:
            for path, endings in [*((one, ("",)) for one in last), (xml.stem, SUFFIXES)]:
                if found := self._index.find(start, path, endings):
                    return found
        tried = " or ".join(f"'{short(one)}'" for one in [*last[:1], f"{xml.stem}.*"])
        message = f"{xml}: no image {tried} found in {' or '.join(map(str, near))}"
        if written:
            message += f", nor '{short(name)}' from there up to {top}"
        elsewhere = ", or set data.reader.images to the folder of the images" if self.root else ""
        raise InputError(f"{message}; put the image there{elsewhere}")

    def _places_near(self, folder: Path) -> tuple[list[Path], list[Path], Path]:
        """Return where to look up the images of XML files in a folder: by name, by path, and how far up."""
        here = folder if self.root else Path(os.path.abspath(folder))
        above = self.given if self.given and here.parent.is_relative_to(self.given) else here.parent
        top = self.folder or self.root or above
        if self.folder:
            return [self.folder], [self.folder], top
        return [here, here.parent][: 1 + (here.name.lower() in XML_FOLDERS)], _upwards(here, top), top


def _upwards(folder: Path, top: Path) -> list[Path]:
    """Return a folder and the folders above it up to `top`."""
    return [one for one in (folder, *folder.parents) if one == folder or one.is_relative_to(top)]


def _parts(name: str) -> list[str]:
    """Return the components of a file name; only the last one of an absolute path or a URL."""
    name = name.strip().removeprefix("file://").replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return parts[-1:] if re.match(r"/|[A-Za-z]:|\w+://", name) else parts

"""Choose the page files of a data set, one for each page."""

import re
import shlex
from pathlib import Path

from htr_lightning.data.files import files_below, matches
from htr_lightning.data.page.image_files import ImageFinder
from htr_lightning.data.page.selection import Selection, select_pages
from htr_lightning.data.page.twins import choices, overlapping, same_image, told
from htr_lightning.errors import InputError


def choose_pages(root: Path, xml: str, exclude: str | None, finder: ImageFinder) -> tuple[Selection, list[list[Path]]]:
    """Return the pages below a folder, and the groups of files that describe different parts of one image.

    Args:
        root: folder of the data set.
        xml: glob pattern for the files to read, relative to `root`.
        exclude: glob pattern for files to leave out, relative to `root`.
        finder: lookup of the images.

    Raises:
        InputError: if several files describe the same lines, or a METS file is invalid.
    """

    def is_excluded(path: Path) -> bool:
        return exclude is not None and matches(path.relative_to(root), exclude)

    files = [path for path in files_below(root) if not is_excluded(path)]
    matching = [path for path in files if matches(path.relative_to(root), xml)]
    chosen = select_pages(matching, finder, lambda path: not is_excluded(path))
    if chosen.faults:
        raise InputError(chosen.faults[0])
    parts = same_image({path: chosen.images[path] for path in chosen.pages if path in chosen.images})
    if twins := chosen.rivals or [found for group in parts if (found := overlapping(group))]:
        candidates = [path for path in files if path.suffix.lower() == ".xml" and path not in chosen.others]
        options = [
            _override("exclude" if excluding else "xml", pattern)
            for pattern, excluding in choices(root, candidates, chosen.pages, twins)
            if not (excluding and exclude)
        ]
        raise InputError(
            f"{root}: {told(root, twins, chosen.images)}; select one file for each page with data.reader.xml=PATTERN "
            "or data.reader.exclude=PATTERN" + (f", e.g. with {' or '.join(options)}" if options else "")
        )
    return chosen, parts


def _override(key: str, pattern: str) -> str:
    """Return an override of a key of the reader, quoted for Hydra and the shell."""
    value = pattern if re.fullmatch(r"[\w./*?+@-]+", pattern, re.ASCII) else '"{}"'.format(pattern.replace('"', r"\""))
    return shlex.quote(f"data.reader.{key}={value}")

"""Find the files of a data set."""

import os
from pathlib import Path

from htr_lightning.errors import InputError


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted by path.

    Hidden files and folders are excluded, because they are created by operating systems and editors rather than by
    people: `._x.png` on macOS, `.ipynb_checkpoints`, `.git`. Symbolic links are followed. A folder that can be reached
    by several paths is listed once, under a path without links if there is one.

    Raises:
        InputError: if a folder cannot be read, or a symbolic link leads to a folder that contains it.
    """
    found: list[Path] = []
    visited: set[Path] = set()
    starts = [folder]
    while starts:
        start = starts.pop(0)
        if start.is_symlink() and start.parent.resolve().is_relative_to(start.resolve()):
            raise InputError(f"{start}: symbolic link to a folder that contains it; remove the link")
        for where, folders, names in os.walk(start, onerror=_refuse):
            here = Path(where)
            if here.resolve() in visited:
                folders.clear()
                continue
            visited.add(here.resolve())
            folders[:] = [name for name in folders if not name.startswith(".")]
            starts += [here / name for name in folders if (here / name).is_symlink()]
            found += [here / name for name in names if not name.startswith(".")]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror}); check the path and its permissions")

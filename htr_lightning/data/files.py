"""Find the files of a data set."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from hashlib import file_digest
from pathlib import Path, PurePath, PurePosixPath
from typing import NoReturn
from unicodedata import normalize

from htr_lightning.errors import InputError


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; raise OSError if it cannot be read."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted by path.

    Hidden files and folders are excluded, because they are created by operating systems and editors rather than by
    people: `._x.png` on macOS, `.ipynb_checkpoints`, `.git`. Pipes, sockets and devices are excluded, because reading
    them may never end. Symbolic links are followed. A folder that can be reached by several paths is listed once, under
    a path without links if there is one.

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
            real = here.resolve()
            if real in visited:
                folders.clear()
                continue
            visited.add(real)
            folders[:] = [name for name in folders if not name.startswith(".")]
            starts += [here / name for name in folders if (here / name).is_symlink()]
            regular = _regular(where)
            found += [
                here / name
                for name in names
                if not name.startswith(".") and (name in regular or not is_special(here / name))
            ]
    return sorted(found, key=lambda path: path.parts)  # four times as fast as comparing paths


def _regular(folder: str) -> set[str]:
    """Return the names of the regular files in a folder, as the folder states them, without a look at each file."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}


class PerFolder:
    """A function that makes the path of a file absolute or real, and looks at each folder only once.

    Args:
        function: `os.path.abspath` or `os.path.realpath`.
    """

    def __init__(self, function: Callable[[str], str]) -> None:
        self.function = function
        self._folders: dict[str, str] = {}

    def __call__(self, path: Path) -> str:
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = self.function(folder or ".")
        found = os.path.join(self._folders[folder], name)
        return self.function(found) if os.path.islink(found) else found


class FileIndex:
    """A lookup of files by name that lists each folder once.

    Names match in any Unicode form, and in upper and lower case unless two files in a folder differ only in case.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[dict[str, Path], dict[str, Path | None]]] = {}

    def find(self, folder: Path, name: str, endings: Sequence[str] = ("",)) -> Path | None:
        """Return the file at a path relative to a folder, with the first ending for which there is one, or None."""
        *folders, last = [part for part in name.split("/") if part not in ("", ".")] or [""]
        for part in folders:
            if part == "..":
                inside: Path | None = folder.parent if folder.name not in ("", "..") else folder / ".."
            else:
                inside = next(self._look_up(folder, part), None)
            if inside is None:
                return None
            folder = inside
        return next((path for path in self._look_up(folder, last, endings) if path.is_file()), None)

    def _look_up(self, folder: Path, name: str, endings: Sequence[str] = ("",)) -> Iterator[Path]:
        exact, folded = self._list(folder)
        composed = nfc(name)
        key = composed.casefold()
        for ending in endings:
            if key + ending in folded:
                found = exact.get(name + ending) or exact.get(composed + ending) or folded[key + ending]
                if found is not None:
                    yield found

    def _list(self, folder: Path) -> tuple[dict[str, Path], dict[str, Path | None]]:
        """Return the paths in a folder by name, and by name without case, with None for ambiguous names."""
        if folder not in self._folders:
            exact: dict[str, Path] = {}
            folded: dict[str, Path | None] = {}
            try:
                names = sorted(os.listdir(folder)) if folder.is_dir() else []
            except OSError as error:
                _refuse(error)
            for name in names:
                exact[name] = folder / name
                exact.setdefault(nfc(name), folder / name)
                key = nfc(name).casefold()
                folded[key] = None if key in folded else folder / name
            self._folders[folder] = exact, folded
        return self._folders[folder]


def nfc(text: str) -> str:
    """Return a text with composed characters, so that names on disk and names in files can be compared."""
    return normalize("NFC", text)


def read_utf8(path: Path) -> str:
    """Read a UTF-8 text file, dropping its byte order mark if it has one.

    Raises:
        InputError: if the file cannot be read, or is not UTF-8 text.
    """
    if is_special(path):
        raise InputError(f"{path}: not a regular file; replace it with a text file")
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check data.root and data.reader") from None
    except UnicodeDecodeError as error:
        found = "UTF-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else f"not UTF-8 (at byte {error.start})"
        raise InputError(f"{path}: {found}; save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{path}: contains NUL bytes, like a UTF-16 or binary file; save it as UTF-8")
    return text


def matches(path: PurePath, pattern: str) -> bool:
    """Return whether a relative path matches a glob pattern.

    `**` matches any number of folders, including none. Composed and decomposed characters are equal, and so are upper
    and lower case in the ending of the file name unless the pattern has an ending in upper case.

    Args:
        path: relative path.
        pattern: glob pattern; `*`, `?` and `[...]` match within a file or folder name.
    """
    wanted = PurePosixPath(nfc(pattern)).parts
    names = PurePosixPath(nfc(path.as_posix()))
    return any(_match(one.parts, wanted) for one in (names, names.with_name(names.stem + names.suffix.lower())))


def is_inside(path: Path, folders: Sequence[Path]) -> bool:
    """Return whether a path as written, without following symbolic links, leads into any of the given folders."""
    absolute = Path(os.path.abspath(path))
    return any(absolute.is_relative_to(os.path.abspath(folder)) for folder in folders)


def twins(paths: Sequence[Path]) -> list[int | None]:
    """Return, for each path, the index of an earlier path to the same file, or None. Hard links are different files."""
    first: dict[tuple[int, int], int] = {}
    found: list[int | None] = []
    for index, path in enumerate(paths):
        try:
            state = path.stat()
        except OSError:  # a link to a missing file, which is reported when it is read
            found.append(None)
            continue
        other = first.setdefault((state.st_dev, state.st_ino), index)
        found.append(other if other < index and paths[other].resolve() == path.resolve() else None)
    return found


def is_special(path: Path) -> bool:
    """Return whether a path is a pipe, a socket or a device, from which reading may never end."""
    try:
        mode = path.stat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    except OSError:  # a link to a missing file, which is reported when it is read
        return False


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror}); check the path and its permissions")


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_match(names[start:], patterns[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _match(names[1:], patterns[1:])

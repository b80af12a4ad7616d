"""Unpack zip archives of exported pages: into the user's cache, once per archive, or into a given folder."""

import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo, is_zipfile

from htr_lightning.errors import InputError

MAX_FILES = 1_000_000
MAX_RATIO = 100  # maximum compression ratio; scans hardly compress, and XML compresses about twentyfold
ALWAYS = 1_000_000_000  # unpacked size in bytes up to which archives are accepted whatever their ratio


def unpack(path: Path) -> Path:
    """Unpack a zip archive into the cache and return the innermost folder that contains all of its files.

    Raises:
        InputError: see `extract`.
    """
    import pooch  # comes with htr-lightning[train]; `extract` does without

    with _opened(path) as (archive, members):
        contents = "\n".join(f"{m.filename} {m.file_size} {m.CRC}" for m in members)
        cache = Path(pooch.os_cache("htr_lightning")) / "archives"
        folder = cache / sha256(contents.encode("utf-8", "surrogateescape")).hexdigest()[:20]
        if not folder.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            _extract(path, archive, members, folder)
    return _innermost(folder)


def extract(path: Path, folder: Path) -> Path:
    """Unpack a zip archive into a folder that does not exist, and return the innermost one that contains all files.

    Raises:
        InputError: if the archive is corrupted or encrypted, contains a link, a path that leads outside it or the same
            path twice, is a zip bomb, or does not fit on the disk.
    """
    with _opened(path) as (archive, members):
        _extract(path, archive, members, folder)
    return _innermost(folder)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ZipFile, list[ZipInfo]]]:
    try:
        with ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not _is_litter(member.filename)]
            _check(path, members)
            yield archive, members
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise InputError(f"{path}: the archive is corrupted or unsupported ({error}); recreate it") from None
    except RuntimeError:
        raise InputError(f"{path}: the archive is encrypted; unpack it manually") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({error.strerror}); unpack it manually") from None


def _innermost(folder: Path) -> Path:
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _check(path: Path, members: list[ZipInfo]) -> None:
    packed, size = path.stat().st_size, sum(member.file_size for member in members)
    if len(members) > MAX_FILES or size > max(ALWAYS, MAX_RATIO * packed):
        raise InputError(
            f"{path}: {packed} bytes would unpack to {len(members)} files and {size} bytes; if this is correct, unpack "
            "it manually and set data.root to the folder"
        )
    seen: set[PurePosixPath] = set()
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or any(part.endswith(":") for part in name.parts):
            raise InputError(f"{path}: a path leads outside the archive ({member.filename!a}); recreate it")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(f"{path}: contains a symbolic link ({member.filename!a}); recreate it with the files")
        if name in seen and not member.is_dir():
            raise InputError(f"{path}: contains {member.filename!a} twice; recreate it")
        seen.add(name)


def _is_litter(name: str) -> bool:
    """Return whether a file is metadata that macOS adds to archives."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or (bool(parts) and (parts[-1].startswith("._") or parts[-1] == ".DS_Store"))


def _extract(path: Path, archive: ZipFile, members: list[ZipInfo], folder: Path) -> None:
    """Unpack into a temporary folder and rename it, because another process may be unpacking the same archive."""
    if (free := shutil.disk_usage(folder.parent).free) < (size := sum(member.file_size for member in members)):
        raise InputError(
            f"{path}: unpacks to {size} bytes, but {folder.parent} has only {free} bytes free; unpack it manually"
        )
    beside = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        archive.extractall(beside, members)
        os.rename(beside, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def folder(root: Path) -> Path:
    """Return `root` if it is a folder; if it is a zip archive, unpack it and return the resulting folder.

    Raises:
        InputError: if `root` is neither a folder nor a zip archive, or cannot be unpacked.
    """
    if root.is_file():
        if not is_zipfile(root):
            raise InputError(
                f"{root}: neither a folder nor a zip archive; set data.root to the folder containing the pages"
            )
        return unpack(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; set data.root to the folder containing the pages")
    return root


def name(root: Path) -> str:
    """Return the name of a folder, or of an archive without its ending."""
    return root.stem if root.is_file() else root.resolve().name

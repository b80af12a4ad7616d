"""Zip archives of an export, unpacked once into the cache of the user."""

import os
import shutil
import tempfile
import zlib
from hashlib import sha256
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo, is_zipfile

import pooch

from htr_lightning.errors import InputError

MAX_FILES = 1_000_000
MAX_RATIO = 100  # of unpacked to packed size; scans hardly shrink and XML shrinks to a twentieth
ALWAYS = 1_000_000_000  # bytes that are unpacked at any ratio


def unpack(path: Path) -> Path:
    """The folder of a zip archive's files; if they are all in one folder, that one.

    Raises:
        InputError: the archive is damaged, encrypted, names a file outside itself, or is a zip bomb.
    """
    try:
        with ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not _is_litter(member.filename)]
            _check(path, members)
            contents = "\n".join(f"{m.filename} {m.file_size} {m.CRC}" for m in members)
            cache = Path(pooch.os_cache("htr_lightning")) / "archives"
            folder = cache / sha256(contents.encode("utf-8", "surrogateescape")).hexdigest()[:20]
            if not folder.is_dir():
                cache.mkdir(parents=True, exist_ok=True)
                if (free := shutil.disk_usage(cache).free) < (size := sum(m.file_size for m in members)):
                    raise InputError(f"{path}: unpacks to {size} bytes, but {cache} has {free} free; unpack it by hand")
                _extract(archive, members, folder)
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise InputError(f"{path}: the archive is damaged or of an unknown kind ({error}); zip it again") from None
    except RuntimeError:
        raise InputError(f"{path}: the archive is encrypted; unpack it by hand") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({error.strerror}); unpack it by hand") from None
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _check(path: Path, members: list[ZipInfo]) -> None:
    packed, size = path.stat().st_size, sum(member.file_size for member in members)
    if len(members) > MAX_FILES or size > max(ALWAYS, MAX_RATIO * packed):
        raise InputError(
            f"{path}: {packed} bytes would unpack to {len(members)} files of {size} bytes; if that is right, unpack "
            "it by hand and set data.root to the folder"
        )
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or any(part.endswith(":") for part in name.parts):
            raise InputError(f"{path}: names a file outside itself ({member.filename!a}); zip it again")


def _is_litter(name: str) -> bool:
    """Whether a file is one that macOS adds to every archive."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or (bool(parts) and (parts[-1].startswith("._") or parts[-1] == ".DS_Store"))


def _extract(archive: ZipFile, members: list[ZipInfo], folder: Path) -> None:
    """Unpack beside the folder, then rename it: another process may be doing the same."""
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
    """The folder that `data.root` names, or that of the files of a zip archive.

    Raises:
        InputError: it is neither of them, or the archive cannot be unpacked.
    """
    if root.is_file():
        if not is_zipfile(root):
            raise InputError(f"{root}: neither a folder nor a zip archive; set data.root to where the pages are")
        return unpack(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; set data.root to where the pages are")
    return root

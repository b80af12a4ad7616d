"""Open data sets fetched once, at a pinned revision and checked."""

from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import pooch

from htr_lightning.errors import InputError


def archive(url: str, name: str, files: str, digest: str) -> Path:
    """Download and unpack a zip archive of a repository at a commit, and check the files in it.

    The archive that a forge makes of a commit is not the same to the byte for ever, so what is checked is its content:
    of a set of pages the XML files, which hold the texts and say how large each image is.

    Args:
        url: of the archive; it names the commit.
        name: of the folder in the user's cache.
        files: glob of the files to check below the archive's one folder.
        digest: see `digest_files`.

    Raises:
        InputError: there is no network, or the content is not the expected one.
    """
    folder = pooch.os_cache("htr_lightning") / name
    try:
        unpacked = pooch.retrieve(url, known_hash=None, path=folder, fname=f"{name}.zip",
                                  processor=pooch.Unzip(extract_dir="files"), progressbar=False)  # fmt: skip
    except (OSError, ValueError, BadZipFile) as error:
        raise InputError(
            f"{url}: not downloaded ({str(error).splitlines()[0]}); fetch it by hand and set data.root"
        ) from None
    root = folder / "files" / Path(unpacked[0]).relative_to(folder / "files").parts[0]
    if (found := digest_files(root, files)) != digest:
        raise InputError(
            f"{root}: the content is not the expected one (sha256 {found}); delete the folder and try again"
        )
    return root


def digest_files(root: Path, files: str) -> str:
    """SHA-256 over the names and contents of files, in the order of their names."""
    digest = sha256()
    for path in sorted(root.glob(files), key=lambda path: path.name):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def text_file(url: str, name: str, remedy: str) -> Path:
    """Download one small file, once.

    Its content is for the caller to check, which knows what has to be in it.

    Args:
        url: of the file; it names the commit.
        name: in the user's cache.
        remedy: what a user does who fetched it by hand.

    Raises:
        InputError: there is no network, or no such file.
    """
    try:
        return Path(pooch.retrieve(url, known_hash=None, path=pooch.os_cache("htr_lightning"), fname=name))
    except (OSError, ValueError) as error:
        raise InputError(f"{url}: not downloaded ({str(error).splitlines()[0]}); fetch it by hand {remedy}") from None

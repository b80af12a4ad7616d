"""Open data sets fetched once, at a pinned revision and checked."""

import re
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import pooch

from htr_lightning.errors import InputError


def archive(url: str, name: str, files: str, digest: str | None, root: str | Path | None = None) -> Path:
    """Download and unpack a zip archive of a repository at a commit, and check the files in it.

    The archive that a forge makes of a commit is not byte-for-byte stable, so its content is checked instead: for
    a set of pages the XML files, which hold the texts and the size of each image.

    Args:
        url: of the archive; it names the commit.
        name: of the folder in the user's cache.
        files: glob of the files to check, below the only folder of the archive.
        digest: see `digest_files`; None: not known, the commit is trusted.
        root: a folder or archive that holds the data already; it is returned as it is.

    Raises:
        InputError: it cannot be downloaded, or the content is not the expected one.
    """
    if root is not None:
        return Path(root)
    folder: Path = pooch.os_cache("htr_lightning") / name
    try:
        unpacked = pooch.retrieve(url, known_hash=None, path=folder, fname=f"{name}.zip",
                                  processor=pooch.Unzip(extract_dir="files"), progressbar=False)  # fmt: skip
    except (OSError, ValueError, BadZipFile) as error:
        raise InputError(
            f"{url}: not downloaded ({str(error).splitlines()[0]}); download it by hand and set data.root"
        ) from None
    content = folder / "files" / Path(unpacked[0]).relative_to(folder / "files").parts[0]
    if digest is not None and (found := digest_files(content, files)) != digest:
        raise InputError(
            f"{content}: the content is not the expected one (sha256 {found}); delete the folder and try again"
        )
    return content


def repository(repo: str, revision: str | None, digest: str | None = None) -> Path:
    """Download a GitHub repository at a commit; see `archive`.

    Raises:
        InputError: the repository or the commit is not a valid name, or cannot be downloaded.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise InputError(f"data.repo={repo}: give OWNER/NAME, as in data.repo=HTR-United/CREMMA-MSS-20")
    if revision is None or not re.fullmatch(r"[0-9a-f]{7,40}", revision):
        given = "is not set" if revision is None else f"= {revision}"
        raise InputError(
            f"data.reader.fetch.revision {given}: name a commit of {repo}, so that every run reads the same data; "
            f"https://github.com/{repo}/commits lists them"
        )
    name = f"{repo.replace('/', '_')}_{revision[:7]}"
    return archive(f"https://github.com/{repo}/archive/{revision}.zip", name, "**/*.xml", digest)


def digest_files(root: Path, files: str) -> str:
    """SHA-256 of the names and contents of files, sorted by name, then by folder."""
    digest = sha256()
    for path in sorted(root.glob(files), key=lambda path: (path.name, path.as_posix())):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def text_file(url: str, name: str, remedy: str) -> Path:
    """Download one small file, once.

    The caller checks its content.

    Args:
        url: of the file; it names the commit.
        name: in the user's cache.
        remedy: what to do after downloading it by hand.

    Raises:
        InputError: it cannot be downloaded.
    """
    try:
        return Path(pooch.retrieve(url, known_hash=None, path=pooch.os_cache("htr_lightning"), fname=name))
    except (OSError, ValueError) as error:
        raise InputError(f"{url}: not downloaded ({str(error).splitlines()[0]}); get it by hand {remedy}") from None

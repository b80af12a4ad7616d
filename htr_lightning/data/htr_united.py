"""Download PAGE or ALTO files from repositories in the HTR-United catalogue (https://htr-united.github.io)."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from htr_lightning.data import archive, download
from htr_lightning.data.files import FileIndex, files_below
from htr_lightning.errors import InputError, printable
from htr_lightning.yaml_file import load_yaml

# Repositories at a pinned commit: name, commit, and digest of the XML files (see `download.digest_files`), or None.
KNOWN: dict[str, tuple[str, str | None]] = {
    "HTR-United/CREMMA-MSS-20": ("024e6bd07eebd6ccd7f3b5b241a81bb78688e7d3", None),  # 13 pages, 224 lines
    "HTR-United/CREMMA-AN-TestamentsDePoilus": ("8ffa4a8", None),
}
CATALOGUES = ("htr-united.yml", "htr-united.yaml", "METADATA.yml", "METADATA.yaml")  # the schemas are alike
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "LICENCE.md", "LICENCE.txt")
LONGEST = 300  # characters of a title, name or licence
MANY = 10  # people or licences


def fetch(root: str | Path | None = None, repo: str | None = None, revision: str | None = None) -> Path:
    """Return the folder of a repository, downloading it if necessary, and print its licence and citation once.

    Args:
        root: folder or zip archive of any repository; None downloads the repository.
        repo: OWNER/NAME of the repository on GitHub to download.
        revision: commit to download; None uses the commit in `KNOWN`.

    Raises:
        InputError: if neither `root` nor `repo` is given, `root` is invalid, or the commit is unknown or cannot be
            downloaded.
    """
    if root is not None:
        folder = archive.folder(Path(root))
        name, url = archive.name(Path(root)), ""
    elif repo is not None:
        known, digest = KNOWN.get(repo, (None, None))
        folder = download.repository(repo, revision or known, digest if revision in (None, known) else None)
        name, url = repo, f"https://github.com/{repo}"
    else:
        raise InputError(
            "data.repo is not set; set it to a repository (data.repo=OWNER/NAME), or set data.root to a local copy"
        )
    if any(path.suffix.lower() == ".xml" for path in files_below(folder)):
        _print_terms(folder, name, url)
    return folder


@cache
def _print_terms(folder: Path, name: str, url: str) -> None:
    print(terms(folder, name, url), file=sys.stderr)


def terms(folder: Path, name: str, url: str = "") -> str:
    """Return the licence and citation of a repository, from its catalogue entry, citation file or licence file.

    Args:
        folder: folder of the repository.
        name: name of the repository.
        url: where it was downloaded from, used if the files contain neither a DOI nor an address.

    Raises:
        InputError: if the catalogue entry or the citation file is not valid YAML.
    """
    index = FileIndex()
    entry = next(filter(None, (_mapping(index.find(folder, file)) for file in CATALOGUES)), {})
    cited = _mapping(index.find(folder, "CITATION.cff"))
    licences = _several(entry.get("license"), _licence) or _several(cited.get("license"), _licence)
    if not licences:
        licences = next(filter(None, (_first_line(index.find(folder, file)) for file in LICENCES)), "")
    people = _several(cited.get("authors"), _person) or _several(entry.get("authors"), _person)
    title = _text(entry.get("title")) or _text(cited.get("title")) or name
    where = next(filter(None, map(_text, (cited.get("doi"), entry.get("url"), cited.get("url"), url))), "")
    return (
        printable(f"{name}: licence {licences or 'not stated; ask the authors'}")
        + "\n"
        + printable(f"{name}: cite {people + ': ' if people else ''}{title}. {where}".rstrip())
    )


def _mapping(path: Path | None) -> dict[str, Any]:
    """Return the mapping in a YAML file, or {} if there is no file or it contains no mapping."""
    content = None if path is None else load_yaml(path)
    return content if isinstance(content, dict) else {}


def _several(value: Any, describe: Callable[[Any], str]) -> str:
    """Join the descriptions of the entries in a list or of a single entry, leaving out those of unexpected types."""
    found = [text for one in (value if isinstance(value, list) else [value]) if (text := describe(one))]
    return ", ".join(found[:MANY]) + (f" and {len(found) - MANY} others" if len(found) > MANY else "")


def _text(value: Any) -> str:
    """Return a text or number on one line, and "" for any other value."""
    if isinstance(value, int) and abs(value) < 10**9 and not isinstance(value, bool):
        value = str(value)
    return " ".join(value.split())[:LONGEST] if isinstance(value, str) else ""


def _licence(entry: Any) -> str:
    if not isinstance(entry, dict):
        return _text(entry)
    name, url = _text(entry.get("name")), _text(entry.get("url"))
    return f"{name} ({url})" if name and url else name or url


def _person(entry: Any) -> str:
    """Format the name of a person in htr-united.yml or CITATION.cff."""
    if not isinstance(entry, dict):
        return _text(entry)
    parts = ("name", "surname") if "surname" in entry else ("given-names", "family-names", "name")
    return " ".join(text for part in parts if (text := _text(entry.get(part))))


def _first_line(path: Path | None) -> str:
    """Return the first line of a file that contains any text, or an empty string."""
    if path is None:
        return ""
    with path.open("rb") as file:
        beginning = file.read(10_000).decode("utf-8-sig", "replace")
    return next((text for line in beginning.splitlines() if (text := _text(line.strip("# \t")))), "")

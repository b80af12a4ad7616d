"""Download PAGE or ALTO files from repositories in the HTR-United catalogue (https://htr-united.github.io)."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from htr_lightning.data import archive, download
from htr_lightning.errors import InputError

# Repositories at a pinned commit: name, commit, and digest of the XML files (see `download.digest_files`), or None.
KNOWN: dict[str, tuple[str, str | None]] = {
    "HTR-United/CREMMA-MSS-20": ("024e6bd07eebd6ccd7f3b5b241a81bb78688e7d3", None),  # 13 pages, 224 lines
    "HTR-United/CREMMA-AN-TestamentsDePoilus": ("8ffa4a8", None),
}
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE")


def fetch(root: str | Path | None = None, repo: str | None = None, revision: str | None = None) -> Path:
    """Return the folder of a repository, downloading it if necessary, and print its licence and citation once.

    Args:
        root: folder or zip archive of the repository; None downloads the repository.
        repo: OWNER/NAME of the repository on GitHub.
        revision: commit to download; None uses the commit in `KNOWN`.

    Raises:
        InputError: if neither `root` nor `repo` is given, `root` is invalid, or the commit is unknown or cannot be
            downloaded.
    """
    if root is not None:
        folder = archive.folder(Path(root))
    elif repo is not None:
        known, digest = KNOWN.get(repo, (None, None))
        folder = download.repository(repo, revision or known, digest if revision in (None, known) else None)
    else:
        raise InputError(
            "data.repo is not set; set it to a repository (data.repo=OWNER/NAME), or set data.root to a local copy"
        )
    if any(folder.rglob("*.xml")):
        _print_terms(folder, repo or folder.name)
    return folder


@cache
def _print_terms(folder: Path, repo: str) -> None:
    print(terms(folder, repo), file=sys.stderr)


def terms(folder: Path, repo: str) -> str:
    """Return the licence and citation of a repository, from its catalogue entry, citation file or licence file.

    Raises:
        InputError: if the catalogue entry or the citation file is not valid YAML.
    """
    entry, cited = _mapping(folder / "htr-united.yml"), _mapping(folder / "CITATION.cff")
    licences = [_licence(one) for one in _list(entry.get("license") or cited.get("license"))]
    if not licences:
        licences = [line for name in LICENCES for line in _first_line(folder / name)][:1]
    title = entry.get("title") or cited.get("title") or repo
    authors = ", ".join(filter(None, map(_person, _list(cited.get("authors") or entry.get("authors")))))
    where = cited.get("doi") or entry.get("url") or f"https://github.com/{repo}"
    return (
        f"{repo}: licence {'; '.join(licences) or 'not stated; ask the authors'}\n"
        f"{repo}: cite {authors + ': ' if authors else ''}{title}. {where}"
    )


def _mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, or {} if the file does not exist or contains no mapping."""
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: invalid YAML ({str(error).splitlines()[0]}); correct or remove the file") from None
    return content if isinstance(content, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _licence(entry: Any) -> str:
    if isinstance(entry, dict):
        return " ".join(f"({value})" if key == "url" else str(value) for key, value in entry.items() if value)
    return str(entry)


def _person(entry: Any) -> str:
    """Format the name of a person in htr-united.yml or CITATION.cff."""
    if isinstance(entry, dict):
        parts = ("name", "surname") if "surname" in entry else ("given-names", "family-names", "name")
        return " ".join(str(entry[part]) for part in parts if entry.get(part))
    return str(entry)


def _first_line(path: Path) -> list[str]:
    """Return a list containing the first non-blank line of a file, or an empty list."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip("# \t") for line in lines if line.strip("# \t")][:1]

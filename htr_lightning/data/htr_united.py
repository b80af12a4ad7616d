"""Repositories of HTR-United (https://htr-united.github.io): pages in PAGE or ALTO with a catalogue entry."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from htr_lightning.data import archive, download
from htr_lightning.errors import InputError

# Commits that were read and counted: repository, commit, digest of its XML files (see `download.digest_files`).
KNOWN: dict[str, tuple[str, str | None]] = {
    "HTR-United/CREMMA-MSS-20": ("024e6bd07eebd6ccd7f3b5b241a81bb78688e7d3", None),  # 13 pages, 224 lines
    "HTR-United/CREMMA-AN-TestamentsDePoilus": ("8ffa4a8", None),
}
LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE")


def fetch(root: str | Path | None = None, repo: str | None = None, revision: str | None = None) -> Path:
    """The folder of a repository, downloaded if need be; its licence and how to cite it are printed once.

    Args:
        root: folder or zip archive of the repository; None: it is downloaded.
        repo: owner and name on GitHub.
        revision: the commit to download; None: the one in `KNOWN`.

    Raises:
        InputError: no repository is named, no commit is known for it, or it cannot be downloaded.
    """
    if root is not None:
        folder = archive.folder(Path(root))
    elif repo is not None:
        known, digest = KNOWN.get(repo, (None, None))
        folder = download.repository(repo, revision or known, digest if revision in (None, known) else None)
    else:
        raise InputError("data.repo is not set; give OWNER/NAME of a repository, or set data.root to its folder")
    _print_terms(folder, repo or folder.name)
    return folder


@cache
def _print_terms(folder: Path, repo: str) -> None:
    print(terms(folder, repo), file=sys.stderr)


def terms(folder: Path, repo: str) -> str:
    """Licence and citation of a repository, from its catalogue entry, citation file or licence.

    Raises:
        InputError: the catalogue entry or the citation file is not YAML.
    """
    entry, cited = _mapping(folder / "htr-united.yml"), _mapping(folder / "CITATION.cff")
    licences = [_licence(one) for one in _list(entry.get("license") or cited.get("license"))]
    if not licences:
        licences = [line for name in LICENCES for line in _first_line(folder / name)][:1]
    title = entry.get("title") or cited.get("title") or repo
    authors = ", ".join(filter(None, map(_person, _list(cited.get("authors") or entry.get("authors")))))
    where = cited.get("doi") or entry.get("url") or f"https://github.com/{repo}"
    return (
        f"{repo}: licence {'; '.join(licences) or 'not stated, ask its authors'}\n"
        f"{repo}: cite {authors + ': ' if authors else ''}{title}. {where}"
    )


def _mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, {} if there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not YAML ({str(error).splitlines()[0]}); correct or remove it") from None
    return content if isinstance(content, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _licence(entry: Any) -> str:
    if isinstance(entry, dict):
        return " ".join(f"({value})" if key == "url" else str(value) for key, value in entry.items() if value)
    return str(entry)


def _person(entry: Any) -> str:
    """A name as htr-united.yml or CITATION.cff writes it."""
    if isinstance(entry, dict):
        parts = ("name", "surname") if "surname" in entry else ("given-names", "family-names", "name")
        return " ".join(str(entry[part]) for part in parts if entry.get(part))
    return str(entry)


def _first_line(path: Path) -> list[str]:
    """The first line of a file that is not blank."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip("# \t") for line in lines if line.strip("# \t")][:1]

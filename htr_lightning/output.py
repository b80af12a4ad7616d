"""Where results go, checked before the work begins: a folder that is new or empty, a file that can be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from htr_lightning.errors import InputError


@contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[None]:
    """Name the file that cannot be written, and the option that chooses another.

    Raises:
        InputError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or path}: {error.strerror}; choose another {option}") from None


def make_folder(folder: Path) -> None:
    """Create a folder for results.

    Raises:
        InputError: it cannot be created or written to.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink()


def empty_folder(folder: Path) -> None:
    """Create a folder for results that is to hold nothing else.

    Raises:
        InputError: it is not empty, or cannot be created.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder}: not empty, and nothing is overwritten; choose another --out")


def check_writable(path: Path, option: str = "--out") -> None:
    """Raises InputError if a file cannot be written; the file is left as it is."""
    with writing(path, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("a").close()
        if is_new:
            path.unlink()

"""Check files and folders before work begins, and report output errors."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from htr_lightning.errors import InputError, first_line
from htr_lightning.pretrained import NAMES, locate

PART = ".part"  # folder with the unfinished files of an output folder
JOURNAL = ".journal"  # results of a command that was interrupted


@contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[None]:
    """Turn an OSError into an InputError that names the file and the option to change.

    Args:
        path: output path, used in the message if the error does not name a file.
        option: command-line option that sets the path.

    Raises:
        InputError: if writing fails.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or path}: {error.strerror}; choose another {option}") from None


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a path beside a file, and give what is written there its final name at the end.

    Whenever the program stops, there is a whole file at the final path, or what was there before.

    Raises:
        OSError: if writing fails.
    """
    new = path.with_name(f".{path.name}.{uuid4().hex[:8]}")  # unique on all machines that share a folder
    try:
        yield new
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        with suppress(OSError):
            new.unlink()


@contextmanager
def replacing(path: Path, option: str = "--out") -> Iterator[Path]:
    """Do the same as `beside` for a file that the user asked for, whose folder is created.

    Args:
        path: final path.
        option: see `writing`.

    Raises:
        InputError: if writing fails.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as new:
            yield new
    except OSError as error:
        is_new = Path(str(error.filename)).name.startswith(f".{path.name}.")
        name = path if error.filename is None or is_new else error.filename
        raise InputError(f"{name}: {error.strerror or first_line(error)}; choose another {option}") from None


@contextmanager
def not_fatal(path: Path) -> Iterator[None]:
    """Turn an OSError into a warning that names the file, for files that are not worth ending a run for."""
    try:
        yield
    except OSError as error:
        logging.getLogger("htr_lightning").warning(
            f"{error.filename or path}: not written ({error.strerror or error}); the run goes on"
        )


def make_folder(folder: Path) -> None:
    """Create an output folder.

    Raises:
        InputError: if the folder cannot be created or written to.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink()


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Yield a folder inside an empty output folder, and move what is written there to the output folder at the end.

    Until then, the output folder counts as empty (see `empty_folder`), so that an interrupted command can be repeated.

    Raises:
        InputError: if the folder is not empty or cannot be written to.
    """
    empty_folder(folder)
    inside = folder / PART
    with writing(folder):
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
    try:
        yield inside
        with writing(folder):
            for one in sorted(inside.iterdir()):
                one.rename(folder / one.name)
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def empty_folder(folder: Path) -> None:
    """Create an output folder; if it already exists, it must be empty, or hold only what was interrupted.

    Raises:
        InputError: if the folder is not empty or cannot be created.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(one.name not in (PART, JOURNAL) for one in folder.iterdir()):
            raise InputError(f"{folder}: the folder is not empty; choose another --out")


def check_writable(path: Path, option: str = "--out") -> None:
    """Raise InputError if a file cannot be written, leaving any existing file unchanged."""
    with writing(path, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("a").close()
        if is_new:
            path.unlink()


def check_copy(path: Path, source: str | Path) -> None:
    """Raise InputError if a file cannot be written (see `check_writable`) or is the source that it is made from."""
    if path.exists() and path.samefile(locate(source)):
        raise InputError(f"--out {path}: would replace the checkpoint that it is made from; choose another name")
    check_writable(path)


def check_checkpoint(path: str | Path) -> None:
    """Raise InputError if there is no checkpoint at the given path, or with this name in the package."""
    path = locate(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; choose a checkpoint file, e.g. {path}/checkpoints/best.ckpt")
    if not path.exists():
        raise InputError(
            f"{path}: checkpoint not found; a run saves its best checkpoint as checkpoints/best.ckpt, and the package "
            f"contains {' and '.join(NAMES)}"
        )
    if not path.is_file():  # reading a pipe or a device may never end
        raise InputError(f"{path}: is not a regular file; choose a checkpoint file")
